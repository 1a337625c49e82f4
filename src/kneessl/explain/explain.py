"""Class activation maps: what each position of each slice adds to one task's logit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from kneessl.classifier.heads import Explained
from kneessl.exams.folder import SIDE
from kneessl.model.model import PlaneModel
from kneessl.model.predict import whole_clip
from kneessl.nets.encoder import Grid
from kneessl.views.preprocess import central


@dataclass(frozen=True, eq=False)
class Explanation:
    """One task's logit of one series, and where it comes from."""

    logit: float
    """Without test-time shifts."""
    maps: np.ndarray
    """float32 `(slices, h, w)`, zero on slices that the model does not look at."""
    exact: bool
    """Whether the maps sum to the logit less the head's bias; otherwise they are Grad-CAM's, 0 and more."""
    fine: np.ndarray
    """float32 `(slices, k h, k w)`: the maps at the places between their cells too (`PlaneModel.fine_maps`)."""

    @property
    def slice_scores(self) -> np.ndarray:
        """What each slice adds to the logit, float32 `(slices,)`: the sum over its map."""
        return self.maps.sum((1, 2))


@torch.no_grad()
def explain(model: PlaneModel, series: np.ndarray, task: str) -> Explanation:
    """Explain one task's logit; see `explanations`.

    Args:
        model: The model of one plane.
        series: uint8 `(slices, 256, 256)`.
        task: One of the model's.
    """
    clip, where = whole_clip(model, series)
    return explanations(model, clip, model.maps(clip), where, len(series), [task])[task]


@torch.no_grad()
def explanations(
    model: PlaneModel, clip: Tensor, maps: Tensor, where: Tensor, total: int, tasks: Sequence[str]
) -> dict[str, Explanation]:
    """Explain the logits of some tasks, given the encoder's maps.

    A head that is `Explained` attributes its logits exactly (class activation maps, Zhou et al. 2016, carried over to
    its pooling); any other is read by `grad_cam`, with one backward pass a task.

    Args:
        model: The model of one plane.
        clip: float `(1, S, H, W)`, the slices that the preprocessing keeps.
        maps: float `(1, S, C, h, w)`, the encoder's maps of them.
        where: float `(1, S)`, their places.
        total: Slices of the whole series.
        tasks: Some of the model's tasks.
    """
    head, index = model.classifier.head, [model.tasks.index(task) for task in tasks]
    logits, evidence = attribution(head, maps, where, index)
    fine_maps = model.fine_maps(clip, maps)
    fine = evidence if model.finer == 1 else attribution(head, fine_maps, where, index)[1]
    fine = fine * (fine[0, 0].numel() / evidence[0, 0].numel())  # a place's value, not its share of more places
    parts = []
    for values in (evidence, fine):
        whole = np.zeros((len(tasks), total, *values.shape[2:]), np.float32)
        whole[:, model.preprocessing.middle(total)] = values.cpu().numpy()
        parts.append(whole)
    exact = isinstance(head, Explained)
    rows = zip(tasks, logits.tolist(), *parts, strict=True)
    return {task: Explanation(logit, part, exact, fine_part) for task, logit, part, fine_part in rows}


def attribution(head: nn.Module, maps: Tensor, where: Tensor, index: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The logits `(k,)` that `index` names, and what each place adds to them, `(k, S, h, w)`; as `grad_cam`."""
    if isinstance(head, Explained):
        return head(maps, where)[0, index], head.evidence(maps[0])[list(index)]  # type: ignore[operator]
    return grad_cam(head, maps, where, index)


def grad_cam(head: nn.Module, maps: Tensor, where: Tensor, index: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Gradient-weighted class activation (Selvaraju et al. 2017, equations 1 and 2), for each slice on its own.

    A channel's weight on a slice is the mean of the logit's gradient over the slice's positions; that every slice has
    weights of its own is our reading: the paper treats single pictures.

    Args:
        head: One of `HEADS`.
        maps: float `(1, S, C, h, w)`.
        where: float `(1, S)`, places of the slices.
        index: Which logits, k of them.

    Returns:
        The logits `(k,)`, and float `(k, S, h, w)`, 0 and more.
    """
    with torch.enable_grad():
        leaf = maps.detach().requires_grad_()
        logits = head(leaf, where)[0, list(index)]
        gradients = [torch.autograd.grad(logit, leaf, retain_graph=True)[0] for logit in logits]
    weighted = [(gradient.mean((3, 4), keepdim=True) * maps.detach()).sum(2)[0].relu() for gradient in gradients]
    return logits.detach(), torch.stack(weighted)


def map_grid(model: PlaneModel) -> Grid:
    """Where the cells of a model's maps lie on the part of a slice that it looks at."""
    return cast(Grid, model.classifier.encoder.grid)


def cell_size(model: PlaneModel) -> float:
    """Distance between the centres of neighbouring cells of the map, in pixels of the series."""
    looked_at = central(SIDE, model.preprocessing.field)
    return map_grid(model).step * (looked_at.stop - looked_at.start) / model.preprocessing.size


def heat(explanation: Explanation, model: PlaneModel, side: int = SIDE) -> np.ndarray:
    """Put maps back onto the whole slices, bilinear between the centres of cells and level beyond the outermost.

    Args:
        explanation: What `explain` returned for a series and `model`.
        model: Says which part of a slice it looks at, and where its cells lie.
        side: Side of a slice, in pixels.

    Returns:
        float32 `(slices, side, side)`, zero outside the part of a slice that the model looks at.
    """
    rows, columns = (interpolation_matrix(model, side, cells) for cells in explanation.fine.shape[1:])
    return rows @ explanation.fine @ columns.T


def interpolation_matrix(model: PlaneModel, side: int, cells: int) -> np.ndarray:
    """Linear interpolation from the cells of a fine map to pixels along one axis: float32 weights `(side, cells)`."""
    grid, looked_at = map_grid(model), central(side, model.preprocessing.field)
    count = looked_at.stop - looked_at.start
    network_pixel = (np.arange(count) + 0.5) * (model.preprocessing.size / count) - 0.5
    place = ((network_pixel - grid.first) / (grid.step / model.finer)).clip(0, cells - 1)
    matrix = np.zeros((side, cells), np.float32)
    matrix[looked_at] = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(cells)))
    return matrix
