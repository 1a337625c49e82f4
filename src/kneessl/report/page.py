"""The report of a training run: one HTML file with everything in it, no script, no network."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from kneessl.files import write_text
from kneessl.report.content import Curve, Views
from kneessl.report.strips import shown_curves, shown_views
from kneessl.report.template import render


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
        task: the finding, such as "acl".
        plane: such as "sagittal".
    """
    runs, metrics = shown_curves(curves)
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
            runs=runs,
            metrics=metrics,
            views=shown_views(views),
        ),
    )
