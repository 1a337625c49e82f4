"""Figures of an evaluation: ROC, scores by class, reliability, decision curve, risk and coverage, heat on slices.

They tell lines and marks apart by dashes and shape as well as by colour, so that they survive colour blindness and a
grey print.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from kneessl.evaluation.abstention import RiskCoverage
from kneessl.evaluation.calibration import ReliabilityBin
from kneessl.evaluation.decisions import NetBenefit
from kneessl.report.content import EvaluatedFinding
from kneessl.report.figures import Picture, canvas, colour_of, line_style, png, svg

INK, SOFT, GREY = "#1f2328", "#57606a", "#8b949e"
BLUE, ORANGE, SILVER = "#1d5fa3", "#d9730d", "#9aa4ae"
DOTS: tuple[int, tuple[int, int]] = (0, (1, 2))
MARKS = {"threshold": "o", "rule-out": "v", "rule-in": "^"}
"""How the points at which a model decides are drawn."""
STRONGEST = 0.62
"""Opacity of the strongest heat: the slice has to be seen through it."""
PALETTE = 96
"""Colours of a slice with heat: enough for the eye, and a third of the bytes."""


@dataclass(frozen=True)
class Mark:
    """A point of a ROC curve at which a model decides."""

    kind: str
    """One of `MARKS`."""
    false_alarms: float
    hits: float


def roc(finding: EvaluatedFinding, marks: Sequence[Sequence[Mark]], aucs: Sequence[float]) -> Picture:
    """Draw every arm's ROC curve in one square, with marks where it decides; `marks` and `aucs` one an arm."""
    from sklearn.metrics import roc_curve  # with SciPy's statistics it takes a second, and answers draw no curve

    with canvas(4.6, 4.6) as (figure, axes):
        axes.plot((0, 1), (0, 1), color=GREY, linewidth=1, linestyle=DOTS)
        for index, (arm, arm_marks) in enumerate(zip(finding.arms, marks, strict=True)):
            false_alarms, hits, _ = roc_curve(finding.labels, arm.probabilities, drop_intermediate=False)
            axes.plot(false_alarms, hits, clip_on=False, **line_style(index))
            for mark in arm_marks:
                style: dict[str, Any] = {"color": colour_of(index), "markeredgecolor": "white", "clip_on": False}
                size = 8 if mark.kind == "threshold" else 10
                axes.plot(mark.false_alarms, mark.hits, MARKS[mark.kind], markersize=size, zorder=3, **style)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="1 − specificity", ylabel="Sensitivity")
        areas = "; ".join(f"{arm.name}: AUC {auc:.3f}" for arm, auc in zip(finding.arms, aucs, strict=True))
        return svg(figure, f"ROC curves, sensitivity against 1 − specificity. {areas}.")


def scores_by_class(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], thresholds: Sequence[float], name: str
) -> Picture:
    """Draw how one arm's probabilities spread: positive exams upwards, negative ones downwards, thresholds dashed."""
    positive = labels == 1
    edges = np.linspace(0, 1, 21)
    above, below = (np.histogram(probabilities[mask], edges)[0] for mask in (positive, ~positive))
    with canvas(4.6, 2.8) as (figure, axes):
        bars: dict[str, Any] = {"width": 0.05, "align": "edge", "edgecolor": "white", "linewidth": 0.8}
        axes.bar(edges[:-1], above, color=BLUE, **bars)
        axes.bar(edges[:-1], -below, color=SILVER, **bars)
        axes.axhline(0, color=INK, linewidth=0.8)
        for threshold in thresholds:
            axes.axvline(threshold, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        tallest = max(above.max(), below.max()) * 1.4  # leaves room for the two words
        axes.set(xlim=(0, 1), ylim=(-tallest, tallest), xlabel="Probability given by the model", ylabel="Exams")
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        axes.text(0.01, 0.98, "positive exams", transform=axes.transAxes, va="top", color=BLUE, bbox=box)
        axes.text(0.99, 0.04, "negative exams", transform=axes.transAxes, ha="right", color=SOFT, bbox=box)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):.0f}")
        axes.grid(visible=False, axis="x")
        return svg(
            figure,
            f"{name}: histogram of the probabilities. Median {np.median(probabilities[positive]):.2f} for positive "
            f"exams, {np.median(probabilities[~positive]):.2f} for negative ones.",
        )


