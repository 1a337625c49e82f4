"""`kneessl localise`: whether a model looks at the lesion, on synthetic knees, whose lesions' places are known."""

import csv
import json
import math
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from kneessl.errors import UserError
from kneessl.evaluation.localisation import (
    Boxes,
    Falls,
    Outcomes,
    Rate,
    clipped,
    elsewhere,
    hidden,
    judge,
    lesion_mask,
    peak,
)
from kneessl.exams.folder import ExamFolder, Split
from kneessl.exams.lesions import LesionBox, read_lesions
from kneessl.explain.examples import write_examples
from kneessl.explain.explain import cell_size, explain, heat
from kneessl.explain.measurements import ExamMeasurement, PlaneMeasurement, matches_task, region_of
from kneessl.files import replacing, write_text
from kneessl.model.model import PlaneModel, load_model
from kneessl.model.predict import series_logits
from kneessl.progress import progress

MEASURES = tuple(f.name for f in fields(Outcomes))
GAP = 2
"""Pixels that a moved box keeps from any lesion."""


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
    tasks = [t for t in ([task] if task else loaded.tasks) if any(matches_task(box, t) for box in boxes)]
    areas = pixel_areas(folder, boxes)
    results = [measure(plane, folder, split, t, boxes, areas) for plane in loaded.planes.values() for t in tasks]
    results = [result for result in results if result.exams]
    if not results:
        raise UserError(
            f"no exam of {folder.root / split} has a lesion for {task or ' or '.join(loaded.tasks)} in a plane of "
            f"{model}; choose another task or split"
        )
    unit = "mm2" if areas else "px"
    summary = {"split": split, "area_unit": unit, "results": [result_summary(result) for result in results]}
    out = out or model
    write_text(out / "localisation.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")
    write_measurements(out / "localisation.csv", results, unit)
    rows = [(result, loaded.planes[result.plane]) for result in results]
    write_examples(out / "examples.png", rows, folder, split, boxes)
    print("\n".join(result_text(result) for result in results))
    print(f"pictures: {out / 'examples.png'}")


def pixel_areas(folder: ExamFolder, boxes: list[LesionBox]) -> dict[tuple[str, str, str], float]:
    """A pixel's mm^2 by split, plane and exam; nothing where `exams.csv` does not tell them of all that have boxes."""
    areas = {(row.split, row.plane, row.exam): row.row_mm * row.column_mm for row in folder.provenance()}
    known = all(0 < areas.get((box.split, box.plane, box.exam), 0) < math.inf for box in boxes)
    return areas if known else {}


def corners(boxes: list[LesionBox]) -> Boxes:
    """Boxes as `kneessl.evaluation.localisation` has them."""
    rows = [(box.slice, box.row_min, box.row_max, box.column_min, box.column_max) for box in boxes]
    return np.array(rows, np.int64).reshape(-1, 5)


def measure(
    model: PlaneModel,
    folder: ExamFolder,
    split: str,
    task: str,
    boxes: list[LesionBox],
    areas: dict[tuple[str, str, str], float],
) -> PlaneMeasurement:
    """Measure one task of one plane's model on every exam with a lesion, with a progress bar.

    Args:
        model: The model of one plane.
        folder: The exams.
        split: The split that the boxes belong to.
        task: One of the model's.
        boxes: Lesions of every exam, plane and finding.
        areas: What `pixel_areas` returns.

    Raises:
        UserError: a box lies on a slice that its series does not have.
    """
    margin, measured, exact = round(cell_size(model)), [], True
    by_exam: dict[str, list[LesionBox]] = {}
    for box in boxes:
        if box.plane == model.plane:
            by_exam.setdefault(box.exam, []).append(box)
    known = set(folder.exams(split, model.plane))
    lesions = {exam: [box for box in all_boxes if matches_task(box, task)] for exam, all_boxes in by_exam.items()}
    exams = sorted(exam for exam, exam_lesions in lesions.items() if exam in known and exam_lesions)
    for exam in progress(exams, title=f"localise {task}, {model.plane}", unit="exam"):
        series = np.array(folder.series(split, model.plane, exam))
        if max(box.slice for box in by_exam[exam]) >= len(series):
            raise UserError(
                f"{folder.root / 'lesions.csv'} has a box on a slice that {folder.path(split, model.plane, exam)} "
                f"does not have; it has {len(series)}, counted from 0, so correct lesions.csv"
            )
        explanation = explain(model, series, task)
        exact = explanation.exact
        region, heated = region_of(model, len(series)), heat(explanation, model)
        fall, control = falls(model, series, task, explanation.logit, corners(lesions[exam]), corners(by_exam[exam]))
        largest = max(box.area for box in lesions[exam]) * areas.get((split, model.plane, exam), 1.0)
        measured.append(
            ExamMeasurement(
                exam=exam,
                kinds=tuple(sorted({box.kind for box in lesions[exam]})),
                area=largest,
                logit=explanation.logit,
                point=peak(heated, region),
                outcomes=judge(heated, explanation.slice_scores, corners(lesions[exam]), region, margin),
                fall=fall,
                control_fall=control,
            )
        )
    return PlaneMeasurement(model.plane, task, exact, margin, measured)


