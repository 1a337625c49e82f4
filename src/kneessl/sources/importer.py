"""`kneessl import`: DICOM, NIfTI, bare arrays and the KneeMRI data set become an exam folder."""

import hashlib
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kneessl.errors import UserError
from kneessl.exams.folder import Plane, Provenance, Split, write_labels, write_provenance, write_series
from kneessl.files import new_folder
from kneessl.progress import progress
from kneessl.sources.dicom.contrast import Weighting
from kneessl.sources.dicom.headers import read_headers
from kneessl.sources.dicom.series import DicomSeries, find_knees
from kneessl.sources.dicom.stack import WINDOW, field_of, pictures_of
from kneessl.sources.kneemri import KneeVolume, find_volumes, is_kneemri, read_knee
from kneessl.sources.nifti import SUFFIXES, cuts, read_volume
from kneessl.sources.notes import Notes
from kneessl.sources.stack import DISPLAY, Stack, directions_of, side_of_patient

DEFAULT_ECHO_MS = 30.0


@dataclass(frozen=True, eq=False)
class Series:
    """One series, ready for an exam folder."""

    plane: Plane
    volume: np.ndarray
    """uint8 `(slices, 256, 256)`, turned as `kneessl.sources.stack.DISPLAY` says."""
    pixel_mm: float
    slice_mm: float
    laterality: str
    source_sha256: str
    choice: str


@dataclass(frozen=True, eq=False)
class FoundExam:
    """An exam whose headers are known and whose pixels are still on disk."""

    key: str
    """Orders the exams; depends on no file name."""
    person: str
    """Equal for exams of one person; not to be written anywhere."""
    parts: tuple[Callable[[], Iterator[Series]], ...]
    """Each decodes, turns and resamples some of its series."""
    split: Split | None = None
    """Where the source has it published; None where it is the user's choice."""
    labels: dict[str, int] = field(default_factory=dict)
    """Task to label, where the source has labels."""


def import_exams(
    src: Path,
    out: Path,
    echo: str = "30",
    split: Split = "train",
    npy_axes: str = "ALS",
    npy_spacing: float = 1.5,
    same_patient: bool = False,
    skip_faulty: bool = False,
    weighting: dict[Plane, Weighting] | None = None,
) -> None:
    """Make an exam folder from DICOM, NIfTI, bare .npy volumes, or the KneeMRI data set with its labels.

    Args:
        src: A file, or a folder that is searched with its subfolders; of KneeMRI, the one with metadata.csv.
        out: The exam folder to make; must not exist yet.
        echo: Echo time in ms (the nearest is taken), or `all` for one exam an echo.
        split: Where the exams go: train, valid or test. KneeMRI goes by its published split.
        npy_axes: Where the three axes of a bare .npy lead: one of A/P, L/R, S/I for each.
        npy_spacing: Distance of the voxels of a bare .npy in mm; the file does not say, so this is an assumption.
        same_patient: All exams are of one person (bare volumes do not say; else each counts as its own patient).
        skip_faulty: Leave out files and series with a fault and say so, instead of ending with the first.
        weighting: Which weighting to take where a plane has several series; MRNet's own are {sagittal: T2, coronal: T1,
            axial: PD}. Without, PD or T2 with fat suppressed comes first.

    Raises:
        UserError: nothing to import, a fault in the input, or `out` exists. Then nothing is written.
    """
    notes = Notes(skip_faulty)
    with new_folder(out) as folder:
        found = find_exams(src, notes, echo, npy_axes, npy_spacing, weighting)
        lines, labels = _write(folder, found, split, same_patient, notes)
        if not lines:
            raise UserError(f"{src} holds no knee series that can be imported; left out: {notes or 'nothing'}")
        write_provenance(folder, lines)
        for (where, task), known in labels.items():
            write_labels(folder, where, task, known)
    splits = ", ".join(dict.fromkeys(line.split for line in lines))
    print(f"{out}: exams {len({line.exam for line in lines})}, series {len(lines)}, split {splits}")
    if notes:
        print(f"left out: {notes}", file=sys.stderr)


def find_exams(
    src: Path,
    notes: Notes,
    echo: str = "30",
    npy_axes: str = "ALS",
    npy_spacing: float = 1.5,
    weighting: Mapping[Plane, Weighting] | None = None,
) -> list[FoundExam]:
    """Find the exams in a file or folder; arguments as in `import_exams`.

    Raises:
        UserError: `src` or a setting is wrong, or the input has a fault.
    """
    echo_ms, every_echo = _echo(echo)
    try:
        directions_of(npy_axes)
    except ValueError:
        raise UserError(
            f"--npy_axes {npy_axes}: give three letters, one each of A/P, L/R and S/I, such as ALS"
        ) from None
    if not 0 < npy_spacing < 100:
        raise UserError(f"--npy_spacing {npy_spacing}: give the distance of voxels in mm, such as 1.5")
    if is_kneemri(src):
        return [_found_knee(volume) for volume in find_volumes(src, notes)]
    dicom: list[tuple[Path, str]] = []
    volumes: list[FoundExam] = []
    files = files_in(src)
    for number, file in enumerate(files, start=1):
        # A file named by the user may be named; paths inside a folder often carry the patient's name.
        name = str(src) if file == src else f"file {number} of {len(files)}"
        if file.name.lower().endswith(SUFFIXES):
            volumes.append(_found_volume(file, name, npy_axes, npy_spacing))
        else:
            dicom.append((file, name))
    found = read_headers(progress(dicom, title="headers", unit="file"), notes)
    knees = find_knees(found, echo_ms, every_echo, notes, weighting)
    exams = [FoundExam(knee.key, knee.person, tuple(_dicom_part(series) for series in knee.series)) for knee in knees]
    return sorted(exams, key=lambda exam: exam.key) + sorted(volumes, key=lambda exam: exam.key)


