"""An imbalance grid as text for the terminal, and as CSV."""

from collections.abc import Sequence
from pathlib import Path

from kneessl.evaluation.gap import BALANCED, GapPoint, OverSeeds
from kneessl.report import wording
from kneessl.report.grid_content import IN_DOMAIN, OUT_OF_DOMAIN, READOUTS, A, GridRow, ratio_text
from kneessl.report.table import aligned, columns_of, joined, with_note, write_table

NOTE = (
    "all in per cent, mean over seeds ± standard deviation; A: accuracy of a linear classifier on frozen features, "
    "learnt from balanced labels; Δ: relative gap (A(n, 1) − A(n, r)) / A(n, 1), seeds paired, with Student's 95 % "
    "interval over seeds; own labels: the same classifier learnt from the training set's own labels; trained: the "
    "network's own output"
)
PREFIXES = {IN_DOMAIN: "", OUT_OF_DOMAIN: "ood_"}
"""Of the columns of the CSV."""


def spread_text(value: OverSeeds | None) -> str:
    """Return mean and standard deviation in per cent: `"74.2 ± 0.4"`, or `"74.2"` of a single seed."""
    if value is None:
        return "–"
    mean = wording.number_text(100 * value.mean, 1)
    return mean if value.sd is None else f"{mean} ± {100 * value.sd:.1f}"


def interval_text(value: OverSeeds, digits: int = 1) -> str:
    """Return the interval in per cent: `"3.1 to 7.3"`, or `"one seed"`."""
    if value.low is None or value.high is None:
        return "one seed"
    return wording.interval_text(100 * value.low, 100 * value.high, digits)


def grid_table(rows: Sequence[GridRow]) -> str:
    """Return the table as aligned text, with what its columns mean below; columns that no row fills are left out."""
    cells = [_cells(row) for row in rows]
    heads = columns_of(cells)
    table = [heads, *([row.get(head, "") for head in heads] for row in cells)]
    return with_note(aligned(table, left=[heads.index("arm")]), NOTE)


def _cells(row: GridRow) -> dict[str, str]:
    cells = {"images": f"{row.cell.images:,}", "ratio": ratio_text(row.cell.ratio), "arm": row.cell.arm}
    for domain, point in row.domains.items():
        where = "" if domain == IN_DOMAIN else ", out"
        cells[f"A{where}"] = spread_text(point.accuracy) if point.accuracy else "failed"
        cells[f"Δ{where} (95 %)"] = _gap_cell(row, point)
    for name, head in (("linear", "own labels"), ("trained", "trained")):
        if name in row.readouts:
            cells[head] = spread_text(row.readouts[name].accuracy)
    return cells


def _gap_cell(row: GridRow, point: GapPoint) -> str:
    if point.gap is None:
        return "ref." if row.cell.ratio == BALANCED else "–"
    return f"{wording.number_text(100 * point.gap.mean, 1)} ({interval_text(point.gap)})"


def write_grid_csv(path: Path, rows: Sequence[GridRow]) -> None:
    """Write one line a cell, in the order given: unrounded shares from 0 to 1, empty where there are none.

    `delta` is the relative gap; `less` is the supervised arm's less this one's. Columns out of domain begin with
    `ood_`. Several figures in one field (`..._by_seed`, `counts`) are separated by spaces; `seeds` are those that
    `..._by_seed` are of, in domain.
    """
    write_table(path, [_csv_row(row) for row in rows])


def _csv_row(row: GridRow) -> dict[str, object]:
    accuracy = row.domains[IN_DOMAIN].accuracy
    cells: dict[str, object] = {
        "arm": row.cell.arm,
        "images": row.cell.images,
        "ratio": row.cell.ratio,
        "counts": joined(row.counts),
        "seeds": joined(accuracy.by_seed) if accuracy else None,
    }
    for domain, point in row.domains.items():
        prefix = PREFIXES[domain]
        cells |= _columns(f"{prefix}accuracy", point.accuracy, interval=False)
        cells |= _columns(f"{prefix}delta", point.gap) | _columns(f"{prefix}less", point.less)
    for name in READOUTS:
        readout = row.readouts.get(name)
        if name != A:
            cells |= _columns(f"{name}_accuracy", readout.accuracy if readout else None, interval=False)
        for group, value in readout.groups.items() if readout else ():
            cells[f"{name}_{group}_mean"], cells[f"{name}_{group}_sd"] = value.mean, value.sd
    return cells


def _columns(name: str, value: OverSeeds | None, interval: bool = True) -> dict[str, object]:
    columns: dict[str, object] = {f"{name}_mean": value and value.mean, f"{name}_sd": value and value.sd}
    if interval:
        columns |= {f"{name}_low": value and value.low, f"{name}_high": value and value.high}
    columns[f"{name}_by_seed"] = joined(value.by_seed.values()) if value else None
    return columns
