"""Area under the ROC curve with DeLong's interval, and the paired comparison of two models.

Sources: E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, "Comparing the areas under two or more
correlated receiver operating characteristic curves", Biometrics 44, 1988; X. Sun, W. Xu, "Fast implementation
of DeLong's algorithm", IEEE Signal Processing Letters 21, 2014 (midranks: O(n log n) instead of O(n^2)).

A method trained several times, from several seeds, gives every exam several scores; its AUC here is the mean of
its trainings' AUCs. An AUC is the mean of DeLong's structural components, so the mean AUC is the mean of the
components averaged over the trainings, and DeLong's variance of these is the variance of the mean AUC over
exams (our reading: DeLong 1988 scores an exam once a model, but the generalised U-statistics behind it allow an
average of kernels as well as one). The interval says what other exams would change with these trainings as they
are; what other seeds would change is not in it, so show the trainings' own AUCs beside it.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy  # its parts are imported at their first use, and `stats` takes long
from numpy.typing import ArrayLike, NDArray

from kneessl.errors import UserError

LEVEL = 0.95
"""Confidence level of every interval of this package."""
QUANTILE = 1.959963984540054
"""Standard errors that a normal interval of `LEVEL` reaches either way; written out, for SciPy's takes time to load."""


@dataclass(frozen=True)
class AucInterval:
    """An AUC in [0, 1] and its confidence interval.

    Where the scores separate the classes perfectly, DeLong's standard error is 0 and the interval has no
    width. That is where the method ends; it does not mean that the AUC is known exactly.
    """

    auc: float
    low: float
    high: float
    standard_error: float
    level: float = LEVEL


@dataclass(frozen=True)
class AucDifference:
    """AUC of model a minus AUC of model b on the same exams, in [-1, 1]; `p` is two-sided."""

    difference: float
    low: float
    high: float
    p: float
    standard_error: float
    level: float = LEVEL

    @property
    def p_false(self) -> float:
        """Posterior probability that the model that is better here is not, by a flat prior; see `claims`."""
        return self.p / 2


Scale = Literal["linear", "logit"]


def auc_interval(labels: ArrayLike, scores: ArrayLike, scale: Scale = "linear") -> AucInterval:
    """Return the AUC with DeLong's interval: normal approximation, clipped to [0, 1] as in R's pROC, or of its logit.

    The logit keeps the limits inside [0, 1] and the coverage near the level where the AUC is high: 95.2 % instead of
    92.8 % at a true AUC of 0.90, 48 positives and 72 negatives (`benchmarks/coverage.py`; M. S. Pepe, "The Statistical
    Evaluation of Medical Tests for Classification and Prediction", 2003). Reports therefore take the logit scale; the
    linear one is what other libraries give.

    Args:
        labels: (n,) the reference standard, 0 or 1, with at least two exams of each.
        scores: (n,) any numbers where a higher one speaks for 1; only their order counts, ties count half. Or
            (trainings, n), one row for each training of one method: the interval is that of the mean AUC over
            trainings, whose scales may differ.
        scale: on which the estimate is taken to be normal.

    Raises:
        UserError: the arguments are not as described above.
    """
    positive = checked_labels(labels)
    components = _Components.of(positive, checked_trainings(scores, positive))
    auc, error = components.mean(), components.standard_error()
    low, high = max(auc - QUANTILE * error, 0.0), min(auc + QUANTILE * error, 1.0)
    if scale == "logit":
        low, high = logit_limits(auc, error)
    return AucInterval(auc, low, high, error)


def compare_auc(labels: ArrayLike, scores_a: ArrayLike, scores_b: ArrayLike) -> AucDifference:
    """Compare two models scored on the same exams: DeLong's paired test of AUC(a) - AUC(b), of means over trainings.

    The interval is the normal approximation, clipped to [-1, 1]. Where the difference has no variance (both
    models order every pair alike, say), `p` is 1 for a difference of 0 and 0 for any other.

    Args:
        labels: (n,) the reference standard, 0 or 1, with at least two exams of each.
        scores_a: (n,) or (trainings, n) scores of model a, as in `auc_interval`.
        scores_b: (n,) or (trainings, n) scores of model b for the same exams in the same order; its scale and its
            number of trainings may differ from a's.

    Raises:
        UserError: the arguments are not as described above.
    """
    positive = checked_labels(labels)
    a = _Components.of(positive, checked_trainings(scores_a, positive))
    b = _Components.of(positive, checked_trainings(scores_b, positive))
    components = a.minus(b)
    difference, error = components.mean(), components.standard_error()
    if error > 0:
        p = float(2 * scipy.stats.norm.sf(abs(difference) / error))
    else:
        p = 1.0 if difference == 0 else 0.0
    low, high = max(difference - QUANTILE * error, -1.0), min(difference + QUANTILE * error, 1.0)
    return AucDifference(difference, low, high, p, error)


