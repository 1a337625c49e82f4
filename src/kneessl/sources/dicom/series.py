"""From images to exams: one for each knee of each study, of the best series of each plane."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from kneessl.errors import UserError
from kneessl.exams.folder import Plane, Weighting
from kneessl.sources.dicom.choice import Choice, Family, Wanted, choose, milliseconds
from kneessl.sources.dicom.contrast import contrast_of
from kneessl.sources.dicom.grouping import Group, groups_of
from kneessl.sources.dicom.image import Image
from kneessl.sources.dicom.laterality import SIDES, UNKNOWN, Placed, Side, sides
from kneessl.sources.dicom.persons import Persons, by_person, owner_of
from kneessl.sources.dicom.stack import DicomSeries, Prepared, name_of, obliquity_deg, ordered, plane_of
from kneessl.sources.exam import FEWEST_SLICES, Person
from kneessl.sources.notes import Notes
from kneessl.sources.quality import LOCALISERS, is_localiser

__all__ = ["DicomSeries", "Knee", "Prepared", "SeriesFacts", "find_knees"]

_OWN_UID = (
    "images each with a {}InstanceUID of its own, as some anonymisers write them; give those of one {} the same one"
)
OWN_STUDY_UID = _OWN_UID.format("Study", "study")
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
    person: Person
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
    remarks: tuple[str, ...]
    """Sentences on what else was assumed of the series that are used, or left out of them."""
    left_out: tuple[str, ...]
    """Files of the study that never became a series, by what they are, with their count."""

    @property
    def study(self) -> str:
        """StudyInstanceUID."""
        return self.series[0].images[0].study

    @property
    def series(self) -> tuple[DicomSeries, ...]:
        """The best of each plane."""
        return tuple(candidates[0] for candidates in self.candidates.values())


@dataclass(frozen=True, eq=False)
class _Member:
    """The series of one group in its study, usable or not."""

    stacks: tuple[tuple[int, Sequence[Image]], ...]
    """Number and images of each echo."""
    series: tuple[DicomSeries, ...]
    """By rising echo; none where it cannot be used."""
    reason: str
    """Why it cannot be used."""
    group: Group
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
    images = list(images)
    persons = Persons(map(owner_of, images))
    persons.note(notes)
    studies: dict[str, list[Image]] = defaultdict(list)
    for image in images:
        studies[image.study].append(image)
    wanted = Wanted(echo_ms, every_echo, weighting or {})
    single = [study for study, images_of_study in studies.items() if len(images_of_study) == 1]
    for study in single if len(single) >= FEWEST_SLICES else ():
        notes.leave_out(OWN_STUDY_UID, study=study)
        del studies[study]
    return [knee for study in sorted(studies, key=digest) for knee in knees_of(studies[study], persons, wanted, notes)]


def knees_of(images: Sequence[Image], persons: Persons, wanted: Wanted, notes: Notes) -> list[Knee]:
    """The exams in one study.

    Args:
        images: Of one StudyInstanceUID, in any order.
        persons: Of these images, and of all others that may be of the same ones.
        wanted: What the study is asked for.
        notes: Collects what is left out.

    Raises:
        UserError: as `find_knees`.
    """
    study = images[0].study
    knees: list[Knee] = []
    people = by_person(images, persons, notes)
    for person, images_of_person in people.items():
        # A hash over an identity could be undone, so a study of several persons is told apart by their series.
        name = study if len(people) == 1 else study + min(digest(image.series) for image in images_of_person)
        knees += _knees_of(name, person, images_of_person, wanted, notes)
    return knees


def _knees_of(name: str, person: Person, images: Sequence[Image], wanted: Wanted, notes: Notes) -> list[Knee]:
    """The exams of one person in one study; `name` is hashed into their keys."""
    study = images[0].study
    left_out = notes.of_study(study)
    members = _members(images, notes)
    _note_short_series(members, study, notes)
    knees = []
    for side, of_knee in _by_knee(members, notes, study):
        choices = choose([Family(member.series, member.group.digest) for member in of_knee if member.series], wanted)
        knees += [
            _knee(f"{digest(name + side)} {number:04d}", person, side, of_knee, choice, left_out)
            for number, choice in enumerate(choices)
        ]
    return knees


def _members(images: Sequence[Image], notes: Notes) -> list[_Member]:
    """The groups of one study, each with its side; numbered in the order of their hashes, then of their echoes."""
    members, number = [], 1
    for group in groups_of(images):
        stacks = tuple((number + index, echo) for index, echo in enumerate(group.echoes))
        series, reason = _series_of(stacks, group, notes)
        in_order = tuple((one.number, one.images) for one in series)
        members.append(_Member(in_order or stacks, series, reason, group))
        number += len(stacks)
    known = sides([_placed(member) for member in members])
    return [_with_side(member, _by_place(member, side)) for member, side in zip(members, known, strict=True)]


def _note_short_series(members: Sequence[_Member], study: str, notes: Notes) -> None:
    """Say which series are too short; that all have one image is most likely an anonymiser's fault."""
    short = [member for member in members if max(len(images) for _, images in member.stacks) < FEWEST_SLICES]
    single = [member for member in short if member.group.parts == (1,)]
    if len(single) >= FEWEST_SLICES:
        notes.leave_out(_OWN_UID.format("Series", "series"), len(single), study)
        short = [member for member in short if member not in single]
    for member in short:
        what = f"series with fewer than {FEWEST_SLICES} slices{_mixed(member.group, 'their SeriesInstanceUID')}"
        notes.leave_out(what, len(member.stacks), study)


