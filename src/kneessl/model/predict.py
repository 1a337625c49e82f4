"""Deterministic prediction: all slices that the preprocessing keeps, float32, no random draw."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor
from tqdm import tqdm

from kneessl.evaluation.decisions import State
from kneessl.evaluation.stacking import planes_key
from kneessl.exams.folder import SIDE, ExamFolder, Plane
from kneessl.model.model import Model, PlaneModel
from kneessl.views.clips import places

SHIFT = 0.04
"""Of the side that a model looks at, by which test-time augmentation moves the picture each way."""
SHIFTS: tuple[tuple[int, int, int], ...] = (
    (0, 0, 0),
    (1, 0, 0),
    (-1, 0, 0),
    (0, 1, 0),
    (0, -1, 0),
    (0, 0, 1),
    (0, 0, -1),
)
"""Test-time augmentation: down and right, in steps of `SHIFT`, and slices by which the kept part of a series moves."""


def moved(slices: np.ndarray, down: int, right: int) -> np.ndarray:
    """Slices `(..., H, W)` moved by whole pixels, black where nothing was."""
    out = np.zeros_like(slices)
    height, width = slices.shape[-2:]
    out[..., max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = slices[
        ..., max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)
    ]
    return out


def whole_clip(model: PlaneModel, series: np.ndarray, shift: tuple[int, int, int] = (0, 0, 0)) -> tuple[Tensor, Tensor]:
    """What a model sees of one series, uint8 `(slices, 256, 256)`, on the model's device.

    Args:
        model: One plane's.
        series: All of it.
        shift: One of `SHIFTS`; the part of the series that is kept moves only as far as the series goes.

    Returns:
        float32 `(1, S, size, size)`, and the slices' places `(1, S)` in the series, from 0 to 1.
    """
    device = next(model.classifier.parameters()).device
    kept = model.preprocessing.middle(len(series))
    offset = max(-kept.start, min(shift[2], len(series) - kept.stop))
    chosen = np.arange(kept.start + offset, kept.stop + offset)
    step = round(SHIFT * model.preprocessing.field * SIDE)
    slices = moved(np.array(series[chosen]), step * shift[0], step * shift[1])
    clip = model.preprocessing(torch.from_numpy(slices)[None].to(device))
    return clip, places(chosen, len(series))[None].to(device)


@dataclass(frozen=True, eq=False)
class Pass:
    """One series once through a network."""

    maps: Tensor
    """float `(1, S, C, h, w)`, the encoder's, of the slices that the preprocessing keeps, without any shift."""
    where: Tensor
    """float `(1, S)`, those slices' places."""
    logits: np.ndarray
    """float64 `(tasks,)`; with tta, means over `SHIFTS`."""

    @property
    def features(self) -> np.ndarray:
        """What the maps are on the whole, float64 `(C,)`: their mean over slices and positions."""
        return self.maps[0].mean((2, 3)).double().mean(0).cpu().numpy()


@torch.no_grad()
def forward(model: PlaneModel, series: np.ndarray) -> Pass:
    """Send one series, uint8 `(slices, 256, 256)`, through a network; with tta, once more for each further shift."""
    clip, where = whole_clip(model, series)
    maps = model.maps(clip)
    found = [model.classifier.head(maps, where)]
    for shift in SHIFTS[1:] if model.tta else ():
        clip, moved_where = whole_clip(model, series, shift)
        found.append(model.classifier.head(model.maps(clip), moved_where))
    return Pass(maps, where, torch.cat(found).double().mean(0).cpu().numpy())


def series_logits(model: PlaneModel, series: np.ndarray) -> np.ndarray:
    """Logits of one series, uint8 `(slices, 256, 256)`: float64 `(tasks,)`; with tta, means over `SHIFTS`."""
    return forward(model, series).logits


