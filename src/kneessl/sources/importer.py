"""`kneessl import`: DICOM, NIfTI, bare arrays and the KneeMRI data set become an exam folder."""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kneessl.errors import UserError
from kneessl.exams.folder import Plane, Provenance, Split, Weighting, write_labels, write_provenance, write_series
from kneessl.files import new_folder
from kneessl.progress import progress
from kneessl.sources.bare_npy import npy_exams, npy_files
from kneessl.sources.dicom.exams import any_files, dicom_exams
from kneessl.sources.exam import FoundExam, ImportedSeries, ImportSettings
from kneessl.sources.files import SourceFile, private_folder, source_files
from kneessl.sources.kneemri import kneemri_exams, kneemri_files
from kneessl.sources.limits import Limits
from kneessl.sources.nifti import nifti_exams, nifti_files
from kneessl.sources.notes import Notes
from kneessl.sources.quality import quality_remarks
from kneessl.sources.unzip import is_zip, unpack

_ZIP = Limits(files=200_000, bytes=2**38, file_bytes=2**33)
"""Of one that is imported, with many studies in it."""
_MOST_REMARKS = 20
"""That are printed; of thousands of exams nobody reads them all."""


@dataclass(frozen=True)
class Importer:
    """One kind of source."""

    recognise: Callable[[Path, Sequence[SourceFile]], list[SourceFile]]
    """Which files of those in a source are of this kind, by their names and the folder alone."""
    find: Callable[[Path, Sequence[SourceFile], ImportSettings, Notes], list[FoundExam]]
    """The exams in these files, in an order that depends on no file name."""


IMPORTERS = {
    "KneeMRI": Importer(kneemri_files, kneemri_exams),
    "NIfTI": Importer(nifti_files, nifti_exams),
    "npy": Importer(npy_files, npy_exams),
    "DICOM": Importer(any_files, dicom_exams),
}
"""Each takes its files of those that the ones before it have left; the last takes them all."""


def import_exams(
    src: Path,
    out: Path,
    echo: str = "30",
    split: Split = "train",
    npy_axes: str | None = None,
    npy_spacing: float | None = None,
    same_patient: bool = False,
    skip_faulty: bool = False,
    weighting: dict[Plane, Weighting] | None = None,
) -> None:
    """Make an exam folder from DICOM, NIfTI, bare .npy volumes, or the KneeMRI data set with its labels.

    Args:
        src: A file, a zip, or a folder that is searched with its subfolders; of KneeMRI, the one with metadata.csv.
        out: The exam folder to make; must not exist yet.
        echo: Echo time in ms (the nearest is taken), or `all` for one exam an echo.
        split: Where the exams go: train, valid or test. KneeMRI goes by its published split.
        npy_axes: Where the three axes of a bare .npy volume lead: one of A/P, L/R, S/I for each, such as ALS. One in a
            folder named sagittal, coronal or axial is a series of that plane and needs none.
        npy_spacing: Distance of the voxels of a bare .npy volume in mm, the same along each axis.
        same_patient: All exams are of one person (bare volumes do not say; else each counts as its own patient).
        skip_faulty: Leave out files and series with a fault and say so, instead of ending with the first.
        weighting: Which weighting to take where a plane has several series; MRNet's own are {sagittal: T2, coronal: T1,
            axial: PD}. Without, PD or T2 with fat suppressed comes first.

    Raises:
        UserError: nothing to import, a fault in the input, or `out` exists. Then nothing is written.
    """
    settings = ImportSettings(echo, npy_axes, npy_spacing, weighting or {})
    notes = Notes(skip_faulty)
    with new_folder(out) as folder, _unpacked(src) as place:
        exams = find_exams(place, settings, notes)
        lines, labels, remarks = _write(folder, exams, split, same_patient, notes)
        if not lines:
            raise UserError(f"{src} holds no knee series that can be imported; left out: {notes or 'nothing'}")
        write_provenance(folder, lines)
        for (where, task), known in labels.items():
            write_labels(folder, where, task, known)
    splits = ", ".join(dict.fromkeys(line.split for line in lines))
    print(f"{out}: exams {len({line.exam for line in lines})}, series {len(lines)}, split {splits}")
    if notes:
        print(f"left out: {notes}", file=sys.stderr)
    if assumed := notes.assumptions():
        print(f"assumed: {'; '.join(assumed)}", file=sys.stderr)
    for remark in remarks[:_MOST_REMARKS]:
        print(f"note: {remark}", file=sys.stderr)
    if len(remarks) > _MOST_REMARKS:
        print(
            f"note: {len(remarks) - _MOST_REMARKS} more such notes; {out / 'exams.csv'} has what is said of a series",
            file=sys.stderr,
        )


@contextmanager
def _unpacked(src: Path) -> Iterator[Path]:
    """`src`, or the folder that a zip was unpacked into, which is gone afterwards."""
    if not src.is_file() or not is_zip(src):
        yield src
        return
    with private_folder() as folder:
        unpack(src, folder / "zip", _ZIP)
        yield folder / "zip"


def find_exams(src: Path, settings: ImportSettings, notes: Notes) -> list[FoundExam]:
    """Find the exams in a file or folder, those of DICOM first.

    Raises:
        UserError: `src` holds nothing, or the input has a fault.
    """
    left = source_files(src, notes)
    exams: list[FoundExam] = []
    for importer in IMPORTERS.values():
        if taken := importer.recognise(src, left):
            exams = importer.find(src, taken, settings, notes) + exams
            left = [file for file in left if file not in set(taken)]
    return exams


def _write(
    folder: Path, exams: list[FoundExam], split: Split, same_patient: bool, notes: Notes
) -> tuple[list[Provenance], dict[tuple[str, str], dict[str, int]], list[str]]:
    """Write the series, one at a time; returns the lines of `exams.csv`, labels by split and task, and remarks."""
    lines: list[Provenance] = []
    labels: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    remarks: list[str] = []
    groups: dict[str, str] = {}
    number = 0
    for exam in progress(exams, title="exams", unit="exam"):
        person = "" if same_patient else exam.person
        group = groups.get(person, f"g{len(groups):04d}")
        name, where = f"{number:04d}", exam.split or split
        written = []
        for part in exam.parts:
            try:
                for series in part():
                    quality = _quality(series)
                    write_series(folder, where, series.plane, name, series.volume)
                    written.append(_provenance(series, where, name, group, quality))
                    remarks += [f"{name} {series.plane}: {text}" for text in quality]
            except UserError as error:
                notes.fault(error)
        if written:
            groups[person] = group
            lines += written
            remarks += [f"{name}: {text}" for text in exam.remarks]
            for task, label in exam.labels.items():
                labels[where, task][name] = label
            number += 1
    return lines, labels, remarks


def _quality(series: ImportedSeries) -> list[str]:
    """What `kneessl predict` would flag of a series."""
    slices = len(series.volume)
    oblique = round(series.obliquity_deg, 1)
    return [*quality_remarks(series.plane, slices, series.slice_mm, series.pixel_mm, oblique), *series.remarks]


def _provenance(series: ImportedSeries, split: Split, exam: str, group: str, quality: list[str]) -> Provenance:
    return Provenance(
        split=split,
        exam=exam,
        plane=series.plane,
        patient_group=group,
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
    )
