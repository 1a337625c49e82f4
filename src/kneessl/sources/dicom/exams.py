"""Exams from DICOM files: one for each knee of each study."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from kneessl.progress import progress
from kneessl.sources.dicom.image import read_headers
from kneessl.sources.dicom.series import DicomSeries, find_knees
from kneessl.sources.dicom.stack import obliquity_deg
from kneessl.sources.exam import FoundExam, ImportedSeries, ImportSettings
from kneessl.sources.files import SourceFile
from kneessl.sources.notes import Notes


def any_files(src: Path, files: Sequence[SourceFile]) -> list[SourceFile]:
    """All files: DICOM has no suffix of its own, so what is not DICOM is found out, and noted, as headers are read."""
    return list(files)


def dicom_exams(src: Path, files: Sequence[SourceFile], settings: ImportSettings, notes: Notes) -> list[FoundExam]:
    """One exam for each knee of each study, or for each of its echoes.

    Raises:
        UserError: a fault in the files, unless `notes` skips faults.
    """
    named = [(file.path, file.name) for file in files]
    images = read_headers(progress(named, title="headers", unit="file"), notes)
    knees = find_knees(images, settings.echo_ms, settings.every_echo, notes, settings.weighting)
    exams = [
        FoundExam(knee.key, knee.person, tuple(map(_part, knee.series)), remarks=(*knee.flags, *knee.remarks))
        for knee in knees
    ]
    return sorted(exams, key=lambda exam: exam.key)


def _part(series: DicomSeries) -> Callable[[], Iterator[ImportedSeries]]:
    def read() -> Iterator[ImportedSeries]:
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
        )

    return read
