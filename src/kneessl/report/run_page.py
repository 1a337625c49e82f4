"""The report of a training run: one HTML file with everything in it, no script, no network."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from kneessl.report.content import Curve, Views
from kneessl.report.page import PageHead, write_page
from kneessl.report.strips import shown_curves, shown_views
from kneessl.report.table import columns_of


def write_run_page(
    path: Path,
    head: PageHead,
    data: Sequence[Mapping[str, str | int | float]],
    curves: Sequence[Curve],
    views: Sequence[Views],
) -> None:
    """Write the report of a run, as `write_page` does.

    Args:
        path: The HTML file.
        head: What the run was.
        data: Rows of the data table; its columns are the keys, in the order they are met.
        curves: Training runs, whose metrics are drawn side by side.
        views: Exams as they are and as augmentation changes them.
    """
    runs, metrics = shown_curves(curves)
    write_page(
        path,
        "run.html",
        head,
        data=data,
        data_columns=columns_of(data),
        runs=runs,
        metrics=metrics,
        views=shown_views(views),
    )
