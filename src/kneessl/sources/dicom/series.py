"""From images to exams: series split by orientation and echo, and the best one for each plane of each knee."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from kneessl.errors import UserError
from kneessl.exams.folder import Plane, Weighting
from kneessl.sources.dicom.choice import Choice, Family, Wanted, choose, milliseconds
from kneessl.sources.dicom.contrast import contrast_of
from kneessl.sources.dicom.image import Image
from kneessl.sources.dicom.laterality import UNKNOWN, Placed, Side, sides
from kneessl.sources.dicom.stack import DicomSeries, Prepared, name_of, obliquity_deg, ordered, plane_of
from kneessl.sources.exam import FEWEST_SLICES
from kneessl.sources.notes import Notes

__all__ = ["DicomSeries", "Knee", "Prepared", "SeriesFacts", "find_knees"]

_UNKNOWN_SIDE = "its side is unknown, in a study of both knees"


@dataclass(frozen=True)
class SeriesFacts:
    """What is said of one series of a study, used or not: no identity, no text from the header, no UID."""

    number: int
    """1, 2, ... within the study, in an order that depends on no file name."""
    plane: Plane
    obliquity_deg: float
    """Angle between the normal and the plane's axis."""
    slices: int
    slice_mm: float | None
    echo_ms: float | None
    weighting: Weighting
    fat_suppressed: bool | None
    contrast_from: str
    laterality: str
    """`L`, `R` or empty."""
    used: bool
    reason: str
    """Why it was chosen, or why it was not used."""


@dataclass(frozen=True, eq=False)
class Knee:
    """One exam: at most one series a plane, and those that could stand in for it."""

    key: str
    """Orders the exams in a way that depends on no file name; a hash over study and side, and the exam's number."""
    person: str
    """Equal for exams of one person; not to be written anywhere."""
    candidates: Mapping[Plane, tuple[DicomSeries, ...]]
    """Best first."""
    laterality: str
    """`L`, `R` or empty."""
    laterality_from: str
    """In words: how it is known, or why it is not."""
    laterality_sure: bool
    """By a tag that nothing contradicts."""
    facts: tuple[SeriesFacts, ...]
    """Every series of the study that could belong to this knee, by number."""
    flags: tuple[str, ...]
    """Sentences on what contradicts its laterality."""
    left_out: tuple[str, ...]
    """Files of the study that never became a series, by what they are, with their count."""

    @property
    def series(self) -> tuple[DicomSeries, ...]:
        """The best of each plane."""
        return tuple(candidates[0] for candidates in self.candidates.values())


@dataclass(frozen=True, eq=False)
class _Member:
    """The series of one family in its study, usable or not."""

    stacks: tuple[tuple[int, Sequence[Image]], ...]
    """Number and images of each echo."""
    series: tuple[DicomSeries, ...]
    """By rising echo; none where it cannot be used."""
    reason: str
    """Why it cannot be used."""
    digest: str
    side: Side = UNKNOWN


def find_knees(
    images: Iterable[Image],
    echo_ms: float,
    every_echo: bool,
    notes: Notes,
    weighting: Mapping[Plane, Weighting] | None = None,
) -> list[Knee]:
    """Group images into exams: one for each knee of each study (and, if wanted, for each echo).

    Args:
        images: Headers, in any order.
        echo_ms: The echo time that is wanted.
        every_echo: Make an exam of every echo; else take the one nearest `echo_ms`.
        notes: Collects what is left out.
        weighting: The weighting that is wanted of some planes. A plane without goes by `kneessl.sources.dicom.choice`.

    Raises:
        UserError: a series that lacks slices or has two at one place, unless `notes` skips faults.
    """
    studies: dict[str, list[Image]] = defaultdict(list)
    for image in images:
        studies[image.study].append(image)
    wanted = Wanted(echo_ms, every_echo, weighting or {})
    knees: list[Knee] = []
    for study in sorted(studies, key=_digest):
        left_out = notes.of_study(study)
        for side, members in _by_knee(_members(studies[study], notes), notes, study):
            choices = choose([Family(member.series, member.digest) for member in members if member.series], wanted)
            knees += [
                _knee(f"{_digest(study + side)} {number:04d}", side, members, choice, left_out)
                for number, choice in enumerate(choices)
            ]
    return knees


