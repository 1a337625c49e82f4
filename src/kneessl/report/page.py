"""Fill the page and write it: one HTML file with everything in it, no script, no network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kneessl.evaluation import THRESHOLD, AucDifference, Summary, compare_auc, order_like, summarise
from kneessl.files import write_text
from kneessl.report import figures, wording
from kneessl.report.content import Arm, Curve, Mistake, Views
from kneessl.report.figures import Picture
from kneessl.report.template import render

_VIEW_SIDE = 128
_MISTAKE_SIDE = 160
_SLICES_A_ROW = 8
"""More slices than this are thinned out evenly: the report stays a page, not an archive."""
_MISTAKES_A_KIND = 6
"""At most so many missed exams and so many false alarms are shown for each arm."""


@dataclass(frozen=True)
class _Key:
    """A name and how its line is drawn in the figures."""

    name: str
    colour: str
    dashes: str


@dataclass(frozen=True)
class _Result:
    key: _Key
    summary: Summary
    scores: Picture
    difference: AucDifference | None
    """To the first arm; None for the first arm itself."""


@dataclass(frozen=True)
class _Strip:
    """Some slices of one exam side by side, and what is said about them."""

    heading: str
    side: int
    """The longest side of a picture, in pixels."""
    pictures: list[tuple[Picture, str]]
    shown: str
    """How many of how many slices, empty where all are shown."""


@dataclass(frozen=True)
class _Mistakes:
    arm: str
    wrong: int
    shown: int
    missed: list[_Strip]
    false_alarms: list[_Strip]


def write_report(
    path: Path,
    *,
    title: str,
    lead: str,
    facts: Sequence[tuple[str, str]],
    data: Sequence[Mapping[str, str | int | float]],
    data_note: str,
    settings: Mapping[str, Mapping[str, object]],
    curves: Sequence[Curve],
    warnings: Sequence[str],
    views: Sequence[Views],
    arms: Sequence[Arm],
    task: str,
    plane: str,
) -> None:
    """Write the report of a run to `path`, whole or not at all; the same arguments give the same bytes.

    Whatever is empty is left out. All text is escaped; none of it is read as HTML.

    Args:
        path: the HTML file; it is replaced if it exists.
        title: what the run was.
        lead: one paragraph that sums it up.
        facts: name and value of what a reader wants first: method, exams, epochs, time.
        data: rows of the data table; its columns are the keys, in the order they are met.
        data_note: what a reader must know about the data, shown prominently.
        settings: section to name to value.
        curves: training runs, whose metrics are drawn side by side.
        warnings: what went wrong or may mislead, shown before anything else.
        views: exams as they are and as augmentation changes them.
        arms: evaluated models, all on the same exams; the first is the one that the others are compared with.
        task: the finding, such as "acl".
        plane: such as "sagittal".

    Raises:
        UserError: arms are not on the same exams with the same labels, or cannot be summarised
            (see `kneessl.evaluation.summarise`).
    """
    aligned = [_aligned(arm, arms[0]) for arm in arms]
    results = _results(aligned)
    write_text(
        path,
        render(
            "page.html",
            title=title,
            lead=lead,
            facts=facts,
            data=data,
            data_columns=list(dict.fromkeys(column for row in data for column in row)),
            data_note=data_note,
            settings={section: values for section, values in settings.items() if values},
            warnings=warnings,
            task=task,
            plane=plane,
            threshold=THRESHOLD,
            results=results,
            precision=_precision([result.summary for result in results]) if results else "",
            roc=figures.roc(aligned, [result.summary for result in results]) if results else None,
            mistakes=[_mistakes(result, arm) for result, arm in zip(results, aligned, strict=True)],
            runs=[_key(curve.name, index) for index, curve in enumerate(curves)],
            metrics=[(name, figures.training(curves, name)) for name in figures.columns(curves)],
            views=[(exam.name, [_view(exam.name, *row) for row in exam.rows]) for exam in views],
        ),
    )


def _aligned(arm: Arm, first: Arm) -> Arm:
    """Return `arm` with its exams in the order of `first`."""
    order = order_like(first, arm)
    return Arm(arm.name, first.exams, np.asarray(arm.labels)[order], np.asarray(arm.scores)[order], arm.mistakes)


def _precision(summaries: Sequence[Summary]) -> str:
    return wording.precision_text(summaries[0].n, summaries[0].positives, [summary.auc for summary in summaries])


def _results(arms: Sequence[Arm]) -> list[_Result]:
    return [
        _Result(
            key=_key(arm.name, index),
            summary=summarise(arm.labels, arm.scores, THRESHOLD),
            scores=figures.scores_by_class(arm, THRESHOLD),
            difference=compare_auc(arm.labels, arm.scores, arms[0].scores) if index else None,
        )
        for index, arm in enumerate(arms)
    ]


def _mistakes(result: _Result, arm: Arm) -> _Mistakes:
    missed, false_alarms = (
        [_mistake(mistake) for mistake in arm.mistakes if mistake.label == label][:_MISTAKES_A_KIND] for label in (1, 0)
    )
    return _Mistakes(
        arm=arm.name,
        wrong=result.summary.fp + result.summary.fn,
        shown=len(missed) + len(false_alarms),
        missed=missed,
        false_alarms=false_alarms,
    )


def _mistake(mistake: Mistake) -> _Strip:
    answer = "positive" if mistake.label == 1 else "negative"
    heading = f"Exam {mistake.exam}: labelled {answer}, probability {mistake.score:.3f}"
    return _strip(heading, f"exam {mistake.exam}", mistake.slices, mistake.captions, _MISTAKE_SIDE)


def _view(exam: str, label: str, slices: NDArray[np.uint8]) -> _Strip:
    return _strip(label, f"{exam}, {label}", slices, (), _VIEW_SIDE)


def _strip(heading: str, subject: str, slices: NDArray[np.uint8], captions: Sequence[str], side: int) -> _Strip:
    total = len(slices)
    chosen = sorted(set(np.linspace(0, total - 1, min(total, _SLICES_A_ROW)).round().astype(int).tolist()))
    pictures = []
    for index in chosen:
        caption = captions[index] if captions else ""
        alt = f"{subject}, {caption or f'image {index + 1} of {total}'}"
        pictures.append((figures.grey(slices[index], side, alt), caption))
    shown = f"{len(chosen)} of {total} slices, evenly spaced" if len(chosen) < total else ""
    return _Strip(heading, side, pictures, shown)


def _key(name: str, index: int) -> _Key:
    return _Key(
        name,
        figures.COLOURS[index % len(figures.COLOURS)],
        figures.DASHES[index % len(figures.DASHES)],
    )
