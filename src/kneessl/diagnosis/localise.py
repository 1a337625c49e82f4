"""`kneessl localise`: whether a model looks at the lesion, on synthetic knees, whose lesions' places are known."""

import csv
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
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
from tqdm import tqdm

from kneessl.diagnosis.explain import Explanation, cell, explain, heat
from kneessl.diagnosis.model import PlaneModel, load_model
from kneessl.errors import UserError
from kneessl.evaluation.localisation import (
    Boxes,
    Falls,
    Outcome,
    Outcomes,
    Point,
    Rate,
    Region,
    clipped,
    elsewhere,
    hidden,
    judge,
    lesion_mask,
    peak,
)
from kneessl.exams.folder import SIDE, ExamFolder, Plane, Split
from kneessl.exams.lesions import LesionBox, read_lesions
from kneessl.files import replacing, write_text
from kneessl.views.preprocess import central

GAP = 2
"""Pixels that a moved box keeps from any lesion."""
SHOWN = 4
"""Exams of a task in a plane that `examples.png` shows."""


@dataclass(frozen=True)
class Found:
    """What a model makes of one exam that has the finding on at least one slice of the plane."""

    exam: str
    kinds: tuple[str, ...]
    """Of its lesions of the finding."""
    area: float
    """Of the largest box; in mm^2, or in pixels where the folder does not know millimetres."""
    logit: float
    """Without test-time shifts."""
    point: Point
    """The highest pixel: slice, row, column."""
    outcomes: Outcomes
    fall: float | None
    """How far the logit falls with the lesion hidden; None where no control fits beside it, or it lies out of sight."""
    control_fall: float | None


@dataclass(frozen=True)
class Result:
    """One task in one plane."""

    plane: Plane
    task: str
    exact: bool
    """Exact class activation, or Grad-CAM."""
    margin: int
    """Of `near_box`, in pixels: one cell of the network's map."""
    found: list[Found]


def localise(model: Path, data: Path, task: str | None = None, split: Split = "valid", out: Path | None = None) -> None:
    """Measure whether a model looks at the lesion: pointing, right slice, and hiding the lesion; by finding and size.

    Needs lesions.csv, which only synthetic knees have. The exams are those with a lesion of the finding on a slice of
    the plane; for task abnormal every lesion counts. The highest pixel of the whole exam's heat map is to lie in a
    lesion's box, on its slice, and the slice of the highest score is to have a lesion; beside these stands what
    guessing reaches, and what always pointing at the middle does. Then the lesion is painted over from its rim on every
    slice, which should lower the score, and more than painting over the nearest free place of the same size.

    Args:
        model: Run folder of `kneessl finetune` or `kneessl fuse`; each of its planes is measured on its own.
        data: Exam folder with lesions.csv.
        task: One of the model's; by default all that have lesions.
        split: Whose exams.
        out: Where localisation.csv, localisation.json and examples.png go; by default into MODEL.
    """
    loaded, folder = load_model(model), ExamFolder(data)
    boxes = [box for box in read_lesions(folder.root) if box.split == split]
    if task is not None and task not in loaded.tasks:
        raise UserError(f"{model} has no task {task}; it answers {', '.join(loaded.tasks)}")
    tasks = [t for t in ([task] if task else loaded.tasks) if any(has(box, t) for box in boxes)]
    areas = pixel_areas(folder, boxes)
    results = [measure(plane, folder, split, t, boxes, areas) for plane in loaded.planes.values() for t in tasks]
    results = [result for result in results if result.found]
    if not results:
        raise UserError(
            f"no exam of {folder.root / split} has a lesion for {task or ' or '.join(loaded.tasks)} in a plane of "
            f"{model}; choose another task or split"
        )
    unit = "mm2" if areas else "px"
    summary = {"split": split, "area_unit": unit, "results": [summarise(result) for result in results]}
    out = out or model
    write_text(out / "localisation.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")
    write_table(out / "localisation.csv", results, unit)
    rows = [(result, loaded.planes[result.plane]) for result in results]
    write_examples(out / "examples.png", rows, folder, split, boxes)
    print("\n".join(describe(result) for result in results))
    print(f"pictures: {out / 'examples.png'}")


