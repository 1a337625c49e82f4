"""`kneessl import`: DICOM, NIfTI, bare arrays and the KneeMRI data set become an exam folder."""

import shutil
import sys
from contextlib import nullcontext
from pathlib import Path

from kneessl.errors import UserError
from kneessl.exams.folder import Plane, Split, Weighting
from kneessl.sources.archive import finish
from kneessl.sources.archive.finish import Naming
from kneessl.sources.archive.keys import require_own_place, update_keys
from kneessl.sources.archive.label_file import LabelFile, read_label_file
from kneessl.sources.archive.labelling import match, require_known, write_matched
from kneessl.sources.archive.salt import load_salt, salt_file
from kneessl.sources.archive.series_table import told_planes
from kneessl.sources.archive.steps import Importer, Steps
from kneessl.sources.archive.workspace import Workspace, workspace
from kneessl.sources.bare_npy import npy_exams, npy_files
from kneessl.sources.exam import ImportSettings
from kneessl.sources.kneemri import kneemri_exams, kneemri_files
from kneessl.sources.limits import Limits
from kneessl.sources.nifti import nifti_exams, nifti_files
from kneessl.sources.notes import summary
from kneessl.sources.unzip import is_zip, unpack
from kneessl.workers.executor import executor, require_workers

_ZIP = Limits(files=200_000, bytes=2**38, file_bytes=2**33)
"""Of one that is imported, with many studies in it."""
_MOST_REMARKS = 20
"""That are printed; of thousands of exams nobody reads them all."""

IMPORTERS = {
    "KneeMRI": Importer(kneemri_files, kneemri_exams),
    "NIfTI": Importer(nifti_files, nifti_exams),
    "npy": Importer(npy_files, npy_exams),
}
"""Each takes its files of those that the ones before it have left; DICOM, which has no suffix, takes what is left."""


def import_exams(
    src: Path,
    out: Path,
    labels: Path | None = None,
    tasks: tuple[str, ...] = (),
    keys: Path | None = None,
    add: bool = False,
    workers: int | None = None,
    cluster: str | None = None,
    resume: bool = False,
    strict: bool = False,
    echo: str = "30",
    split: Split = "train",
    npy_axes: str | None = None,
    npy_spacing: float | None = None,
    same_patient: bool = False,
    weighting: dict[Plane, Weighting] | None = None,
) -> None:
    """Make an exam folder from DICOM, NIfTI, bare .npy volumes, or the KneeMRI data set with its labels.

    Args:
        src: A file, a zip, or a folder that is searched with its subfolders; of KneeMRI, the one with metadata.csv.
        out: The exam folder to make; must not exist yet, but with --add.
        labels: CSV whose first column is a key: StudyInstanceUID, SeriesInstanceUID, AccessionNumber, PatientID or path
            (below SRC); the other columns are tasks with 0, 1 or blank; a column laterality (L, R) tells two knees of a
            study apart.
        tasks: Columns of LABELS to take; all that hold only 0, 1 and blank by default.
        keys: File to write, outside OUT: which exam is which, for `kneessl label`. It names patients.
        add: Take new studies into OUT; those that it has are skipped, and its exams keep their names.
        workers: Processes; as many as there are cores by default.
        cluster: Address of a Dask scheduler whose workers read and write instead, such as tcp://10.0.0.1:8786. Headers
            that name patients go through it.
        resume: Go on with an import that was interrupted.
        strict: End with the first fault, instead of leaving out files and series with one and listing them.
        echo: Echo time in ms (the nearest is taken), or `all` for one exam an echo.
        split: Where the exams go: train, valid or test. KneeMRI goes by its published split.
        npy_axes: Where the three axes of a bare .npy volume lead: one of A/P, L/R, S/I for each, such as ALS. One in a
            folder named sagittal, coronal or axial is a series of that plane and needs none.
        npy_spacing: Distance of the voxels of a bare .npy volume in mm, the same along each axis.
        same_patient: All exams are of one person (bare volumes do not say; else each counts as its own patient).
        weighting: Which weighting to take where a plane has several series; MRNet's own are {sagittal: T2, coronal: T1,
            axial: PD}. Without, PD or T2 with fat suppressed comes first.

    Raises:
        UserError: nothing to import, a fault in the input or the labels, or `out` exists. Then nothing is written.
    """
    settings = ImportSettings(echo, npy_axes, npy_spacing, weighting or {})
    workers = require_workers(workers)
    if keys:
        require_own_place(keys, out, there=add or resume)
    file = read_label_file(labels, tasks) if labels else None
    if tasks and not labels:
        raise UserError("--tasks chooses columns of a label file; name it with --labels")
    salt, made = load_salt()
    asked = {
        "src": src.resolve(), "split": split, "same_patient": same_patient, "strict": strict, "add": add, "echo": echo,
        "npy_axes": npy_axes, "npy_spacing": npy_spacing, "weighting": weighting or {}, "salt": salt.name,
    }  # fmt: skip
    elsewhere = executor(workers, cluster, [src], out) if cluster else nullcontext()
    with elsewhere as pool, workspace(out, asked, add, resume) as space:
        planes = told_planes(src)
        found = _unpacked(src, space)
        steps = Steps(found.absolute() if cluster else found, space, settings, strict, workers, IMPORTERS, planes, pool)
        before = space.folder / "exams.csv"
        naming = Naming(split, same_patient, salt)
        if add and not space.index.phase:
            finish.learn(space.index, out, salt)
            shutil.copyfile(out / "exams.csv", before)
        _import(steps, src, file, before, naming)
        if space.index.phase == "named":
            if add:
                steps.place(out, before, naming)
            elif space.exams.exists():  # else the exam folder got its place, and no more
                steps.place(space.exams, before, naming)
                space.exams.chmod(0o755)
                space.exams.replace(out)
            space.index.finish("placed")
        if file:
            with space.kept():
                write_matched(out, file, match(file, finish.key_rows(space.index)))
        if keys:
            update_keys(keys, lambda: finish.key_rows(space.index))
        _report(steps, out, add)
    if made:
        print(f"note: {salt_file()} was made; --add recognises studies and persons by it, so keep it", file=sys.stderr)


