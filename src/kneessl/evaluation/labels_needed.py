"""AUC against the number of labels, from one start of training and another, and how many labels a start saves.

Sources: R. E. Barlow, D. J. Bartholomew, J. M. Bremner, H. D. Brunk, "Statistical inference under order restrictions",
1972 (isotonic regression by pooling adjacent violators); B. Efron, R. J. Tibshirani, "An introduction to the
bootstrap", 1993 (percentile interval). How many labels a start saves is our reading of what "label efficiency" is to
mean: where, on the other start's curve, the same mean AUC lies.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from kneessl.evaluation.auc import LEVEL, checked_labels
from kneessl.evaluation.comparison import MeanAuc, mean_aucs

REPLICATES = 2000
"""Resamples behind an interval of the labels needed."""
_EQUAL = 1e-9
"""AUCs closer than this differ by rounding alone: one pair of exams more in order changes an AUC by more."""
Scores = Mapping[int, NDArray[np.float64]]
"""Seed -> (n,) scores of the training by that seed."""


@dataclass(frozen=True)
class LabelsNeeded:
    """How many labels the reference needs for the mean AUC that an arm reaches with `used` of them.

    A number of labels is infinite where it is more than `most`, and 0 where it is fewer than `least`: how many more or
    fewer, trainings with `least` to `most` labels cannot tell.
    """

    used: int
    labels: float
    low: float
    """Lower end of the interval, by bootstrap over exams and seeds."""
    high: float
    least: int
    most: int

    @property
    def ratio(self) -> float:
        """Labels that the reference needs for each that the arm uses; above 1 the arm saves labels."""
        return self.labels / self.used


@dataclass(frozen=True)
class CurvePoint:
    """One arm at one number of labels."""

    arm: str
    labels: int
    auc: MeanAuc | None
    """Mean over seeds; its difference is to the reference at the same number, p adjusted for all in the table.
    None where no seed has scores."""
    needed: LabelsNeeded | None
    """None for the reference itself, and where it or the arm has no scores."""


def label_curve(
    labels: ArrayLike,
    counts: Sequence[int],
    arms: Mapping[str, Sequence[Scores]],
    reference: str,
    replicates: int = REPLICATES,
) -> list[CurvePoint]:
    """Turn the scores of trainings with few and with more labels into the points of curves.

    Of the labels needed, the interval is a percentile bootstrap's, over exams (within each class, so that every
    resample has both) and over seeds. A resample is the same for all arms and numbers of labels: they are scored on the
    same exams, and a seed chooses the same labels for every arm. A resample in which an arm or the reference is left
    without any training, where seeds failed, is left out. Few seeds give a bootstrap too little of their spread: with 3
    the variance between seeds counts by two thirds. The same arguments give the same figures.

    Args:
        labels: (n,) the reference standard of the exams scored, 0 or 1, at least two of each.
        counts: How many labels were trained with, rising.
        arms: By name, for each of `counts`, the scores of each seed; none where all failed.
        reference: The arm that the others are compared with, such as random weights.
        replicates: How many resamples.

    Returns:
        For each arm, in order, a point for each of `counts`.

    Raises:
        UserError: labels or scores are not as described.
        ValueError: no arm is called `reference`, counts do not rise, or an arm has scores for more or fewer of them.
    """
    positive = checked_labels(labels)
    if reference not in arms:
        raise ValueError(f"{reference}, with which to compare, is not among the arms {', '.join(arms) or '(none)'}")
    if list(counts) != sorted(set(counts)) or any(len(cells) != len(counts) for cells in arms.values()):
        raise ValueError(f"counts {list(counts)} must rise, and every arm needs scores for each")
    aucs = _mean_aucs(labels, arms, reference)
    needed = _all_needed(positive, np.array(counts), arms, reference, replicates)
    return [
        CurvePoint(arm, count, aucs.get((arm, k)), needed.get((arm, k)))
        for arm in arms
        for k, count in enumerate(counts)
    ]


def isotonic(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Never-falling values nearest to the given ones by least squares, all weighing the same, along the first axis.

    A running maximum would be simpler, but takes the luckiest point for all that come after it.

    Args:
        values: (points, ...); what comes of a column with NaN is not defined.
    """
    return np.apply_along_axis(lambda column: scipy.optimize.isotonic_regression(column).x, 0, values)


def labels_for(aucs: ArrayLike, counts: NDArray[np.int64], curve: NDArray[np.float64]) -> NDArray[np.float64]:
    """The fewest labels with which a curve reaches an AUC; between two points it is linear in the logarithm of labels.

    Args:
        aucs: (...) what is to be reached.
        counts: (points,) numbers of labels, rising.
        curve: (points, ...) AUC with each number, made never-falling by `isotonic`.

    Returns:
        (...) labels; infinity above the curve's last point, 0 below its first.
    """
    target = np.asarray(aucs, dtype=np.float64)
    for point in curve[::-1]:
        target = np.where(np.abs(target - point) < _EQUAL, point, target)
    logs = np.log(counts)
    labels = np.where(target == curve[0], float(counts[0]), math.inf)
    for k in range(len(counts) - 1):
        inside = (curve[k] < target) & (target <= curve[k + 1])
        rise = np.where(inside, curve[k + 1] - curve[k], 1)
        share = np.where(inside, (target - curve[k]) / rise, 0)
        between = np.exp(logs[k] + share * (logs[k + 1] - logs[k]))
        labels = np.where(inside, np.where(share == 1, float(counts[k + 1]), between), labels)
    return np.where(target < curve[0], 0.0, labels)


