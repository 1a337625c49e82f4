"""A confusion matrix as a figure: which class is taken for which (the thesis's figure 3.3)."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from kneessl.files import replacing
from kneessl.report.figures import COLOURS, canvas

INK, SOFT, SILVER = "#1f2328", "#57606a", "#e6e9ec"
SHADES = LinearSegmentedColormap.from_list("shares", ("#ffffff", COLOURS[0]))
"""One hue from light to dark, which every eye and a grey print order alike."""
LIGHT_TEXT_FROM = 0.77
"""Share from which white has more contrast on `SHADES` than `INK`; either has 3.9 to 1 there, the least of all."""
_CELL, _NAMES, _NARROWEST = 0.5, 2.1, 4.5  # inches
_TITLE_CHARACTERS = 10  # an inch
_LONGEST_NAME = 18
_PIXELS_AN_INCH = 160


def write_confusion_png(
    path: Path, confusion: Sequence[Sequence[int]], classes: Sequence[str], counts: Sequence[int], title: str
) -> None:
    """Write a confusion matrix as a PNG file, each row shaded and labelled by its shares in percent.

    The diagonal, framed, is the accuracy within each class. Other cells without pictures have no label, and a row
    without any says so. The same input gives the same bytes.

    Args:
        path: The file, replaced where there is one.
        confusion: Numbers of test images, a row for each true class and a column for each predicted one.
        classes: Their names, in this order; cut at 18 characters.
        counts: Training images of each class.
        title: What stands above, broken into lines where it is long.
    """
    width = max(_NARROWEST, _NAMES + _CELL * len(classes))
    names = [name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…" for name in classes]
    with canvas(width, width) as (figure, axes):
        figure.set_dpi(_PIXELS_AN_INCH)
        lines = textwrap.fill(title, int(width * _TITLE_CHARACTERS))
        figure.suptitle(lines, x=0.02, horizontalalignment="left", fontsize=10, fontweight="bold", parse_math=False)
        _draw_cells(axes, np.array(confusion))
        rows = [f"{name} ({count:,})" for name, count in zip(names, counts, strict=True)]
        text: dict[str, Any] = {"parse_math": False, "color": INK}
        axes.set_yticks(range(len(rows)), rows, **text)
        axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor", **text)
        axes.tick_params(length=0)
        axes.set_ylabel(f"True class ({sum(counts):,} training images)")
        axes.set_xlabel("Predicted class (% of the row)")
        with replacing(path) as partial, partial.open("wb") as file:
            FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})


def row_shares(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return each row, of whole numbers `(n, n)`, divided by its sum; not a number where that is 0."""
    totals = confusion.sum(1, keepdims=True)
    return np.divide(confusion, totals, out=np.full(confusion.shape, np.nan), where=totals > 0)


def _draw_cells(axes: Axes, confusion: NDArray[np.int64]) -> None:
    """Shade and label the cells, and frame the diagonal."""
    shares = row_shares(confusion)
    axes.grid(False)
    axes.imshow(shares, cmap=SHADES.with_extremes(bad=SILVER), vmin=0, vmax=1)
    middle: dict[str, Any] = {"horizontalalignment": "center", "verticalalignment": "center"}
    for row, of_row in enumerate(shares):
        if np.isnan(of_row).all():
            axes.text((len(of_row) - 1) / 2, row, "no test images", color=SOFT, fontsize=8, **middle)
            continue
        for column, share in enumerate(of_row):
            if share > 0 or column == row:
                colour = "white" if share >= LIGHT_TEXT_FROM else INK
                axes.text(column, row, f"{share:.0%}", color=colour, fontsize=8, **middle)
        corner = (row - 0.5, row - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=INK, linewidth=1, zorder=3, clip_on=False))
