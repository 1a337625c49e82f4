"""What a few labelled exams of another hospital are worth for recalibrating a model: log loss against their number.

Sources: E. W. Steyerberg et al., "Validation and updating of predictive logistic regression models: a study on sample
size and shrinkage", Statistics in Medicine 23, 2004 (recalibration with few patients; few labels may make it worse).
That the curve stays within the labelled exams, by drawing some of them and judging on the others, is our reading.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kneessl.evaluation.auc import as_numbers, checked_labels
from kneessl.evaluation.calibration import EPSILON, Recalibration, checked_probabilities

DRAWS = 200
"""Random choices of so many labels, for each point of the curve."""
LEAST = 2
"""Exams of each label that are drawn at least, and left at least."""


@dataclass(frozen=True)
class LocalPoint:
    """Recalibration on so many exams, judged on the labelled exams that were not drawn; means over draws."""

    labels: int
    log_loss: float
    """In nats an exam; below that of `locked` it helps."""
    locked: float
    """Of the probabilities as they were locked, on the same exams."""
    worse: float
    """Share of draws in which the recalibration was the worse one, in [0, 1]."""
    expected_observed: float
    """Sum of the probabilities / number of positives, after recalibration: 1 is right."""


def recalibration_curve(
    labels: ArrayLike, logits: ArrayLike, locked: ArrayLike, counts: Sequence[int], seed: int, draws: int = DRAWS
) -> list[LocalPoint]:
    """Recalibrate on some of the labelled exams, again and again, and judge on the others.

    Args:
        labels: (n,) the reference standard, 0 or 1.
        logits: (n,) the model's, before any recalibration.
        locked: (n,) its probabilities as they were locked.
        counts: How many labels to draw, in the classes' proportion, at least `LEAST` of each; a count that would leave
            fewer than `LEAST` of each to judge on is left out.
        seed: of the draws.
        draws: For each count.

    Raises:
        UserError: labels, logits or probabilities are not as described above.
    """
    positive = checked_labels(labels)
    values, before = as_numbers(logits, "logits"), checked_probabilities(locked, positive)
    rng = np.random.default_rng(seed)
    points = []
    for count in counts:
        of_each = [int(part) for part in _shares(positive, count)]
        if min(positive.sum() - of_each[0], (~positive).sum() - of_each[1]) < LEAST:
            continue
        rows = [_judge(positive, values, before, _draw(rng, positive, of_each)) for _ in range(draws)]
        after, same, ratio = np.array(rows).T
        points.append(
            LocalPoint(
                sum(of_each), float(after.mean()), float(same.mean()), float((after > same).mean()), float(ratio.mean())
            )
        )
    return points


def log_loss(positive: NDArray[np.bool_], probabilities: NDArray[np.float64]) -> float:
    """Mean of -log of the probability of what is so; probabilities are kept `EPSILON` away from 0 and 1."""
    of_truth = np.where(positive, probabilities, 1 - probabilities)
    return float(-np.log(np.clip(of_truth, EPSILON, 1)).mean())


def _shares(positive: NDArray[np.bool_], count: int) -> tuple[int, int]:
    positives = max(round(count * positive.mean()), LEAST)
    return positives, max(count - positives, LEAST)


def _draw(rng: np.random.Generator, positive: NDArray[np.bool_], of_each: Sequence[int]) -> NDArray[np.bool_]:
    drawn = np.zeros(len(positive), dtype=bool)
    for part, count in zip((positive, ~positive), of_each, strict=True):
        drawn[rng.choice(np.flatnonzero(part), count, replace=False)] = True
    return drawn


def _judge(
    positive: NDArray[np.bool_], logits: NDArray[np.float64], before: NDArray[np.float64], drawn: NDArray[np.bool_]
) -> tuple[float, float, float]:
    """Log loss after and before, and expected over observed, on the exams that were not drawn."""
    after = Recalibration.fit(positive[drawn], logits[drawn]).apply(logits[~drawn])
    left = positive[~drawn]
    return log_loss(left, after), log_loss(left, before[~drawn]), float(after.sum() / left.sum())
