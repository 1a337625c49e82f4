"""Operating points that are set on out-of-fold data and then locked, and what acting on probabilities is worth.

Sources: A. J. Vickers, E. B. Elkin, "Decision curve analysis: a novel method for evaluating prediction models", Medical
Decision Making 26, 2006; T. L. Marsh, H. Janes, M. S. Pepe, "Statistical inference for net benefit measures in
biomarker validation studies", Biometrics 76, 2020 (a cohort's net benefit is a mean); E. B. Wilson 1927 (see
`metrics`). Two thresholds with a zone of doubt between them are our reading of how readers use a "rule out" and a
"rule in".
"""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kneessl.errors import UserError
from kneessl.evaluation.auc import QUANTILE, as_numbers, checked_labels
from kneessl.evaluation.calibration import checked_probabilities
from kneessl.evaluation.metrics import Proportion

State = Literal["yes", "doubt", "no"]

NEVER = math.nextafter(1.0, 2.0)
"""The highest rule-in threshold: above every probability, so that "yes" is never said."""


@dataclass(frozen=True)
class OperatingPoints:
    """Two thresholds, and what they were set on: a probability below `rule_out` is "no", at or above `rule_in` "yes".

    Raises:
        UserError: a field is out of its range, or fields do not fit together.
    """

    rule_out: float
    """In [0, 1]."""
    rule_in: float
    """At least `rule_out`; in [0, 1], or `NEVER`."""
    target_sensitivity: float
    """In (0, 1]."""
    target_specificity: float
    """In (0, 1]."""
    n: int
    """Exams that the points were locked on."""
    positives: int
    sensitivity: Proportion
    """Share of those positives at or above `rule_out`: not called "no"."""
    specificity: Proportion
    """Share of those negatives below `rule_in`: not called "yes"."""

    def __post_init__(self) -> None:
        if not 0 <= self.rule_out <= 1 or not self.rule_out <= self.rule_in <= NEVER:
            raise UserError(
                f"operating points lie between 0 and 1, rule_out not above rule_in, "
                f"but rule_out is {self.rule_out} and rule_in {self.rule_in}"
            )
        _check_target("sensitivity", self.target_sensitivity)
        _check_target("specificity", self.target_specificity)
        if (self.sensitivity.n, self.specificity.n) != (self.positives, self.n - self.positives):
            raise UserError(
                f"operating points were locked on {self.positives} positives of {self.n} exams, but their sensitivity "
                f"is of {self.sensitivity.n} positives and their specificity of {self.specificity.n} negatives"
            )

    def state(self, probability: float) -> State:
        """Return what is said of one exam.

        Raises:
            UserError: not a probability in [0, 1].
        """
        if not 0 <= probability <= 1:
            raise UserError(f"a state is said of a probability between 0 and 1, not of {probability}")
        if probability >= self.rule_in:
            return "yes"
        return "no" if probability < self.rule_out else "doubt"

    def to_dict(self) -> dict[str, Any]:
        """Return nested dicts of plain Python numbers, ready for `json.dumps`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Any) -> "OperatingPoints":
        """Restore what `to_dict` has made.

        Raises:
            UserError: a field is missing, unknown, of the wrong type, NaN, or out of range.
        """
        names = ("rule_out", "rule_in", "target_sensitivity", "target_specificity")
        fields = checked_fields(record, (*names, "n", "positives", "sensitivity", "specificity"), "operating points")
        return cls(
            **{name: checked_number(fields[name], name) for name in names},
            n=checked_count(fields["n"], "n"),
            positives=checked_count(fields["positives"], "positives"),
            sensitivity=_proportion(fields["sensitivity"], "sensitivity"),
            specificity=_proportion(fields["specificity"], "specificity"),
        )


@dataclass(frozen=True)
class StateCounts:
    """How many exams of one label got each answer."""

    yes: int
    doubt: int
    no: int


@dataclass(frozen=True)
class StateTable:
    """Locked operating points on other exams; intervals are Wilson's at 95 %."""

    positive: StateCounts
    negative: StateCounts
    sensitivity: Proportion
    """Share of positives at or above `rule_out`: not called "no"."""
    specificity: Proportion
    """Share of negatives below `rule_in`: not called "yes"."""
    doubt: Proportion
    """Share of all exams."""
    ppv: Proportion | None
    """Share of positives among those called "yes"; None if there are none."""
    npv: Proportion | None
    """Share of negatives among those called "no"; None if there are none."""


