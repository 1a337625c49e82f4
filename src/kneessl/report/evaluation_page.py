"""The page of an evaluation: one HTML file that a clinical reviewer can read from top to bottom."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from kneessl.evaluation import THRESHOLD
from kneessl.files import write_text
from kneessl.report.checklist import Anchor, checklists
from kneessl.report.clinical import Chapter, chapter
from kneessl.report.content import Curve, Evaluated, Finding, Views
from kneessl.report.strips import shown_curves, shown_views
from kneessl.report.template import render

SECTIONS = {
    "discrimination": "discrimination",
    "decisions": "decisions",
    "doubt": "share of doubt",
    "calibration": "calibration",
    "utility": "clinical utility",
    "abstention": "abstaining",
    "subgroups": "subgroups",
    "mistakes": "worst mistakes",
    "heat": "where it looked",
}
"""What a chapter may have, in its order, and how links to it read."""


def write_evaluation_page(
    path: Path,
    *,
    title: str,
    lead: str,
    data_note: str,
    warnings: Sequence[str],
    evaluated: Evaluated,
    data: Sequence[Mapping[str, str | int | float]],
    findings: Sequence[Finding],
    curves: Sequence[Curve],
    views: Sequence[Views],
    settings: Mapping[str, Mapping[str, object]],
) -> None:
    """Write the page of an evaluation to `path`, whole or not at all; the same arguments give the same bytes.

    Whatever is empty is left out. All text is escaped; none of it is read as HTML.

    Args:
        path: the HTML file; it is replaced if it exists.
        title: what was evaluated.
        lead: one paragraph that sums it up.
        data_note: what a reader must know about the data, shown prominently.
        warnings: what went wrong or may mislead, shown before anything else.
        evaluated: what was evaluated, and what was fixed beforehand.
        data: rows of the data table; its columns are the keys, in the order they are met.
        findings: one a task, all with the same models; at least one.
        curves: training runs, whose metrics are drawn side by side.
        views: exams as they are and as augmentation changes them.
        settings: section to name to value.

    Raises:
        UserError: labels or probabilities cannot be summarised (see `kneessl.evaluation.summarise`).
    """
    chapters = [chapter(finding, number) for number, finding in enumerate(findings, start=1)]
    runs, metrics = shown_curves(curves)
    shown_settings = {section: values for section, values in settings.items() if values}
    page: dict[str, list[Anchor]] = {
        "summary": [Anchor("title", "summary")],
        "counts": [Anchor("exams", "counts")],
        "models": [Anchor("models", "models")],
        "fixed": [Anchor("fixed beforehand", "fixed")],
        evaluated.place: [Anchor(evaluated.heading.lower(), evaluated.place)],
    }
    for kind, there, label in (
        ("data", data, "data"),
        ("curves", metrics, "training"),
        ("views", views, "augmented views"),
        ("settings", shown_settings, "settings"),
    ):
        if there:
            page[kind] = [Anchor(label, kind)]
    for kind, label in SECTIONS.items():
        where = [one for one in chapters if kind in one.kinds]
        if len(where) == len(chapters):
            page[kind] = [
                Anchor(label if len(chapters) == 1 else f"{label} ({one.task})", f"{one.id}-{kind}") for one in where
            ]
    write_text(
        path,
        render(
            "evaluation.html",
            title=title,
            lead=lead,
            warnings=warnings,
            data_note=data_note,
            facts=[],
            task="",
            plane="",
            contents=_contents(page, chapters),
            evaluated=evaluated,
            data=data,
            data_columns=list(dict.fromkeys(column for row in data for column in row)),
            chapters=chapters,
            threshold=THRESHOLD,
            runs=runs,
            metrics=metrics,
            views=shown_views(views),
            settings=shown_settings,
            checklists=checklists(page),
        ),
    )


def _contents(page: Mapping[str, Sequence[Anchor]], chapters: Sequence[Chapter]) -> list[tuple[Anchor, bool]]:
    """The table of contents: each entry, and whether it belongs under the one before."""
    entries = [(Anchor("What was evaluated", "evaluated"), False)]
    if "data" in page:
        entries.append((Anchor("Data", "data"), False))
    for one in chapters:
        entries.append((Anchor(f"Finding: {one.task}", one.id), False))
        entries += [
            (Anchor(label[0].upper() + label[1:], f"{one.id}-{kind}"), True)
            for kind, label in SECTIONS.items()
            if kind in one.kinds and kind not in {"doubt", "heat"}
        ]
    for kind, label in (("curves", "Training"), ("views", "Augmented views"), ("settings", "Settings")):
        if kind in page:
            entries.append((Anchor(label, kind), False))
    return [*entries, (Anchor("Checklists", "checklist"), False)]
