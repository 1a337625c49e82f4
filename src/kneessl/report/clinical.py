"""One finding's chapter of an evaluation page: every figure worked out, ready for the template."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kneessl.errors import UserError
from kneessl.evaluation import THRESHOLD, AucDifference, Summary, compare_auc, summarise
from kneessl.evaluation.abstention import RiskCoverage, risk_coverage
from kneessl.evaluation.bootstrap import Interval, bootstrap_difference, bootstrap_interval, roc_area
from kneessl.evaluation.calibration import Calibration, calibration, reliability
from kneessl.evaluation.claims import false_accuracy_claim
from kneessl.evaluation.decisions import StateTable, net_benefit
from kneessl.evaluation.precision import AuprcInterval, auprc_interval
from kneessl.report import clinical_figures, wording
from kneessl.report.content import Arm, EvaluatedFinding, Mistake
from kneessl.report.figures import Picture
from kneessl.report.operating import (
    ADJUSTED,
    LockedPoints,
    PredictiveLine,
    Split,
    locked_points,
    marks_of,
    predictive_columns,
    predictive_lines,
    splits,
    states_of,
    thresholds_of,
)
from kneessl.report.strips import Key, Strip, grey_strip, key, strip
from kneessl.report.subgroup_table import SubgroupTable, subgroup_tables

NET_BENEFIT_AT = (0.05, 0.1, 0.2, 0.3, 0.5)
"""Thresholds whose net benefit stands in the table."""
HIGHEST_THRESHOLD = 0.8
"""Where the decision curve ends: nobody acts only when he is surer than that."""
_MISTAKE_SIDE = 160


@dataclass(frozen=True)
class Benefit:
    """Net benefit at one threshold, in words."""

    threshold: float
    arms: list[tuple[str, str]]
    treat_all: str


@dataclass(frozen=True)
class Mistakes:
    """What one arm got wrong at 0.5."""

    wrong: int
    shown: int
    missed: list[list[Strip]]
    """For each exam its slices, and the same with heat where there is one."""
    false_alarms: list[list[Strip]]
    heat: str
    """What the heat shows; empty where there is none."""


@dataclass(frozen=True)
class Calibrated:
    """How an arm's probabilities agree with the labels, as they came and as they are now."""

    rows: list[tuple[str, Calibration]]
    picture: Picture


@dataclass(frozen=True)
class Result:
    """One arm on a finding's exams."""

    key: Key
    summary: Summary
    difference: AucDifference | None
    """To the index model; None for the index model itself."""
    accuracy_p_false: float | None
    """How probable it is that the ranking of its accuracy and the index model's is false; None for the index model."""
    clustered_difference: tuple[str, ...]
    """The same over resampled patients, in words; empty where every patient has one exam."""
    scores: Picture
    splits: list[Split]
    states: StateTable | None
    points: list[LockedPoints]
    calibrated: Calibrated
    risk: RiskCoverage
    clustered: tuple[str, ...]
    """AUROC over resampled patients, in words; empty where every patient has one exam."""
    auprc: tuple[str, ...]
    """In words."""
    notes: list[str]
    """Why one of these could not be worked out."""
    predictive_columns: list[str]
    predictive: list[PredictiveLine]
    mistakes: Mistakes


@dataclass(frozen=True)
class Chapter:
    """All that a page says of one finding."""

    id: str
    """Starts the ids of its sections."""
    task: str
    n: int
    positives: int
    patients: int
    repeated: int
    """Patients with more than one exam."""
    results: list[Result]
    precision: str
    roc: Picture
    utility: Picture
    benefit: list[Benefit]
    risk: Picture
    methods: str
    """How the intervals of discrimination were made."""
    predictive_note: str
    subgroups: list[SubgroupTable]

    @property
    def recalibrated(self) -> bool:
        """Whether some model has its recalibration locked."""
        return any(len(result.calibrated.rows) > 1 for result in self.results)

    @property
    def first_locked(self) -> Result | None:
        """The first model with locked operating points."""
        return next((result for result in self.results if result.states), None)

    @property
    def first_heat(self) -> Result | None:
        """The first model with heat on its mistakes."""
        return next((result for result in self.results if result.mistakes.shown and result.mistakes.heat), None)

    @property
    def kinds(self) -> set[str]:
        """Which sections this chapter has."""
        kinds = {"discrimination", "decisions", "calibration", "utility", "abstention"}
        if self.first_locked:
            kinds.add("doubt")
        if self.subgroups:
            kinds.add("subgroups")
        if any(result.mistakes.shown for result in self.results):
            kinds.add("mistakes")
        if self.first_heat:
            kinds.add("heat")
        return kinds


