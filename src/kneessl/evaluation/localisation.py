"""Whether a heat map points at the lesion, beside chance and beside always pointing at the middle; and hiding lesions.

Volumes are `(slices, rows, columns)`. Boxes are int `(n, 5)`: slice, first and last row, first and last column. A
region is the part of a volume that a model looks at.

Sources: the pointing game is of J. Zhang et al., "Top-down neural attention by excitation backprop", International
Journal of Computer Vision 126, 2018; the exact test of two answers to the same exams is of Q. McNemar, Psychometrika
12, 1947. Chance exam by exam, and the control of hiding, are ours.
"""

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.sparse import coo_array, diags_array
from scipy.sparse.linalg import spsolve

from kneessl.evaluation.metrics import Proportion

Boxes = NDArray[np.int64]
Region = tuple[slice, slice, slice]
Point = tuple[int, int, int]


def lesion_mask(shape: tuple[int, ...], boxes: Boxes, margin: int = 0) -> NDArray[np.bool_]:
    """Which pixels of a volume of `shape` lie in a box, or within `margin` rows and columns of one."""
    mask = np.zeros(shape, bool)
    for place, top, bottom, left, right in boxes:
        mask[place, max(top - margin, 0) : bottom + margin + 1, max(left - margin, 0) : right + margin + 1] = True
    return mask


def clipped(boxes: Boxes, region: Region) -> Boxes:
    """The parts of boxes that lie in a region; boxes wholly outside go."""
    boxes = boxes.copy()
    for first, last, side in ((0, 0, region[0]), (1, 2, region[1]), (3, 4, region[2])):
        boxes = boxes[(boxes[:, last] >= side.start) & (boxes[:, first] < side.stop)]
        boxes[:, [first, last]] = boxes[:, [first, last]].clip(side.start, side.stop - 1)
    return boxes


def peak(heat: NDArray[np.floating], region: Region) -> Point:
    """The highest pixel of a volume within a region, the first on a tie."""
    inside = heat[region]
    slice_, row, column = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(slice_) + region[0].start, int(row) + region[1].start, int(column) + region[2].start


