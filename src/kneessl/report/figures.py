"""Figures as data URIs: SVG for plots, PNG for slices; the same input gives the same bytes.

Names come from users, so none is drawn: the page sets them in HTML, beside a swatch in the figure's colour.
"""

import base64
import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from kneessl.report.content import Curve

COLOURS = ("#1d5fa3", "#b8480f", "#2a7a4b", "#7a4299", "#5f5f5f", "#8a6a00")
"""One an arm or run, in turn; each has a contrast of at least 4.5 to 1 on white."""
DASHES = ("", "6 3", "2 2", "8 2 2 2", "12 4", "4 4")
"""SVG dash patterns that go with `COLOURS`, so that lines differ on a grey print too."""

_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "kneessl",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": "#1f2328",
    "axes.labelcolor": "#1f2328",
    "axes.edgecolor": "#8b949e",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e9ec",
    "grid.linewidth": 0.8,
    "xtick.color": "#57606a",
    "ytick.color": "#57606a",
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}
_MARKED_POINTS = 12
"""A curve of at most so many epochs shows each as a dot."""
_COUNTERS = ("epoch", "step")
"""Columns that count and so have no curve of their own."""
_LOG_SPAN = 20
"""A loss that shrinks or grows by more than this factor is drawn on a logarithmic axis."""


@dataclass(frozen=True)
class Picture:
    """An image for `<img>`: its data URI, its size in CSS pixels, and its text alternative."""

    source: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True, eq=False)
class RocLine:
    """A line of `small_roc`: corners as of `evaluation.mean_roc`, and how it is drawn."""

    false_alarms: NDArray[np.float64]
    hits: NDArray[np.float64]
    colour: str
    dashes: str
    width: float


def small_roc(lines: Sequence[RocLine], alt: str) -> Picture:
    """Draw ROC curves, later ones on top, in a square so small that many such squares can be compared."""
    with canvas(1.9, 1.9) as (figure, axes):
        axes.plot((0, 1), (0, 1), color="#8b949e", linewidth=0.8, linestyle=(0, (1, 2)))
        for line in lines:
            style = {"color": line.colour, "linestyle": linestyle(line.dashes), "linewidth": line.width}
            axes.plot(line.false_alarms, line.hits, clip_on=False, **style)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        axes.tick_params(labelsize=8, length=2)
        return svg(figure, alt)


def training(curves: Sequence[Curve], column: str) -> Picture:
    """Draw one column of the metrics against the epoch, a line for each run that has it."""
    values: list[float] = []
    with canvas(3.4, 2.3) as (figure, axes):
        for index, curve in enumerate(curves):
            epochs, series = _column(curve, column)
            marker = "o" if len(series) <= _MARKED_POINTS else None
            axes.plot(epochs, series, marker=marker, markersize=3.5, **line_style(index))
            values.extend(series)
        if column.endswith("loss") and min(values) > 0 and max(values) / min(values) > _LOG_SPAN:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.set_xlabel("Epoch")
        return svg(figure, _training_alt(curves, column))


def columns(curves: Sequence[Curve]) -> list[str]:
    """Return the columns that have at least one finite value in some run, in the order they are met."""
    names = dict.fromkeys(name for curve in curves for row in curve.rows for name in row)
    return [name for name in names if name not in _COUNTERS and any(_column(curve, name)[1] for curve in curves)]


def grey(image: NDArray[np.uint8], side: int, alt: str) -> Picture:
    """Return one slice, uint8 (H, W), scaled down until neither side is longer than `side` pixels."""
    picture = Image.fromarray(image)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return png(picture, alt)


def png(image: Image.Image, alt: str) -> Picture:
    """Return an image as it is."""
    return Picture(_data_uri("image/png", png_bytes(image)), image.width, image.height, alt)


def png_bytes(image: Image.Image) -> bytes:
    """Return an image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")  # to optimise takes twice the time for a fortieth of the bytes
    return buffer.getvalue()


def _column(curve: Curve, column: str) -> tuple[list[float], list[float]]:
    """Return epochs and finite values; a row without `epoch` counts from its place."""
    pairs = [
        (float(row.get("epoch", place)), float(row[column]))
        for place, row in enumerate(curve.rows)
        if column in row and math.isfinite(row[column])
    ]
    return [epoch for epoch, _ in pairs], [value for _, value in pairs]


def _training_alt(curves: Sequence[Curve], column: str) -> str:
    ends = [
        f"{curve.name}: from {series[0]:.4g} to {series[-1]:.4g}"
        for curve in curves
        if (series := _column(curve, column)[1])
    ]
    return f"{column} by epoch. {'; '.join(ends)}."


def line_style(index: int) -> dict[str, Any]:
    """Return the colour and dashes of arm or run `index` as matplotlib's arguments."""
    return {"color": colour_of(index), "linestyle": linestyle(DASHES[index % len(DASHES)])}


def linestyle(dashes: str) -> Any:
    """Return an SVG dash pattern as matplotlib's line style."""
    return (0, tuple(float(length) for length in dashes.split())) if dashes else "solid"


def colour_of(index: int) -> str:
    """Return the colour of arm or run `index`."""
    return COLOURS[index % len(COLOURS)]


@contextmanager
def canvas(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """Yield a figure of that size in inches and its axes, under this module's style."""
    with rc_context(_STYLE):
        figure = Figure((width, height), layout="constrained")
        yield figure, figure.add_subplot()


def svg(figure: Figure, alt: str) -> Picture:
    """Return a figure as it is, with no date in it."""
    buffer = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    width, height = (round(inches * 96) for inches in figure.get_size_inches())
    return Picture(_data_uri("image/svg+xml", buffer.getvalue()), width, height, alt)


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
