"""Images of one orientation, size, kind and echo as one series: ordered, decoded, and ready for a network."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kneessl.errors import UserError
from kneessl.exams.folder import Plane
from kneessl.sources.dicom.contrast import Contrast, contrast_of, is_water
from kneessl.sources.dicom.image import Image
from kneessl.sources.dicom.pixels import values
from kneessl.sources.resample import WINDOW, field_of, pictures_of
from kneessl.sources.volume import PLANE_OF_AXIS, Volume

_LARGEST_GAP = 1.5
_SAME_PLACE_MM = 0.01
_LEAST_ALONG = 0.5
"""Of the normal, along the axis of a plane that a table tells: 60 degrees off it at most."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """One series as a network sees it."""

    plane: Plane
    volume: np.ndarray
    """uint8 `(slices, 256, 256)`, turned as `kneessl.sources.volume.DISPLAY` says."""
    pixel_mm: float
    slice_mm: float
    source_sha256: str
    images: tuple[Image, ...]
    """In the order of the volume's slices."""
    choice: str
    """What was chosen, and why, in words, as exams.csv has them."""


@dataclass(frozen=True, eq=False)
class DicomSeries:
    """Images of one orientation, size, kind and echo, in the order of their slices along the normal."""

    images: tuple[Image, ...]
    slice_mm: float
    order: str
    """How the slices were ordered, in words."""
    choice: tuple[str, ...] = ()
    """Why it was chosen, in words."""
    laterality: str = ""
    """`L`, `R` or empty, once it is known."""
    number: int = 0
    """Of its `SeriesFacts`, once it has one."""
    assumed: str = ""
    """What was assumed to order its slices, in words; empty where nothing had to be."""

    @property
    def directions(self) -> np.ndarray:
        """Unit vectors `(3, 3)` in LPS, in which the slice, row and column index grow."""
        return directions_of_image(self.images[0])

    @property
    def plane(self) -> Plane:
        """The largest component of the normal."""
        return plane_of(self.images[0])

    @property
    def name(self) -> str:
        """What an error calls it; see `name_of`."""
        return name_of(self.images)

    @property
    def contrast(self) -> Contrast:
        """Weighting and fat suppression, by its first image."""
        return contrast_of(self.images[0])

    @property
    def derived(self) -> bool:
        """The scanner calls it derived: computed from other images, or merely normalised."""
        return "DERIVED" in self.images[0].image_type and not is_water(self.images[0])

    @property
    def centre(self) -> np.ndarray | None:
        """Middle of the volume in LPS, mm; None where an image has no position."""
        image = self.images[0]
        if image.position is None:
            return None
        last = np.array([len(self.images) - 1, image.rows - 1, image.columns - 1])
        extent = last * (self.slice_mm, image.row_mm, image.column_mm)
        return np.array(image.position) + extent @ self.directions / 2

    def read(self) -> Volume:
        """Decode the pixels.

        Raises:
            UserError: as `kneessl.sources.dicom.pixels.values`.
        """
        image = self.images[0]
        return Volume(
            voxels=values(self.images),
            directions=self.directions,
            spacing=(self.slice_mm, image.row_mm, image.column_mm),
            position=None if image.position is None else np.array(image.position),
            told_plane=image.told_plane,
        )

    def prepared(self) -> Prepared:
        """Decode, turn and resample the pixels.

        Raises:
            UserError: pixels that cannot be read, or that all have the same value.
        """
        stack = self.read()
        shown = stack.displayed()
        volume, pixel_mm = pictures_of(self.name, shown)
        normal = ", ".join(f"{value:.2f}" for value in self.directions[0])
        told = "as told, normal" if self.images[0].told_plane else "by the normal"
        chosen = f"DICOM; {self.plane} {told} ({normal}); {len(self.images)} slices by {self.order}"
        if self.assumed:
            chosen += f"; {self.assumed}"
        turned = shown.directions[0] @ self.directions[0] < 0
        return Prepared(
            plane=self.plane,
            volume=volume,
            pixel_mm=pixel_mm,
            slice_mm=self.slice_mm,
            source_sha256=stack.sha256(),
            images=self.images[::-1] if turned else self.images,
            choice="; ".join((chosen, *self.choice, field_of(shown), WINDOW)),
        )