def chapter(finding: EvaluatedFinding, number: int) -> Chapter:
    """Work out one finding's chapter.

    Raises:
        UserError: labels or probabilities cannot be summarised (see `kneessl.evaluation.summarise`).
    """
    labels = finding.labels
    names = [arm.name for arm in finding.arms]
    thresholds = np.arange(1, round(100 * HIGHEST_THRESHOLD) + 1) / 100
    curves = [net_benefit(labels, arm.probabilities, thresholds) for arm in finding.arms]
    sizes = np.unique(np.asarray(finding.groups), return_counts=True)[1]
    repeated = int((sizes > 1).sum())
    results = [_result(finding, arm, index, repeated > 0) for index, arm in enumerate(finding.arms)]
    aucs = [result.summary.auc for result in results]
    return Chapter(
        id=f"finding-{number}",
        task=finding.task,
        n=len(labels),
        positives=int(labels.sum()),
        patients=len(sizes),
        repeated=repeated,
        results=results,
        precision=wording.precision_text(len(labels), int(labels.sum()), aucs),
        roc=clinical_figures.roc(finding, [marks_of(result.splits) for result in results], [auc.auc for auc in aucs]),
        utility=clinical_figures.decision_curve(curves, names),
        benefit=[
            Benefit(
                at,
                [(wording.number_text(c.model[i], 3), wording.interval_text(c.low[i], c.high[i], 3)) for c in curves],
                wording.number_text(curves[0].treat_all[i], 3),
            )
            for at, i in zip(NET_BENEFIT_AT, np.searchsorted(thresholds, NET_BENEFIT_AT), strict=True)
        ],
        risk=clinical_figures.risk_coverage([result.risk for result in results], names),
        methods=_methods(len(sizes), repeated),
        predictive_note=_predictive_note(results),
        subgroups=subgroup_tables(finding),
    )


def _result(finding: EvaluatedFinding, arm: Arm, index: int, repeated: bool) -> Result:
    labels, groups = finding.labels, finding.groups if repeated else None
    rows = splits(arm, labels)
    scores, first = arm.probabilities, finding.arms[0].probabilities
    auprc, no_auprc = _attempt("the AUPRC", lambda: _precision_recall(auprc_interval(labels, scores, groups)))
    clustered: tuple[str, ...] = ()
    difference: tuple[str, ...] = ()
    no_clustered = no_difference = ""
    if groups is not None:
        clustered, no_clustered = _attempt(
            "the AUROC over patients", lambda: _resampled(bootstrap_interval(roc_area, labels, scores, groups))
        )
    if groups is not None and index:
        difference, no_difference = _attempt(
            "the difference over patients",
            lambda: _difference(bootstrap_difference(roc_area, labels, scores, first, groups)),
        )
    summary = summarise(labels, arm.probabilities, THRESHOLD)
    return Result(
        key=key(arm.name, index),
        summary=summary,
        difference=compare_auc(labels, arm.probabilities, first) if index else None,
        accuracy_p_false=false_accuracy_claim(labels, scores, first) if index else None,
        scores=clinical_figures.scores_by_class(labels, arm.probabilities, thresholds_of(arm), arm.name),
        splits=rows,
        states=states_of(arm, labels),
        points=locked_points(arm),
        calibrated=_calibrated(arm, labels),
        risk=risk_coverage(labels, arm.probabilities, THRESHOLD),
        clustered=clustered,
        clustered_difference=difference,
        auprc=auprc,
        notes=[f"{arm.name}: {why}" for why in (no_clustered, no_difference, no_auprc) if why],
        predictive_columns=predictive_columns(rows),
        predictive=predictive_lines(rows, finding.prevalences),
        mistakes=_mistakes(summary, arm),
    )