def has(box: LesionBox, task: str) -> bool:
    """Whether a lesion answers a task: a tear is abnormal too."""
    return task in ("abnormal", box.finding)


def pixel_areas(folder: ExamFolder, boxes: list[LesionBox]) -> dict[tuple[str, str, str], float]:
    """A pixel's mm^2 by split, plane and exam; nothing where `exams.csv` does not tell them of all that have boxes."""
    areas = {(line.split, line.plane, line.exam): line.row_mm * line.column_mm for line in folder.provenance()}
    known = all(0 < areas.get((box.split, box.plane, box.exam), 0) < math.inf for box in boxes)
    return areas if known else {}


def corners(boxes: list[LesionBox]) -> Boxes:
    """Boxes as `kneessl.evaluation.localisation` has them."""
    rows = [(box.slice, box.row_min, box.row_max, box.column_min, box.column_max) for box in boxes]
    return np.array(rows, np.int64).reshape(-1, 5)


def region_of(model: PlaneModel, slices: int) -> Region:
    """What a model looks at of a series."""
    side = central(SIDE, model.preprocessing.field)
    return model.preprocessing.middle(slices), side, side


def measure(
    model: PlaneModel,
    folder: ExamFolder,
    split: str,
    task: str,
    boxes: list[LesionBox],
    areas: dict[tuple[str, str, str], float],
) -> Result:
    """Measure one task of one plane's model on every exam with a lesion, with a progress bar.

    Args:
        model: One plane's.
        folder: The exams.
        split: Whose boxes these are.
        task: One of the model's.
        boxes: Of every exam, plane and finding.
        areas: As of `pixel_areas`.

    Raises:
        UserError: a box lies on a slice that its series does not have.
    """
    margin, found, exact = round(cell(model)), [], True
    by_exam: dict[str, list[LesionBox]] = {}
    for box in boxes:
        if box.plane == model.plane:
            by_exam.setdefault(box.exam, []).append(box)
    known = set(folder.exams(split, model.plane))
    exams = sorted(exam for exam, own in by_exam.items() if exam in known and any(has(box, task) for box in own))
    for exam in tqdm(exams, desc=f"localise {task}, {model.plane}", unit="exam", dynamic_ncols=True):
        series = np.array(folder.series(split, model.plane, exam))
        if max(box.slice for box in by_exam[exam]) >= len(series):
            raise UserError(
                f"{folder.root / 'lesions.csv'} has a box on a slice that {folder.path(split, model.plane, exam)} "
                f"does not have; it has {len(series)}, counted from 0"
            )
        own = [box for box in by_exam[exam] if has(box, task)]
        explanation = explain(model, series, task)
        exact = explanation.exact
        region, heated = region_of(model, len(series)), heat(explanation, model)
        fall, control = falls(model, series, task, explanation.logit, corners(own), corners(by_exam[exam]))
        largest = max(box.area for box in own) * areas.get((split, model.plane, exam), 1.0)
        found.append(
            Found(
                exam=exam,
                kinds=tuple(sorted({box.kind for box in own})),
                area=largest,
                logit=explanation.logit,
                point=peak(heated, region),
                outcomes=judge(heated, explanation.slice_scores, corners(own), region, margin),
                fall=fall,
                control_fall=control,
            )
        )
    return Result(model.plane, task, exact, margin, found)


def falls(
    model: PlaneModel, series: np.ndarray, task: str, logit: float, boxes: Boxes, all_boxes: Boxes
) -> tuple[float, float] | tuple[None, None]:
    """How far one task's logit falls with the lesion hidden, and with the same boxes hidden nearby.

    Of a box, the part that the model looks at is hidden and moved. Nothing where no part is, or where some slice has no
    free place for its boxes.

    Args:
        model: One plane's.
        series: uint8 `(slices, 256, 256)`.
        task: One of the model's.
        logit: As the series is.
        boxes: The lesions to hide.
        all_boxes: These and the others, which the moved boxes keep off.
    """
    region = region_of(model, len(series))
    seen = clipped(boxes, region)
    if not len(seen):
        return None, None
    moved = elsewhere(seen, lesion_mask(series.shape, all_boxes, GAP), region)
    if moved is None:
        return None, None
    without = [hidden(series, lesion_mask(series.shape, chosen)) for chosen in (seen, moved)]
    fall, control = (logit - explain(model, painted, task).logit for painted in without)
    return fall, control