def ordered(images: Sequence[Image]) -> DicomSeries:
    """Order slices by position along the normal, else by InstanceNumber; never by file name.

    Args:
        images: Two or more, of one orientation and size.

    Raises:
        UserError: there are two at one place, some are missing, or nothing says their order.
    """
    missing = sum(image.position is None for image in images)
    if not missing:
        return _ordered_by_position(images)
    if missing < len(images):
        return _ordered_with_one_placed(images)
    numbers = {image.instance_number for image in images}
    slice_mm = images[0].slice_mm
    if None in numbers or len(numbers) < len(images) or slice_mm is None:
        raise UserError(
            f"{name_of(images)} has images without ImagePositionPatient, and no complete InstanceNumber and slice "
            "thickness to order them by; export it again"
        )
    by_number = sorted(images, key=lambda image: image.instance_number or 0)
    return DicomSeries(
        tuple(by_number), slice_mm, "InstanceNumber (positions are missing, so first and last may be swapped)"
    )


def _ordered_with_one_placed(images: Sequence[Image]) -> DicomSeries:
    """Order images of which one lacks its position: it takes the place that is free among the others, if there is one.

    Raises:
        UserError: more than one lacks it, or it is not one place that is free.
    """
    placed = [image for image in images if image.position is not None]
    homeless = [image for image in images if image.position is None]
    normal = directions_of_image(images[0])[0]
    by_place = sorted(placed, key=lambda image: float(np.dot(image.position or (), normal)))
    steps = np.diff([float(np.dot(image.position or (), normal)) for image in by_place])
    slice_mm = float(np.median(steps)) if len(steps) else 0.0
    gaps = np.flatnonzero(steps > _LARGEST_GAP * slice_mm)
    if len(homeless) > 1 or len(gaps) != 1 or not abs(steps[gaps[0]] - 2 * slice_mm) < (_LARGEST_GAP - 1) * slice_mm:
        raise UserError(
            f"{name_of(images)} has {len(homeless)} of {len(images)} images without ImagePositionPatient, and their "
            "places among the others cannot be told; export it again"
        )
    before, after = by_place[gaps[0]].position or (), by_place[gaps[0] + 1].position or ()
    middle = tuple((a + b) / 2 for a, b in zip(before, after, strict=True))
    series = _ordered_by_position([*placed, replace(homeless[0], position=middle)])
    return replace(
        series, assumed=f"slice {gaps[0] + 2} of {len(images)} has no position and was put into the only free place"
    )


def _ordered_by_position(images: Sequence[Image]) -> DicomSeries:
    normal = directions_of_image(images[0])[0]
    places = np.array([np.dot(image.position or (), normal) for image in images])
    order = np.argsort(places, kind="stable")
    steps = np.diff(places[order])
    if steps.min() < _SAME_PLACE_MM:
        first = int(steps.argmin())
        same = images[order[first]].instance == images[order[first + 1]].instance
        raise UserError(
            f"{name_of(images)} has two images at the same position"
            + (" (the same image twice); remove the copy" if same else "; keep one time point or one reconstruction")
        )
    slice_mm = float(np.median(steps))
    if steps.max() > _LARGEST_GAP * slice_mm:
        raise UserError(
            f"{name_of(images)} has a gap of {steps.max():.1f} mm after slice {int(steps.argmax()) + 1}, where slices "
            f"are {slice_mm:.1f} mm apart, so some are missing; export the whole series again"
        )
    return DicomSeries(tuple(images[i] for i in order), slice_mm, "position along the normal")


def plane_of(image: Image) -> Plane:
    """As a table told it, or the largest component of the normal."""
    return image.told_plane or PLANE_OF_AXIS[int(np.abs(directions_of_image(image)[0]).argmax())]


def obliquity_deg(image: Image) -> float:
    """Angle between the normal and the axis of its plane, 0 to about 55 degrees, or 60 where the plane was told."""
    return float(np.degrees(np.arccos(min(1.0, _along(image, plane_of(image))))))


def _along(image: Image, plane: Plane) -> float:
    """The component of the normal along the axis of a plane, 0 to 1."""
    return float(np.abs(directions_of_image(image)[0])[PLANE_OF_AXIS.index(plane)])


def with_told_plane(image: Image, plane: Plane) -> Image | None:
    """An image whose plane a table tells; None where its orientation contradicts that."""
    return replace(image, told_plane=plane) if _along(image, plane) >= _LEAST_ALONG else None


def directions_of_image(image: Image) -> np.ndarray:
    """Unit vectors `(3, 3)` in LPS along the normal, down a column and along a row."""
    along_row, down_column = np.array(image.orientation).reshape(2, 3)
    directions = np.stack([np.cross(along_row, down_column), down_column, along_row])
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def name_of(images: Sequence[Image]) -> str:
    """A series in an error, without its description or UID, which may identify."""
    return f"the {plane_of(images[0])} series of {images[0].number}"
