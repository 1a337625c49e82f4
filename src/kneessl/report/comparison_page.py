"""The HTML page of a comparison of methods: one file with everything in it, as the report of a run."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kneessl.evaluation import THRESHOLD, ComparedArm, ComparisonRow, MeanAuc, mean_roc, ranked
from kneessl.report import figures, wording
from kneessl.report.figures import Picture
from kneessl.report.page import PageHead, write_page


@dataclass(frozen=True)
class _Readout:
    """One of the two ways in which an arm is read, and how it is drawn."""

    title: str
    short: str
    of: Callable[[ComparisonRow], MeanAuc | None]
    scores: Callable[[ComparedArm], NDArray[np.float64] | None]
    colour: str
    dashes: str
    has_accuracy: bool
    """Whether its scores are probabilities, for which a threshold is fixed."""


_READOUTS = (
    _Readout(
        title="After fine-tuning",
        short="fine-tuned",
        of=lambda row: row.fine_tuned,
        scores=lambda arm: arm.fine_tuned,
        colour=figures.COLOURS[0],
        dashes=figures.DASHES[0],
        has_accuracy=True,
    ),
    _Readout(
        title="Linear probe on frozen features",
        short="frozen",
        of=lambda row: row.frozen,
        scores=lambda arm: arm.frozen,
        colour=figures.COLOURS[1],
        dashes=figures.DASHES[1],
        has_accuracy=False,
    ),
)
_GREY = "#8b949e"


@dataclass(frozen=True)
class _ForestLine:
    """One arm of a forest plot; positions are in per cent of the plot's width."""

    row: ComparisonRow
    alt: str
    mean: float
    low: float
    high: float
    seeds: list[float]


@dataclass(frozen=True)
class _Forest:
    readout: _Readout
    lines: list[_ForestLine]
    ticks: list[tuple[float, str]]
    chance: float
    """Where an AUC of 0.5 lies."""
    reference: float | None


@dataclass(frozen=True)
class _Panel:
    row: ComparisonRow
    picture: Picture


def write_comparison_page(
    path: Path, head: PageHead, rows: Sequence[ComparisonRow], arms: Sequence[ComparedArm]
) -> None:
    """Write the page of a comparison, as `write_page` does; its warnings are joined by those about the arms.

    Args:
        path: The HTML file.
        head: What was compared; its settings are those that were the same for all arms.
        rows: Of `kneessl.evaluation.compare_arms`; at least one, sorted here.
        arms: What the rows were made of; their scores give the ROC curves.
    """
    order = ranked(rows)
    scored = [row for row in order if row.scored]
    readouts = [readout for readout in _READOUTS if any(readout.of(row) for row in rows)]
    reference = next(row for row in rows if row.is_reference)
    aucs = [auc.interval for row in scored for readout in readouts if (auc := readout.of(row))]
    positives = scored[0].positives if scored else 0
    write_page(
        path,
        "comparison.html",
        replace(head, warnings=[*head.warnings, *_warnings(order, reference)]),
        rows=order,
        scored=scored,
        readouts=readouts,
        columns=sum(3 if readout.has_accuracy else 2 for readout in readouts),
        reference=reference,
        precision=wording.precision_text(scored[0].exams, positives, aucs) if scored else "",
        verdicts=[(readout, text) for readout in readouts if (text := _verdict(readout, scored, reference))],
        threshold=THRESHOLD,
        majority=max(positives, scored[0].exams - positives) / scored[0].exams if scored else 0.0,
        comparisons=max((sum(_differs(readout, row) for row in rows) for readout in readouts), default=0),
        published=any(row.published for row in rows),
        forests=_forests(readouts, scored, reference),
        panels=_panels(readouts, scored, {arm.name: arm for arm in arms}, reference),
        costs=[row for row in order if row.parameters is not None or row.seconds or row.memory_bytes],
        grey=_GREY,
    )


