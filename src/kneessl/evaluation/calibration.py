"""Whether probabilities mean what they say, and how to put them right on out-of-fold data.

Sources: D. R. Cox, "Two further applications of a model for binary regression", Biometrika 45, 1958 (the logistic
recalibration model); B. Van Calster et al., "A calibration hierarchy for risk models was defined: from utopia to
empirical data", Journal of Clinical Epidemiology 74, 2016, and "Calibration: the Achilles heel of predictive
analytics", BMC Medicine 17, 2019 (slope, and intercept given a slope of 1); G. W. Brier, "Verification of forecasts
expressed in terms of probability", Monthly Weather Review 78, 1950; E. W. Steyerberg et al., "Assessing the
performance of prediction models", Epidemiology 21, 2010 (scaled Brier score); J. C. Platt, "Probabilistic outputs for
support vector machines", in Advances in Large Margin Classifiers, 1999 (smoothed targets).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from kneessl.errors import UserError
from kneessl.evaluation.auc import QUANTILE, as_numbers, checked_labels, checked_scores
from kneessl.evaluation.metrics import Proportion

EPSILON = 1e-6
"""Where a logit is taken, a probability closer than this to 0 or 1 is moved to this distance (our choice)."""

LEAST_SLOPE = 0.01
"""The least that a recalibrated log odds rises with one standard deviation of the logits (our choice)."""

MAX_STEPS = 100


@dataclass(frozen=True)
class Estimate:
    """A number, its standard error, and its normal confidence interval: value -+ quantile x error (Wald)."""

    value: float
    low: float
    high: float
    standard_error: float


@dataclass(frozen=True)
class Calibration:
    """How well probabilities agree with the labels."""

    n: int
    positives: int
    slope: Estimate | None
    """Of the log odds of the label on the logit of the probability: 1 is right, below 1 too extreme, above 1 too timid.
    None where no finite slope fits best; `no_slope` says why."""
    no_slope: str | None
    intercept: Estimate
    """Calibration in the large, with the slope held at 1: 0 is right, above 0 the probabilities are too low."""
    brier: Estimate
    """Mean squared distance of probability and label, in [0, 1]."""
    scaled_brier: float
    """1 - Brier score / that of always saying the prevalence: 1 is perfect, 0 tells nothing, below 0 misleads."""
    expected_observed: float
    """Sum of the probabilities / number of positives: above 1 they are too high on the whole."""


@dataclass(frozen=True)
class ReliabilityBin:
    """Exams whose probabilities are neighbours."""

    n: int
    probability: float
    """Mean probability in [0, 1]."""
    observed: Proportion
    """The share of positives among the n."""


Covariance = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Recalibration:
    """Probabilities from a model's logits: 1 / (1 + exp(-(intercept + slope x logit))).

    The slope is above 0, so the order of the exams stays, and with it the AUC.

    Raises:
        UserError: slope or intercept are not finite numbers, the slope is not above 0, or the covariance is none.
    """

    slope: float
    intercept: float
    covariance: Covariance | None = None
    """Of intercept and slope, in that order, as they were estimated; None where an older version did not record it."""

    def __post_init__(self) -> None:
        _check_finite(self.slope, "slope")
        _check_finite(self.intercept, "intercept")
        if self.slope <= 0:
            raise UserError(f"the slope of a recalibration must be above 0, or it would turn the order: {self.slope}")
        if self.covariance is not None:  # JSON has lists where there were tuples
            object.__setattr__(self, "covariance", _checked_covariance(self.covariance))

    @classmethod
    def fit(cls, labels: ArrayLike, logits: ArrayLike) -> "Recalibration":
        """Fit by Platt's method: logistic regression of the label on the logit, by maximum likelihood.

        Platt's targets take the place of 1 and 0, (positives + 1) / (positives + 2) and 1 / (negatives + 2), so that
        slope and intercept are finite even where the logits separate the classes.

        The fit must be on logits of exams that their model has not seen; the calibration of the result has to be judged
        on yet others.

        A model whose logits are, out of fold, no better than chance gets a slope near 0 or below it. A slope below 0
        would answer "no" where the model says "yes" because of what is mostly noise. So the slope is held at
        `LEAST_SLOPE` / (standard deviation of the logits) or above, and the intercept is fitted to it: the most likely
        answer that never turns the order, by which everyone gets nearly the prevalence (our reading; Platt has no
        bound). That bound is never above 1, or logits that hardly differ here would be blown up where others differ
        more. Logits that are all alike tell no slope: it is 1 then, and everyone gets the mean of the targets.

        The covariance is the inverse of the observed information at the fit. A slope that is held, or that nothing
        tells, is taken as known: only the intercept varies then.

        Args:
            labels: (n,) the reference standard, 0 or 1, with at least two exams of each.
            logits: (n,) finite numbers, where a higher one speaks for 1.

        Raises:
            UserError: the arguments are not as described above.
        """
        positive = checked_labels(labels)
        values = checked_scores(logits, positive)
        if not np.isfinite(values).all():
            raise UserError("a recalibration is fitted on finite logits, but there are infinite ones among these")
        positives = positive.sum()
        targets = np.where(positive, (positives + 1) / (positives + 2), 1 / (len(positive) - positives + 2))
        centre, scale = values.mean(), values.std()
        if _alike(values):
            mean = targets.mean()
            return cls(1.0, float(logit(mean) - centre), _only_intercept(1 / (len(values) * mean * (1 - mean))))
        standard = (values - centre) / scale
        (middle, slope), covariance = _maximise(np.stack((np.ones(len(values)), standard), axis=1), targets)
        least = min(LEAST_SLOPE, scale)  # a slope on standardised logits of `scale` is one of 1 on the logits
        if slope < least:
            slope = least
            (middle,), ((variance,),) = _maximise(np.ones((len(values), 1)), targets, slope * standard)
            known = _only_intercept(variance)
        else:
            back = np.array([[1, -centre / scale], [0, 1 / scale]])
            (first, mixed), (_, second) = (back @ covariance @ back.T).tolist()
            known = ((first, mixed), (mixed, second))
        return cls(float(slope / scale), float(middle - slope * centre / scale), known)

    def apply(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of 1 in [0, 1] for each logit, in the same shape.

        Raises:
            UserError: something else than numbers, or NaN, among the logits.
        """
        values = as_numbers(logits, "logits")
        if np.isnan(values).any():
            raise UserError(f"{np.isnan(values).sum()} of {values.size} logits are NaN; they have no probability")
        return np.asarray(expit(self.intercept + self.slope * values))

    def interval(self, logit: float) -> tuple[float, float] | None:
        """Return the confidence interval of the probability at one logit, or None without a covariance.

        Wald's on the log odds, intercept + slope x logit, whose variance follows from the covariance (delta method),
        mapped to probabilities. It covers what other exams would have made of this recalibration, at this logit. It
        does not cover the logit itself, such as what another training or other weights of the planes would give, nor
        exams of another kind, such as another scanner's. A slope that is held at its bound counts as known (`fit`).

        Args:
            logit: a finite number.

        Raises:
            UserError: the arguments are not as described above.
        """
        at = np.array([1.0, as_numbers(logit, "logits")])
        if not np.isfinite(at).all():
            raise UserError(f"a probability has an interval at a finite logit, not at {logit}")
        if self.covariance is None:
            return None
        centre = self.intercept + self.slope * at[1]
        half = QUANTILE * np.sqrt(max(at @ np.array(self.covariance) @ at, 0.0))  # rounding may go below 0
        return float(expit(centre - half)), float(expit(centre + half))


