"""From images to series: split by orientation and echo, ordered by position, one chosen for each plane of a knee."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kneessl.errors import UserError
from kneessl.exams.dicom import Image
from kneessl.exams.dicom_pixels import values
from kneessl.exams.folder import PLANES, Plane
from kneessl.exams.notes import Notes
from kneessl.exams.stack import PLANE_OF_AXIS, Stack, side_of_patient

FEWEST_SLICES = 5
_LARGEST_GAP = 1.5
_SAME_PLACE_MM = 0.01


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

    @property
    def directions(self) -> np.ndarray:
        """Unit vectors `(3, 3)` in LPS, in which the slice, row and column index grow."""
        return _directions(self.images[0])

    @property
    def plane(self) -> Plane:
        """The largest component of the normal."""
        return PLANE_OF_AXIS[int(np.abs(self.directions[0]).argmax())]

    @property
    def name(self) -> str:
        """What an error calls it; see `_name`."""
        return _name(self.images)

    @property
    def centre(self) -> np.ndarray | None:
        """Middle of the volume in LPS, mm; None where an image has no position."""
        image = self.images[0]
        if image.position is None:
            return None
        last = np.array([len(self.images) - 1, image.rows - 1, image.columns - 1])
        extent = last * (self.slice_mm, image.row_mm, image.column_mm)
        return np.array(image.position) + extent @ self.directions / 2

    def read(self) -> Stack:
        """Decode the pixels."""
        image = self.images[0]
        return Stack(
            voxels=values(self.images),
            directions=self.directions,
            spacing=(self.slice_mm, image.row_mm, image.column_mm),
            position=None if image.position is None else np.array(image.position),
        )


@dataclass(frozen=True, eq=False)
class Knee:
    """One exam: at most one series a plane."""

    key: str
    """Orders the exams in a way that depends on no file name; a hash."""
    person: str
    series: tuple[DicomSeries, ...]


def find_knees(images: Iterable[Image], echo_ms: float, every_echo: bool, notes: Notes) -> list[Knee]:
    """Group images into exams: one for each knee of each study (and, if wanted, for each echo).

    Args:
        images: headers, in any order.
        echo_ms: the echo time that is wanted.
        every_echo: make an exam of every echo; else take the one nearest `echo_ms`.
        notes: collects what is left out.

    Raises:
        UserError: a series that lacks slices or has two at one place.
    """
    families: dict[tuple, dict[float | None, list[Image]]] = defaultdict(lambda: defaultdict(list))
    for image in images:
        families[_family(image)][None if image.echo_ms is None else round(image.echo_ms, 2)].append(image)

    studies: dict[str, list[list[DicomSeries]]] = defaultdict(list)
    for echoes in families.values():
        series = _series_of(echoes, notes)
        if series:
            studies[series[0].images[0].study].append(series)

    knees = []
    for study in sorted(studies, key=_digest):
        for side, of_one_knee in _by_knee(studies[study], notes):
            chosen = _choose(of_one_knee, echo_ms, every_echo)
            key = _digest(study + side)
            person = chosen[0][0].images[0].person
            knees += [Knee(f"{key} {number:04d}", person, tuple(series)) for number, series in enumerate(chosen)]
    return knees


def _family(image: Image) -> tuple:
    """What the images of a series share, but for their echo."""
    orientation = tuple(np.round(image.orientation, 3) + 0.0)
    size = (image.rows, image.columns, round(image.row_mm, 4), round(image.column_mm, 4))
    return (image.study, image.series, image.image_type, orientation, size)


def _series_of(echoes: dict[float | None, list[Image]], notes: Notes) -> list[DicomSeries]:
    """The ordered series of one family, by rising echo time; none where it is too short or faulty."""
    most = max(len(images) for images in echoes.values())
    if most < FEWEST_SLICES:
        notes.leave_out(f"series with fewer than {FEWEST_SLICES} slices", len(echoes))
        return []
    try:
        for echo, images in echoes.items():
            if len(images) != most:
                raise UserError(
                    f"{_name(images)} has {len(images)} images at echo {_milliseconds(echo)}, but {most} at another; "
                    "export the whole series again"
                )
        return [_ordered(echoes[echo]) for echo in sorted(echoes, key=lambda echo: (echo is None, echo or 0.0))]
    except UserError as error:
        notes.fault(error)
        return []


def _ordered(images: list[Image]) -> DicomSeries:
    """Order slices by position along the normal, else by InstanceNumber; never by file name."""
    if all(image.position is not None for image in images):
        return _ordered_by_position(images)
    numbers = {image.instance_number for image in images}
    slice_mm = images[0].slice_mm
    if None in numbers or len(numbers) < len(images) or slice_mm is None:
        raise UserError(
            f"{_name(images)} has images without ImagePositionPatient, and no complete InstanceNumber and slice "
            "thickness to order them by; export it again"
        )
    ordered = sorted(images, key=lambda image: image.instance_number or 0)
    # A position on some images only would give the volume a false place.
    placeless = tuple(replace(image, position=None) for image in ordered)
    return DicomSeries(placeless, slice_mm, "InstanceNumber (positions are missing, so first and last may be swapped)")


def _ordered_by_position(images: list[Image]) -> DicomSeries:
    normal = _directions(images[0])[0]
    places = np.array([np.dot(image.position or (), normal) for image in images])
    order = np.argsort(places, kind="stable")
    steps = np.diff(places[order])
    if steps.min() < _SAME_PLACE_MM:
        first = int(steps.argmin())
        same = images[order[first]].instance == images[order[first + 1]].instance
        raise UserError(
            f"{_name(images)} has two images at the same position"
            + (" (the same image twice); remove the copy" if same else "; keep one time point or one reconstruction")
        )
    slice_mm = float(np.median(steps))
    if steps.max() > _LARGEST_GAP * slice_mm:
        raise UserError(
            f"{_name(images)} has a gap of {steps.max():.1f} mm after slice {int(steps.argmax()) + 1}, where slices "
            f"are {slice_mm:.1f} mm apart, so some are missing; export the whole series again"
        )
    return DicomSeries(tuple(images[i] for i in order), slice_mm, "position along the normal")


def _by_knee(families: list[list[DicomSeries]], notes: Notes) -> list[tuple[str, list[list[DicomSeries]]]]:
    """Split a study that holds both knees; each series gets its laterality, and how it is known."""
    tagged = {family[0].images[0].laterality for family in families} - {""}
    sides: dict[str, list[list[DicomSeries]]] = defaultdict(list)
    for family in families:
        side, how = _side(family[0], tagged)
        sides[side].append([replace(s, laterality=side, choice=(*s.choice, how)) for s in family])
    known = sorted(set(sides) - {""})
    if len(known) == 1:
        return [(known[0], sides[known[0]] + sides[""])]
    if known and "" in sides:
        notes.leave_out("series of an unknown side in a study of both knees", len(sides.pop("")))
    return sorted(sides.items())


def _side(series: DicomSeries, tagged: set[str]) -> tuple[str, str]:
    tag = series.images[0].laterality
    if tag or len(tagged) == 1:
        return tag or min(tagged), "laterality from its tag" if tag else "laterality from the study's other series"
    side = side_of_patient(series.centre)
    if side and series.centre is not None:
        return side, f"laterality from the centre at x = {series.centre[0]:.0f} mm (no tag)"
    return "", "laterality unknown (no tag, centre near the middle)"


def _choose(families: list[list[DicomSeries]], echo_ms: float, every_echo: bool) -> list[list[DicomSeries]]:
    """The series of each exam of one knee: the best of each plane, at the wanted echo or at each of its echoes."""
    exams: dict[int, list[DicomSeries]] = defaultdict(list)
    for plane in PLANES:
        candidates = [family for family in families if family[0].plane == plane]
        if not candidates:
            continue
        best = min(candidates, key=lambda family: _rank(family, echo_ms))
        among = "the only series of its plane"
        if len(candidates) > 1:
            among = (
                f"1 of {len(candidates)} series of its plane (original before derived, then echo nearest "
                f"{echo_ms:g} ms, then most slices, then a hash)"
            )
        wanted = best if every_echo else [min(best, key=lambda series: _distance(series, echo_ms))]
        for number, series in enumerate(wanted):
            echo = _echo_words(series, best, echo_ms, every_echo)
            exams[number].append(replace(series, choice=(among, echo, *series.choice)))
    return [exams[number] for number in sorted(exams)]


def _rank(family: Sequence[DicomSeries], echo_ms: float) -> tuple:
    image = family[0].images[0]
    nearest = min(_distance(series, echo_ms) for series in family)
    return ("DERIVED" in image.image_type, nearest, -len(family[0].images), _digest(repr(_family(image))))


def _distance(series: DicomSeries, echo_ms: float) -> float:
    echo = series.images[0].echo_ms
    return float("inf") if echo is None else abs(echo - echo_ms)


def _echo_words(series: DicomSeries, family: Sequence[DicomSeries], echo_ms: float, every_echo: bool) -> str:
    echo = _milliseconds(series.images[0].echo_ms)
    if len(family) == 1:
        return f"echo {echo}"
    reason = "every echo is an exam" if every_echo else f"nearest {echo_ms:g} ms"
    return f"echo {echo} ({reason}; {len(family)} echoes)"


def _milliseconds(echo_ms: float | None) -> str:
    return "unknown" if echo_ms is None else f"{echo_ms:g} ms"


def _name(images: Sequence[Image]) -> str:
    """A series in an error, without its description or UID, which may identify."""
    plane = PLANE_OF_AXIS[int(np.abs(_directions(images[0])[0]).argmax())]
    return f"the {plane} series of {images[0].number}"


def _directions(image: Image) -> np.ndarray:
    along_row, down_column = np.array(image.orientation).reshape(2, 3)
    directions = np.stack([np.cross(along_row, down_column), down_column, along_row])
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
