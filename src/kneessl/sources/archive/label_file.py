"""The label file of a hospital: a line an exam, named by a key that the hospital holds, and a column a task."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kneessl.errors import UserError

KEYS = ("StudyInstanceUID", "SeriesInstanceUID", "AccessionNumber", "PatientID", "path")
"""What may name an exam: the header's first column."""
LATERALITY = "laterality"
_LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "": None}
"""Also as pandas writes them where some are missing."""
_SHOWN = 20
"""Numbers of lines in one message."""


@dataclass(frozen=True)
class LabelLine:
    """One line with a label or more."""

    number: int
    """In the file, from 1; the only thing that is ever said of a line."""
    key: str
    laterality: str
    """`L`, `R`, or empty where the file does not say."""
    labels: tuple[int | None, ...]
    """0, 1 or None for each task."""


@dataclass(frozen=True)
class LabelFile:
    """What a label file says."""

    path: Path
    column: str
    """The key, one of `KEYS`."""
    tasks: tuple[str, ...]
    lines: tuple[LabelLine, ...]
    unlabelled: int
    """Lines without any label."""
    left_out: tuple[str, ...]
    """Columns that are no task, each with the reason."""


def read_label_file(path: Path, tasks: Sequence[str] = ()) -> LabelFile:
    """Read a label file.

    Args:
        path: CSV in UTF-8: the first column of its header names the key, one of `KEYS`; `laterality` (L, R) tells two
            knees of a study apart; the others are tasks, with 0, 1 or blank.
        tasks: Columns to take; empty for all that hold nothing but 0, 1 and blank.

    Raises:
        UserError: not such a file, a column named twice, a task that is not there or holds something else, a line that
            names no key or one that stands in another line. It names lines by number, never by value.
    """
    rows = _rows(path)
    _, header = next(rows, (1, []))
    columns = _columns(path, header)
    body = [(number, _whole(path, number, row, len(header))) for number, row in rows]
    faulty = {name: _first_faulty(body, index) for name, index in columns.items()}
    chosen = _chosen(path, tasks, faulty)
    filled = [name for name in chosen if any(row[columns[name]] for _, row in body)]
    taken = list(tasks) or filled
    if not filled:
        raise UserError(f"{path} has no column with labels; write 0, 1 or nothing under the name of each task")
    side = header.index(LATERALITY) if LATERALITY in header else None
    lines = [
        LabelLine(
            number,
            _key(path, number, row[0], header[0]),
            "" if side is None else _side(path, number, row[side]),
            tuple(_LABELS[row[columns[name]]] for name in taken),
        )
        for number, row in body
    ]
    _require_one_line_an_exam(path, lines)
    labelled = tuple(line for line in lines if any(label is not None for label in line.labels))
    left_out = [f"{name} (line {line}: neither 0, 1 nor blank)" for name, line in faulty.items() if line and not tasks]
    left_out += [f"{name} (blank)" for name in chosen if name not in taken]
    return LabelFile(path, header[0], tuple(taken), labelled, len(lines) - len(labelled), tuple(left_out))


def line_numbers(numbers: Sequence[int]) -> str:
    """Lines by number, the first ones of many."""
    more = f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else ""
    return f"line{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers[:_SHOWN]))}{more}"


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Cells without spaces around them, each row with the number of the line that it begins in."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path} is missing; name the CSV file that holds the labels") from None
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UserError(f"{path} is not text in UTF-8 (another encoding, or no CSV at all); save it as CSV UTF-8")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    number = 1
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield number, [cell.strip() for cell in row]
            number = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {number}: not CSV ({error}); save the table as plain CSV") from None


def _columns(path: Path, header: list[str]) -> dict[str, int]:
    """The columns that may be tasks, with their index."""
    if not header or header[0] not in KEYS:
        hint = ", with commas between columns" if len(header) == 1 else ""
        raise UserError(
            f"{path}, line 1: the first column must be named after the key that its cells hold, one of "
            f"{', '.join(KEYS)}{hint}"
        )
    for number, name in enumerate(header, start=1):
        if header.count(name) > 1:
            raise UserError(f"{path}, line 1: there are {header.count(name)} columns {name!r}; keep one")
        if not name or not name.isprintable() or name in _LABELS:
            raise UserError(f"{path}, line 1: column {number} has no name; name it after a task, or remove it")
    return {name: index for index, name in enumerate(header) if index and name != LATERALITY}


def _whole(path: Path, number: int, row: list[str], cells: int) -> list[str]:
    if len(row) != cells:
        raise UserError(f"{path}, line {number}: {len(row)} cells under a header of {cells}; give each line as many")
    return row


def _first_faulty(body: Sequence[tuple[int, list[str]]], index: int) -> int:
    """The number of the first line whose cell is no label; 0 where all are."""
    return next((number for number, row in body if row[index] not in _LABELS), 0)


def _chosen(path: Path, tasks: Sequence[str], faulty: dict[str, int]) -> list[str]:
    for name in tasks:
        if name not in faulty:
            raise UserError(f"{path} has no column {name}; the columns are {', '.join(faulty)}")
        if faulty[name]:
            raise UserError(f"{path}, line {faulty[name]}: {name} is neither 0, 1 nor blank; correct it")
    return list(tasks) or [name for name, line in faulty.items() if not line]


def _key(path: Path, number: int, cell: str, column: str) -> str:
    if column != "path":
        key = cell
    else:
        parts = [part for part in cell.replace("\\", "/").split("/") if part not in {"", "."}]
        key = "/".join(parts)
    if not key:
        raise UserError(f"{path}, line {number}: {column} is blank, so nobody can tell which exam this is; fill it in")
    return key


def _side(path: Path, number: int, cell: str) -> str:
    if cell.upper() not in {"", "L", "R"}:
        raise UserError(f"{path}, line {number}: {LATERALITY} must be L, R or blank")
    return cell.upper()


def _require_one_line_an_exam(path: Path, lines: Sequence[LabelLine]) -> None:
    same: dict[str, list[LabelLine]] = defaultdict(list)
    for line in lines:
        for other in same[line.key]:
            if not other.laterality or not line.laterality or other.laterality == line.laterality:
                raise UserError(
                    f"{path}, line {line.number}: its key stands in line {other.number} already; keep one line for an "
                    f"exam (a column {LATERALITY} tells two knees of one study apart)"
                )
        same[line.key].append(line)
