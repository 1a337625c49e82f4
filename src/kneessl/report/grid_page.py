"""The HTML page of an imbalance grid, one file with everything in it."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from kneessl.evaluation.gap import BALANCED, OverSeeds
from kneessl.evaluation.imbalance import GROUPS
from kneessl.report import grid_figures, wording
from kneessl.report.grid_content import OUT_OF_DOMAIN, READOUTS, GridRow, ratio_text
from kneessl.report.grid_figures import Measure
from kneessl.report.grid_table import interval_text, spread_text
from kneessl.report.grid_verdict import verdicts
from kneessl.report.page import PageHead, write_page

CAPTIONS: Mapping[Measure, str] = {
    "accuracy": "Accuracy A(n, r)",
    "gap": "Relative gap Δ(n, r)",
}


def write_grid_page(
    path: Path,
    head: PageHead,
    rows: Sequence[GridRow],
    classes: Sequence[str],
    reference: str,
    elsewhere: str | None,
) -> None:
    """Write the page of an imbalance grid, as `write_page` does.

    Args:
        path: The HTML file.
        head: What was compared; its settings are those that were the same for all cells.
        rows: The cells, at least one, all with the same domains.
        classes: Names of the classes, the commonest first.
        reference: The arm that the others are compared with.
        elsewhere: The data set out of domain, in words; None where there is none.
    """
    shown = [
        (CAPTIONS[m], grid_figures.keys(rows, m), grid_figures.picture(rows, m)) for m in CAPTIONS if _any(rows, m)
    ]
    compared = verdicts(rows, reference)
    write_page(
        path,
        "grid.html",
        head,
        shown=shown,
        verdicts=compared,
        comparisons=sum(len(verdict.cells) for verdict in compared),
        domains=list(rows[0].domains),
        groups=_by_images(rows),
        readouts=READOUTS,
        shots=GROUPS,
        classes=classes,
        reference=reference,
        elsewhere=elsewhere if OUT_OF_DOMAIN in rows[0].domains else None,
        balanced=BALANCED,
        ratio_text=ratio_text,
        texts=_texts,
        spread_text=spread_text,
    )


def _any(rows: Sequence[GridRow], measure: Measure) -> bool:
    """Whether there is anything to draw."""
    points = [point for row in rows for point in row.domains.values()]
    return any((point.gap if measure == "gap" else point.accuracy) is not None for point in points)


def _by_images(rows: Sequence[GridRow]) -> list[tuple[int, list[GridRow]]]:
    ordered = sorted(rows, key=lambda row: row.cell.images)
    return [(images, list(group)) for images, group in groupby(ordered, key=lambda row: row.cell.images)]


def _texts(value: OverSeeds, interval: bool) -> tuple[str, ...]:
    """The lines of a cell of the table: mean and standard deviation, the interval, and the seeds where there are two
    or more."""
    seeds = ", ".join(wording.number_text(100 * figure, 1) for figure in value.by_seed.values())
    lines = [spread_text(value)]
    if interval:
        lines.append(interval_text(value))
    if len(value.by_seed) > 1:
        lines.append(f"seeds {seeds}")
    return tuple(lines)
