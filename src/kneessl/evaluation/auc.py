"""Area under the ROC curve with DeLong's interval, and the paired comparison of two models.

Sources: E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, "Comparing the areas under two or more
correlated receiver operating characteristic curves", Biometrics 44, 1988; X. Sun, W. Xu, "Fast implementation
of DeLong's algorithm", IEEE Signal Processing Letters 21, 2014 (midranks: O(n log n) instead of O(n^2)).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, rankdata

from kneessl.errors import UserError


@dataclass(frozen=True)
class AucInterval:
    """An AUC in [0, 1] and its confidence interval at `level`.

    Where the scores separate the classes perfectly, DeLong's standard error is 0 and the interval has no
    width. That is where the method ends; it does not mean that the AUC is known exactly.
    """

    auc: float
    low: float
    high: float
    standard_error: float
    level: float


@dataclass(frozen=True)
class AucDifference:
    """AUC of model a minus AUC of model b on the same exams, in [-1, 1]; `p` is two-sided."""

    difference: float
    low: float
    high: float
    p: float
    standard_error: float
    level: float


def auc_interval(labels: ArrayLike, scores: ArrayLike, level: float = 0.95) -> AucInterval:
    """Return the AUC with DeLong's interval: normal approximation, clipped to [0, 1] as in R's pROC.

    Args:
        labels: (n,) the reference standard, 0 or 1, with at least two exams of each.
        scores: (n,) any numbers where a higher one speaks for 1; only their order counts, ties count half.
        level: confidence level, between 0 and 1.

    Raises:
        UserError: the arguments are not as described above.
    """
    quantile = _normal_quantile(level)
    positive = checked_labels(labels)
    components = _Components.of(positive, checked_scores(scores, positive))
    auc, error = components.mean(), components.standard_error()
    return AucInterval(auc, max(auc - quantile * error, 0.0), min(auc + quantile * error, 1.0), error, level)


def compare_auc(labels: ArrayLike, scores_a: ArrayLike, scores_b: ArrayLike, level: float = 0.95) -> AucDifference:
    """Compare two models scored on the same exams: DeLong's paired test of AUC(a) - AUC(b).

    The interval is the normal approximation, clipped to [-1, 1]. Where the difference has no variance (both
    models order every pair alike, say), `p` is 1 for a difference of 0 and 0 for any other.

    Args:
        labels: (n,) the reference standard, 0 or 1, with at least two exams of each.
        scores_a: (n,) scores of model a, as in `auc_interval`.
        scores_b: (n,) scores of model b for the same exams in the same order; its scale may differ from a's.
        level: confidence level, between 0 and 1.

    Raises:
        UserError: the arguments are not as described above.
    """
    quantile = _normal_quantile(level)
    positive = checked_labels(labels)
    a = _Components.of(positive, checked_scores(scores_a, positive))
    b = _Components.of(positive, checked_scores(scores_b, positive))
    components = _Components(a.below - b.below, a.above - b.above)
    difference, error = components.mean(), components.standard_error()
    if error > 0:
        p = float(2 * norm.sf(abs(difference) / error))
    else:
        p = 1.0 if difference == 0 else 0.0
    low, high = max(difference - quantile * error, -1.0), min(difference + quantile * error, 1.0)
    return AucDifference(difference, low, high, p, error, level)


@dataclass(frozen=True)
class _Components:
    """DeLong's structural components as counts: `below` / negatives is V10, `above` / positives is V01.

    Counts are whole or half numbers, exact in float64, so a variance that is 0 comes out as 0. The components
    of a difference between two models are the differences of theirs.
    """

    below: NDArray[np.float64]
    """(positives,) for each positive, how many negatives score below it, ties half."""
    above: NDArray[np.float64]
    """(negatives,) for each negative, how many positives score above it, ties half."""

    @classmethod
    def of(cls, positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> "_Components":
        """Count by midranks: the rank among all, less the rank within the own class (Sun & Xu 2014)."""
        ranks = rankdata(scores)
        below = ranks[positive] - rankdata(scores[positive])
        above = len(below) - (ranks[~positive] - rankdata(scores[~positive]))
        return cls(below, above)

    def mean(self) -> float:
        """Return the share of positive-negative pairs in the right order: the AUC."""
        return float(self.below.sum() / (len(self.below) * len(self.above)))

    def standard_error(self) -> float:
        """Return the root of S10 / positives + S01 / negatives (DeLong 1988)."""
        positives, negatives = len(self.below), len(self.above)
        s10 = self.below.var(ddof=1) / negatives**2
        s01 = self.above.var(ddof=1) / positives**2
        return float(np.sqrt(s10 / positives + s01 / negatives))


def checked_labels(labels: ArrayLike) -> NDArray[np.bool_]:
    """Return labels as (n,) bool, True for 1.

    Raises:
        UserError: not one-dimensional, something other than 0 and 1, or fewer than two exams of either.
    """
    values = _numbers(labels, "labels")
    if not np.isin(values, (0, 1)).all():
        raise UserError("labels must be 0 or 1")
    positive = values == 1
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if min(positives, negatives) < 2:
        raise UserError(
            f"an AUC with its interval needs at least 2 positive and 2 negative exams, "
            f"but there are {positives} positive and {negatives} negative"
        )
    return positive


def checked_scores(scores: ArrayLike, labels: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return scores as (n,) float64.

    Raises:
        UserError: not one-dimensional numbers, NaN among them, or not one score for each label.
    """
    values = _numbers(scores, "scores")
    if len(values) != len(labels):
        raise UserError(f"every exam needs one label and one score, but there are {len(labels)} and {len(values)}")
    missing = int(np.isnan(values).sum())
    if missing:
        raise UserError(f"{missing} of {len(values)} scores are NaN; a missing prediction cannot be evaluated")
    return values


def _numbers(values: ArrayLike, what: str) -> NDArray[np.float64]:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{what} must be numbers") from None
    if array.ndim != 1:
        raise UserError(f"{what} must be a list with one number for each exam, not of shape {array.shape}")
    return array


def _normal_quantile(level: float) -> float:
    if not 0 < level < 1:
        raise UserError(f"a confidence level lies between 0 and 1, not at {level}")
    return float(norm.ppf(0.5 + level / 2))
