"""The page of an evaluation: one HTML file that a clinical reviewer can read from top to bottom."""

from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from kneessl.evaluation import THRESHOLD
from kneessl.report.checklist import Anchor, checklists
from kneessl.report.clinical import Chapter, chapter
from kneessl.report.content import Curve, Evaluated, EvaluatedFinding, Views
from kneessl.report.page import PageHead, write_page
from kneessl.report.strips import shown_curves, shown_views
from kneessl.report.table import columns_of

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
GENERAL = {"data": "data", "curves": "training", "views": "augmented views", "settings": "settings"}
"""What the page may have besides, and how links to it read."""


def write_evaluation_page(
    path: Path,
    head: PageHead,
    evaluated: Evaluated,
    data: Sequence[Mapping[str, str | int | float]],
    findings: Sequence[EvaluatedFinding],
    curves: Sequence[Curve],
    views: Sequence[Views],
) -> None:
    """Write the page of an evaluation, as `write_page` does.

    Args:
        path: The HTML file.
        head: What it says besides.
        evaluated: What was evaluated, and what was fixed beforehand.
        data: Rows of the data table; its columns are the keys, in the order they are met.
        findings: One a task, all with the same models; at least one.
        curves: Training runs, whose metrics are drawn side by side.
        views: Exams as they are and as augmentation changes them.

    Raises:
        UserError: labels or probabilities cannot be summarised (see `kneessl.evaluation.summarise`).
    """
    chapters = [chapter(finding, number) for number, finding in enumerate(findings, start=1)]
    runs, metrics = shown_curves(curves)
    general = {"data": data, "curves": metrics, "views": views, "settings": head.filled_settings}
    page = _anchors(evaluated, {kind for kind, content in general.items() if content}, chapters)
    write_page(
        path,
        "evaluation.html",
        head,
        contents=_contents(page, chapters),
        evaluated=evaluated,
        data=data,
        data_columns=columns_of(data),
        chapters=chapters,
        threshold=THRESHOLD,
        runs=runs,
        metrics=metrics,
        views=shown_views(views),
        checklists=checklists(page),
    )


def _anchors(evaluated: Evaluated, filled: Container[str], chapters: Sequence[Chapter]) -> dict[str, list[Anchor]]:
    """What may be linked to, by kind; a kind of section that some chapter lacks has none.

    Args:
        evaluated: What was evaluated.
        filled: Which of `GENERAL` the page has.
        chapters: One a finding.
    """
    page = {
        "summary": [Anchor("title", "summary")],
        "counts": [Anchor("exams", "counts")],
        "models": [Anchor("models", "models")],
        "fixed": [Anchor("fixed beforehand", "fixed")],
        evaluated.place: [Anchor(evaluated.heading.lower(), evaluated.place)],
    }
    page |= {kind: [Anchor(label, kind)] for kind, label in GENERAL.items() if kind in filled}
    for kind, label in SECTIONS.items():
        where = [chapter for chapter in chapters if kind in chapter.kinds]
        if len(where) == len(chapters):
            page[kind] = [
                Anchor(label if len(chapters) == 1 else f"{label} ({chapter.task})", f"{chapter.id}-{kind}")
                for chapter in where
            ]
    return page


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