def groups(found: list[Found]) -> dict[str, list[Found]]:
    """All exams, those scored higher than the others, thirds by the largest box's area, and by kind of lesion.

    An exam with lesions of several kinds is in the group of each; a hit is on any lesion of the finding.
    """
    by_score = sorted(found, key=lambda f: -f.logit)
    named = {"all": found, "higher-scored half": by_score[: (len(found) + 1) // 2]}
    by_area = sorted(found, key=lambda f: f.area)
    ends = [round(len(found) * third / 3) for third in range(4)]
    for name, start, stop in zip(("smallest third", "middle third", "largest third"), ends, ends[1:], strict=False):
        named[name] = by_area[start:stop]
    for kind in sorted({kind for f in found for kind in f.kinds}):
        named[kind.replace("_", " ")] = [f for f in found if kind in f.kinds]
    return {name: members for name, members in named.items() if members}


def rates(found: list[Found]) -> dict[str, Rate]:
    """Each measure over at least one exam."""
    measures: dict[str, Callable[[Outcomes], Outcome]] = {
        "in_box": lambda o: o.in_box,
        "near_box": lambda o: o.near_box,
        "right_slice": lambda o: o.right_slice,
    }
    return {name: Rate.of([of(f.outcomes) for f in found]) for name, of in measures.items()}


def hiding(found: list[Found]) -> Falls | None:
    """What hiding does, over the exams where it could be tried; None without any."""
    pairs = [(f.fall, f.control_fall) for f in found if f.fall is not None]
    return Falls.of(*np.array(pairs, np.float64).T) if pairs else None


def summarise(result: Result) -> dict[str, Any]:
    """A result as plain numbers, ready for JSON."""
    summary = {}
    for name, found in groups(result.found).items():
        falling = hiding(found)
        summary[name] = {
            "exams": len(found),
            "out_of_sight": sum(f.outcomes.in_box.chance == 0 for f in found),
            "area": [min(f.area for f in found), max(f.area for f in found)],
            **{measure: asdict(rate) for measure, rate in rates(found).items()},
            "hiding": None if falling is None else asdict(falling),
        }
    facts = {"plane": result.plane, "task": result.task, "exact": result.exact, "margin_px": result.margin}
    return {**facts, "groups": summary}


def describe(result: Result) -> str:
    """One table as text, a line for each group of exams."""
    method = "exact class activation" if result.exact else "Grad-CAM"
    lines = [
        f"{result.task}, {result.plane}: {len(result.found)} exams with a lesion in the plane; {method}; "
        "per cent (chance; middle of the picture)",
        f"{'':20} exams {'in the box':>18} {f'within {result.margin} px':>18} {'right slice':>18}   "
        "fall of the logit, hidden (control)",
    ]
    for name, found in groups(result.found).items():
        cells = [
            f"{100 * r.found.value:.0f} ({100 * r.chance:.1f}; {100 * r.middle.value:.0f})"
            for r in rates(found).values()
        ]
        falling = hiding(found)
        fall = "" if falling is None else f"{falling.lesion:+.3f} ({falling.control:+.3f})"
        lines.append(f"{name:20} {len(found):5} " + " ".join(f"{text:>18}" for text in cells) + f"   {fall}")
    for name, rate in zip(
        ("in the box", "within the margin", "right slice"), rates(result.found).values(), strict=True
    ):
        p = rate.found
        lines.append(
            f"  {name}: {p.value:.3f} (95 % Wilson {p.low:.3f} to {p.high:.3f}; {p.successes} of {p.n}); against "
            f"chance p = {rate.p_chance:.2g}, against the middle p = {rate.p_middle:.2g}"
        )
    falling = hiding(result.found)
    if falling is not None:
        interval = "" if falling.low is None else f" (95 % t {falling.low:+.3f} to {falling.high:+.3f})"
        more = falling.larger
        lines.append(
            f"  hiding the lesion lowers the logit by {falling.difference:+.3f}{interval} more than its control; "
            f"further in {more.successes} of {more.n} exams (95 % Wilson {more.low:.3f} to {more.high:.3f})"
        )
    return "\n".join(lines)


def write_table(path: Path, results: list[Result], unit: str) -> None:
    """One line for each exam, task and plane, unrounded."""
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        measures = ("in_box", "near_box", "right_slice")
        judged = [f"{measure}{ending}" for measure in measures for ending in ("", "_chance", "_middle")]
        point = ("slice", "row", "column")
        writer.writerow(
            ["plane", "task", "exam", "kinds", f"area_{unit}", "logit", *point, *judged, "fall", "control_fall"]
        )
        for result in results:
            for f in result.found:
                outcomes = [getattr(f.outcomes, measure) for measure in measures]
                values = [value for o in outcomes for value in (int(o.hit), o.chance, int(o.middle))]
                kinds = "+".join(f.kinds)
                row = [result.plane, result.task, f.exam, kinds, f.area, f.logit, *f.point, *values]
                writer.writerow([*row, f.fall, f.control_fall])


def chosen_examples(found: list[Found]) -> list[Found]:
    """Up to `SHOWN` exams, evenly from the highest score to the lowest: not the finest ones."""
    ranked = sorted(found, key=lambda f: -f.logit)
    places = np.linspace(0, len(ranked) - 1, min(SHOWN, len(ranked))).round().astype(int)
    return [ranked[i] for i in places]


_SHARES = np.linspace(0, 1, 256)
HEAT = ListedColormap(np.column_stack([colormaps["viridis"](_SHARES)[:, :3], 0.8 * _SHARES]), "heat")
"""From nothing over green to yellow: no red, which one man in twelve cannot tell from green, and legible on grey."""
BOX, POINT = "#00e5ff", "#ffffff"


def write_examples(
    path: Path, rows: list[tuple[Result, PlaneModel]], folder: ExamFolder, split: str, boxes: list[LesionBox]
) -> None:
    """Draw, for each task and plane, the slices that a model points at: as they are, and with the heat map over them.

    Args:
        path: A PNG file.
        rows: Results, and the model of each one's plane.
        folder: The exams.
        split: Theirs.
        boxes: Of every exam, plane and finding.
    """
    style: dict[Any, Any] = {"font.family": "DejaVu Sans", "font.size": 8}
    with rc_context(style):
        figure = Figure((4 * SHOWN, 2.45 * len(rows) + 0.5), layout="constrained", dpi=100)
        axes = figure.subplots(len(rows), 2 * SHOWN, squeeze=False)
        for line, (result, model) in zip(axes, rows, strict=True):
            for axis in line:
                axis.set_axis_off()
            label = {"rotation": 90, "weight": "bold", "parse_math": False, "transform": line[0].transAxes}
            line[0].text(-0.04, 0.5, f"{result.task}, {result.plane}", ha="right", va="center", **label)
            for k, found in enumerate(chosen_examples(result.found)):
                series = np.array(folder.series(split, model.plane, found.exam))
                own = [b for b in boxes if (b.exam, b.plane) == (found.exam, model.plane) and has(b, result.task)]
                draw_example(
                    line[2 * k], line[2 * k + 1], model, series, explain(model, series, result.task), found, own
                )
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
    found: Found,
    boxes: list[LesionBox],
) -> None:
    """Draw the slice that a model points at, without and with its heat map."""
    shown, row, column = found.point
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
        f"{found.exam}: logit {found.logit:+.2f}\nlesion on {where[0]} to {where[-1]}", fontsize=8, parse_math=False
    )
    hit = "in the box" if found.outcomes.in_box.hit else "within a cell" if found.outcomes.near_box.hit else "missed"
    heated.set_title(f"slice {shown + 1} of {len(series)}\n{hit}", fontsize=8)