@dataclass(frozen=True, eq=False)
class NetBenefit:
    """A decision curve: net benefit, in true positives per exam, at each threshold; all arrays (thresholds,)."""

    thresholds: NDArray[np.float64]
    model: NDArray[np.float64]
    """Of acting where the model's probability is at or above the threshold."""
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    """Of `model`."""
    treat_all: NDArray[np.float64]
    treat_none: NDArray[np.float64]
    """Zeros."""


def lock(
    labels: ArrayLike, probabilities: ArrayLike, sensitivity: float = 0.95, specificity: float = 0.95
) -> OperatingPoints:
    """Set the operating points on out-of-fold probabilities; from then on they stay as they are.

    `rule_out` is the highest threshold at which the sensitivity on these exams is at least its target. `rule_in` is the
    lowest at which the specificity is: the next number in float64 after the probability of a negative. Where they
    cross, rule_out above rule_in, both targets hold at every threshold between them; both points then are the middle of
    the two, and nothing is in doubt.

    What is reached on these exams is a little better than it will be on others, since the thresholds were chosen on
    them: where k of m positives are at or above rule_out, k / (m + 1) of others are to be expected there (order
    statistics; no ties), and so for the negatives. Read it from `apply_points` on exams that had no part in this.

    Args:
        labels: (n,) the reference standard, 0 or 1, with at least two exams of each.
        probabilities: (n,) of 1, in [0, 1], by models that have not seen the exam.
        sensitivity: the target of rule_out, above 0, at most 1.
        specificity: the target of rule_in, above 0, at most 1.

    Raises:
        UserError: the arguments are not as described above.
    """
    positive = checked_labels(labels)
    probability = checked_probabilities(probabilities, positive)
    _check_target("sensitivity", sensitivity)
    _check_target("specificity", specificity)
    yes, no = np.sort(probability[positive])[::-1], np.sort(probability[~positive])
    rule_out = float(yes[_needed(sensitivity, len(yes)) - 1])
    rule_in = math.nextafter(float(no[_needed(specificity, len(no)) - 1]), 2.0)
    if rule_out > rule_in:
        rule_out = rule_in = (rule_out + rule_in) / 2
    return OperatingPoints(
        rule_out=rule_out,
        rule_in=rule_in,
        target_sensitivity=float(sensitivity),
        target_specificity=float(specificity),
        n=len(positive),
        positives=len(yes),
        sensitivity=Proportion.of(int((yes >= rule_out).sum()), len(yes)),
        specificity=Proportion.of(int((no < rule_in).sum()), len(no)),
    )


def apply_points(labels: ArrayLike, probabilities: ArrayLike, points: OperatingPoints) -> StateTable:
    """Count what locked points say of other exams.

    Args:
        labels: (n,) the reference standard, 0 or 1, with at least two exams of each.
        probabilities: (n,) of 1, in [0, 1].
        points: from `lock`.

    Raises:
        UserError: the arguments are not as described above.
    """
    probability = checked_probabilities(probabilities, checked_labels(labels))
    return count_states(labels, [points.state(float(p)) for p in probability])


def count_states(labels: ArrayLike, states: Sequence[State]) -> StateTable:
    """Count what was said of exams, each by operating points that were locked for it.

    Args:
        labels: (n,) the reference standard, 0 or 1, with at least two exams of each.
        states: (n,) what was said.

    Raises:
        UserError: the arguments are not as described above.
    """
    positive = checked_labels(labels)
    if len(states) != len(positive):
        raise UserError(f"every exam needs one label and one state, but there are {len(positive)} and {len(states)}")
    said = np.asarray(states)
    yes, doubt, no = (said == state for state in get_args(State))
    inside, outside = (
        StateCounts(*(int((one & label).sum()) for one in (yes, doubt, no))) for label in (positive, ~positive)
    )
    positives, negatives = int(positive.sum()), int((~positive).sum())
    called, cleared = int(yes.sum()), int(no.sum())
    return StateTable(
        positive=inside,
        negative=outside,
        sensitivity=Proportion.of(positives - inside.no, positives),
        specificity=Proportion.of(negatives - outside.yes, negatives),
        doubt=Proportion.of(int(doubt.sum()), len(positive)),
        ppv=Proportion.of(inside.yes, called) if called else None,
        npv=Proportion.of(outside.no, cleared) if cleared else None,
    )


