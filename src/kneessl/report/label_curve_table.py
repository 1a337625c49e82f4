"""The points of a label curve as text for the terminal, and as CSV."""

import math
from collections.abc import Sequence
from pathlib import Path

from kneessl.evaluation.labels_needed import CurvePoint, LabelsNeeded
from kneessl.report import wording
from kneessl.report.table import aligned, joined, with_note, write_table


def needed_text(needed: LabelsNeeded) -> tuple[str, str, str]:
    """Return labels needed, their interval and their ratio: `("90", "52 to > 400", "× 2.2")`."""

    def labels(value: float) -> str:
        if value == 0:
            return f"< {needed.least:,}"
        return f"> {needed.most:,}" if math.isinf(value) else f"{value:,.0f}"

    if needed.labels == 0:
        ratio = f"< × {needed.least / needed.used:.2g}"
    elif math.isinf(needed.labels):
        ratio = f"> × {needed.most / needed.used:.2g}"
    else:
        ratio = f"× {needed.ratio:.2g}"
    return labels(needed.labels), f"{labels(needed.low)} to {labels(needed.high)}", ratio


def label_curve_table(points: Sequence[CurvePoint], reference: str) -> str:
    """Return the table as aligned text, fewest labels first; below it what the columns mean.

    Args:
        points: Of `kneessl.evaluation.labels_needed.label_curve`.
        reference: The arm that the others are compared with.
    """
    head = ["labels", "start", "AUC (95 %)", "seeds", "diff.", "p", "P(F)", f"{reference} needs (95 %)", "ratio"]
    rows = [head, *(_cells(point, reference) for point in by_labels(points))]
    note = (
        "AUC: mean over seeds with DeLong's 95 % interval over exams; diff.: AUC less that of "
        f"{reference} with as many labels; p: paired DeLong, adjusted by Holm's method for the whole table; "
        f"P(F): {wording.FALSE_COLUMN}; "
        f"{reference} needs: labels with which {reference} reaches the same AUC, interval by bootstrap over exams and "
        "seeds, < and > where that lies outside the labels tried; ratio: these to the labels used"
    )
    return with_note(aligned(rows, left=[1]), note)


def by_labels(points: Sequence[CurvePoint]) -> list[CurvePoint]:
    """Fewest labels first; arms with as many stay in their order."""
    return sorted(points, key=lambda point: point.labels)


def _cells(point: CurvePoint, reference: str) -> list[str]:
    auc = point.auc
    if auc is None:
        return [f"{point.labels:,}", point.arm, "failed", "", "", "", "", "", ""]
    seeds = f"{min(auc.by_seed):.2f}–{max(auc.by_seed):.2f}" if len(auc.by_seed) > 1 else ""
    difference = "ref." if point.arm == reference else ""
    if auc.difference is not None:
        difference = wording.difference_text(auc.difference)[0]
    number, interval, ratio = needed_text(point.needed) if point.needed else ("", "", "")
    return [
        f"{point.labels:,}",
        point.arm,
        f"{auc.interval.auc:.3f} ({auc.interval.low:.2f}–{auc.interval.high:.2f})",
        seeds,
        difference,
        "" if auc.p_holm is None else wording.p_text(auc.p_holm),
        "" if auc.difference is None else wording.p_false_text(auc.difference.p_false),
        f"{number} ({interval})" if number else "",
        ratio,
    ]


def write_label_curve_csv(path: Path, points: Sequence[CurvePoint], labelled: int) -> None:
    """Write one line a point, in the order given: unrounded numbers, empty where there are none.

    Of the labels needed, `inf` is more than were tried and 0 fewer; `needed` says so in words. Several figures in one
    cell (`auc_by_seed`) are separated by spaces.

    Args:
        path: The CSV file.
        points: Of `kneessl.evaluation.labels_needed.label_curve`.
        labelled: How many labelled training exams there are.
    """
    write_table(path, [_csv_row(point, labelled) for point in points])


def _csv_row(point: CurvePoint, labelled: int) -> dict[str, object]:
    auc, needed = point.auc, point.needed
    interval, difference = auc and auc.interval, auc and auc.difference
    words = needed_text(needed) if needed else None
    return {
        "start": point.arm,
        "labels": point.labels,
        "fraction": point.labels / labelled,
        "seeds": len(auc.by_seed) if auc else 0,
        "auc": interval and interval.auc,
        "auc_low": interval and interval.low,
        "auc_high": interval and interval.high,
        "auc_standard_error": interval and interval.standard_error,
        "auc_by_seed": joined(auc.by_seed) if auc else None,
        "difference": difference and difference.difference,
        "difference_low": difference and difference.low,
        "difference_high": difference and difference.high,
        "p": difference and difference.p,
        "p_holm": auc and auc.p_holm,
        "p_false": difference and difference.p_false,
        "needed_labels": needed and needed.labels,
        "needed_low": needed and needed.low,
        "needed_high": needed and needed.high,
        "needed_ratio": needed and needed.ratio,
        "needed": words and f"{words[0]} ({words[1]})",
    }
