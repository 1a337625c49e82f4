"""The pictures of `kneessl localise`: the slices that a model points at, with its heat map and the lesion's box."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from kneessl.exams.folder import ExamFolder
from kneessl.exams.lesions import LesionBox
from kneessl.explain.explain import Explanation, explain, heat
from kneessl.explain.measurements import ExamMeasurement, PlaneMeasurement, matches_task, region_of
from kneessl.files import replacing
from kneessl.model.model import PlaneModel

SHOWN = 4
"""Exams of a task in a plane that `examples.png` shows."""


def chosen_examples(exams: list[ExamMeasurement]) -> list[ExamMeasurement]:
    """Up to `SHOWN` exams, evenly from the highest score to the lowest: not the finest ones."""
    ranked = sorted(exams, key=lambda f: -f.logit)
    places = np.linspace(0, len(ranked) - 1, min(SHOWN, len(ranked))).round().astype(int)
    return [ranked[i] for i in places]


_SHARES = np.linspace(0, 1, 256)
HEAT = ListedColormap(np.column_stack([colormaps["viridis"](_SHARES)[:, :3], 0.8 * _SHARES]), "heat")
"""From nothing over green to yellow: no red, which one man in twelve cannot tell from green, and legible on grey."""
BOX, POINT = "#00e5ff", "#ffffff"


def write_examples(
    path: Path, rows: list[tuple[PlaneMeasurement, PlaneModel]], folder: ExamFolder, split: str, boxes: list[LesionBox]
) -> None:
    """Draw, for each task and plane, the slices that a model points at: as they are, and with the heat map over them.

    Args:
        path: A PNG file.
        rows: Measures, each with the model of its plane.
        folder: The exams.
        split: The split that they belong to.
        boxes: Lesions of every exam, plane and finding.
    """
    style: dict[Any, Any] = {"font.family": "DejaVu Sans", "font.size": 8}
    with rc_context(style):
        figure = Figure((4 * SHOWN, 2.45 * len(rows) + 0.5), layout="constrained", dpi=100)
        axes = figure.subplots(len(rows), 2 * SHOWN, squeeze=False)
        for row, (result, model) in zip(axes, rows, strict=True):
            for axis in row:
                axis.set_axis_off()
            label = {"rotation": 90, "weight": "bold", "parse_math": False, "transform": row[0].transAxes}
            row[0].text(-0.04, 0.5, f"{result.task}, {result.plane}", ha="right", va="center", **label)
            for k, measured in enumerate(chosen_examples(result.exams)):
                series = np.array(folder.series(split, model.plane, measured.exam))
                place = (measured.exam, model.plane)
                lesions = [b for b in boxes if (b.exam, b.plane) == place and matches_task(b, result.task)]
                explanation = explain(model, series, result.task)
                draw_example(row[2 * k], row[2 * k + 1], model, series, explanation, measured, lesions)
        legend = [
            Line2D([], [], color=BOX, linewidth=1.5, label="lesion"),
            Line2D([], [], color="#444444", marker="+", linestyle="", markersize=9, label="highest pixel of the exam"),
            Line2D([], [], color="#888888", linestyle=":", label="part that the model looks at"),
        ]
        figure.legend(handles=legend, loc="outside lower left", ncols=3, frameon=False)
        shades = ScalarMappable(cmap=HEAT)
        bar = figure.colorbar(shades, ax=axes, location="right", aspect=30, fraction=0.015, pad=0.01)
        bar.set_label("share of the exam's highest; fades out to 0")
        with replacing(path) as partial, partial.open("wb") as file:
            FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})


def draw_example(
    plain: Axes,
    heated: Axes,
    model: PlaneModel,
    series: np.ndarray,
    explanation: Explanation,
    measured: ExamMeasurement,
    boxes: list[LesionBox],
) -> None:
    """Draw the slice that a model points at, without and with its heat map."""
    shown, row, column = measured.point
    region = region_of(model, len(series))
    share = heat(explanation, model)
    share = (share[shown] / max(float(share[region].max()), 1e-12)).clip(0, 1)
    for axis in (plain, heated):
        axis.imshow(series[shown], cmap="gray", vmin=0, vmax=255)
        for box in boxes:
            if box.slice == shown:
                size = (box.column_max - box.column_min + 1, box.row_max - box.row_min + 1)
                corner = (box.column_min - 0.5, box.row_min - 0.5)
                axis.add_patch(Rectangle(corner, *size, fill=False, edgecolor=BOX, linewidth=1.5))
        if model.preprocessing.field < 1:
            side = region[1].stop - region[1].start
            corner = (region[2].start - 0.5, region[1].start - 0.5)
            axis.add_patch(Rectangle(corner, side, side, fill=False, edgecolor="#bbbbbb", linestyle=":"))
    heated.imshow(share, cmap=HEAT, vmin=0, vmax=1)
    heated.plot(column, row, "+", color="black", markersize=11, markeredgewidth=3)
    heated.plot(column, row, "+", color=POINT, markersize=9, markeredgewidth=1.2)
    where = sorted({box.slice + 1 for box in boxes})
    plain.set_title(
        f"{measured.exam}: logit {measured.logit:+.2f}\nlesion on {where[0]} to {where[-1]}",
        fontsize=8,
        parse_math=False,
    )
    outcomes = measured.outcomes
    hit = "in the box" if outcomes.in_box.hit else "within a cell" if outcomes.near_box.hit else "missed"
    heated.set_title(f"slice {shown + 1} of {len(series)}\n{hit}", fontsize=8)
