"""The figures of an imbalance grid, after the thesis's figures 3.1 and 3.2: accuracy and relative gap over n and r.

Arms differ by colour and by whether their marks are filled, ratios by dashes and by the shape of their marks, so that
lines stay apart for every eye and on a grey print.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from kneessl.evaluation.gap import BALANCED, OverSeeds
from kneessl.files import replacing
from kneessl.report import figures, wording
from kneessl.report.grid_content import GridRow, ratio_text
from kneessl.report.strips import Key

Measure = Literal["accuracy", "gap"]

LABELS: dict[Measure, str] = {"accuracy": "Accuracy (%)", "gap": "Relative gap Δ (%)"}
MARKERS = "os^Dv*"
"""One a ratio, in turn."""
_PANEL = 4.0
"""Inches."""
_DOTS_PER_INCH = 200
_BESIDE = 0.02
"""How far the bars of neighbouring lines stand apart, as a share of the axis."""


@dataclass(frozen=True)
class Line:
    """A line of a panel: how it is drawn, and its points from left to right."""

    key: Key
    marker: str
    filled: bool
    points: list[tuple[float, OverSeeds]]


def over_images(rows: Sequence[GridRow]) -> bool:
    """Whether the figures are drawn over the number of images: not where there is one only, but over the ratio."""
    return len({row.cell.images for row in rows}) > 1


def lines(rows: Sequence[GridRow], domain: str, measure: Measure) -> list[Line]:
    """Return a panel's lines: one for each arm and ratio over the images, or one for each arm over the ratio.

    The first arm is the first line at every ratio. The gap has no line at ratio 1, where it is 0 by definition.
    """
    arms = list(dict.fromkeys(row.cell.arm for row in rows))
    ratios = sorted({row.cell.ratio for row in rows}, reverse=True)
    points_of: dict[tuple[str, float], list[tuple[float, OverSeeds]]] = {}
    for row in rows:
        cell, point = row.cell, row.domains[domain]
        value = point.accuracy if measure == "accuracy" else point.gap
        line, x = ((cell.arm, cell.ratio), cell.images) if over_images(rows) else ((cell.arm, 0.0), cell.ratio)
        if measure == "accuracy" or cell.ratio != BALANCED:
            points_of.setdefault(line, []).extend([] if value is None else [(x, value)])
    drawn = []
    for arm, ratio in sorted(points_of, key=lambda line: (-line[1], arms.index(line[0]))):
        k, index = arms.index(arm), ratios.index(ratio) if ratio else arms.index(arm)
        key = Key(
            f"{arm}, r = {ratio_text(ratio)}" if ratio else arm,
            figures.colour_of(k),
            figures.DASHES[index % len(figures.DASHES)],
        )
        points = sorted(points_of[arm, ratio], key=lambda point: point[0])
        drawn.append(Line(key, MARKERS[index % len(MARKERS)], k == 0, points))
    return drawn


def keys(rows: Sequence[GridRow], measure: Measure) -> list[Key]:
    """Return the figure's lines by name, for a legend beside it."""
    return [line.key for line in lines(rows, next(iter(rows[0].domains)), measure)]


def picture(rows: Sequence[GridRow], measure: Measure) -> figures.Picture:
    """Return the figure for a page, whose legend stands beside it."""
    with _drawn(rows, measure) as (figure, _):
        return figures.svg(figure, _alt(rows, measure))


def write_png(path: Path, rows: Sequence[GridRow], measure: Measure) -> None:
    """Write the figure as PNG, with its legend in it."""
    with _drawn(rows, measure) as (figure, panel), replacing(path) as partial:
        handles, names = panel.get_legend_handles_labels()
        arms = len({row.cell.arm for row in rows})
        columns = -(-len(names) // arms) if over_images(rows) else arms
        legend = figure.legend(
            handles, names, loc="outside upper left", ncols=columns, frameon=False, handlelength=4, fontsize=8
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
        figure.savefig(partial, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})


@contextmanager
def _drawn(rows: Sequence[GridRow], measure: Measure) -> Iterator[tuple[Figure, Axes]]:
    """A panel a domain, and the first panel, whose labelled artists are the lines in the order of `keys`."""
    domains = list(rows[0].domains)
    with figures.canvas(_PANEL * max(len(domains), 1.4), 3.6) as (figure, axes):
        axes.remove()
        panels = figure.subplots(1, len(domains), squeeze=False, sharey=measure == "gap")[0]
        for axes, domain in zip(panels, domains, strict=True):
            panel_lines = lines(rows, domain, measure)
            axes.set_title(domain.capitalize(), loc="left", fontsize=9, fontweight="bold")
            xs = sorted({x for row in rows if (x := _place(rows, row, measure)) is not None})
            span = xs[-1] / xs[0] if len(xs) > 1 else 4.0
            step = span ** (_BESIDE if over_images(rows) else -_BESIDE)  # to the right, also where the axis falls
            for k, line in enumerate(panel_lines):
                _draw(axes, line, step ** (k - (len(panel_lines) - 1) / 2))
            if measure == "gap":
                axes.axhline(0, color="#57606a", linewidth=1)
            _axis(axes, xs, span, by_images=over_images(rows))
            axes.set_ylabel(LABELS[measure])
        yield figure, panels[0]


def _place(rows: Sequence[GridRow], row: GridRow, measure: Measure) -> float | None:
    """Where a row stands on the horizontal axis, if anywhere."""
    if measure == "gap" and row.cell.ratio == BALANCED:
        return None
    return row.cell.images if over_images(rows) else row.cell.ratio


def _draw(axes: Axes, line: Line, beside: float) -> None:
    """A line with bars of one standard deviation over seeds to either side."""
    colour, at = line.key.colour, [x * beside for x, _ in line.points]
    means = np.array([100 * value.mean for _, value in line.points])
    deviations = np.array([100 * (value.sd or 0.0) for _, value in line.points])
    axes.errorbar(
        at,
        means,
        deviations,
        label=line.key.name,
        color=colour,
        linestyle=figures.linestyle(line.key.dashes),
        linewidth=1.6,
        marker=line.marker,
        markersize=5,
        markerfacecolor=colour if line.filled else "white",
        elinewidth=1,
        capsize=2.5,
    )


def _axis(axes: Axes, xs: Sequence[float], span: float, by_images: bool) -> None:
    """A logarithmic axis with a tick at each value; the ratio falls from left to right."""
    axes.set_xscale("log")
    ends = (xs[0] / span**0.1, xs[-1] * span**0.1)
    axes.set_xlim(ends if by_images else ends[::-1])
    axes.set_xlabel("Training images n" if by_images else "Ratio r of the rarest class to the commonest")
    axes.xaxis.set_major_locator(FixedLocator(xs))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if by_images else ratio_text(value))
    if by_images and len(xs) > 4:
        axes.tick_params(axis="x", rotation=35)


def _alt(rows: Sequence[GridRow], measure: Measure) -> str:
    parts = []
    for domain in rows[0].domains:
        for line in lines(rows, domain, measure):
            over = "{:,.0f} images" if over_images(rows) else "r = {:g}"
            values = [f"{wording.number_text(100 * value.mean, 1)} at {over.format(x)}" for x, value in line.points]
            parts.append(f"{domain}, {line.key.name}: {', '.join(values) or 'failed'}")
    axis = "training images" if over_images(rows) else "ratio"
    return f"{LABELS[measure]} against {axis} on a logarithmic axis. {'; '.join(parts)}."