def _echo(echo: str) -> tuple[float, bool]:
    if echo == "all":
        return DEFAULT_ECHO_MS, True
    try:
        echo_ms = float(echo)
    except ValueError:
        echo_ms = -1.0
    if not 0 <= echo_ms < 10_000:
        raise UserError(f"--echo {echo}: give an echo time in ms, such as 30, or all")
    return echo_ms, False


def files_in(src: Path) -> list[Path]:
    """`src` itself, or the files in it and its subfolders but hidden ones, by name.

    Raises:
        UserError: it does not exist, or holds no files.
    """
    if src.is_file():
        return [src]
    if not src.is_dir():
        raise UserError(f"{src} does not exist; name a file or folder with DICOM, NIfTI or .npy volumes")
    inside = (path for path in src.rglob("*") if not any(p.startswith(".") for p in path.relative_to(src).parts))
    files = sorted(path for path in inside if path.is_file())
    if not files:
        raise UserError(f"{src} holds no files; name a folder with DICOM, NIfTI or .npy volumes")
    return files


def _dicom_part(series: DicomSeries) -> Callable[[], Iterator[Series]]:
    def read() -> Iterator[Series]:
        one = series.prepared()
        yield Series(
            one.plane, one.volume, one.pixel_mm, one.slice_mm, series.laterality, one.source_sha256, one.choice
        )

    return read


def _found_volume(file: Path, name: str, npy_axes: str, npy_spacing: float) -> FoundExam:
    def read() -> Iterator[Series]:
        volume = read_volume(file, name, npy_axes, npy_spacing)
        if file.suffix.lower() == ".npy":
            found = f"bare array; axes {npy_axes} and voxels of {npy_spacing:g} mm assumed"
        else:
            found = "NIfTI"
        side, source = side_of_patient(volume.centre), volume.sha256()
        known = "laterality from the centre's x" if side else "laterality unknown"
        for plane, stack, reason in cuts(volume, name):
            yield _series(name, stack, plane, source, side, (found, reason, known))

    with file.open("rb") as content:
        key = hashlib.file_digest(content, "sha256").hexdigest()
    return FoundExam(key, f"volume {key}", (read,))


def _found_knee(knee: KneeVolume) -> FoundExam:
    def read() -> Iterator[Series]:
        # One millimetre stands for the spacing that is not published: only the pixels' shape matters to the pictures.
        stack = Stack(read_knee(knee.file, knee.name), directions_of(DISPLAY["sagittal"]), (1.0,) * 3, position=None)
        volume, _ = pictures_of(knee.name, stack)
        size = " x ".join(map(str, stack.voxels.shape[1:]))
        choice = (f"KneeMRI {knee.name}", f"spacing not published; {size} square pixels assumed", "laterality unknown")
        yield Series("sagittal", volume, 0.0, 0.0, "", stack.sha256(), "; ".join((*choice, WINDOW)))

    key = f"{knee.exam:012d}-{knee.series:012d}"
    return FoundExam(key, f"KneeMRI {knee.exam}", (read,), knee.split, knee.labels)


def _series(name: str, stack: Stack, plane: Plane, source: str, laterality: str, choice: tuple[str, ...]) -> Series:
    volume, pixel_mm = pictures_of(name, stack)
    words = "; ".join((*choice, field_of(stack), WINDOW))
    return Series(plane, volume, pixel_mm, stack.spacing[0], laterality, source, words)


def _write(
    folder: Path, found: list[FoundExam], split: Split, same_patient: bool, notes: Notes
) -> tuple[list[Provenance], dict[tuple[str, str], dict[str, int]]]:
    """Write the series, one at a time; returns the lines of `exams.csv`, and labels by split and task."""
    lines: list[Provenance] = []
    labels: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    groups: dict[str, str] = {}
    number = 0
    for exam in progress(found, title="exams", unit="exam"):
        person = "" if same_patient else exam.person
        group = groups.get(person, f"g{len(groups):04d}")
        name, where = f"{number:04d}", exam.split or split
        written = []
        for part in exam.parts:
            try:
                for series in part():
                    write_series(folder, where, series.plane, name, series.volume)
                    written.append(_provenance(series, where, name, group))
            except UserError as error:
                notes.fault(error)
        if written:
            groups[person] = group
            lines += written
            for task, label in exam.labels.items():
                labels[where, task][name] = label
            number += 1
    return lines, labels


def _provenance(series: Series, split: Split, exam: str, group: str) -> Provenance:
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
        choice=series.choice,
    )
