"""Exams from DICOM files: one for each knee of each study."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from kneessl.exams.folder import Plane
from kneessl.sources.dicom.choice import Wanted
from kneessl.sources.dicom.image import Image
from kneessl.sources.dicom.persons import Owner, Persons
from kneessl.sources.dicom.series import Knee, knees_of
from kneessl.sources.dicom.stack import DicomSeries, obliquity_deg, with_told_plane
from kneessl.sources.exam import Acquired, FoundExam, ImportedSeries, ImportSettings
from kneessl.sources.notes import Notes

CONTRADICTED = "series whose plane in the table that came with them contradicts their orientation, taken by that"


def exams_of_study(
    images: Sequence[Image],
    owners: Sequence[Owner],
    settings: ImportSettings,
    notes: Notes,
    planes: Mapping[str, Plane] | None = None,
) -> list[FoundExam]:
    """One exam for each knee of a study, or for each of its echoes.

    Args:
        images: Of one StudyInstanceUID.
        owners: Of them, and of all other images of the same IDs.
        settings: What the user wants.
        notes: Collects what is left out.
        planes: SeriesInstanceUID to plane, where a table tells it.

    Raises:
        UserError: a fault in the files, unless `notes` skips faults.
    """
    images = with_told_planes(images, planes or {}, notes)
    wanted = Wanted(settings.echo_ms, settings.every_echo, settings.weighting)
    knees = knees_of(images, Persons(owners), wanted, notes)
    alone = len({(knee.person, knee.laterality) for knee in knees}) == 1
    exams = [
        FoundExam(
            knee.key,
            knee.study,
            knee.person,
            tuple(partial(_read, series) for series in knee.series),
            remarks=(*knee.flags, *knee.remarks),
            series=None if alone else _series_uids(knee),
        )
        for knee in knees
    ]
    return sorted(exams, key=lambda exam: exam.key)


def _acquired(image: Image) -> Acquired:
    scanner, how = image.scanner, image.acquisition
    return Acquired(scanner.maker, scanner.model, scanner.field_t, how.repetition_ms, how.inversion_ms, how.flip_deg)


def with_told_planes(images: Sequence[Image], planes: Mapping[str, Plane], notes: Notes) -> Sequence[Image]:
    """The images with the planes that a table tells; where their orientation contradicts it, as they were."""
    if not planes:
        return images
    result, contradicted = [], set()
    for image in images:
        told = with_told_plane(image, planes[image.series]) if image.series in planes else image
        if told is None:
            contradicted.add(image.series)
        result.append(told or image)
    notes.assume(CONTRADICTED, len(contradicted))
    return [replace(image, told_plane=None) if image.series in contradicted else image for image in result]


def _series_uids(knee: Knee) -> tuple[str, ...]:
    every = (series for candidates in knee.candidates.values() for series in candidates)
    return tuple(sorted({series.images[0].series for series in every}))


def _read(series: DicomSeries) -> Iterator[ImportedSeries]:
    prepared = series.prepared()
    yield ImportedSeries(
        plane=prepared.plane,
        volume=prepared.volume,
        pixel_mm=prepared.pixel_mm,
        slice_mm=prepared.slice_mm,
        laterality=series.laterality,
        source="DICOM",
        source_sha256=prepared.source_sha256,
        choice=prepared.choice,
        obliquity_deg=obliquity_deg(series.images[0]),
        weighting=series.contrast.weighting,
        fat_suppressed=series.contrast.fat_suppressed,
        echo_ms=series.images[0].echo_ms,
        synthetic=series.images[0].synthetic,
        acquired=_acquired(series.images[0]),
    )
