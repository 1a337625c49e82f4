"""The exam folder: MRNet's own layout on disk, and nothing else.

`{train,valid}/{sagittal,coronal,axial}/0000.npy`, each uint8 `(slices, 256, 256)`, and one label file a task,
`{train,valid}-acl.csv`, without a header: `0000,1`. Beyond MRNet's: a third split `test` where there is one; labels of
many tasks in one table a split, `train.csv`; and `exams.csv` in folders that an importer wrote.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from kneessl.errors import UserError
from kneessl.exams.npy import open_npy, read_header
from kneessl.files import replacing
from kneessl.progress import progress

Plane = Literal["sagittal", "coronal", "axial"]
Split = Literal["train", "valid", "test"]
Weighting = Literal["T1", "PD", "T2", "T2*", "unknown"]
"""What an MR series shows bright."""
Unlabelled = Literal["refuse", "ok"]
PLANES: tuple[Plane, ...] = get_args(Plane)
SPLITS: tuple[Split, ...] = get_args(Split)
SIDE = 256
"""Rows and columns of every slice."""
READER = ".reader"
"""Stands in the name of one reader's labels, `train-acl.reader1.csv`: no task of its own."""
_LABELS = {"0": 0, "1": 1, "": None}


@dataclass(frozen=True)
class Provenance:
    """One line of `exams.csv`: where one series came from and why it was chosen; never an identity."""

    split: str
    exam: str
    plane: str
    patient_group: str
    """Exams with the same group are of the same person, and must stay on one side of any split."""
    laterality: str
    """`L`, `R`, or empty where it is not known."""
    row_mm: float
    """Distance between neighbouring rows, in mm, after resampling; 0, as for the others, where the source has none."""
    column_mm: float
    slice_mm: float
    source_sha256: str
    choice: str
    """What was chosen, and why, in words for people; nothing reads them but `_from_words`, in older folders."""
    source: str = ""
    """`DICOM`, `NIfTI`, `npy`, `KneeMRI` or `phantom`; empty where it is not known."""
    synthetic: bool = False
    """A phantom, no patient's knee."""
    weighting: str = ""
    """`T1`, `PD`, `T2` or `T2*`; empty where it is not known."""
    fat_suppressed: bool | None = None
    """None where it is not known."""
    echo_ms: float | None = None
    """Echo time; None where it is not known."""
    maker: str = ""
    model: str = ""
    """Of the scanner, such as `Siemens` and `Skyra`; empty where it is not known."""
    field_t: float | None = None
    """Field strength in tesla; None where it is not known."""
    repetition_ms: float | None = None
    """Repetition time; None where it is not known, as for the others."""
    inversion_ms: float | None = None
    flip_deg: float | None = None
    study_hash: str = ""
    """Salted hash of the study's UID, by which `kneessl import --add` recognises it."""
    person_hash: str = ""
    """Of the patient's ID, so that exams added later join the group of their patient."""

    @property
    def scanner(self) -> str:
        """Maker and model; empty where neither is known."""
        return f"{self.maker} {self.model}".strip()

    @property
    def field(self) -> str:
        """Field strength in words; empty where it is not known."""
        return "" if self.field_t is None else f"{self.field_t:g} T"


@dataclass(frozen=True)
class LabelTable:
    """A split's labels of many tasks in one file, `train.csv`: a header, then one line an exam."""

    tasks: tuple[str, ...]
    rows: dict[str, tuple[int | None, ...]]
    """Exam to its label for each task: 0, 1, or None where the cell is blank."""

    def labels(self, task: str) -> dict[str, int]:
        """Label (0 or 1) of each exam that has one for a task of this table."""
        column = self.tasks.index(task)
        return {exam: label for exam, row in self.rows.items() if (label := row[column]) is not None}