def reliability(before: Sequence[ReliabilityBin], after: Sequence[ReliabilityBin], name: str) -> Picture:
    """Draw the share of positives against the mean probability, with bars for intervals; `before` may be empty."""
    with canvas(4.6, 4.6) as (figure, axes):
        axes.plot((0, 1), (0, 1), color=GREY, linewidth=1, linestyle=DOTS)
        if before:
            _bins(axes, before, color=SOFT, marker="s", markerfacecolor="white", linestyle=(0, (4, 3)), linewidth=1)
        _bins(axes, after, color=BLUE, marker="o", linestyle="solid", linewidth=1.6)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.set(xlabel="Mean probability given by the model", ylabel="Share of positive exams")
        points = "; ".join(f"{b.probability:.2f}: {b.observed.value:.2f}" for b in after)
        return svg(figure, f"{name}: reliability diagram, probability given to share observed. {points}.")


def _bins(axes: Axes, bins: Sequence[ReliabilityBin], **style: Any) -> None:
    x, y = [b.probability for b in bins], [b.observed.value for b in bins]
    reach = [[b.observed.value - b.observed.low for b in bins], [b.observed.high - b.observed.value for b in bins]]
    axes.errorbar(x, y, yerr=np.maximum(reach, 0), fmt="none", ecolor=style["color"], elinewidth=0.9, capsize=2.5)
    axes.plot(x, y, markersize=5, clip_on=False, **style)


def decision_curve(curves: Sequence[NetBenefit], names: Sequence[str]) -> Picture:
    """Draw net benefit against the threshold for every arm, for treating all and for treating none.

    The band is the first arm's interval.
    """
    first = curves[0]
    with canvas(5.6, 3.6) as (figure, axes):
        axes.fill_between(first.thresholds, first.low, first.high, color=colour_of(0), alpha=0.12, linewidth=0)
        axes.plot(first.thresholds, first.treat_all, color=SOFT, linewidth=1.2, linestyle=(0, (5, 2, 1, 2)))
        axes.plot(first.thresholds, first.treat_none, color=INK, linewidth=1.2)
        for index, curve in enumerate(curves):
            axes.plot(curve.thresholds, curve.model, **line_style(index))
        top = max(float(max(curve.model.max() for curve in curves)), float(first.treat_all.max()), 0.01)
        axes.set(xlim=(0, first.thresholds[-1]), ylim=(-0.25 * top, 1.1 * top))
        axes.set(xlabel="Threshold probability", ylabel="Net benefit")
        best = "; ".join(
            f"{name}: {np.interp(0.2, c.thresholds, c.model):.3f} at a threshold of 0.2"
            for name, c in zip(names, curves, strict=True)
        )
        return svg(
            figure, f"Decision curves. {best}; treating all: {np.interp(0.2, first.thresholds, first.treat_all):.3f}."
        )


def risk_coverage(curves: Sequence[RiskCoverage], names: Sequence[str]) -> Picture:
    """Draw the share of wrong answers against the share of exams that are answered, surest first."""
    with canvas(5.6, 3.2) as (figure, axes):
        for index, curve in enumerate(curves):
            axes.plot(np.r_[curve.coverage[:1], curve.coverage], np.r_[curve.risk[:1], curve.risk], **line_style(index))
        top = max(float(curve.risk.max()) for curve in curves)
        axes.set(xlim=(0, 1), ylim=(0, max(1.08 * top, 0.05)), xlabel="Share of exams answered, surest first")
        axes.set_ylabel("Share answered wrongly")
        ends = "; ".join(f"{name}: {curve.risk[-1]:.3f} with all" for name, curve in zip(names, curves, strict=True))
        return svg(figure, f"Risk against coverage. {ends}.")


def overlay(image: NDArray[np.uint8], heat: NDArray[np.float32], strongest: float, side: int, alt: str) -> Picture:
    """Lay heat over a slice: orange where it speaks for the finding, blue where against it.

    Args:
        image: uint8 (H, W).
        heat: (H, W), of either sign.
        strongest: what is drawn with full strength, above 0.
        side: the longest side of the result, in pixels.
        alt: its text alternative.
    """
    picture = Image.fromarray(heated(image, heat, strongest))
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return png(picture.quantize(PALETTE, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE), alt)


def heated(image: NDArray[np.uint8], heat: NDArray[np.float32], strongest: float) -> NDArray[np.uint8]:
    """Return a slice with heat over it, uint8 (H, W, 3), at its own size; for the arguments see `overlay`."""
    strength = np.clip(np.abs(heat) / strongest, 0, 1)[..., None] * STRONGEST
    tint = np.where(heat[..., None] >= 0, _rgb(ORANGE), _rgb("#2f7fd6"))
    grey = np.repeat(image[..., None].astype(np.float32), 3, axis=2)
    return (grey * (1 - strength) + tint * strength).round().astype(np.uint8)


def _rgb(colour: str) -> NDArray[np.float32]:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.float32)