def passes(
    model: PlaneModel, folder: ExamFolder, split: str, exams: Sequence[str], title: str
) -> Iterator[Pass | None]:
    """Send exams of one split through the model of a plane, with a progress bar; None without a series in it."""
    known = set(folder.exams(split, model.plane))
    for exam in tqdm(exams, desc=title, unit="exam", dynamic_ncols=True):
        yield forward(model, folder.series(split, model.plane, exam)) if exam in known else None


def plane_logits(model: PlaneModel, folder: ExamFolder, split: str, exams: Sequence[str], title: str) -> np.ndarray:
    """Logits of `exams` of one split in the model's plane, float64 `(exams, tasks)`, with a progress bar.

    An exam without a series in that plane has NaN.
    """
    logits = np.full((len(exams), len(model.tasks)), np.nan)
    for row, found in enumerate(passes(model, folder, split, exams, title)):
        if found is not None:
            logits[row] = found.logits
    return logits


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model says on one task, an item an exam."""

    planes: list[str]
    """What it was said from, such as axial+sagittal; empty where the exam has none of the model's planes."""
    logits: np.ndarray
    """float64 `(n,)`, before recalibration; NaN where there is no plane."""
    probabilities: np.ndarray
    """float64 `(n,)`, recalibrated where the model has that locked."""
    states: list[State | None]
    """At the locked operating points; None where the model has none, or nothing could be said."""
    intervals: list[tuple[float, float] | None]
    """95 %, of the probabilities (`Recalibration.interval`); None as for states, or where an older model has none."""

    def rows(self, chosen: Sequence[int]) -> "Answers":
        """Only those of some exams."""
        index = list(chosen)
        return Answers(
            [self.planes[i] for i in index],
            self.logits[index],
            self.probabilities[index],
            [self.states[i] for i in index],
            [self.intervals[i] for i in index],
        )


def answer(model: Model, task: str, logits: Mapping[Plane, np.ndarray]) -> Answers:
    """Bring the planes together, as locked with the model for just the planes that each exam has.

    Args:
        model: Any.
        task: One of its tasks.
        logits: By plane float64 `(n, tasks)`, NaN where an exam lacks the plane; any of the model's planes.
    """
    column = model.tasks.index(task)
    values: dict[str, np.ndarray] = {plane: found[:, column] for plane, found in logits.items()}
    there = {plane: ~np.isnan(found) for plane, found in values.items()}
    n = len(next(iter(values.values())))
    planes = [planes_key([plane for plane, known in there.items() if known[i]]) for i in range(n)]
    fused, probabilities = np.full(n, np.nan), np.full(n, np.nan)
    states: list[State | None] = [None] * n
    intervals: list[tuple[float, float] | None] = [None] * n
    for key in set(planes) - {""}:
        here = np.array([name == key for name in planes])
        part = {plane: values[plane][here] for plane in key.split("+")}
        if model.decisions is None:
            fused[here] = next(iter(part.values()))
            probabilities[here] = expit(fused[here])
            continue
        decision = model.decisions.decisions[task].get(key)
        if decision is None:  # too few training exams had just these planes
            continue
        stack = model.decisions.stacks.get(task)
        fused[here] = stack.apply(part) if stack else part[key]
        probabilities[here] = decision.recalibration.apply(fused[here])
        for i in np.flatnonzero(here):
            states[i] = decision.points.state(float(probabilities[i]))
            intervals[i] = decision.recalibration.interval(float(fused[i]))
    return Answers(planes, fused, probabilities, states, intervals)


def predict_split(
    model: Model, folder: ExamFolder, split: str, exams: list[str], title: str, planes: Sequence[Plane] | None = None
) -> dict[str, Answers]:
    """What a model says of exams of one split, by task, from all of its planes or only `planes`."""
    used = {plane: m for plane, m in model.planes.items() if planes is None or plane in planes}
    logits = {plane: plane_logits(m, folder, split, exams, f"{title}, {plane}") for plane, m in used.items()}
    return {task: answer(model, task, logits) for task in model.tasks}