def falls(
    model: PlaneModel, series: np.ndarray, task: str, logit: float, boxes: Boxes, all_boxes: Boxes
) -> tuple[float, float] | tuple[None, None]:
    """How far one task's logit falls with the lesion hidden, and with the same boxes hidden nearby.

    Of a box, the part that the model looks at is hidden and moved. Nothing where no part is, or where some slice has no
    free place for its boxes.

    Args:
        model: The model of one plane.
        series: uint8 `(slices, 256, 256)`.
        task: One of the model's.
        logit: Of the unchanged series.
        boxes: The lesions to hide.
        all_boxes: These and the others, which the moved boxes keep off.
    """
    region = region_of(model, len(series))
    visible = clipped(boxes, region)
    if not len(visible):
        return None, None
    moved = elsewhere(visible, lesion_mask(series.shape, all_boxes, GAP), region)
    if moved is None:
        return None, None
    plain, index = replace(model, tta=False), model.tasks.index(task)
    without = [hidden(series, lesion_mask(series.shape, chosen)) for chosen in (visible, moved)]
    fall, control = (logit - float(series_logits(plain, painted)[index]) for painted in without)
    return fall, control


def groups(exams: list[ExamMeasurement]) -> dict[str, list[ExamMeasurement]]:
    """All exams, those scored higher than the others, thirds by the largest box's area, and by kind of lesion.

    An exam with lesions of several kinds is in the group of each; a hit is on any lesion of the finding.
    """
    by_score = sorted(exams, key=lambda f: -f.logit)
    named = {"all": exams, "higher-scored half": by_score[: (len(exams) + 1) // 2]}
    by_area = sorted(exams, key=lambda f: f.area)
    ends = [round(len(exams) * third / 3) for third in range(4)]
    for name, start, stop in zip(("smallest third", "middle third", "largest third"), ends, ends[1:], strict=False):
        named[name] = by_area[start:stop]
    for kind in sorted({kind for f in exams for kind in f.kinds}):
        named[kind.replace("_", " ")] = [f for f in exams if kind in f.kinds]
    return {name: members for name, members in named.items() if members}


def rates(exams: list[ExamMeasurement]) -> dict[str, Rate]:
    """Each measure over at least one exam."""
    return {measure: Rate.of([getattr(f.outcomes, measure) for f in exams]) for measure in MEASURES}


def hiding(exams: list[ExamMeasurement]) -> Falls | None:
    """What hiding does, over the exams where it could be tried; None without any."""
    pairs = [(f.fall, f.control_fall) for f in exams if f.fall is not None]
    return Falls.of(*np.array(pairs, np.float64).T) if pairs else None


def result_summary(result: PlaneMeasurement) -> dict[str, Any]:
    """A result as plain numbers, ready for JSON."""
    summary = {}
    for name, members in groups(result.exams).items():
        falling = hiding(members)
        summary[name] = {
            "exams": len(members),
            "out_of_sight": sum(f.outcomes.in_box.chance == 0 for f in members),
            "area": [min(f.area for f in members), max(f.area for f in members)],
            **{measure: asdict(rate) for measure, rate in rates(members).items()},
            "hiding": None if falling is None else asdict(falling),
        }
    facts = {"plane": result.plane, "task": result.task, "exact": result.exact, "margin_px": result.margin}
    return {**facts, "groups": summary}


def result_text(result: PlaneMeasurement) -> str:
    """One table as text, a line for each group of exams."""
    method = "exact class activation" if result.exact else "Grad-CAM"
    lines = [
        f"{result.task}, {result.plane}: {len(result.exams)} exams with a lesion in the plane; {method}; "
        "per cent (chance; middle of the picture)",
        f"{'':20} exams {'in the box':>18} {f'within {result.margin} px':>18} {'right slice':>18}   "
        "fall of the logit, hidden (control)",
    ]
    for name, members in groups(result.exams).items():
        cells = [
            f"{100 * r.found.value:.0f} ({100 * r.chance:.1f}; {100 * r.middle.value:.0f})"
            for r in rates(members).values()
        ]
        falling = hiding(members)
        fall = "" if falling is None else f"{falling.lesion:+.3f} ({falling.control:+.3f})"
        lines.append(f"{name:20} {len(members):5} " + " ".join(f"{text:>18}" for text in cells) + f"   {fall}")
    for name, rate in zip(
        ("in the box", "within the margin", "right slice"), rates(result.exams).values(), strict=True
    ):
        p = rate.found
        lines.append(
            f"  {name}: {p.value:.3f} (95 % Wilson {p.low:.3f} to {p.high:.3f}; {p.successes} of {p.n}); against "
            f"chance p = {rate.p_chance:.2g}, against the middle p = {rate.p_middle:.2g}"
        )
    falling = hiding(result.exams)
    if falling is not None:
        interval = "" if falling.low is None else f" (95 % t {falling.low:+.3f} to {falling.high:+.3f})"
        more = falling.larger
        lines.append(
            f"  hiding the lesion lowers the logit by {falling.difference:+.3f}{interval} more than its control; "
            f"further in {more.successes} of {more.n} exams (95 % Wilson {more.low:.3f} to {more.high:.3f})"
        )
    return "\n".join(lines)


def write_measurements(path: Path, results: list[PlaneMeasurement], unit: str) -> None:
    """One line for each exam, task and plane, unrounded."""
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        judged = [f"{measure}{ending}" for measure in MEASURES for ending in ("", "_chance", "_middle")]
        point = ("slice", "row", "column")
        writer.writerow(
            ["plane", "task", "exam", "kinds", f"area_{unit}", "logit", *point, *judged, "fall", "control_fall"]
        )
        for result in results:
            for f in result.exams:
                outcomes = [getattr(f.outcomes, measure) for measure in MEASURES]
                values = [value for o in outcomes for value in (int(o.hit), o.chance, int(o.middle))]
                kinds = "+".join(f.kinds)
                row = [result.plane, result.task, f.exam, kinds, f.area, f.logit, *f.point, *values]
                writer.writerow([*row, f.fall, f.control_fall])