def _mean_aucs(
    labels: ArrayLike, arms: Mapping[str, Sequence[Scores]], reference: str
) -> dict[tuple[str, int], MeanAuc]:
    """By arm and place among the counts, where there are scores."""
    rows = {
        (arm, k): np.stack(list(cell.values())) for arm, cells in arms.items() for k, cell in enumerate(cells) if cell
    }
    compared = [(arm, k) for arm, k in rows if arm != reference and (reference, k) in rows]
    return mean_aucs(labels, rows, {(arm, k): rows[reference, k] for arm, k in compared})


def _all_needed(
    positive: NDArray[np.bool_],
    counts: NDArray[np.int64],
    arms: Mapping[str, Sequence[Scores]],
    reference: str,
    replicates: int,
) -> dict[tuple[str, int], LabelsNeeded]:
    """By arm and place among the counts, where the arm and the reference have scores."""
    known = [k for k, cell in enumerate(arms[reference]) if cell]
    if not known:
        return {}
    means = resampled_means(positive, arms, replicates)
    curve = isotonic(np.stack([means[reference, k] for k in known]))
    tail = (1 - LEVEL) / 2
    needed_of = {}
    for (arm, k), reached in means.items():
        if arm == reference:
            continue
        whole = np.isfinite(reached) & np.isfinite(curve).all(axis=0)
        needed = labels_for(reached[whole], counts[known], curve[:, whole])
        needed_of[arm, k] = LabelsNeeded(
            used=int(counts[k]),
            labels=float(needed[0]),
            # One of the resamples itself: between 400 and "more than 500" there is nothing to interpolate.
            low=float(np.quantile(needed[1:], tail, method="lower")),
            high=float(np.quantile(needed[1:], 1 - tail, method="higher")),
            least=int(counts[known[0]]),
            most=int(counts[known[-1]]),
        )
    return needed_of


def resampled_means(
    positive: NDArray[np.bool_], arms: Mapping[str, Sequence[Scores]], replicates: int
) -> dict[tuple[str, int], NDArray[np.float64]]:
    """Mean AUC over seeds of every arm and number of labels: (1 + replicates,), of all exams first, then of resamples.

    Not a number where a resample has no seed that is scored.
    """
    random = np.random.default_rng(0)
    weights = [_multiplicities(random, int(group.sum()), replicates) for group in (positive, ~positive)]
    seeds = sorted({seed for cells in arms.values() for cell in cells for seed in cell})
    times = dict(zip(seeds, _multiplicities(random, len(seeds), replicates).T, strict=True))
    means = {}
    for arm, cells in arms.items():
        for k, cell in enumerate(cells):
            if cell:
                aucs = np.stack(
                    [weighted_aucs(scores[positive], scores[~positive], *weights) for scores in cell.values()]
                )
                drawn = np.stack([times[seed] for seed in cell]).astype(np.float64)
                drawn = np.where(drawn.sum(axis=0) > 0, drawn, np.nan)
                means[arm, k] = (aucs * drawn).sum(axis=0) / drawn.sum(axis=0)
    return means


def weighted_aucs(
    above: NDArray[np.float64],
    below: NDArray[np.float64],
    positives: NDArray[np.float32],
    negatives: NDArray[np.float32],
) -> NDArray[np.float64]:
    """AUC of resamples, given how many times each exam is in them: w+' C w- / (sum w+ sum w-).

    C is 1 where a positive exam scores above a negative one, 1/2 where they tie. All products are whole or half
    numbers, which float32 holds exactly up to eight million, so the result does not hang on the order of summing.

    Args:
        above: (p,) scores of the positive exams.
        below: (q,) scores of the negative ones.
        positives: (resamples, p) how many times each positive exam is in a resample.
        negatives: (resamples, q) the same of the negative ones.

    Returns:
        (resamples,).
    """
    wins = (above[:, None] > below) + 0.5 * (above[:, None] == below)
    pairs = positives @ wins.astype(np.float32)
    won = np.einsum("rq,rq->r", pairs, negatives, dtype=np.float64)
    return won / (positives.sum(axis=1, dtype=np.float64) * negatives.sum(axis=1, dtype=np.float64))


def _multiplicities(random: np.random.Generator, n: int, replicates: int) -> NDArray[np.float32]:
    """(1 + replicates, n) how many times each of n is drawn when n are drawn; in the first row each once."""
    draws = random.multinomial(n, np.full(n, 1 / n), size=replicates)
    return np.concatenate((np.ones((1, n)), draws)).astype(np.float32)
