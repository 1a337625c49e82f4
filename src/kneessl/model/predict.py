"""Deterministic prediction: all slices that the preprocessing keeps, float32, no random draw."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor

from kneessl.evaluation.decisions import State
from kneessl.evaluation.stacking import planes_key
from kneessl.exams.folder import SIDE, ExamFolder, Plane
from kneessl.model.model import Model, PlaneModel
from kneessl.progress import progress
from kneessl.views.clips import places

SHIFT = 0.04
"""Share of the side that a model looks at, by which test-time augmentation shifts the picture each way."""
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


def shifted(slices: np.ndarray, down: int, right: int) -> np.ndarray:
    """Shift slices `(..., H, W)` by whole pixels, filling with black."""
    out = np.zeros_like(slices)
    height, width = slices.shape[-2:]
    out[..., max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = slices[
        ..., max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)
    ]
    return out


def whole_clip(model: PlaneModel, series: np.ndarray, shift: tuple[int, int, int] = (0, 0, 0)) -> tuple[Tensor, Tensor]:
    """The network's input for one series, uint8 `(slices, 256, 256)`, on the model's device.

    Args:
        model: The model of one plane.
        series: All slices of it.
        shift: One of `SHIFTS`; the part of the series that is kept moves only as far as the series goes.

    Returns:
        float32 `(1, S, size, size)`, and the slices' places `(1, S)` in the series, from 0 to 1.
    """
    device = next(model.classifier.parameters()).device
    kept = model.preprocessing.middle(len(series))
    offset = max(-kept.start, min(shift[2], len(series) - kept.stop))
    chosen = np.arange(kept.start + offset, kept.stop + offset)
    step = round(SHIFT * model.preprocessing.field * SIDE)
    slices = shifted(np.array(series[chosen]), step * shift[0], step * shift[1])
    clip = model.preprocessing(torch.from_numpy(slices)[None].to(device))
    return clip, places(chosen, len(series))[None].to(device)


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """What one forward pass of one series gives."""

    clip: Tensor
    """float `(1, S, H, W)`: the slices that the preprocessing keeps, without any shift."""
    maps: Tensor
    """float `(1, S, C, h, w)`: the encoder's maps of them."""
    where: Tensor
    """float `(1, S)`, those slices' places in the series, from 0 to 1."""
    logits: np.ndarray
    """float64 `(tasks,)`; with tta, means over `SHIFTS`."""

    @property
    def features(self) -> np.ndarray:
        """Mean of the maps over slices and positions, float64 `(C,)`."""
        return self.maps[0].mean((2, 3)).double().mean(0).cpu().numpy()


@torch.no_grad()
def forward_pass(model: PlaneModel, series: np.ndarray) -> ForwardPass:
    """Send one series, uint8 `(slices, 256, 256)`, through a network; with tta, once more for each further shift."""
    whole, where = whole_clip(model, series)
    maps = model.maps(whole)
    logits = [model.classifier.head(maps, where)]
    for shift in SHIFTS[1:] if model.tta else ():
        clip, shifted_where = whole_clip(model, series, shift)
        logits.append(model.classifier.head(model.maps(clip), shifted_where))
    return ForwardPass(whole, maps, where, torch.cat(logits).double().mean(0).cpu().numpy())


def series_logits(model: PlaneModel, series: np.ndarray) -> np.ndarray:
    """Logits of one series, uint8 `(slices, 256, 256)`: float64 `(tasks,)`; with tta, means over `SHIFTS`."""
    return forward_pass(model, series).logits


def forward_passes(
    model: PlaneModel, folder: ExamFolder, split: str, exams: Sequence[str], title: str
) -> Iterator[ForwardPass | None]:
    """Send exams of one split through the model of a plane, with a progress bar; None without a series in it."""
    known = set(folder.exams(split, model.plane))
    for exam in progress(exams, title=title, unit="exam"):
        yield forward_pass(model, folder.series(split, model.plane, exam)) if exam in known else None


def plane_logits(model: PlaneModel, folder: ExamFolder, split: str, exams: Sequence[str], title: str) -> np.ndarray:
    """Logits of `exams` of one split in the model's plane, float64 `(exams, tasks)`, with a progress bar.

    An exam without a series in that plane has NaN.
    """
    logits = np.full((len(exams), len(model.tasks)), np.nan)
    for row, one in enumerate(forward_passes(model, folder, split, exams, title)):
        if one is not None:
            logits[row] = one.logits
    return logits


@dataclass(frozen=True, eq=False)
class Predictions:
    """A model's predictions on one task, one item for each exam."""

    planes: list[str]
    """The planes used, such as axial+sagittal; empty where the exam has none of the model's planes."""
    logits: np.ndarray
    """float64 `(n,)`, before recalibration; NaN where there is no plane."""
    probabilities: np.ndarray
    """float64 `(n,)`, recalibrated where the model has that locked."""
    states: list[State | None]
    """At the locked operating points; None where the model has none, or there is no prediction."""
    intervals: list[tuple[float, float] | None]
    """95 % intervals of the probabilities (`Recalibration.interval`); None where there is no state, or where an older
    model has no interval."""

    def rows(self, chosen: Sequence[int]) -> "Predictions":
        """The predictions for the exams with these indices."""
        index = list(chosen)
        return Predictions(
            [self.planes[i] for i in index],
            self.logits[index],
            self.probabilities[index],
            [self.states[i] for i in index],
            [self.intervals[i] for i in index],
        )


def predict_task(model: Model, task: str, logits: Mapping[Plane, np.ndarray]) -> Predictions:
    """Fuse the planes' logits into one prediction an exam, as locked with the model for the planes that the exam has.

    Args:
        model: Of one or several planes.
        task: One of its tasks.
        logits: By plane float64 `(n, tasks)`, NaN where an exam lacks the plane; for one or more of the model's planes.
    """
    column = model.tasks.index(task)
    values: dict[str, np.ndarray] = {plane: rows[:, column] for plane, rows in logits.items()}
    available = {plane: ~np.isnan(column_values) for plane, column_values in values.items()}
    n = len(next(iter(values.values())))
    planes = [planes_key([plane for plane, known in available.items() if known[i]]) for i in range(n)]
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
    return Predictions(planes, fused, probabilities, states, intervals)


def predict_split(
    model: Model, folder: ExamFolder, split: str, exams: list[str], title: str, planes: Sequence[Plane] | None = None
) -> dict[str, Predictions]:
    """A model's predictions for exams of one split, by task, from all of its planes or only `planes`."""
    used = {plane: m for plane, m in model.planes.items() if planes is None or plane in planes}
    logits = {plane: plane_logits(m, folder, split, exams, f"{title}, {plane}") for plane, m in used.items()}
    return {task: predict_task(model, task, logits) for task in model.tasks}
