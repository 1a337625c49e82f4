"""What a model decides at its fixed points, counted against the reference standard, as the page shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kneessl.evaluation import THRESHOLD, Proportion
from kneessl.evaluation.decisions import NEVER, OperatingPoints, StateTable, count_states
from kneessl.evaluation.predictive import (
    LikelihoodRatio,
    PredictiveValues,
    likelihood_ratios,
    predictive_values,
    sample_predictive_values,
)
from kneessl.report import wording
from kneessl.report.clinical_figures import Mark
from kneessl.report.content import Arm

TITLES = {"threshold": f"At {THRESHOLD}", "rule-out": "Rule-out", "rule-in": "Rule-in"}


@dataclass(frozen=True)
class Split:
    """Exams called positive and negative by one rule; intervals are Wilson's at 95 %."""

    kind: str
    """A key of `clinical_figures.MARKS`."""
    rule: str
    """What is called positive, in words."""
    sensitivity: Proportion
    specificity: Proportion
    ppv: Proportion | None
    """None where nothing is called positive."""
    npv: Proportion | None
    """None where nothing is called negative."""

    @classmethod
    def of(cls, kind: str, rule: str, labels: NDArray[np.int64], called: NDArray[np.bool_]) -> "Split":
        """Count `called` (n,) against labels (n,)."""
        positive = labels == 1
        tp, tn = int((called & positive).sum()), int((~called & ~positive).sum())
        fn, fp = int(positive.sum()) - tp, int((~positive).sum()) - tn
        here = sample_predictive_values(tp=tp, fn=fn, fp=fp, tn=tn)
        return cls(kind, rule, Proportion.of(tp, tp + fn), Proportion.of(tn, tn + fp), here.ppv, here.npv)

    @property
    def title(self) -> str:
        """What heads its row."""
        return TITLES[self.kind]

    def mark(self) -> Mark:
        """Where it lies on the ROC curve."""
        return Mark(self.kind, 1 - self.specificity.value, self.sensitivity.value)

    def at(self, prevalence: float) -> PredictiveValues:
        """Predictive values where the share of positives is another."""
        return predictive_values(**self._counts(), prevalence=prevalence)

    @property
    def ratios(self) -> list[tuple[str, ...]]:
        """LR+ and LR−, each in words with its interval; a dash for an answer that is never given."""
        values = likelihood_ratios(**self._counts())
        pairs = ((values.positive, self.ppv, "positive"), (values.negative, self.npv, "negative"))
        return [
            _ratio_cell(ratio, values.adjusted) if called else ("–", f"none called {answer}")
            for ratio, called, answer in pairs
        ]

    def _counts(self) -> dict[str, int]:
        tp, tn = self.sensitivity.successes, self.specificity.successes
        return {"tp": tp, "fn": self.sensitivity.n - tp, "fp": self.specificity.n - tn, "tn": tn}


@dataclass(frozen=True)
class PredictiveLine:
    """Predictive values at one stated share of positives: a cell for each of `COLUMNS`, in words."""

    prevalence: str
    cells: list[tuple[str, ...]]


COLUMNS = (
    ("threshold", "ppv", f"PPV at {THRESHOLD}"),
    ("threshold", "npv", f"NPV at {THRESHOLD}"),
    ("rule-out", "npv", "NPV of “no”"),
    ("rule-in", "ppv", "PPV of “yes”"),
)
"""Rule, figure and heading: what somebody who acts on a rule wants to know of it."""
ADJUSTED = "adjusted"
"""Marks a predictive value or a likelihood ratio that was worked out with a count of 0."""


def predictive_columns(rows: Sequence[Split]) -> list[str]:
    """The headings of `predictive_lines`."""
    kinds = {row.kind for row in rows}
    return [heading for kind, _, heading in COLUMNS if kind in kinds]


def predictive_lines(rows: Sequence[Split], prevalences: Mapping[str, float]) -> list[PredictiveLine]:
    """Predictive values of rules at stated shares of positives, with Mercaldo's intervals; a dash where none exists."""
    by_kind = {row.kind: row for row in rows}
    return [
        PredictiveLine(
            words,
            [_predictive_cell(by_kind[kind], figure, share) for kind, figure, _ in COLUMNS if kind in by_kind],
        )
        for words, share in prevalences.items()
    ]


def _predictive_cell(row: Split, figure: str, prevalence: float) -> tuple[str, ...]:
    if getattr(row, figure) is None:
        return "–", f"none called {'positive' if figure == 'ppv' else 'negative'}"
    values = row.at(prevalence)
    value = getattr(values, figure)
    texts = wording.percent_text(value.value), f"{100 * value.low:.1f} to {100 * value.high:.1f}"
    return (*texts, ADJUSTED) if values.adjusted else texts


def _ratio_cell(ratio: LikelihoodRatio, adjusted: bool) -> tuple[str, ...]:
    texts = wording.ratio_text(ratio.value), f"{wording.ratio_text(ratio.low)} to {wording.ratio_text(ratio.high)}"
    return (*texts, ADJUSTED) if adjusted else texts


@dataclass(frozen=True)
class LockedPoints:
    """The operating points of one set of planes, in words."""

    planes: str
    rule_out: str
    rule_in: str
    points: OperatingPoints


def splits(arm: Arm, labels: NDArray[np.int64]) -> list[Split]:
    """The threshold of 0.5, and both locked points where the model has them."""
    rows = [Split.of("threshold", f"a probability of {THRESHOLD} or more", labels, arm.probabilities >= THRESHOLD)]
    if arm.states:
        states, points = np.array(arm.states), locked_points(arm)
        alone = points[0] if len(points) == 1 else None
        rule_out = f"not “no”: {alone.rule_out} or more" if alone else "not “no”, by the points of each exam's planes"
        rule_in = f"“yes”: {alone.rule_in} or more" if alone else "“yes”, by the points of each exam's planes"
        if alone and alone.rule_in == "never":
            rule_in = "“yes”, which this model never says"
        rows.append(Split.of("rule-out", rule_out, labels, states != "no"))
        rows.append(Split.of("rule-in", rule_in, labels, states == "yes"))
    return rows


def states_of(arm: Arm, labels: NDArray[np.int64]) -> StateTable | None:
    """Count yes, doubt and no by label; None where nothing is locked with the model.

    Where exams differ in planes, each one's answer is that of its own planes' points.
    """
    return count_states(labels, arm.states) if arm.states else None


def locked_points(arm: Arm) -> list[LockedPoints]:
    """The points that were applied, a line for each set of planes."""
    return [
        LockedPoints(
            planes,
            f"{points.rule_out:.3f}",
            "never" if points.rule_in >= NEVER else f"{points.rule_in:.3f}",
            points,
        )
        for planes, points in arm.points.items()
    ]


def thresholds_of(arm: Arm) -> list[float]:
    """What is drawn among the scores: 0.5, or the locked points where all exams have the same planes."""
    if len(arm.points) != 1:
        return [THRESHOLD]
    points = next(iter(arm.points.values()))
    return [points.rule_out, points.rule_in]


def marks_of(rows: Sequence[Split]) -> list[Mark]:
    """Where rules lie on the ROC curve."""
    return [row.mark() for row in rows]
