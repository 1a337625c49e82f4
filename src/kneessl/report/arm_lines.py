"""Arms as lines over an axis: means, intervals, and what each seed gave."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from kneessl.report import figures
from kneessl.report.strips import Key

Dot = tuple[float, float, tuple[float, float], Sequence[float]]
"""Where on the x axis, mean, interval, and each seed's value."""


def draw_arms(axes: Axes, keys: Sequence[Key], dots: Sequence[Sequence[Dot]], size: float) -> None:
    """Draw each arm's means as a line, with bars for intervals and faint dots for seeds, and chance at one half.

    The lines of the arms are the first ones of the axes, in order.

    Args:
        axes: Any.
        keys: Of the arms.
        dots: Of each arm.
        size: Of the means' markers, in points.
    """
    for one in keys:
        axes.plot([], [], color=one.colour, linestyle=figures.linestyle(one.dashes), marker="o", markersize=size)
    for line, one, own in zip(axes.get_lines()[: len(keys)], keys, dots, strict=True):
        for x, _, interval, seeds in own:
            axes.plot([x] * len(seeds), seeds, "o", color=one.colour, alpha=0.35, markersize=size - 1.5, mew=0)
            axes.plot([x, x], interval, color=one.colour, linewidth=1.2, alpha=0.8)
        line.set_data([dot[0] for dot in own], [dot[1] for dot in own])
        line.set_zorder(3)
    axes.axhline(0.5, color="#8b949e", linewidth=1, linestyle=(0, (1, 2)))
