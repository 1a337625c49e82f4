"""The HTML page of a label curve, one file with everything in it, and its figure as PNG."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from kneessl.evaluation.labels_needed import CurvePoint
from kneessl.files import replacing
from kneessl.report import figures, wording
from kneessl.report.arm_lines import draw_arms
from kneessl.report.label_curve_table import by_labels, needed_text
from kneessl.report.page import PageHead, write_page
from kneessl.report.strips import Key, key

_BESIDE = 0.012
"""How far the bars of neighbouring arms stand apart, as a share of the axis."""
_DOTS_PER_INCH = 200


@dataclass(frozen=True)
class _Row:
    point: CurvePoint
    needed: tuple[str, str, str] | None


def write_label_curve_page(path: Path, head: PageHead, points: Sequence[CurvePoint], reference: str) -> None:
    """Write the page of a label curve, as `write_page` does.

    Args:
        path: The HTML file.
        head: What was compared; its settings are those that were the same for all arms.
        points: Of `kneessl.evaluation.labels_needed.label_curve`.
        reference: The arm that the others are compared with.
    """
    keys = _keys(points)
    with _drawn(points) as figure:
        picture = figures.svg(figure, _alt(points))
    rows = [_Row(point, needed_text(point.needed) if point.needed else None) for point in by_labels(points)]
    write_page(
        path,
        "label_curve.html",
        head,
        keys=keys,
        picture=picture,
        groups=[(labels, list(group)) for labels, group in groupby(rows, key=lambda row: row.point.labels)],
        reference=reference,
        verdict=_verdict(points, reference),
        comparisons=sum(point.auc is not None and point.auc.p_holm is not None for point in points),
    )


def write_label_curve_png(path: Path, points: Sequence[CurvePoint]) -> None:
    """Write the page's figure as PNG, with the arms' names in it."""
    with _drawn(points) as figure, replacing(path) as partial:
        axes = figure.axes[0]
        names = [one.name for one in _keys(points)]
        legend = figure.legend(
            axes.get_lines()[: len(names)], names, loc="outside upper left", ncols=4, frameon=False, handlelength=4
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
        figure.savefig(partial, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})


def _keys(points: Sequence[CurvePoint]) -> list[Key]:
    return [key(name, k) for k, name in enumerate(dict.fromkeys(point.arm for point in points))]


@contextmanager
def _drawn(points: Sequence[CurvePoint]) -> Iterator[Figure]:
    """AUC against labels, an arm a line: its mean with a bar for the interval, and its seeds as faint dots.

    The lines of the arms are the first ones of the axes, in the order of `_keys`.
    """
    counts = sorted({point.labels for point in points})
    span = (counts[-1] / counts[0]) if len(counts) > 1 else 4.0
    keys = _keys(points)
    with figures.canvas(7.6, 4.6) as (figure, axes):
        axes.set_xscale("log")
        dots = []
        for k, one in enumerate(keys):
            beside = span ** (_BESIDE * (k - (len(keys) - 1) / 2))
            arm_points = [(point.labels * beside, point.auc) for point in points if point.arm == one.name and point.auc]
            dots.append([(x, a.interval.auc, (a.interval.low, a.interval.high), a.by_seed) for x, a in arm_points])
        draw_arms(axes, keys, dots, 5)
        axes.set(xlabel="Labelled training exams", ylabel="AUC", xlim=(counts[0] / span**0.06, counts[-1] * span**0.06))
        lowest = min((min(a.interval.low, *a.by_seed) for p in points if (a := p.auc)), default=0.5)
        axes.set_ylim(min(0.45, lowest - 0.02), 1.01)
        axes.xaxis.set_major_locator(FixedLocator(counts))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        yield figure


def _alt(points: Sequence[CurvePoint]) -> str:
    arms = []
    for name, arm_points in groupby(points, key=lambda point: point.arm):
        figures_of = [f"{auc.interval.auc:.3f} with {p.labels:,} labels" for p in arm_points if (auc := p.auc)]
        arms.append(f"{name}: {', '.join(figures_of) or 'failed'}")
    return f"AUC against labelled training exams on a logarithmic axis. {'; '.join(arms)}."


def _verdict(points: Sequence[CurvePoint], reference: str) -> list[tuple[str, str]]:
    """For every arm but the reference, with which numbers of labels it differs from it and with which it does not."""
    verdicts = []
    for name in dict.fromkeys(point.arm for point in points if point.arm != reference):
        compared = [(f"{p.labels:,} labels", p.auc) for p in points if p.arm == name and p.auc]
        if text := wording.verdict_text(compared):
            verdicts.append((name, text))
    return verdicts
