"""What a positive or a negative answer means for one patient: predictive values and likelihood ratios.

Sources: N. D. Mercaldo, K. F. Lau, X. H. Zhou, "Confidence intervals for predictive values with an emphasis to
case-control studies", Statistics in Medicine 26, 2007 (standard and adjusted logit intervals); D. G. Altman,
J. M. Bland, "Diagnostic tests 2: predictive values", BMJ 309, 1994; D. L. Simel, G. P. Samsa, D. B. Matchar,
"Likelihood ratios with confidence", Journal of Clinical Epidemiology 44, 1991; E. B. Wilson 1927 (see `metrics`).
"""

import math
from dataclasses import dataclass
from numbers import Integral

from kneessl.errors import UserError
from kneessl.evaluation.auc import QUANTILE
from kneessl.evaluation.metrics import Proportion


@dataclass(frozen=True)
class PredictiveValue:
    """Share of the answers that are right, in (0, 1), at a stated prevalence, with its logit interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PredictiveValues:
    """Predictive values at `prevalence`; intervals take the prevalence as known."""

    ppv: PredictiveValue
    """Of those called positive, the share with the finding."""
    npv: PredictiveValue
    """Of those called negative, the share without it."""
    prevalence: float
    adjusted: bool
    """Whether a count was 0, so that values and intervals are the adjusted ones."""


@dataclass(frozen=True)
class SamplePredictiveValues:
    """Predictive values among the exams themselves, so at their prevalence, with Wilson's intervals."""

    ppv: Proportion | None
    """None where no exam was called positive."""
    npv: Proportion | None
    """None where no exam was called negative."""


@dataclass(frozen=True)
class LikelihoodRatio:
    """By how much an answer multiplies the odds of the finding, above 0, with its log interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class LikelihoodRatios:
    """Likelihood ratios of both answers."""

    positive: LikelihoodRatio
    """LR+ = sensitivity / (1 - specificity)."""
    negative: LikelihoodRatio
    """LR- = (1 - sensitivity) / specificity."""
    adjusted: bool
    """Whether a count was 0, so that 0.5 was added to each."""


def predictive_values(*, tp: int, fn: int, fp: int, tn: int, prevalence: float) -> PredictiveValues:
    """Return PPV and NPV at a stated prevalence by Bayes's theorem, with Mercaldo's logit intervals.

    Sensitivity and specificity come from the counts, the prevalence does not: the exams may hold far more positives
    than the clinic does. logit PPV = ln(p Se / ((1 - p) (1 - Sp))) and logit NPV = ln((1 - p) Sp / (p (1 - Se))), with
    the variances of the delta method (Mercaldo 2007, section 2.2).

    Where one of the four counts is 0, PPV or NPV would come out as 0 or 1, or a variance too small. Then both values
    and both intervals are the adjusted ones (table II there): half of the squared normal quantile is added to each of
    the four counts. That any count of 0 calls for it is our reading.

    Args:
        tp: positives that are called positive, 0 or more.
        fn: positives that are called negative; with `tp` at least 1.
        fp: negatives that are called positive.
        tn: negatives that are called negative; with `fp` at least 1.
        prevalence: share of patients with the finding where the answers will be used, between 0 and 1, exclusive.

    Raises:
        UserError: the arguments are not as described above.
    """
    _check_counts(tp, fn, fp, tn)
    if not 0 < prevalence < 1:
        raise UserError(f"a prevalence lies between 0 and 1, exclusive, not at {prevalence}")
    adjusted = 0 in (tp, fn, fp, tn)
    added = QUANTILE**2 / 2 if adjusted else 0.0
    a, c, b, d = tp + added, fn + added, fp + added, tn + added
    odds = prevalence / (1 - prevalence)
    log_ppv = math.log(odds * _ratio(a, c, b, d))
    log_npv = -math.log(odds * _ratio(c, a, d, b))
    ppv_half = QUANTILE * math.sqrt(_log_variance(a, c, b, d))
    npv_half = QUANTILE * math.sqrt(_log_variance(c, a, d, b))
    return PredictiveValues(
        ppv=PredictiveValue(_expit(log_ppv), _expit(log_ppv - ppv_half), _expit(log_ppv + ppv_half)),
        npv=PredictiveValue(_expit(log_npv), _expit(log_npv - npv_half), _expit(log_npv + npv_half)),
        prevalence=float(prevalence),
        adjusted=adjusted,
    )


def sample_predictive_values(*, tp: int, fn: int, fp: int, tn: int) -> SamplePredictiveValues:
    """Return PPV and NPV among the exams themselves, which hold elsewhere only at the same prevalence.

    Args:
        tp: as in `predictive_values`.
        fn: as in `predictive_values`.
        fp: as in `predictive_values`.
        tn: as in `predictive_values`.

    Raises:
        UserError: the arguments are not as described above.
    """
    _check_counts(tp, fn, fp, tn)
    return SamplePredictiveValues(
        ppv=Proportion.of(tp, tp + fp) if tp + fp else None,
        npv=Proportion.of(tn, tn + fn) if tn + fn else None,
    )


def likelihood_ratios(*, tp: int, fn: int, fp: int, tn: int) -> LikelihoodRatios:
    """Return LR+ and LR- with intervals that are symmetric on the log scale (Simel 1991).

    Where one of the four counts is 0, a ratio or its error would be 0 or infinite, or the error too small; then 0.5 is
    added to each of the four (our reading: the usual correction, which Simel 1991 does not treat).

    Args:
        tp: as in `predictive_values`.
        fn: as in `predictive_values`.
        fp: as in `predictive_values`.
        tn: as in `predictive_values`.

    Raises:
        UserError: the arguments are not as described above.
    """
    _check_counts(tp, fn, fp, tn)
    adjusted = 0 in (tp, fn, fp, tn)
    added = 0.5 if adjusted else 0.0
    a, c, b, d = tp + added, fn + added, fp + added, tn + added
    return LikelihoodRatios(_simel(a, c, b, d), _simel(c, a, d, b), adjusted)


def _simel(hits: float, misses: float, false: float, true: float) -> LikelihoodRatio:
    ratio = _ratio(hits, misses, false, true)
    factor = math.exp(QUANTILE * math.sqrt(_log_variance(hits, misses, false, true)))
    return LikelihoodRatio(ratio, ratio / factor, ratio * factor)


def _ratio(hits: float, misses: float, false: float, true: float) -> float:
    """Share of an answer among the positives, over its share among the negatives: the answer's likelihood ratio."""
    return hits / (hits + misses) / (false / (false + true))


def _log_variance(hits: float, misses: float, false: float, true: float) -> float:
    """Variance of ln `_ratio`; with a known prevalence also that of the predictive value's logit."""
    return misses / (hits * (hits + misses)) + true / (false * (false + true))


def _expit(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def _check_counts(tp: int, fn: int, fp: int, tn: int) -> None:
    for name, count in (("tp", tp), ("fn", fn), ("fp", fp), ("tn", tn)):
        if isinstance(count, bool) or not isinstance(count, Integral) or count < 0:
            raise UserError(f"{name} must be a count of exams, 0 or more, not {count!r}")
    if tp + fn == 0 or fp + tn == 0:
        raise UserError(
            f"predictive values and likelihood ratios need at least 1 positive and 1 negative exam, "
            f"but there are {tp + fn} positive and {fp + tn} negative"
        )
