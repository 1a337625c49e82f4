"""The rows of a comparison as text for the terminal, and as CSV."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from kneessl.evaluation import ComparisonRow, MeanAccuracy, MeanAuc, ranked
from kneessl.report import wording
from kneessl.report.table import WIDTH, joined, write_table


@dataclass(frozen=True)
class _Column:
    group: str
    """Stands above the first of neighbouring columns that share it."""
    head: str
    text: Callable[[ComparisonRow], str]


def terminal_table(rows: Sequence[ComparisonRow]) -> str:
    """Return the table as aligned text, best AUC after fine-tuning first.

    Arms with a collapsed seed stand below the sound ones, marked and with the words below; failed arms stand last,
    with the reason in the place of figures. Columns that no arm fills are left out.
    """
    name_width = max((len(row.name) for row in rows), default=0) + 2
    columns = [column for column in _COLUMNS if any(row.scored and column.text(row) for row in rows)]
    widths = [max(len(column.head), *(len(column.text(row)) for row in rows)) for column in columns]
    reference = next((row.name for row in rows if row.is_reference), "")

    lines = [_groups(columns, widths, name_width), _line("  method", [c.head for c in columns], widths, name_width)]
    for row in ranked(rows):
        name = f"{'  ' if row.sound else '! '}{row.name}"
        flags = _wrapped(wording.flag_texts(row, reasons=True), " " * (name_width + 2))
        if row.scored:
            lines += [_line(name, [column.text(row) for column in columns], widths, name_width), *flags]
        else:
            lines += [name + flags[0][len(name) :], *flags[1:]]
    lines.append("")
    notes = []
    if any(row.scored for row in rows):
        notes.append(
            "AUC: mean over seeds with DeLong's 95 % interval over exams; acc.: accuracy at the threshold of 0.5; "
            f"diff.: AUC less that of {reference}; p: paired DeLong, adjusted by Holm's method"
        )
        notes.append(f"P(F): {wording.FALSE_COLUMN}")
    if not all(row.sound for row in rows):
        notes.append("!: collapsed or failed; do not read its figures as the method's")
    if _PUBLISHED in columns:
        notes.append("published: AUC published elsewhere (MRNet, other exams), not measured here")
    lines += _wrapped(notes, "")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def write_comparison_csv(path: Path, rows: Sequence[ComparisonRow]) -> None:
    """Write one line an arm, in the order given: unrounded numbers, empty where there are none.

    `status` is sound, collapsed or failed. Several figures in one cell (`..._by_seed`) are separated by spaces.
    """
    write_table(path, [_csv_row(row) for row in rows])


def _csv_row(row: ComparisonRow) -> dict[str, object]:
    auc, accuracy, source = row.published or (None, None, None)
    return {
        "name": row.name,
        "kind": row.kind,
        "status": "failed" if not row.scored else "sound" if row.sound else "collapsed",
        "reference": "yes" if row.is_reference else "no",
        "exams": row.exams or None,
        "positives": row.positives or None,
        "seeds": row.seeds,
        "seeds_collapsed": row.collapsed,
        "seeds_failed": len(row.failures),
        "flags": "; ".join(wording.flag_texts(row, reasons=True)),
        **_auc_cells("fine_tuned", row.fine_tuned),
        **_accuracy_cells(row.accuracy),
        "fine_tuned_accuracy_p_false": row.accuracy_p_false,
        **_auc_cells("frozen", row.frozen),
        "parameters": row.parameters,
        "seconds_by_seed": joined(row.seconds),
        "memory_bytes_by_seed": joined(row.memory_bytes),
        "published_elsewhere_auc": auc,
        "published_elsewhere_accuracy": accuracy,
        "published_elsewhere_source": source,
    }


def _auc_cells(readout: str, auc: MeanAuc | None) -> dict[str, object]:
    interval = auc.interval if auc else None
    difference = auc.difference if auc else None
    return {
        f"{readout}_auc": interval and interval.auc,
        f"{readout}_auc_low": interval and interval.low,
        f"{readout}_auc_high": interval and interval.high,
        f"{readout}_auc_standard_error": interval and interval.standard_error,
        f"{readout}_auc_by_seed": joined(auc.by_seed) if auc else None,
        f"{readout}_difference": difference and difference.difference,
        f"{readout}_difference_low": difference and difference.low,
        f"{readout}_difference_high": difference and difference.high,
        f"{readout}_p": difference and difference.p,
        f"{readout}_p_holm": auc.p_holm if auc else None,
        f"{readout}_p_false": difference and difference.p_false,
    }


def _accuracy_cells(accuracy: MeanAccuracy | None) -> dict[str, object]:
    return {
        "fine_tuned_accuracy": accuracy and accuracy.value,
        "fine_tuned_accuracy_low": accuracy and accuracy.low,
        "fine_tuned_accuracy_high": accuracy and accuracy.high,
        "fine_tuned_accuracy_by_seed": joined(accuracy.by_seed) if accuracy else None,
    }


def _auc(auc: MeanAuc | None) -> str:
    return f"{auc.interval.auc:.3f} ({auc.interval.low:.2f}–{auc.interval.high:.2f})" if auc else ""


def _seeds(auc: MeanAuc | None) -> str:
    return f"{min(auc.by_seed):.2f}–{max(auc.by_seed):.2f}" if auc and len(auc.by_seed) > 1 else ""


def _difference(row: ComparisonRow, auc: MeanAuc | None) -> str:
    if auc and auc.difference:
        return wording.difference_text(auc.difference)[0]
    return "ref." if auc and row.is_reference else ""


def _p(auc: MeanAuc | None) -> str:
    return wording.p_text(auc.p_holm) if auc and auc.p_holm is not None else ""


def _p_false(auc: MeanAuc | None) -> str:
    return wording.p_false_text(auc.difference.p_false) if auc and auc.difference else ""


_PUBLISHED = _Column("", "published", lambda row: f"{row.published[0]:.3f}" if row.published else "")
_COLUMNS = (
    _Column("fine-tuned", "AUC (95 %)", lambda row: _auc(row.fine_tuned)),
    _Column("fine-tuned", "seeds", lambda row: _seeds(row.fine_tuned)),
    _Column("fine-tuned", "acc.", lambda row: wording.percent_text(row.accuracy.value) if row.accuracy else ""),
    _Column("fine-tuned", "diff.", lambda row: _difference(row, row.fine_tuned)),
    _Column("fine-tuned", "p", lambda row: _p(row.fine_tuned)),
    _Column("fine-tuned", "P(F)", lambda row: _p_false(row.fine_tuned)),
    _Column("frozen, linear probe", "AUC (95 %)", lambda row: _auc(row.frozen)),
    _Column("frozen, linear probe", "diff.", lambda row: _difference(row, row.frozen)),
    _Column("frozen, linear probe", "p", lambda row: _p(row.frozen)),
    _Column("frozen, linear probe", "P(F)", lambda row: _p_false(row.frozen)),
    _PUBLISHED,
)


def _line(name: str, cells: Sequence[str], widths: Sequence[int], name_width: int) -> str:
    return name.ljust(name_width) + "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


def _groups(columns: Sequence[_Column], widths: Sequence[int], name_width: int) -> str:
    line = " " * name_width
    for group, members in groupby(zip(columns, widths, strict=True), key=lambda pair: pair[0].group):
        line += "  " + group.ljust(sum(width + 2 for _, width in members) - 2)
    return line


def _wrapped(texts: Sequence[str], indent: str) -> list[str]:
    return [
        line for text in texts for line in textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent)
    ]