def _warnings(rows: Sequence[ComparisonRow], reference: ComparisonRow) -> list[str]:
    """Say what went wrong, arm by arm, and what becomes of the comparison if it was the reference's."""
    warnings = []
    if not reference.scored:
        warnings.append(
            f"{reference.name}, with which all others were to be compared, failed: there are no differences."
        )
    elif not reference.sound:
        warnings.append(
            f"{reference.name}, with which all others are compared, collapsed: "
            "a difference to it says nothing of the methods."
        )
    for row in rows:
        warnings += [f"{row.name} {flag}." for flag in wording.flag_texts(row, reasons=True)]
    return warnings


def _verdict(readout: _Readout, scored: Sequence[ComparisonRow], reference: ComparisonRow) -> str:
    """Say which arms differ from the reference, where all that are named are sound."""
    if not reference.sound:
        return ""
    return wording.verdict_text((row.name, auc) for row in scored if row.sound and (auc := readout.of(row)))


def _differs(readout: _Readout, row: ComparisonRow) -> bool:
    auc = readout.of(row)
    return auc is not None and auc.p_holm is not None


def _forests(readouts: Sequence[_Readout], scored: Sequence[ComparisonRow], reference: ComparisonRow) -> list[_Forest]:
    """Lay out one forest plot a readout, on one axis, in whole tenths round all figures and 0.5."""
    aucs = [auc for row in scored for readout in readouts if (auc := readout.of(row))]
    low = min((value for auc in aucs for value in (auc.interval.low, *auc.by_seed)), default=0.5)
    high = max((value for auc in aucs for value in (auc.interval.high, *auc.by_seed)), default=1.0)
    first = math.floor(round(10 * min(low, 0.5), 6))
    last = max(math.ceil(round(10 * high, 6)), 6)
    step = 1 if last - first <= 6 else 2

    def place(auc: float) -> float:
        return round(100 * (10 * auc - first) / (last - first), 2)

    forests = []
    for readout in readouts:
        lines = [_forest_line(row, auc, place) for row in scored if (auc := readout.of(row))]
        at = readout.of(reference)
        forests.append(
            _Forest(
                readout=readout,
                lines=lines,
                ticks=[
                    (place(tenth / 10), f"{tenth / 10:.1f}")
                    for tenth in range(first, last + 1)
                    if not (tenth - 5) % step
                ],
                chance=place(0.5),
                reference=place(at.interval.auc) if at else None,
            )
        )
    return forests


def _forest_line(row: ComparisonRow, auc: MeanAuc, place: Callable[[float], float]) -> _ForestLine:
    value, interval = wording.auc_text(auc.interval)
    return _ForestLine(
        row=row,
        alt=f"AUC {value}, 95 % interval {interval}; by seed {', '.join(f'{seed:.3f}' for seed in auc.by_seed)}",
        mean=place(auc.interval.auc),
        low=place(auc.interval.low),
        high=place(auc.interval.high),
        seeds=[place(seed) for seed in auc.by_seed],
    )


def _panels(
    readouts: Sequence[_Readout],
    scored: Sequence[ComparisonRow],
    arms: Mapping[str, ComparedArm],
    reference: ComparisonRow,
) -> list[_Panel]:
    """Draw every arm's ROC curves, averaged over seeds, over the reference's; a collapsed arm's are grey and alone."""
    panels = []
    for row in scored:
        lines = _roc_lines(readouts, arms[row.name], grey=not row.sound)
        if row.sound and reference.sound and row is not reference:
            lines = [*_roc_lines(readouts, arms[reference.name], grey=True), *lines]
        areas = "; ".join(
            f"{readout.short}: AUC {auc.interval.auc:.3f}" for readout in readouts if (auc := readout.of(row))
        )
        alt = f"ROC curve of {row.name}, sensitivity against 1 − specificity, mean over seeds. {areas}."
        panels.append(_Panel(row, figures.small_roc(lines, alt)))
    return panels


def _roc_lines(readouts: Sequence[_Readout], arm: ComparedArm, grey: bool) -> list[figures.RocLine]:
    """The arm's curve by each readout, after fine-tuning on top."""
    lines = []
    for readout in reversed(readouts):
        scores = readout.scores(arm)
        if scores is not None:
            false_alarms, hits = mean_roc(arm.labels, scores)
            colour, width = (_GREY, 1.0) if grey else (readout.colour, 1.6)
            lines.append(figures.RocLine(false_alarms, hits, colour, readout.dashes, width))
    return lines
