"""What a model loses where its training exams are rarely positive: AUC against prevalence, from two starts of training.

The loss is `relative_gap`'s Delta(p) = (A(50 %) - A(p)) / A(50 %), of Liu et al. 2022, with the AUC as A: accuracy
would reward a model that always gives the commoner answer. A model that knows nothing has an AUC of 0.5, so a loss of
half is about the most there is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kneessl.evaluation.auc import LEVEL, auc_interval, checked_labels
from kneessl.evaluation.bootstrap import Interval
from kneessl.evaluation.gap import relative_gap
from kneessl.evaluation.labels_needed import REPLICATES, Scores, resampled_means

BALANCED = 0.5
"""The prevalence that losses are counted from."""
SELF_SUPERVISED, SUPERVISED = ARMS = ("self-supervised", "supervised")
MODEL, LINEAR = READOUTS = ("model", "linear")
"""A model's own output, and a linear classifier on its encoder's frozen features."""


class Panel(NamedTuple):
    """What is the same for all trainings that are compared with one another."""

    readout: str
    """Whose output is scored, one of `READOUTS`."""
    balance: str
    """How the rarer class is made to count in fine-tuning."""


@dataclass(frozen=True)
class ArmAt:
    """One arm at one prevalence."""

    auc: Interval
    """Mean over seeds."""
    by_seed: tuple[float, ...]
    loss: Interval | None
    """Share of the AUC at 50 % that is lost; below 0 it is a gain. None at 50 %, and where there is none to lose."""


@dataclass(frozen=True)
class PrevalenceRow:
    """Both arms at one prevalence."""

    prevalence: float
    arms: Mapping[str, ArmAt]
    """Those of `ARMS` that have scores."""
    less: Interval | None
    """The loss of supervised less that of self-supervised; above 0 where self-supervised loses less."""


def prevalence_rows(
    labels: ArrayLike,
    prevalences: Sequence[float],
    arms: Mapping[str, Sequence[Scores]],
    replicates: int = REPLICATES,
) -> list[PrevalenceRow]:
    """Turn the scores of trainings at several prevalences into AUCs, losses, and how the arms' losses differ.

    All intervals are percentiles of one bootstrap over exams (within each class) and over seeds, that of a label curve.
    A resample is the same for both arms and all prevalences, since all are scored on the same exams, and a seed stands
    for one choice of exams and one start; so losses are paired, and so is their difference. A resample in which a cell
    is left without any training, where seeds failed, is left out. Few seeds give a bootstrap too little of their
    spread: with 3 the variance between seeds counts by two thirds. The same arguments give the same figures.

    Args:
        labels: (n,) the reference standard of the exams scored, 0 or 1, at least two of each.
        prevalences: Shares of positives among the training exams, `BALANCED` one of them.
        arms: For each of `ARMS`, for each of `prevalences`, the scores of each seed; none where all failed.
        replicates: How many resamples.

    Returns:
        A row for each of `prevalences`.

    Raises:
        UserError: labels are not as described.
        ValueError: an arm has scores for more or fewer prevalences.
    """
    positive = checked_labels(labels)
    if any(len(arms[arm]) != len(prevalences) for arm in ARMS):
        raise ValueError(f"both arms need scores for each of the prevalences {list(prevalences)}")
    scored = any(cell for cells in arms.values() for cell in cells)
    means = resampled_means(positive, arms, replicates) if scored else {}
    balanced = list(prevalences).index(BALANCED)
    losses = {
        (arm, k): relative_gap(means[arm, balanced], aucs)
        for (arm, k), aucs in means.items()
        if k != balanced and (arm, balanced) in means and means[arm, balanced][0] > 0
    }
    rows = []
    for k, prevalence in enumerate(prevalences):
        arms_at = {
            arm: _arm_at(labels, arms[arm][k], means[arm, k], losses.get((arm, k))) for arm in ARMS if arms[arm][k]
        }
        ours, theirs = (losses.get((arm, k)) for arm in ARMS)
        less = None if ours is None or theirs is None else percentiles(theirs - ours)
        rows.append(PrevalenceRow(prevalence, arms_at, less))
    return rows


def percentiles(values: NDArray[np.float64]) -> Interval:
    """A figure and its percentile interval.

    Args:
        values: (1 + resamples,), of all exams first; a resample that is not a number is left out.
    """
    known = values[1:][np.isfinite(values[1:])]
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(values[0]), float(low), float(high), len(known))


def _arm_at(labels: ArrayLike, cell: Scores, mean: NDArray[np.float64], loss: NDArray[np.float64] | None) -> ArmAt:
    """What the scores of a cell, of one training at the least, amount to."""
    by_seed = tuple(auc_interval(labels, scores).auc for scores in cell.values())
    return ArmAt(percentiles(mean), by_seed, None if loss is None else percentiles(loss))
