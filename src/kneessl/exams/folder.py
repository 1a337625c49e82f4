"""The exam folder: MRNet's own layout on disk, and nothing else.

`{train,valid}/{sagittal,coronal,axial}/0000.npy`, each uint8 `(slices, 256, 256)`, and one label file a task,
`{train,valid}-acl.csv`, without a header: `0000,1`. Folders that an importer wrote also hold `exams.csv`.
"""

import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from tokenize import TokenError
from typing import Any, Literal, get_args

import numpy as np

from kneessl.errors import UserError
from kneessl.files import replacing

Plane = Literal["sagittal", "coronal", "axial"]
Split = Literal["train", "valid"]
PLANES: tuple[Plane, ...] = get_args(Plane)
SPLITS: tuple[Split, ...] = get_args(Split)
SIDE = 256
"""Rows and columns of every slice."""


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
    """Distance between neighbouring rows, in mm, after resampling."""
    column_mm: float
    slice_mm: float
    source_sha256: str
    choice: str
    """What was chosen, and why, in words."""


class ExamFolder:
    """Read access to an exam folder; series stay on disk until their slices are indexed.

    Raises:
        UserError: `root` is not a folder, or holds no series at all.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
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
        """Tasks with a label file in this split, sorted."""
        return sorted(p.stem.removeprefix(f"{split}-") for p in self.root.glob(f"{split}-*.csv"))

    def labels(self, split: str, task: str) -> dict[str, int]:
        """Label (0 or 1) of each exam.

        Raises:
            UserError: no such file, a line that is not `exam,0` or `exam,1`, or an exam named twice.
        """
        path = self.root / f"{split}-{task}.csv"
        if not path.is_file():
            known = ", ".join(self.tasks(split)) or "none"
            raise UserError(f"{path} is missing; tasks with labels in this split: {known}")
        labels: dict[str, int] = {}
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not text; a label file has lines such as 0000,1") from error
        for number, line in enumerate(text.splitlines(), start=1):
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

    def series(self, split: str, plane: str, exam: str) -> np.ndarray:
        """One series, memory-mapped: uint8 `(slices, 256, 256)`; indexing reads only the slices named.

        Raises:
            UserError: the file is missing, unreadable, cut short, or not of that dtype and shape.
        """
        path = self.path(split, plane, exam)
        volume = open_npy(path)
        if volume.dtype != np.uint8:
            raise UserError(f"{path} has dtype {volume.dtype}; a series is uint8 (import it with `kneessl import`)")
        if volume.ndim != 3 or volume.shape[1:] != (SIDE, SIDE):
            raise UserError(f"{path} has shape {volume.shape}; a series is (slices, {SIDE}, {SIDE})")
        if volume.shape[0] == 0:
            raise UserError(f"{path} has no slices")
        return volume

    def provenance(self) -> list[Provenance]:
        """The lines of `exams.csv`; none where no importer made the folder."""
        path = self.root / "exams.csv"
        if not path.is_file():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            names = [f.name for f in fields(Provenance)]
            try:
                if reader.fieldnames != names:
                    raise UserError(f"{path}: its first line must be {','.join(names)}")
                return [_provenance(row) for row in reader]
            except (TypeError, ValueError, AttributeError, csv.Error) as error:
                raise UserError(f"{path}: a line does not fit its header {','.join(names)}") from error


def _provenance(row: dict[str, Any]) -> Provenance:
    if None in row or None in row.values():
        raise ValueError("too many or too few columns")
    values: dict[str, Any] = {name: float(text) if name.endswith("_mm") else text for name, text in row.items()}
    return Provenance(**values)


def open_npy(path: Path) -> np.ndarray:
    """Memory-map a `.npy` file, whatever its dtype and shape; pickled objects are refused."""
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing") from error
    except (ValueError, OSError, EOFError, SyntaxError, TypeError, OverflowError, TokenError) as error:
        raise UserError(f"{path} is not a readable .npy file: damaged, cut short, or holding Python objects") from error


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


def write_provenance(root: Path, lines: list[Provenance]) -> None:
    """Write `exams.csv`."""
    with replacing(root / "exams.csv") as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Provenance)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(line) for line in lines)
