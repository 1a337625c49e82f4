"""Which images are one acquisition: what a SeriesInstanceUID holds, parted where its images cannot be one series.

What differs within the tolerance of a measurement is the same: values are clustered, not rounded, since any rounding
has an edge that splits a series whose values lie on it.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kneessl.sources.dicom.image import Image
from kneessl.sources.dicom.laterality import APART_MM
from kneessl.sources.dicom.stack import directions_of_image

_ORIENTATION = 0.01
"""Of each component of ImageOrientationPatient, about half a degree."""
_PIXEL_MM = 0.005
_ECHO_MS = 0.05
_STACKS_MM = 30.0
"""A smaller gap between slices, or shift in their plane, is one stack."""


@dataclass(frozen=True, eq=False)
class Group:
    """Images of one series, kind, orientation, size and place, which differ in their echo only."""

    echoes: tuple[tuple[Image, ...], ...]
    """By rising echo time, those without one last."""
    digest: str
    """Tells groups apart, and orders them, in a way that depends on no file name."""
    parted: str
    """What its series was parted by, such as `2 orientations`; empty where the group is the whole series."""
    parts: tuple[int, ...]
    """Images of each part of its series, the most first."""
    by_place: bool
    """Its series has stacks in several places, as one of both knees."""

    @property
    def size(self) -> int:
        """How many images."""
        return sum(map(len, self.echoes))


def groups_of(images: Sequence[Image]) -> list[Group]:
    """Group the images of one study, in the order of their digests."""
    series: dict[str, list[Image]] = defaultdict(list)
    for image in images:
        series[image.series].append(image)
    groups = [group for members in series.values() for group in _parts_of(members)]
    return sorted(groups, key=lambda group: group.digest)


_Split = Callable[[Sequence[Image]], list[list[Image]]]


def _parts_of(images: Sequence[Image]) -> list[Group]:
    """Part the images of one SeriesInstanceUID by each attribute in turn."""
    parts: list[list[Image]] = [list(images)]
    names = []
    for name, split in _SPLITS.items():
        after = [part for before in parts for part in split(before)]
        values = max(len(split(before)) for before in parts) if len(after) > len(parts) else 1
        if values > 1:
            names.append(f"{values} {name}")
        parts = after
    sizes = tuple(sorted(map(len, parts), reverse=True))
    parted = " and ".join(names)
    return [Group(_echoes(part), _digest(part), parted, sizes, "places" in parted) for part in parts]


def _exactly(value: Callable[[Image], object]) -> _Split:
    def split(images: Sequence[Image]) -> list[list[Image]]:
        parts: dict[object, list[Image]] = defaultdict(list)
        for image in images:
            parts[value(image)].append(image)
        return [parts[key] for key in sorted(parts, key=repr)]

    return split


def _nearly(value: Callable[[Image], tuple[float, ...]], tolerance: float) -> _Split:
    def split(images: Sequence[Image]) -> list[list[Image]]:
        values = np.array([value(image) for image in images])
        return [[images[i] for i in part] for part in clusters(values, tolerance)]

    return split


def clusters(values: np.ndarray, tolerance: float) -> list[np.ndarray]:
    """Part points wherever, along any axis, their sorted values have a gap wider than a tolerance.

    Args:
        values: `(n, k)`.
        tolerance: In their unit.

    Returns:
        Indices of each part, the parts by their smallest values.
    """
    whole: list[np.ndarray] = []
    open_parts = [np.arange(len(values))]
    while open_parts:
        part = open_parts.pop()
        for axis in range(values.shape[1]):
            order = part[np.argsort(values[part, axis], kind="stable")]
            gaps = np.flatnonzero(np.diff(values[order, axis]) > tolerance)
            if len(gaps):
                open_parts += np.split(order, gaps + 1)
                break
        else:
            whole.append(np.sort(part))
    return sorted(whole, key=lambda part: tuple(values[part].min(axis=0)))


def _stacks(images: Sequence[Image]) -> list[list[Image]]:
    """Part stacks that lie as far apart as two knees; slices that are missing in between leave one stack."""
    if any(image.position is None for image in images):
        return [list(images)]
    places = np.array([image.position for image in images]) @ directions_of_image(images[0]).T
    parts = clusters(places, _STACKS_MM)
    middles = np.array([places[part].mean(axis=0) for part in parts])
    for index, middle in enumerate(middles):
        others = np.delete(middles, index, axis=0)
        if len(others) and np.linalg.norm(others - middle, axis=1).min() < APART_MM:
            return [list(images)]
    return [[images[i] for i in part] for part in parts]


_SPLITS: dict[str, _Split] = {
    "kinds (ImageType)": _exactly(lambda image: image.image_type),
    "sizes": _exactly(lambda image: (image.rows, image.columns)),
    "pixel spacings": _nearly(lambda image: (image.row_mm, image.column_mm), _PIXEL_MM),
    "orientations": _nearly(lambda image: image.orientation, _ORIENTATION),
    "places": _stacks,
}


def _echoes(images: Sequence[Image]) -> tuple[tuple[Image, ...], ...]:
    timed = [image for image in images if image.echo_ms is not None]
    untimed = tuple(image for image in images if image.echo_ms is None)
    times = np.array([[image.echo_ms] for image in timed], dtype=float).reshape(-1, 1)
    echoes = [tuple(timed[i] for i in part) for part in clusters(times, _ECHO_MS)] if timed else []
    return (*echoes, untimed) if untimed else tuple(echoes)


def _digest(images: Sequence[Image]) -> str:
    """Over what the images share; of measured values the smallest, so that their order does not matter."""
    image = images[0]
    orientation = min(image.orientation for image in images)
    spacing = min((image.row_mm, image.column_mm) for image in images)
    places = sorted(image.position for image in images if image.position)[:1]
    rounded = [round(value, 3) + 0.0 for value in (*orientation, *spacing, *(places[0] if places else ()))]
    key = (image.study, image.series, image.image_type, image.rows, image.columns, rounded)
    return hashlib.sha256(repr(key).encode()).hexdigest()