def calibration(labels: ArrayLike, probabilities: ArrayLike) -> Calibration:
    """Judge probabilities by the logistic recalibration model, the Brier score, and expected over observed.

    Slope and intercept are maximum likelihood with Wald intervals from the observed information. The slope is that of
    the model with slope and intercept free; the intercept is that of the model whose slope is 1, so the two come from
    two fits (Van Calster 2016). Their logits are of probabilities brought into [`EPSILON`, 1 - `EPSILON`]; all else is
    of the probabilities as they are. The Brier score is a mean of n squares, so its standard error is their standard
    deviation (over n - 1) / sqrt(n), and its interval is clipped to [0, 1]; with few positives it is a little short (of
    120 calibrated exams, 95 % covers in 94 to 95 % of samples from 1 positive in 5 on, in 93 % at 1 in 8).

    Args:
        labels: (n,) the reference standard, 0 or 1, with at least two exams of each.
        probabilities: (n,) of 1, in [0, 1].

    Raises:
        UserError: the arguments are not as described above.
    """
    positive = checked_labels(labels)
    probability = checked_probabilities(probabilities, positive)
    n, positives = len(positive), int(positive.sum())
    logits = logit(np.clip(probability, EPSILON, 1 - EPSILON))
    slope, no_slope = _slope(positive, logits)
    (large,), covariance = _maximise(np.ones((n, 1)), positive.astype(np.float64), logits)
    squares = (probability - positive) ** 2
    brier = _estimate(squares.mean(), squares.std(ddof=1) / np.sqrt(n))
    prevalence = positives / n
    return Calibration(
        n=n,
        positives=positives,
        slope=slope,
        no_slope=no_slope,
        intercept=_estimate(large, np.sqrt(covariance[0, 0])),
        brier=Estimate(brier.value, max(brier.low, 0.0), min(brier.high, 1.0), brier.standard_error),
        scaled_brier=1 - brier.value / (prevalence * (1 - prevalence)),
        expected_observed=float(probability.sum() / positives),
    )