class ExamFolder:
    """Read access to an exam folder; series stay on disk until their slices are indexed.

    Args:
        root: The folder.
        unlabelled: Whether labels whose exam has no series are refused, or left aside; None where the command leaves no
            choice, and they are refused.

    Raises:
        UserError: `root` is not a folder, or holds no series at all.
    """

    def __init__(self, root: Path, unlabelled: Unlabelled | None = None) -> None:
        self.root = Path(root)
        self.unlabelled = unlabelled
        if not self.root.is_dir():
            raise UserError(f"{self.root} is not a folder; name an exam folder, such as `kneessl phantom` writes")
        if not any(self.exams(split, plane) for split in SPLITS for plane in PLANES):
            raise UserError(
                f"{self.root} holds no series; an exam folder has files such as train/sagittal/0000.npy "
                "(`kneessl import` makes one from DICOM)"
            )

    def path(self, split: str, plane: str, exam: str) -> Path:
        """The file of one series."""
        return self.root / split / plane / f"{exam}.npy"

    def exams(self, split: str, plane: str) -> list[str]:
        """Names of the exams that have a series in this split and plane, sorted."""
        return sorted(p.stem for p in (self.root / split / plane).glob("*.npy") if not p.name.startswith("."))

    def require(self, split: str, plane: str) -> list[str]:
        """As `exams`, but a user error where there is none."""
        names = self.exams(split, plane)
        if not names:
            raise UserError(f"{self.root / split / plane} holds no series; choose another plane or split")
        return names

    def tasks(self, split: str) -> list[str]:
        """Tasks with labels in this split, in a file of their own or as a column of the split's table, sorted.

        Raises:
            UserError: as `table`.
        """
        files = {p.stem.removeprefix(f"{split}-") for p in self.root.glob(f"{split}-*.csv") if READER not in p.stem}
        return sorted(files | set(self.table(split).tasks))

    def labels(self, split: str, task: str) -> dict[str, int]:
        """As `read_labels`, of exams that have a series in some plane.

        Raises:
            UserError: as `read_labels`; or a label's exam has no series, and these are not to be left aside.
        """
        labels = self.read_labels(split, task)
        there = {exam for plane in PLANES for exam in self.exams(split, plane)}
        unmatched = sorted(labels.keys() - there)
        if unmatched and self.unlabelled != "ok":
            way_out = "--unlabelled ok leaves their labels aside" if self.unlabelled else "remove their labels"
            raise UserError(
                f"{self.root}: {len(unmatched)} of {len(labels)} labels for {task} in {split} name exams that have no "
                f"series there, {_why_unmatched(unmatched, there)}; `kneessl check` lists them all (where series "
                f"are rightly missing, {way_out})"
            )
        return {exam: label for exam, label in labels.items() if exam in there}

    def read_labels(self, split: str, task: str) -> dict[str, int]:
        """Label (0 or 1) of each exam, from MRNet's file `train-acl.csv` or from the column `acl` of `train.csv`.

        Raises:
            UserError: neither is there, or both are; a line that is not `exam,0` or `exam,1`; an exam named twice; or
                as `table`.
        """
        path = self.root / f"{split}-{task}.csv"
        table = self.table(split)
        if task in table.tasks:
            if path.is_file():
                raise UserError(f"{path}: {split}.csv has labels for {task} as well; keep one of the two")
            return table.labels(task)
        if not path.is_file():
            known = ", ".join(self.tasks(split)) or "none"
            raise UserError(f"{path} is missing; tasks with labels in this split: {known}")
        labels: dict[str, int] = {}
        for number, line in enumerate(_read_labels(path).splitlines(), start=1):
            row = line.split(",")
            if not line.strip():
                continue
            if len(row) != 2 or not row[0].strip() or row[1].strip() not in {"0", "1"}:
                raise UserError(f"{path}, line {number}: expected an exam and 0 or 1, such as 0000,1")
            exam = row[0].strip()
            if exam in labels:
                raise UserError(f"{path}, line {number}: exam {exam} stands here twice; keep one line")
            labels[exam] = int(row[1])
        return labels

    def table(self, split: str) -> LabelTable:
        """The split's labels that stand in one file, `train.csv`; empty where there is none.

        Its header names the exam's column, as it likes, and then the tasks: `exam,ACL,Medial Meniscus,Baker's`. A cell
        is 0, 1, or blank where the exam is not labelled for that task.

        Raises:
            UserError: not CSV; no tasks, one without a name or named twice; a line that is too long or too short, names
                no exam or one named before; a cell that is neither 0, 1 nor blank.
        """
        path = self.root / f"{split}.csv"
        if not path.is_file():
            return LabelTable((), {})
        reader = csv.reader(io.StringIO(_read_labels(path), newline=""), strict=True)
        rows: dict[str, tuple[int | None, ...]] = {}
        try:
            tasks = _table_tasks(path, next(reader, []))
            for row in reader:
                if not any(cell.strip() for cell in row):
                    continue
                exam, labels = _table_row(f"{path}, line {reader.line_num}", row, tasks)
                if exam in rows:
                    raise UserError(f"{path}, line {reader.line_num}: exam {exam} stands here twice; keep one line")
                rows[exam] = labels
        except csv.Error as error:
            raise UserError(
                f"{path}, line {reader.line_num}: not CSV ({error}); save the table as plain CSV"
            ) from error
        return LabelTable(tasks, rows)

    def series(self, split: str, plane: str, exam: str) -> np.ndarray:
        """One series, memory-mapped: uint8 `(slices, 256, 256)`; indexing reads only the slices named.

        Raises:
            UserError: the file is missing, unreadable, cut short, or not of that dtype and shape.
        """
        path = self.path(split, plane, exam)
        volume = open_npy(path)
        _require_series(path, volume.shape, volume.dtype)
        return volume

    def slices(self, split: str, plane: str, exam: str) -> int:
        """How many slices a series has, by its file's header.

        Raises:
            UserError: as `series`.
        """
        path = self.path(split, plane, exam)
        shape, dtype = read_header(path)
        _require_series(path, shape, dtype)
        return shape[0]

    def require_readable(self, split: str, plane: str, exams: Iterable[str]) -> None:
        """Raise what `series` raises, before long work begins, where one of these exams cannot be read."""
        for exam in progress(exams, title="look at series", unit="exam", keep=False, delay=2):
            self.slices(split, plane, exam)

    def provenance(self) -> list[Provenance]:
        """The lines of `exams.csv`; none where no importer made the folder.

        Raises:
            UserError: as `read_provenance`.
        """
        return list(read_provenance(self.root / "exams.csv"))

    @property
    def synthetic(self) -> bool:
        """Whether any of its knees is a phantom's.

        Raises:
            UserError: as `provenance`.
        """
        return any(line.synthetic for line in self.provenance())