def _import(steps: Steps, src: Path, file: LabelFile | None, before: Path, naming: Naming) -> None:
    """Go as far as all exams have their names.

    Raises:
        UserError: as `import_exams`.
    """
    index = steps.index
    if not index.phase:
        steps.list_files()
    if index.phase in {"listed", "headers"}:
        volumes = steps.read_headers()
        if index.one("SELECT count(*) FROM known"):
            steps.skip_known(naming.salt)
        if file and not any(volumes.values()):
            with steps.space.kept():
                require_known(index, file)
        steps.redo_damaged()
        steps.import_volumes(volumes)
        steps.import_studies()
        left_out = summary((what, count) for _, kind, what, count in index.notes() if kind != "assumed")
        if not index.skipped and not index.one("SELECT count(*) FROM exams"):
            what = "; ".join(left_out) or "nothing"
            raise UserError(f"{src} holds no knee series that can be imported; left out: {what}")
        finish.name_exams(index, before, naming)
        steps.space.exams.mkdir(exist_ok=True)
        index.finish("named")


def _unpacked(src: Path, space: Workspace) -> Path:
    """`src`, or the folder that a zip was unpacked into."""
    if not src.is_file() or not is_zip(src):
        return src
    folder, partial = space.folder / "unpacked", space.folder / "unpacked.partial"
    if not folder.is_dir():
        shutil.rmtree(partial, ignore_errors=True)
        unpack(src, partial, _ZIP)
        partial.rename(folder)
    return folder


def _report(steps: Steps, out: Path, add: bool) -> None:
    index, counts = steps.index, finish.counts(steps.index)
    added = f"added exams {counts.exams}" if add else f"exams {counts.exams}"
    known = f"; studies known already {index.skipped}" if add else ""
    print(f"{out}: {added}, series {counts.series}, split {', '.join(counts.splits) or 'none'}{known}")
    noted: dict[bool, list[tuple[str, int]]] = {True: [], False: []}
    for _, kind, what, count in index.notes():
        noted[kind == "assumed"].append((what, count))
    if noted[False]:
        print(f"left out: {'; '.join(summary(noted[False]))}", file=sys.stderr)
    if noted[True]:
        print(f"assumed: {'; '.join(summary(noted[True]))}", file=sys.stderr)
    number = 0
    for number, remark in enumerate(finish.remarks(index), start=1):
        if number <= _MOST_REMARKS:
            print(f"note: {remark}", file=sys.stderr)
    if number > _MOST_REMARKS:
        print(
            f"note: {number - _MOST_REMARKS} more such notes; {out / 'exams.csv'} has what is said of a series",
            file=sys.stderr,
        )
