"""The work of a worker process: headers of some files, and the exams of one study."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kneessl.errors import UserError, fault_text, out_of_space
from kneessl.exams.folder import Plane, Provenance
from kneessl.files import replacing
from kneessl.sources.archive.records import Source, pack, unpack
from kneessl.sources.dicom.exams import exams_of_study
from kneessl.sources.dicom.image import Image, images
from kneessl.sources.dicom.persons import Owner
from kneessl.sources.dicom.series import digest
from kneessl.sources.exam import FoundExam, ImportedSeries, ImportSettings
from kneessl.sources.notes import Note, Notes
from kneessl.sources.quality import quality_remarks

_PROGRAM = "the study could not be imported, because of a fault in kneessl ({})"


@dataclass(frozen=True)
class Work:
    """What each task of an import shares."""

    source: Source
    settings: ImportSettings
    strict: bool
    staging: Path
    """Where series wait for their names."""


@dataclass(frozen=True)
class HeaderBatch:
    """What was read of some files."""

    first: int
    """Number of the first."""
    files: int
    records: list[tuple[str, int, bytes]]
    """StudyInstanceUID, how many images, and the record."""
    series: list[tuple[str, ...]]
    """UIDs of study and series, accession number, ID of the patient and its issuer, and path; each once."""
    notes: list[Note]


@dataclass(frozen=True)
class StudyTask:
    """One study whose headers are read."""

    study: str
    """Its key in the index."""
    records: tuple[bytes, ...]
    owners: tuple[Owner, ...]
    planes: Mapping[str, Plane]
    """SeriesInstanceUID to plane, where a table tells it."""


@dataclass(frozen=True)
class Written:
    """What came of one study."""

    study: str
    """UID, or what stands for it."""
    exams: list[tuple[str, dict[str, Any]]]
    """Key of each, and what the index keeps of it."""
    notes: list[Note]


def read_batch(work: Work, files: Sequence[tuple[int, bytes]]) -> HeaderBatch:
    """Read the headers of some files, given by number and relative path.

    Raises:
        UserError: a fault in one of them, where faults end the import.
    """
    notes = Notes(skip_faulty=not work.strict)
    by_study: dict[str, list[tuple[int, bytes, Image]]] = defaultdict(list)
    series = set()
    for number, path in files:
        found = images(work.source.path(path), work.source.name(number), notes)
        file = Path(os.fsdecode(path))
        place = str(file if len(found) > 1 else file.parent)
        for image in found:
            by_study[image.study].append((number, path, image))
            series.add((image.study, image.series, image.accession, image.patient, image.issuer, place))
    records = [(study, len(members), pack(members)) for study, members in by_study.items()]
    return HeaderBatch(files[0][0], len(files), records, sorted(series), list(notes.lines()))


def import_study(work: Work, task: StudyTask) -> Written:
    """Choose, decode and write the series of one study.

    Raises:
        UserError: a fault in it, where faults end the import.
    """
    headers = [image for record in task.records for image in unpack(record, work.source)]
    notes = Notes(skip_faulty=not work.strict)
    find = partial(exams_of_study, headers, task.owners, work.settings, notes, task.planes)
    return _written(work, find, headers[0].study, notes)


def import_volumes(work: Work, exam: FoundExam) -> Written:
    """Read and write an exam whose volumes are found.

    Raises:
        UserError: as `import_study`.
    """
    return _written(work, lambda: [exam], exam.study, Notes(skip_faulty=not work.strict))


def _written(work: Work, find: Callable[[], Sequence[FoundExam]], study: str, notes: Notes) -> Written:
    """Write the exams of a study; a fault of the program in one is a fault of that study, and ends no other."""
    exams = []
    try:
        for exam in find():
            if series := list(_write(work, exam, notes)):
                exams.append((exam.key, _content(exam, series)))
    except UserError:
        raise
    except Exception as error:
        if work.strict or isinstance(error, OSError | MemoryError) or out_of_space(error):
            raise
        notes.fault(UserError(_PROGRAM.format(fault_text(error))), study)
        exams = []
    return Written(study, exams, list(notes.lines()))


def _write(work: Work, exam: FoundExam, notes: Notes) -> Iterator[dict[str, Any]]:
    """Write the series of one exam beside; yields what the index keeps of each."""
    name = digest(exam.key)
    for part in exam.parts:
        try:
            for series in part():
                file = Path(name[:2]) / f"{name}-{series.plane}.npy"
                with replacing(work.staging / file) as partial_file, partial_file.open("wb") as content:
                    np.save(content, np.ascontiguousarray(series.volume), allow_pickle=False)
                quality = _quality(series)
                size = (work.staging / file).stat().st_size
                yield {"file": str(file), "bytes": size, "quality": quality, "line": asdict(_line(series, quality))}
        except UserError as error:
            notes.fault(error, exam.study)


def _content(exam: FoundExam, series: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "uid": exam.study,
        "person": exam.person,
        "split": exam.split,
        "labels": exam.labels,
        "remarks": exam.remarks,
        "of_series": exam.series,
        "series": series,
    }


def _quality(series: ImportedSeries) -> list[str]:
    """What `kneessl predict` would flag of a series."""
    slices = len(series.volume)
    oblique = round(series.obliquity_deg, 1)
    return [*quality_remarks(series.plane, slices, series.slice_mm, series.pixel_mm, oblique), *series.remarks]


def _line(series: ImportedSeries, quality: list[str]) -> Provenance:
    """Its line of `exams.csv`; its place in the exam folder is not known yet."""
    return Provenance(
        split="",
        exam="",
        plane=series.plane,
        patient_group="",
        laterality=series.laterality,
        row_mm=round(series.pixel_mm, 4),
        column_mm=round(series.pixel_mm, 4),
        slice_mm=round(series.slice_mm, 4),
        source_sha256=series.source_sha256,
        choice="; ".join((series.choice, *quality)),
        source=series.source,
        synthetic=series.synthetic,
        weighting="" if series.weighting == "unknown" else series.weighting,
        fat_suppressed=series.fat_suppressed,
        echo_ms=None if series.echo_ms is None else round(series.echo_ms, 3),
        **asdict(series.acquired),
    )
