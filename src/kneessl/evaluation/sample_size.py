"""How many exams a study needs: for an interval of some width, and for telling two models apart on the same exams.

The empirical AUC is a U-statistic. Over m positives and n negatives, the covariance of two of them is (J. A. Hanley,
B. J. McNeil, "The meaning and use of the area under a receiver operating characteristic (ROC) curve", Radiology 143,
1982, equation 1; D. Bamber, "The area above the ordinal dominance graph and the area below the receiver operating
characteristic graph", Journal of Mathematical Psychology 12, 1975)

    [c(one pair) + (m - 1) c(one negative, two positives) + (n - 1) c(one positive, two negatives)] / (m n)

where c is the covariance of "the positive scores higher" over two pairs that share what stands in brackets. Hanley and
McNeil put in scores with exponential distributions; here scores are normal within each class, with equal variances, and
c follows from the bivariate normal distribution: without approximation, for one model and for two on the same exams.
That exact covariance of two is worked out here from their equation; N. A. Obuchowski, D. K. McClish, "Sample size
determination for diagnostic accuracy studies involving binormal ROC curve indices", Statistics in Medicine 16, 1997,
give the approximate one of fitted curves. Any scores that some rising function makes normal are meant: an AUC sees
ranks alone.

Other source: N. A. Obuchowski, M. L. Lieber, F. H. Wians, "ROC curves in clinical chemistry: uses, misuses, and
possible solutions", Clinical Chemistry 50, 2004 (variance, page 1123).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from kneessl.errors import UserError
from kneessl.evaluation.auc import (
    LEVEL,
    QUANTILE,
    auc_interval,
    checked_labels,
    checked_scores,
    compare_auc,
    logit_limits,
)
from kneessl.evaluation.metrics import Proportion, wilson

MOST = 10_000_000
"""More exams than this are called impossible (our choice)."""
LEAST_OF_EACH = 2
"""Exams of either label that an interval takes."""
_ALIKE = 1 - 1e-9
"""A correlation above this is 1 but for rounding."""
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)

Errors = Callable[[float, float], float]
"""Standard error from a number of positives and one of negatives, which need not be whole."""


@dataclass(frozen=True)
class Pair:
    """Two models on the same exams: AUCs in (0, 1), and how their scores correlate in each class, from 0 to below 1."""

    auc: float
    against: float
    positives: float
    """Correlation of the two models' scores among positives."""
    negatives: float
    """The same among negatives."""

    def error(self, positives: float, negatives: float) -> float:
        """Standard error of the difference of the two empirical AUCs over so many exams."""
        z = ndtri((self.auc, self.against))
        one, other = (_covariance(h, h, 1.0, 1.0, positives, negatives) for h in z)
        both = _covariance(z[0], z[1], self.positives, self.negatives, positives, negatives)
        return float(np.sqrt(one + other - 2 * both))


@dataclass(frozen=True)
class Pilot:
    """What exams that were already evaluated say of those to come."""

    prevalence: float
    auc: float
    pair: Pair | None
    """None where there is one model only."""

    @classmethod
    def of(cls, labels: ArrayLike, scores: ArrayLike, against: ArrayLike | None = None) -> "Pilot":
        """Read a pilot.

        A correlation is 2 sin(pi / 6 x Spearman's) within each class, which is that of the normal scores behind the
        ranks, whatever the scale (K. Pearson 1907). One below 0 is taken as 0, which asks for more exams than it would.

        Args:
            labels: (n,) the reference standard, 0 or 1, with at least two exams of each.
            scores: (n,) of the model that is planned for.
            against: (n,) of the model to compare it with.

        Raises:
            UserError: the arguments are not as described above; or two models order a class all alike, or one leaves
                no order in it, so that there is no correlation to plan with.
        """
        positive = checked_labels(labels)
        first = checked_scores(scores, positive)
        auc, prevalence = auc_interval(labels, first).auc, float(positive.mean())
        if against is None:
            return cls(prevalence, auc, None)
        second = checked_scores(against, positive)
        correlations = [_normal_correlation(first[part], second[part]) for part in (positive, ~positive)]
        if not all(correlation < _ALIKE for correlation in correlations):  # also NaN
            raise UserError(
                "in the pilot the two models order the exams of one label all alike, or one of them not at all, which "
                "leaves no correlation to plan with; give --correlation instead"
            )
        return cls(prevalence, auc, Pair(auc, auc_interval(labels, second).auc, *correlations))