def _attempt(figure: str, make: Callable[[], tuple[str, str]]) -> tuple[tuple[str, ...], str]:
    """A figure with its interval in words, or a dash; and in that case a sentence that says why."""
    try:
        return make(), ""
    except UserError as error:
        return ("–",), f"{figure} has no interval: {error}."


def _resampled(interval: Interval) -> tuple[str, str]:
    return f"{interval.value:.3f}", f"{interval.low:.3f} to {interval.high:.3f}"


def _difference(interval: Interval) -> tuple[str, str]:
    low, high = wording.signed_text(interval.low), wording.signed_text(interval.high)
    return wording.signed_text(interval.value), f"{low} to {high}"


def _precision_recall(interval: AuprcInterval) -> tuple[str, str]:
    return f"{interval.auprc:.3f}", f"{interval.low:.3f} to {interval.high:.3f}"


def _methods(patients: int, repeated: int) -> str:
    """How the intervals of discrimination were made."""
    auprc = "AUPRC: average precision, to be read against the prevalence, which is what guessing gets;"
    if not repeated:
        return (
            "AUROC: DeLong's 95 % interval. "
            f"{auprc} its 95 % interval is a jackknife's on the logit scale. As far as is known, every patient has one "
            "exam here, so that exams are independent."
        )
    return (
        f"AUROC: DeLong's 95 % interval, which takes exams as independent. {repeated:,} of {patients:,} patients have "
        "more than one exam, so beside it stands a BCa bootstrap over whole patients, stratified by whether they have "
        f"a positive exam, 2,000 replicates. {auprc} its 95 % interval is a jackknife's over whole patients, on the "
        "logit scale. All other intervals of this report take exams as independent, which makes them a little too "
        "narrow where patients come back."
    )


def _predictive_note(results: Sequence[Result]) -> str:
    """How predictive values elsewhere were worked out."""
    note = (
        "Those come by Bayes's theorem from the sensitivity and specificity here, with Mercaldo's 95 % logit "
        "intervals, which take the share of positives as known."
    )
    adjusted = any(ADJUSTED in cell for result in results for line in result.predictive for cell in line.cells)
    return note + (
        " Adjusted: one of the four counts is 0, so 1.92 was added to each (Mercaldo's adjusted interval), and for "
        "likelihood ratios 0.5."
        if adjusted
        else ""
    )


def _calibrated(arm: Arm, labels: NDArray[np.int64]) -> Calibrated:
    bins = min(10, max(3, len(labels) // 10))
    after = reliability(labels, arm.probabilities, bins)
    if arm.before is None:
        rows = [("as the network gives them", calibration(labels, arm.probabilities))]
        return Calibrated(rows, clinical_figures.reliability([], after, arm.name))
    rows = [
        ("before recalibration", calibration(labels, arm.before)),
        ("after recalibration", calibration(labels, arm.probabilities)),
    ]
    return Calibrated(rows, clinical_figures.reliability(reliability(labels, arm.before, bins), after, arm.name))


def _mistakes(summary: Summary, arm: Arm) -> Mistakes:
    missed, false_alarms = (
        [_mistake(mistake) for mistake in arm.mistakes if mistake.label == label] for label in (1, 0)
    )
    return Mistakes(
        wrong=summary.fp + summary.fn,
        shown=len(missed) + len(false_alarms),
        missed=missed,
        false_alarms=false_alarms,
        heat=arm.heat if any(mistake.heat is not None for mistake in arm.mistakes) else "",
    )


def _mistake(mistake: Mistake) -> list[Strip]:
    answer = "positive" if mistake.label == 1 else "negative"
    heading = f"Exam {mistake.exam}: labelled {answer}, probability {mistake.score:.3f}"
    subject = f"exam {mistake.exam}"
    strips = [grey_strip(heading, subject, mistake.slices, mistake.captions, _MISTAKE_SIDE)]
    if mistake.heat is not None:
        heat, slices = mistake.heat, mistake.slices
        strongest = float(np.abs(heat).max()) or 1.0

        def draw(index: int, alt: str) -> Picture:
            return clinical_figures.overlay(slices[index], heat[index], strongest, _MISTAKE_SIDE, alt)

        strips.append(strip("", f"{subject}, with heat", len(slices), (), _MISTAKE_SIDE, draw))
    return strips