def _members(images: Sequence[Image], notes: Notes) -> list[_Member]:
    """The families of one study, each with its side; numbered in the order of their hashes, then of their echoes."""
    families: dict[tuple, dict[float | None, list[Image]]] = defaultdict(lambda: defaultdict(list))
    orientations: dict[str, set[tuple]] = defaultdict(set)
    for image in images:
        families[_family(image)][None if image.echo_ms is None else round(image.echo_ms, 2)].append(image)
        orientations[image.series].add(_orientation(image))
    members, number = [], 1
    for digest, key in sorted((_digest(repr(key)), key) for key in families):
        by_echo = sorted(families[key].items(), key=lambda item: (item[0] is None, item[0] or 0.0))
        stacks = tuple((number + index, images) for index, (_, images) in enumerate(by_echo))
        mixed = len(orientations[stacks[0][1][0].series])
        series, reason = _series_of(stacks, mixed, notes)
        in_order = tuple((one.number, one.images) for one in series)
        members.append(_Member(in_order or stacks, series, reason, digest))
        number += len(stacks)
    return [_with_side(*pair) for pair in zip(members, sides([_placed(member) for member in members]), strict=True)]


def _family(image: Image) -> tuple:
    """What the images of a series share, but for their echo."""
    size = (image.rows, image.columns, round(image.row_mm, 4), round(image.column_mm, 4))
    return (image.study, image.series, image.image_type, _orientation(image), size)


def _orientation(image: Image) -> tuple[float, ...]:
    return tuple(round(value, 3) + 0.0 for value in image.orientation)


def _series_of(
    stacks: Sequence[tuple[int, Sequence[Image]]], orientations: int, notes: Notes
) -> tuple[tuple[DicomSeries, ...], str]:
    """The ordered series of one family; or none and the reason, where it is too short or faulty."""
    study, most = stacks[0][1][0].study, max(len(images) for _, images in stacks)
    if most < FEWEST_SLICES:
        notes.leave_out(f"series with fewer than {FEWEST_SLICES} slices", len(stacks), study)
        mixed = f" (the images of its series have {orientations} orientations)" if orientations > 1 else ""
        return (), f"fewer than {FEWEST_SLICES} slices{mixed}"
    try:
        for _, images in stacks:
            if len(images) != most:
                raise UserError(
                    f"{name_of(images)} has {len(images)} images at echo {milliseconds(images[0].echo_ms)}, but {most} "
                    "at another; export the whole series again"
                )
        return tuple(replace(ordered(images), number=number) for number, images in stacks), ""
    except UserError as error:
        notes.fault(error, study)
        return (), str(error)


def _placed(member: _Member) -> Placed:
    tags = {image.laterality for _, images in member.stacks for image in images} - {""}
    return Placed(member.stacks[0][0], frozenset(tags), member.series[0].centre if member.series else None)


def _with_side(member: _Member, side: Side) -> _Member:
    series = (replace(one, laterality=side.side, choice=(*one.choice, str(side))) for one in member.series)
    return replace(member, series=tuple(series), side=side)


def _by_knee(members: Sequence[_Member], notes: Notes, study: str) -> list[tuple[str, list[_Member]]]:
    """What could belong to each knee of a study; no knee where nothing can be used."""
    usable = [member for member in members if member.series]
    known = sorted({member.side.side for member in usable} - {""})
    if len(known) < 2:
        return [("".join(known), list(members))] if usable else []
    if unknown := sum(not member.side.side for member in usable):
        notes.leave_out("series of an unknown side in a study of both knees", unknown, study)
    everything = [
        member if member.side.side or not member.series else replace(member, series=(), reason=_UNKNOWN_SIDE)
        for member in members
    ]
    return [(side, [member for member in everything if member.side.side in {side, ""}]) for side in known]


def _knee(key: str, side: str, members: Sequence[_Member], choice: Choice, left_out: tuple[str, ...]) -> Knee:
    known = [member.side for member in members if member.series]
    source = max(known, key=lambda one: (one.side == side, one.sure, one.tagged)).source
    flags = tuple(dict.fromkeys(flag for one in known for flag in one.flags))
    used = {candidates[0].number for candidates in choice.candidates.values()}
    facts = [
        _facts(number, images, member, number in used, choice.reasons.get(number, member.reason))
        for member in members
        for number, images in member.stacks
    ]
    return Knee(
        key=key,
        person=members[0].stacks[0][1][0].person,
        candidates=choice.candidates,
        laterality=side,
        laterality_from=source,
        laterality_sure=any(one.sure for one in known) and not flags,
        facts=tuple(facts),
        flags=flags,
        left_out=left_out,
    )


def _facts(number: int, images: Sequence[Image], member: _Member, used: bool, reason: str) -> SeriesFacts:
    image, contrast = images[0], contrast_of(images[0])
    measured = {series.number: series.slice_mm for series in member.series}
    slice_mm = measured.get(number, image.slice_mm)
    return SeriesFacts(
        number=number,
        plane=plane_of(image),
        obliquity_deg=round(obliquity_deg(image), 1),
        slices=len(images),
        slice_mm=None if slice_mm is None else round(slice_mm, 3),
        echo_ms=image.echo_ms,
        weighting=contrast.weighting,
        fat_suppressed=contrast.fat_suppressed,
        contrast_from=contrast.reason,
        laterality=member.side.side,
        used=used,
        reason=reason,
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