def binormal_error(auc: float) -> Errors:
    """Standard error of an empirical AUC whose scores are normal in each class; `auc` in (0, 1). See the module."""
    z = float(ndtri(auc))
    return lambda positives, negatives: float(np.sqrt(_covariance(z, z, 1.0, 1.0, positives, negatives)))


def hanley_mcneil_error(auc: float) -> Errors:
    """Standard error by Hanley & McNeil 1982, equation 1 with their 2: Q1 = A / (2 - A), Q2 = 2 A^2 / (1 + A)."""
    first, second = auc / (2 - auc) - auc**2, 2 * auc**2 / (1 + auc) - auc**2

    def error(positives: float, negatives: float) -> float:
        total = auc * (1 - auc) + (positives - 1) * first + (negatives - 1) * second
        return float(np.sqrt(total / (positives * negatives)))

    return error


def obuchowski_error(auc: float) -> Errors:
    """Standard error by Obuchowski 2004, page 1123, with its rounded constants."""
    a = 1.414 * float(ndtri(auc))

    def error(positives: float, negatives: float) -> float:
        variance = 0.0099 * np.exp(-(a**2) / 2) * (5 * a**2 + 8 + (a**2 + 8) * positives / negatives)
        return float(np.sqrt(variance / positives))

    return error


def exams_for_auc(auc: float, width: float, prevalence: float, error: Callable[[float], Errors]) -> int:
    """Return the fewest exams for which the AUC's interval, on the logit scale as in reports, is so narrow.

    Args:
        auc: expected, in (0, 1).
        width: of the 95 % interval, from its lower to its upper end, in (0, 1).
        prevalence: share of positives among the exams, in (0, 1).
        error: one of the three above.

    Raises:
        UserError: more than `MOST` would be needed.
    """
    of = error(auc)

    def narrow(positives: float, negatives: float) -> bool:
        low, high = logit_limits(auc, of(positives, negatives))
        return high - low <= width

    return _fewest(narrow, prevalence)


def exams_for_difference(pair: Pair, power: float, prevalence: float) -> int:
    """Return the fewest exams on which the paired DeLong test finds the difference (two-sided, 5 %) with such a power.

    (z of 97.5 % + z of the power) x standard error = difference. The error is that at the AUCs expected, since the
    test takes its error from the exams and not from the hypothesis.

    Args:
        pair: two different AUCs.
        power: in (0, 1).
        prevalence: share of positives among the exams, in (0, 1).

    Raises:
        ValueError: the AUCs are equal.
        UserError: more than `MOST` would be needed.
    """
    difference = abs(pair.auc - pair.against)
    if difference == 0:
        raise ValueError("no number of exams tells apart two models that are equally good")
    reach = QUANTILE + float(ndtri(power))
    return _fewest(lambda positives, negatives: reach * pair.error(positives, negatives) <= difference, prevalence)


def exams_for_share(share: float, width: float) -> int:
    """Return the fewest exams of one label for which Wilson's 95 % interval of a share of them is so narrow.

    For a sensitivity these are positives, for a specificity negatives, at a threshold that is locked beforehand.

    Args:
        share: expected, in [0, 1].
        width: of the interval, from its lower to its upper end, in (0, 1).

    Raises:
        UserError: more than `MOST` would be needed.
    """

    def narrow(n: int) -> bool:
        low, high = wilson(share, n)
        return high - low <= width

    return _first(narrow)