def _require_series(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if dtype != np.uint8:
        raise UserError(f"{path} has dtype {dtype}; a series is uint8 (import it with `kneessl import`)")
    if len(shape) != 3 or shape[1:] != (SIDE, SIDE):
        raise UserError(f"{path} has shape {shape}; a series is (slices, {SIDE}, {SIDE})")
    if shape[0] == 0:
        raise UserError(f"{path} has no slices")


def _why_unmatched(unmatched: Sequence[str], there: Set[str]) -> str:
    """An example, with the cause that its name suggests."""
    for cause, plain in _CAUSES.items():
        named = {plain(exam): exam for exam in sorted(there)}
        if len(named) == len(there):
            for exam in unmatched:
                if other := named.get(plain(exam)):
                    return f"such as {exam}, where the series is {other}: {cause}"
    return f"such as {unmatched[0]}"


def _without_zeros(exam: str) -> str:
    return exam.lstrip("0") or "0"


_CAUSES: dict[str, Callable[[str], str]] = {
    "leading zeros were lost, as in a spreadsheet": _without_zeros,
    "a name became a number with a decimal point, as in a spreadsheet": lambda e: _without_zeros(e.removesuffix(".0")),
    "labels name exams without a file's ending": lambda exam: Path(exam).name.removesuffix(".npy"),
    "capital and small letters differ": str.lower,
}


def _read_labels(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text; a label file has lines such as 0000,1") from error


def _table_tasks(path: Path, header: list[str]) -> tuple[str, ...]:
    tasks = tuple(cell.strip() for cell in header[1:])
    if not tasks:
        raise UserError(f"{path}, line 1: expected a header with the exam and then a task or more, such as exam,acl")
    for task in tasks:
        if task in _LABELS or not task.isprintable():
            raise UserError(f"{path}, line 1: {task!r} names no task; start with a header such as exam,acl,meniscus")
        if tasks.count(task) > 1:
            raise UserError(f"{path}, line 1: there are {tasks.count(task)} columns {task}; keep one")
    return tasks


def _table_row(where: str, row: list[str], tasks: tuple[str, ...]) -> tuple[str, tuple[int | None, ...]]:
    if len(row) != 1 + len(tasks):
        raise UserError(f"{where}: {len(row)} cells under a header of {1 + len(tasks)}; give each line as many")
    exam = row[0].strip()
    if not exam or not exam.isprintable():
        raise UserError(f"{where}: the first cell names no exam; put the name of its series file there, such as 0000")
    for task, cell in zip(tasks, row[1:], strict=True):
        if cell.strip() not in _LABELS:
            raise UserError(f"{where}: the label for {task} is {cell.strip()!r}; write 0, 1, or leave it blank")
    return exam, tuple(_LABELS[cell.strip()] for cell in row[1:])


_REQUIRED = tuple(f.name for f in fields(Provenance) if f.default is MISSING)
"""Columns of every `exams.csv`; those that came later may be missing."""
_COLUMNS = {f.name for f in fields(Provenance)}
_UNKNOWN_NUMBERS = ("echo_ms", "field_t", "repetition_ms", "inversion_ms", "flip_deg")
_READ_CELL: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("row_mm", "column_mm", "slice_mm"), float),
    "synthetic": lambda text: bool(_LABELS[text]),
    "fat_suppressed": lambda text: None if _LABELS[text] is None else bool(_LABELS[text]),
    **dict.fromkeys(_UNKNOWN_NUMBERS, lambda text: float(text) if text else None),
}
"""Of cells that are no text."""
_FAT_IN_WORDS = {"with fat suppressed": True, ", fat-suppressed": True, "without fat suppression": False}