def net_benefit(labels: ArrayLike, probabilities: ArrayLike, thresholds: ArrayLike) -> NetBenefit:
    """Return the decision curve: at threshold t, (true positives - false positives x t / (1 - t)) / n.

    Acting at t means that one true positive is worth (1 - t) / t false ones (Vickers & Elkin 2006). At a fixed
    threshold the net benefit is a mean over exams of 1 for a true positive, -t / (1 - t) for a false one and 0 for the
    others, so its standard error is their standard deviation (over n - 1) / sqrt(n), and the band is the normal
    interval at each threshold by itself: a closed form, no bootstrap. It takes exams to be drawn with the prevalence of
    those to come. Where nobody is called, the band has no width.

    Args:
        labels: (n,) the reference standard, 0 or 1, with at least two exams of each.
        probabilities: (n,) of 1, in [0, 1].
        thresholds: (k,) at least 0 and below 1.

    Raises:
        UserError: the arguments are not as described above.
    """
    positive = checked_labels(labels)
    probability = checked_probabilities(probabilities, positive)
    at = as_numbers(thresholds, "thresholds")
    if at.ndim != 1 or not ((at >= 0) & (at < 1)).all():
        raise UserError("the thresholds of a decision curve must be a list of numbers, each at least 0 and below 1")
    worth = np.where(positive, 1.0, -(at / (1 - at))[:, None])
    gains = np.where(probability >= at[:, None], worth, 0.0)
    model, error = gains.mean(axis=1), gains.std(axis=1, ddof=1) / np.sqrt(len(positive))
    return NetBenefit(
        thresholds=at,
        model=model,
        low=model - QUANTILE * error,
        high=model + QUANTILE * error,
        standard_error=error,
        treat_all=worth.mean(axis=1),
        treat_none=np.zeros(len(at)),
    )


def checked_fields(record: Any, names: Iterable[str], what: str) -> Mapping[str, Any]:
    """Return a JSON object that has exactly the fields `names`.

    Raises:
        UserError: not an object, or a field is missing or unknown.
    """
    if not isinstance(record, Mapping):
        raise UserError(f"{what} must be a JSON object, not {type(record).__name__}")
    missing, extra = set(names) - record.keys(), record.keys() - set(names)
    if missing or extra:
        wrong = [f"lack {', '.join(sorted(missing))}"] if missing else []
        wrong += [f"have unknown {', '.join(sorted(map(str, extra)))}"] if extra else []
        raise UserError(f"{what} {' and '.join(wrong)}; they are damaged or of another version")
    return record


def checked_number(value: Any, what: str) -> float:
    """Return a finite number from JSON as float.

    Raises:
        UserError: something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise UserError(f"{what} must be a finite number, not {value!r}")
    return float(value)


def checked_count(value: Any, what: str) -> int:
    """Return a whole number from JSON, at least 0 and exact in float64.

    Raises:
        UserError: something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        raise UserError(f"{what} must be a whole number from 0 to 2**53, not {value!r}")
    return value


def _proportion(record: Any, what: str) -> Proportion:
    """Restore a proportion from its counts; its value and interval must agree with them."""
    fields = checked_fields(record, ("value", "low", "high", "successes", "n"), f"{what}'s fields")
    successes, n = (checked_count(fields[name], f"{what}'s {name}") for name in ("successes", "n"))
    if not 0 <= successes <= n or n == 0:
        raise UserError(f"{what} cannot be {successes} of {n}")
    proportion = Proportion.of(successes, n)
    for name in ("value", "low", "high"):
        given = checked_number(fields[name], f"{what}'s {name}")
        if not math.isclose(given, getattr(proportion, name), rel_tol=0, abs_tol=1e-9):
            raise UserError(f"{what}'s {name} of {given} is not that of {successes} of {n}; the record was changed")
    return proportion


def _check_target(what: str, target: float) -> None:
    if not 0 < target <= 1:
        raise UserError(f"a target {what} lies above 0 and at most at 1, not at {target}")


def _needed(target: float, count: int) -> int:
    """The fewest of `count` whose share is at least `target`, by the very division that `Proportion` does."""
    return int(np.searchsorted(np.arange(count + 1) / count, target))