def middle(region: Region) -> Point:
    """The middle of a region, the later of two."""
    slice_, row, column = ((side.start + side.stop) // 2 for side in region)
    return slice_, row, column


@dataclass(frozen=True)
class Outcome:
    """One exam under one measure."""

    hit: bool
    chance: float
    """That a guess hits, every pixel (or slice) of the region being as likely."""
    middle: bool
    """Whether the middle of the region hits."""


@dataclass(frozen=True)
class Outcomes:
    """One exam under every measure."""

    in_box: Outcome
    """The highest pixel of the whole volume lies in a box, on its slice."""
    near_box: Outcome
    """Or within a margin of the box."""
    right_slice: Outcome
    """The slice of the highest score has a lesion."""


def judge(
    heat: NDArray[np.floating], slice_scores: NDArray[np.floating], boxes: Boxes, region: Region, margin: int
) -> Outcomes:
    """Judge one exam's heat map.

    Args:
        heat: `(slices, H, W)`.
        slice_scores: `(slices,)`.
        boxes: Of the finding, at least one.
        region: What the model looks at: only there is a point looked for, and only there guessed.
        margin: Of `near_box`, in pixels; 0 or more.
    """
    point, centre = peak(heat, region), middle(region)
    exact, near = (lesion_mask(heat.shape, boxes, m) for m in (0, margin))
    slices = np.asarray(exact.any((1, 2)))
    top = region[0].start + int(slice_scores[region[0]].argmax())
    return Outcomes(
        in_box=Outcome(bool(exact[point]), float(exact[region].mean()), bool(exact[centre])),
        near_box=Outcome(bool(near[point]), float(near[region].mean()), bool(near[centre])),
        right_slice=Outcome(bool(slices[top]), float(slices[region[0]].mean()), bool(slices[centre[0]])),
    )


@dataclass(frozen=True)
class Rate:
    """How often exams are hit, beside guessing and beside the middle."""

    found: Proportion
    chance: float
    """Expected of guessing: the mean of the exams' chances."""
    p_chance: float
    """Probability that guessing hits as many exams or more (one-sided, exact)."""
    middle: Proportion
    """Of always pointing at the middle of what the model looks at."""
    p_middle: float
    """That the two differ so much if neither is better (two-sided, exact McNemar)."""

    @classmethod
    def of(cls, outcomes: list[Outcome]) -> "Rate":
        """Sum up at least one exam."""
        hits, centre = np.array([[o.hit, o.middle] for o in outcomes], bool).T
        chances, n = np.array([o.chance for o in outcomes]), len(outcomes)
        better, worse = int((hits & ~centre).sum()), int((centre & ~hits).sum())
        return cls(
            Proportion.of(int(hits.sum()), n),
            float(chances.mean()),
            upper_tail(chances, int(hits.sum())),
            Proportion.of(int(centre.sum()), n),
            float(scipy.stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0,
        )


def upper_tail(chances: NDArray[np.float64], hits: int) -> float:
    """Probability of `hits` or more among independent trials of these `chances` `(n,)`: Poisson's binomial, exactly."""
    distribution = np.ones(1)
    for chance in chances:
        distribution = np.convolve(distribution, (1 - chance, chance))
    return min(1.0, float(distribution[hits:].sum()))


@dataclass(frozen=True)
class Falls:
    """How far hiding something lowers the logit, mean over exams."""

    lesion: float
    control: float
    """The same boxes, moved off the lesions."""
    difference: float
    low: float | None
    """Of the 95 % interval of the paired difference (Student's t); None with a single exam."""
    high: float | None
    larger: Proportion
    """Exams whose logit falls further with the lesion hidden than with the control."""

    @classmethod
    def of(cls, lesion: NDArray[np.float64], control: NDArray[np.float64]) -> "Falls":
        """Sum up falls `(n,)` of the same exams, at least one."""
        gaps, n = lesion - control, len(lesion)
        half = float(scipy.stats.t.ppf(0.975, n - 1) * gaps.std(ddof=1) / np.sqrt(n)) if n > 1 else None
        mean = float(gaps.mean())
        low, high = (None, None) if half is None else (mean - half, mean + half)
        return cls(
            float(lesion.mean()), float(control.mean()), mean, low, high, Proportion.of(int((gaps > 0).sum()), n)
        )


def hidden(series: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A copy of `series` `(slices, H, W)` with what `mask` covers painted over; no slice is covered whole."""
    out = np.array(series)
    for i in np.flatnonzero(mask.any((1, 2))):
        out[i] = np.rint(harmonic(out[i].astype(np.float64), mask[i]))
    return out


def harmonic(picture: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Fill what `mask` covers from its rim, as heat would spread: each pixel is the mean of its neighbours there are.

    Laplace's equation, discrete, with nothing flowing out of the picture: the fill is as bright as the rim where it
    meets it, and nowhere brighter or darker than all of it.

    Args:
        picture: `(H, W)`; what it shows under the mask does not matter.
        mask: `(H, W)`, not everywhere true.
    """
    rows, columns = np.nonzero(mask)
    number = np.zeros(mask.shape, np.int64)
    number[mask] = np.arange(len(rows))
    neighbours, given = np.zeros(len(rows)), np.zeros(len(rows))
    starts, ends = [], []
    for down, right in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        row, column = rows + down, columns + right
        there = np.flatnonzero((row >= 0) & (row < mask.shape[0]) & (column >= 0) & (column < mask.shape[1]))
        neighbours[there] += 1
        row, column = row[there], column[there]
        covered = mask[row, column]
        given[there[~covered]] += picture[row[~covered], column[~covered]]
        starts.append(there[covered])
        ends.append(number[row[covered], column[covered]])
    start, end = np.concatenate(starts), np.concatenate(ends)
    links = coo_array((np.ones(len(start)), (start, end)), shape=(len(rows), len(rows)))
    filled = picture.copy()
    filled[mask] = spsolve((diags_array(neighbours) - links).tocsc(), given, permc_spec="MMD_AT_PLUS_A")
    return filled


def elsewhere(boxes: Boxes, taken: NDArray[np.bool_], region: Region) -> Boxes | None:
    """Move boxes within their slices, those of a slice together, to the nearest place in a region that is free.

    Near, so that the tissue there is like that around the lesion, and not air.

    Args:
        boxes: Within the region.
        taken: `(slices, H, W)`, pixels that no moved box may touch.
        region: Where the moved boxes must lie.

    Returns:
        The moved boxes, the first of several as near; None where a slice has no place for its own.
    """
    moved = boxes.copy()
    for place in np.unique(boxes[:, 0]):
        on_slice = boxes[:, 0] == place
        step = _nearest_step(boxes[on_slice, 1:], taken[place], region[1:])
        if step is None:
            return None
        moved[on_slice, 1:3] += step[0]
        moved[on_slice, 3:5] += step[1]
    return moved


def _nearest_step(sides: Boxes, taken: NDArray[np.bool_], region: tuple[slice, slice]) -> tuple[int, int] | None:
    """The shortest step, down and right, after which no box of one slice lies outside `region` or on `taken`.

    Args:
        sides: `(n, 4)`, first and last row, first and last column.
        taken: `(H, W)`.
        region: Rows and columns.
    """
    height, width = taken.shape
    sums = np.pad(taken.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    # Every step from (1 - height, 1 - width) to (height - 1, width - 1).
    allowed = np.ones((2 * height - 1, 2 * width - 1), bool)
    for top, bottom, left, right in sides:
        tall, wide = bottom - top + 1, right - left + 1
        free = sums[tall:, wide:] - sums[:-tall, wide:] - sums[tall:, :-wide] + sums[:-tall, :-wide] == 0
        inside = np.zeros_like(free)
        inside[region[0].start : region[0].stop - tall + 1, region[1].start : region[1].stop - wide + 1] = True
        here = np.zeros_like(allowed)
        here[height - 1 - top : 2 * height - 1 - bottom, width - 1 - left : 2 * width - 1 - right] = free & inside
        allowed &= here
    steps = np.argwhere(allowed) - (height - 1, width - 1)
    if not len(steps):
        return None
    down, across = steps[np.square(steps).sum(1).argmin()]
    return int(down), int(across)