def _mixed(group: Group, where: str) -> str:
    """In brackets, what parted a group's images from one another and from those of its series; empty if nothing."""
    echoes = f"{len(group.echoes)} echo times" if len(group.echoes) > 1 else ""
    parted = " and ".join(filter(None, (group.parted, echoes)))
    return f" (the images of {where} have {parted})" if parted else ""


def _series_of(
    stacks: Sequence[tuple[int, Sequence[Image]]], group: Group, notes: Notes
) -> tuple[tuple[DicomSeries, ...], str]:
    """The ordered series of one group; or none and the reason, where it is too short or faulty."""
    study, most = stacks[0][1][0].study, max(len(images) for _, images in stacks)
    if most < FEWEST_SLICES:
        return (), f"fewer than {FEWEST_SLICES} slices{_mixed(group, 'its series')}"
    try:
        for _, images in stacks:
            if len(images) != most:
                raise UserError(
                    f"{name_of(images)} has {len(images)} images at echo {milliseconds(images[0].echo_ms)}, but {most} "
                    "at another; export the whole series again"
                )
        series = tuple(replace(ordered(images), number=number) for number, images in stacks)
    except UserError as error:
        notes.fault(error, study)
        return (), str(error)
    image = series[0].images[0]
    if is_localiser(most, series[0].slice_mm, max(image.rows * image.row_mm, image.columns * image.column_mm)):
        notes.leave_out(LOCALISERS, len(stacks), study)
        return (), f"one of the {LOCALISERS}"
    return series, ""


def _tags(member: _Member) -> set[str]:
    return {image.laterality for _, images in member.stacks for image in images} - {""}


def _placed(member: _Member) -> Placed:
    placed = Placed(member.stacks[0][0], frozenset(_tags(member)), member.series[0].centre if member.series else None)
    # One tag cannot be true of both stacks of a series of both knees: there the place tells.
    one_wrong = member.group.by_place and placed.tag and placed.tag != placed.by_centre
    return replace(placed, tags=frozenset()) if one_wrong else placed


def _by_place(member: _Member, side: Side) -> Side:
    """The side of a series with a flag, where its tag had to give way to its place."""
    tags = _tags(member)
    if not member.group.by_place or len(tags) != 1 or side.side in {"", *tags}:
        return side
    flag = (
        f"Series {member.stacks[0][0]} is one of two knees under one SeriesInstanceUID; it is tagged "
        f"{SIDES[min(tags)]}, and was taken as the {SIDES[side.side]} knee by its place; check which knee this is."
    )
    return replace(side, sure=False, flags=(*side.flags, flag))


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


def _knee(
    key: str, person: Person, side: str, members: Sequence[_Member], choice: Choice, left_out: tuple[str, ...]
) -> Knee:
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
        person=person,
        candidates=choice.candidates,
        laterality=side,
        laterality_from=source,
        laterality_sure=any(one.sure for one in known) and not flags,
        facts=tuple(facts),
        flags=flags,
        remarks=tuple(_remarks(members, used)),
        left_out=left_out,
    )


def _remarks(members: Sequence[_Member], used: Set[int]) -> Iterator[str]:
    """What was assumed of the series that are used, or left out of them."""
    for member in members:
        for series in member.series:
            if series.number not in used:
                continue
            if member.group.parted:
                parts = " and ".join(map(str, member.group.parts))
                yield (
                    f"Series {series.number} is a part of its SeriesInstanceUID, whose images have "
                    f"{member.group.parted}: parts of {parts} images, of which this is one of {member.group.size}."
                )
            if series.assumed:
                yield f"Series {series.number}: {series.assumed}."


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


def digest(text: str) -> str:
    """By which studies and knees are ordered."""
    return hashlib.sha256(text.encode()).hexdigest()