def read_provenance(path: Path) -> Iterator[Provenance]:
    """The lines of an `exams.csv`, one at a time; none where it is missing.

    Raises:
        UserError: the file is damaged.
    """
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, strict=True)
        names: tuple[str, ...] = _REQUIRED
        try:
            names = tuple(reader.fieldnames or ())
            if names[: len(_REQUIRED)] != _REQUIRED or not set(names) <= _COLUMNS or len(set(names)) < len(names):
                raise UserError(f"{path}: its first line must begin with {','.join(_REQUIRED)}")
            for row in reader:
                yield _provenance(row)
        except (TypeError, ValueError, AttributeError, csv.Error) as error:
            raise UserError(f"{path}: a line does not fit its header {','.join(names)}") from error


def _provenance(row: dict[str, Any]) -> Provenance:
    if None in row or None in row.values():
        raise ValueError("too many or too few columns")
    try:
        line = Provenance(**{name: _READ_CELL.get(name, str)(text) for name, text in row.items()})
    except KeyError as error:
        raise ValueError("neither 0, 1 nor blank") from error
    return line if "synthetic" in row else _from_words(line)


def _from_words(line: Provenance) -> Provenance:
    """What the columns of today would say of a line that an older version wrote, by the words that it used."""
    synthetic = line.choice.startswith("synthetic phantom")
    fat_suppressed = next((fat for words, fat in _FAT_IN_WORDS.items() if words in line.choice), None)
    if synthetic:
        return replace(line, source="phantom", synthetic=True, weighting="PD", fat_suppressed=fat_suppressed or False)
    return replace(line, fat_suppressed=fat_suppressed)


def write_series(root: Path, split: str, plane: str, exam: str, volume: np.ndarray) -> None:
    """Write one series, uint8 `(slices, 256, 256)`, whole or not at all."""
    if volume.dtype != np.uint8 or volume.ndim != 3 or volume.shape[1:] != (SIDE, SIDE) or not len(volume):
        raise ValueError(f"a series is uint8 (slices, {SIDE}, {SIDE}), not {volume.dtype} {volume.shape}")
    with replacing(root / split / plane / f"{exam}.npy") as partial, partial.open("wb") as file:
        np.save(file, np.ascontiguousarray(volume), allow_pickle=False)


def write_labels(root: Path, split: str, task: str, labels: dict[str, int]) -> None:
    """Write one label file in MRNet's form, sorted by exam."""
    with (
        replacing(root / f"{split}-{task}.csv") as partial,
        partial.open("w", newline="", encoding="utf-8") as file,
    ):
        csv.writer(file, lineterminator="\n").writerows(sorted(labels.items()))


def write_table(root: Path, split: str, table: LabelTable) -> None:
    """Write a split's labels of many tasks, `train.csv`."""
    with replacing(root / f"{split}.csv") as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("exam", *table.tasks))
        writer.writerows((exam, *row) for exam, row in table.rows.items())


def write_provenance(root: Path, lines: Iterable[Provenance]) -> None:
    """Write `exams.csv`."""
    with replacing(root / "exams.csv") as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Provenance)], lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in asdict(line).items()} for line in lines)


def _cell(value: str | float | bool | None) -> str | float | None:
    return int(value) if isinstance(value, bool) else value