def reliability(labels: ArrayLike, probabilities: ArrayLike, bins: int = 10) -> list[ReliabilityBin]:
    """Sort exams into bins of equal count by probability: the points of a reliability diagram, from low to high.

    Exams of one probability stay together, in the bin that the middle of their ranks falls into, so bins may differ in
    count, and there are fewer of them where one would be empty. Intervals are Wilson's at 95 %.

    Args:
        labels: (n,) the reference standard, 0 or 1, with at least two exams of each.
        probabilities: (n,) of 1, in [0, 1].
        bins: at least 1.

    Raises:
        UserError: the arguments are not as described above.
    """
    positive = checked_labels(labels)
    probability = checked_probabilities(probabilities, positive)
    if bins < 1:
        raise UserError(f"exams are sorted into at least 1 bin, not into {bins}")
    place = np.floor((scipy.stats.rankdata(probability) - 0.5) * bins / len(positive))
    members = [place == index for index in np.unique(place)]
    return [
        ReliabilityBin(
            n=int(inside.sum()),
            probability=float(probability[inside].mean()),
            observed=Proportion.of(int(positive[inside].sum()), int(inside.sum())),
        )
        for inside in members
    ]


def checked_probabilities(probabilities: ArrayLike, labels: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return probabilities as (n,) float64 in [0, 1].

    Raises:
        UserError: not one number in [0, 1] for each label.
    """
    values = checked_scores(probabilities, labels)
    if values.min() < 0 or values.max() > 1:
        raise UserError(
            f"scores must be probabilities between 0 and 1, "
            f"but they reach from {values.min():.3g} to {values.max():.3g}"
        )
    return values


def _slope(positive: NDArray[np.bool_], logits: NDArray[np.float64]) -> tuple[Estimate | None, str | None]:
    """Slope of the label on the logit, or None and why there is none."""
    if _alike(logits):
        return None, "all probabilities are alike, which leaves the slope open"
    yes, no = logits[positive], logits[~positive]
    if yes.min() >= no.max() or yes.max() <= no.min():
        return None, "the probabilities separate the classes, so the likelihood grows with the slope without end"
    scale = logits.std()
    columns = np.stack((np.ones(len(logits)), (logits - logits.mean()) / scale), axis=1)
    try:
        coefficients, covariance = _maximise(columns, positive.astype(np.float64))
    except np.linalg.LinAlgError:
        return None, "the probabilities all but separate the classes, which leaves the slope open"
    return _estimate(coefficients[1] / scale, np.sqrt(covariance[1, 1]) / scale), None


def _only_intercept(variance: float) -> Covariance:
    return (float(variance), 0.0), (0.0, 0.0)


def _check_finite(value: Any, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise UserError(f"the {what} of a recalibration must be a finite number, not {value!r}")


def _checked_covariance(given: Any) -> Covariance:
    """Return a covariance as tuples, or a user error where it is none."""
    try:
        (first, mixed), (again, second) = given
    except (TypeError, ValueError):
        raise UserError(f"the covariance of a recalibration must be two rows of two numbers, not {given!r}") from None
    for value in (first, mixed, again, second):
        _check_finite(value, "covariance")
    if mixed != again or min(first, second) < 0 or mixed**2 > first * second * (1 + 1e-9):
        raise UserError(f"the covariance of a recalibration must be symmetric and not negative, unlike {given!r}")
    return (first, mixed), (mixed, second)


def _alike(values: NDArray[np.float64]) -> bool:
    """Whether values differ by no more than rounding does."""
    return bool(values.std() <= 1e-12 * np.abs(values).max())


def _estimate(value: float, error: float) -> Estimate:
    return Estimate(float(value), float(value - QUANTILE * error), float(value + QUANTILE * error), float(error))


def _maximise(
    columns: NDArray[np.float64], targets: NDArray[np.float64], offset: NDArray[np.float64] | float = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit a logistic regression by Newton's method, halving each step until the likelihood does not fall.

    Args:
        columns: (n, k), not collinear.
        targets: (n,) in [0, 1].
        offset: (n,) what is added to the log odds.

    Returns:
        Coefficients (k,) and their covariance (k, k), the inverse of the information.

    Raises:
        LinAlgError: no finite coefficients fit best, as far as float64 can tell.
    """

    def loss(coefficients: NDArray[np.float64]) -> float:
        odds = offset + columns @ coefficients
        return float((np.logaddexp(0, odds) - targets * odds).sum())

    coefficients = np.zeros(columns.shape[1])
    for _ in range(MAX_STEPS):
        mean = expit(offset + columns @ coefficients)
        gradient = columns.T @ (targets - mean)
        information = (columns.T * (mean * (1 - mean))) @ columns
        step = np.linalg.solve(information, gradient)
        if gradient @ step < 1e-12 * len(targets):  # Newton doubles the digits: this last step leaves no error to see
            return coefficients + step, np.linalg.inv(information)
        here = loss(coefficients)
        while loss(coefficients + step) > here:
            step = step / 2
        coefficients = coefficients + step
    raise np.linalg.LinAlgError("Newton's method has not arrived")
