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
        axes: Where they are drawn; its x axis may be of any scale.
        keys: Names and line styles of the arms.
        dots: For each arm, from left to right.
        size: Of the means' markers, in points.
    """
    for one in keys:
        axes.plot([], [], color=one.colour, linestyle=figures.linestyle(one.dashes), marker="o", markersize=size)
    for curve, one, arm_dots in zip(axes.get_lines()[: len(keys)], keys, dots, strict=True):
        for x, _, interval, seeds in arm_dots:
            axes.plot([x] * len(seeds), seeds, "o", color=one.colour, alpha=0.35, markersize=size - 1.5, mew=0)
            axes.plot([x, x], interval, color=one.colour, linewidth=1.2, alpha=0.8)
        curve.set_data([dot[0] for dot in arm_dots], [dot[1] for dot in arm_dots])
        curve.set_zorder(3)
    axes.axhline(0.5, color="#8b949e", linewidth=1, linestyle=(0, (1, 2)))