def simulated_power(pair: Pair, positives: int, negatives: int, studies: int, seed: int) -> Proportion:
    """Return in how many simulated studies the paired DeLong test finds the better model better (two-sided, 5 %)."""
    labels = np.repeat([1, 0], (positives, negatives))
    found = 0
    for a, b in _studies(pair, positives, negatives, studies, seed):
        result = compare_auc(labels, a, b)
        found += result.p < 1 - LEVEL and (result.difference > 0) == (pair.auc > pair.against)
    return Proportion.of(found, studies)


def simulated_width(auc: float, width: float, positives: int, negatives: int, studies: int, seed: int) -> Proportion:
    """Return in how many simulated studies the AUC's interval is no wider than `width`: an expectation is met by half.

    An interval without any width, where a study's scores separate the classes, does not count.
    """
    labels = np.repeat([1, 0], (positives, negatives))
    narrow = 0
    for a, _ in _studies(Pair(auc, auc, 0.0, 0.0), positives, negatives, studies, seed):
        interval = auc_interval(labels, a, scale="logit")
        narrow += 0 < interval.high - interval.low <= width
    return Proportion.of(narrow, studies)


def _studies(
    pair: Pair, positives: int, negatives: int, studies: int, seed: int
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Scores of both models in one study after the other, positives first, each (positives + negatives,)."""
    rng = np.random.default_rng(seed)
    shift = np.sqrt(2) * ndtri((pair.auc, pair.against))
    correlation = np.repeat([pair.positives, pair.negatives], (positives, negatives))
    positive = np.repeat([1.0, 0.0], (positives, negatives))
    for _ in range(studies):
        first, own = rng.standard_normal((2, len(positive)))
        second = correlation * first + np.sqrt(1 - correlation**2) * own
        yield first + shift[0] * positive, second + shift[1] * positive


def _covariance(
    h: float, k: float, in_positives: float, in_negatives: float, positives: float, negatives: float
) -> float:
    """Of two empirical AUCs, ndtr(h) and ndtr(k), whose scores correlate so in each class; see the module.

    Two differences of scores correlate by half of what the scores do in the class that they share an exam of.
    """
    pair = _together(h, k, (in_positives + in_negatives) / 2)
    negative, positive = _together(h, k, in_negatives / 2), _together(h, k, in_positives / 2)
    return (pair + (positives - 1) * negative + (negatives - 1) * positive) / (positives * negatives)


def _together(h: float, k: float, correlation: float) -> float:
    """P(X < h, Y < k) - P(X < h) P(Y < k) of standard normal X and Y: Plackett's integral over the correlation.

    With the correlation as the sine of an angle, what is integrated is smooth up to a correlation of 1.
    """
    if correlation == 1 and h == k:
        return float(ndtr(h) * ndtr(-h))
    end = np.arcsin(correlation)
    angle = end * (_NODES + 1) / 2
    density = np.exp(-(h**2 - 2 * h * k * np.sin(angle) + k**2) / (2 * np.cos(angle) ** 2))
    return float(end / 2 * (_WEIGHTS @ density) / (2 * np.pi))


def _normal_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Correlation of normal scores from that of ranks; NaN where one has no order, 0 in place of one below it."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    rank = float(scipy.stats.spearmanr(first, second).statistic)
    return max(2 * float(np.sin(np.pi / 6 * rank)), 0.0)


def _fewest(enough: Callable[[float, float], bool], prevalence: float) -> int:
    """The fewest exams, at this share of positives, that are enough."""

    def of_each(n: int) -> bool:
        positives, negatives = n * prevalence, n * (1 - prevalence)
        return min(positives, negatives) >= LEAST_OF_EACH and enough(positives, negatives)

    return _first(of_each)


def _first(enough: Callable[[int], bool]) -> int:
    """The first whole number from 1 that is enough, if all after it are."""
    high = 1
    while not enough(high):
        if high > MOST:
            raise UserError(
                f"more than {MOST:,} exams would be needed; ask for a wider interval or a larger difference"
            )
        high *= 2
    low = high // 2  # not enough, or 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