def mean_roc(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ROC curve averaged over trainings, as the corners of a line from (0, 0) to (1, 1).

    Sensitivities are averaged at equal 1 - specificity (vertical averaging: T. Fawcett, "An introduction to ROC
    analysis", Pattern Recognition Letters 27, 2006, section 9.1), so the area below is the mean AUC, exactly. For
    every k of the negatives there are two corners, where the curve reaches 1 - specificity = k / negatives and where
    it leaves it.

    Args:
        labels: (n,) as in `auc_interval`.
        scores: (n,) or (trainings, n), as in `auc_interval`.

    Returns:
        1 - specificity and sensitivity, each (2 x negatives + 2,) and never falling.

    Raises:
        UserError: the arguments are not as described above.
    """
    positive = checked_labels(labels)
    ranks = scipy.stats.rankdata(checked_trainings(scores, positive), axis=1)
    negatives = int((~positive).sum())
    from sklearn.metrics import roc_curve  # its import takes a third of a second

    reached = np.arange(negatives + 1) / negatives
    corners = []
    for row in ranks:
        x, y, _ = roc_curve(positive, row, drop_intermediate=False)
        corners.append(_corners(x, y, reached))
    return reached.repeat(2), np.mean(corners, axis=0).ravel()


def _corners(x: NDArray[np.float64], y: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lowest and highest y, (k, 2), of a never-falling line through (x, y) at each `at` (k,)."""
    first, last = np.searchsorted(x, at, "left"), np.searchsorted(x, at, "right") - 1
    between = first > last  # on a slope, which ties make: between the points last and first
    run = np.where(between, x[first] - x[last], 1)
    slope = np.where(between, y[last] + (y[first] - y[last]) * (at - x[last]) / run, 0)
    return np.stack((np.where(between, slope, y[first]), np.where(between, slope, y[last])), axis=1)


@dataclass(frozen=True)
class _Components:
    """DeLong's structural components as counts, summed over `trainings`.

    `below` / (trainings x negatives) is V10, `above` / (trainings x positives) is V01, each averaged over the
    trainings. Counts are whole or half numbers, exact in float64, so a variance that is 0 comes out as 0. The
    components of a difference between two models are the differences of theirs.
    """

    below: NDArray[np.float64]
    """(positives,) for each positive, how many negatives score below it, ties half."""
    above: NDArray[np.float64]
    """(negatives,) for each negative, how many positives score above it, ties half."""
    trainings: int

    @classmethod
    def of(cls, positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> "_Components":
        """Count in (trainings, n) by midranks: the rank among all, less the one in the own class (Sun & Xu 2014)."""
        ranks = scipy.stats.rankdata(scores, axis=1)
        below = ranks[:, positive] - scipy.stats.rankdata(scores[:, positive], axis=1)
        above = positive.sum() - (ranks[:, ~positive] - scipy.stats.rankdata(scores[:, ~positive], axis=1))
        return cls(below.sum(axis=0), above.sum(axis=0), len(scores))

    def minus(self, other: "_Components") -> "_Components":
        """Return the components of the difference, brought to a common number of trainings."""
        return _Components(
            self.below * other.trainings - other.below * self.trainings,
            self.above * other.trainings - other.above * self.trainings,
            self.trainings * other.trainings,
        )

    def mean(self) -> float:
        """Return the share of positive-negative pairs in the right order: the AUC."""
        return float(self.below.sum() / (self.trainings * len(self.below) * len(self.above)))

    def standard_error(self) -> float:
        """Return the root of S10 / positives + S01 / negatives (DeLong 1988)."""
        positives, negatives = len(self.below), len(self.above)
        s10 = self.below.var(ddof=1) / (self.trainings * negatives) ** 2
        s01 = self.above.var(ddof=1) / (self.trainings * positives) ** 2
        return float(np.sqrt(s10 / positives + s01 / negatives))


def checked_labels(labels: ArrayLike) -> NDArray[np.bool_]:
    """Return labels as (n,) bool, True for 1.

    Raises:
        UserError: not one-dimensional, something other than 0 and 1, or fewer than two exams of either.
    """
    values = _one_dimensional(as_numbers(labels, "labels"), "labels")
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
    return checked_trainings(_one_dimensional(as_numbers(scores, "scores"), "scores"), labels)[0]


def checked_trainings(scores: ArrayLike, labels: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return scores, (n,) or (trainings, n), as (trainings, n) float64.

    Raises:
        UserError: of another shape, none at all, NaN among them, or not one score for each label.
    """
    values = as_numbers(scores, "scores")
    if values.ndim not in (1, 2):
        raise UserError(
            f"scores must be one number for each exam, or a row of them for each training, not of shape {values.shape}"
        )
    rows = np.atleast_2d(values)
    if len(rows) == 0:
        raise UserError("there are no scores: a method's AUC needs at least one training of it")
    if rows.shape[1] != len(labels):
        raise UserError(f"every exam needs one label and one score, but there are {len(labels)} and {rows.shape[1]}")
    missing = int(np.isnan(rows).sum())
    if missing:
        raise UserError(f"{missing} of {rows.size} scores are NaN; a missing prediction cannot be evaluated")
    return rows


def as_numbers(values: ArrayLike, what: str) -> NDArray[np.float64]:
    """Return `values` as float64, or a user error that calls them `what`."""
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{what} must be numbers") from None


def _one_dimensional(values: NDArray[np.float64], what: str) -> NDArray[np.float64]:
    if values.ndim != 1:
        raise UserError(f"{what} must be a list with one number for each exam, not of shape {values.shape}")
    return values


def logit_limits(value: float, error: float) -> tuple[float, float]:
    """Return the limits of a share by the normal interval of its logit; the share itself where it has no error."""
    if error == 0:
        return value, value
    half = QUANTILE * error / (value * (1 - value))
    centre = scipy.special.logit(value)
    return float(scipy.special.expit(centre - half)), float(scipy.special.expit(centre + half))
