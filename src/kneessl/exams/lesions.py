"""`lesions.csv`: where the lesions of an exam folder's series lie, which only synthetic knees tell."""

import csv
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from kneessl.errors import UserError
from kneessl.exams.folder import PLANES, SIDE, SPLITS
from kneessl.files import replacing


@dataclass(frozen=True)
class LesionBox:
    """One line of `lesions.csv`: a lesion on one slice; pixels from 0 to 255, first and last included."""

    split: str
    exam: str
    plane: str
    slice: int
    """From 0."""
    finding: str
    """`acl`, `meniscus`, or `abnormal` for what is no tear."""
    kind: str
    row_min: int
    row_max: int
    column_min: int
    column_max: int

    @property
    def area(self) -> int:
        """Pixels in the box."""
        return (self.row_max - self.row_min + 1) * (self.column_max - self.column_min + 1)


COLUMNS = tuple(f.name for f in fields(LesionBox))


def read_lesions(root: Path) -> list[LesionBox]:
    """The lines of an exam folder's `lesions.csv`.

    Raises:
        UserError: no such file, another header, a line that does not fit it, or one that stands there twice.
    """
    path = root / "lesions.csv"
    if not path.is_file():
        raise UserError(f"{path} is missing; only synthetic knees, from `kneessl phantom`, say where their lesions are")
    boxes: dict[LesionBox, None] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file, strict=True)
            if tuple(next(reader, ())) != COLUMNS:
                raise UserError(f"{path}: its first line must be {','.join(COLUMNS)}")
            for row in reader:
                box = _box(row, f"{path}, line {reader.line_num}")
                if box in boxes:
                    raise UserError(f"{path}, line {reader.line_num}: this box stands here twice; keep one line")
                boxes[box] = None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{path} is not readable text in columns; write the folder again with `kneessl phantom`"
        ) from error
    return list(boxes)


def write_lesions(root: Path, boxes: list[LesionBox]) -> None:
    """Write `lesions.csv`."""
    with replacing(root / "lesions.csv") as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *map(astuple, boxes)])


def _box(row: list[str], where: str) -> LesionBox:
    if len(row) != len(COLUMNS) or not all(row):
        raise UserError(f"{where}: expected {len(COLUMNS)} columns, {','.join(COLUMNS)}, none of them empty")
    split, exam, plane, number, finding, kind, *sides = row
    if split not in SPLITS or plane not in PLANES:
        raise UserError(f"{where}: {split}, {plane} is not a split and a plane, such as valid, sagittal")
    if not all(text.isascii() and text.isdecimal() and len(text) <= 4 for text in (number, *sides)):
        raise UserError(f"{where}: a slice and the sides of a box are whole numbers from 0")
    row_min, row_max, column_min, column_max = map(int, sides)
    if not (row_min <= row_max < SIDE and column_min <= column_max < SIDE):
        raise UserError(f"{where}: a box's first pixel comes before its last, and both are from 0 to {SIDE - 1}")
    return LesionBox(split, exam, plane, int(number), finding, kind, row_min, row_max, column_min, column_max)
