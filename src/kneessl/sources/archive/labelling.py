"""From a hospital's label file to the labels of an exam folder: which line is which exam, and what was not matched."""

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kneessl.errors import UserError
from kneessl.exams.folder import PLANES, SPLITS, ExamFolder, LabelTable, write_table
from kneessl.sources.archive.index import Index
from kneessl.sources.archive.keys import KeyRow
from kneessl.sources.archive.label_file import LabelFile, LabelLine, line_numbers

Exam = tuple[str, str]
"""Split and name."""


@dataclass(frozen=True)
class Matching:
    """Which exams the lines of a label file name; lines are given by number."""

    labels: Mapping[Exam, Mapping[str, tuple[int, int]]]
    """Of each exam, task to label (0 or 1) and the line that it stands in."""
    matched: tuple[int, ...]
    unmatched: tuple[int, ...]
    """Lines of an exam that is not there."""
    ambiguous: tuple[int, ...]
    """Lines that could be of several knees."""
    contradicting: tuple[int, ...]
    """Lines that give one exam different labels for one task, which it is then left without."""


def match(file: LabelFile, rows: Iterable[KeyRow]) -> Matching:
    """Find the exams of each line.

    Args:
        file: The labels.
        rows: Of the exams' keys; those without an exam count as not there.

    Raises:
        UserError: the key is PatientID, and a patient with a label has several studies.
    """
    exams = _exams_of_lines(file, rows)
    patients = [line.number for line in file.lines if len({row.StudyInstanceUID for row in exams[line.number]}) > 1]
    if patients and file.column == "PatientID":
        raise several_studies(file, patients)
    labels: dict[Exam, dict[str, tuple[int, int]]] = defaultdict(dict)
    contradicted: dict[tuple[Exam, str], set[int]] = defaultdict(set)
    ambiguous = [line for line in file.lines if len(_knees(exams[line.number])) > 1]
    for line in file.lines:
        if line in ambiguous:
            continue
        for row in exams[line.number]:
            exam = (row.split, row.exam)
            for task, label in zip(file.tasks, line.labels, strict=True):
                if label is None:
                    continue
                known, number = labels[exam].setdefault(task, (label, line.number))
                if known != label:
                    contradicted[exam, task] |= {number, line.number}
    for exam, task in contradicted:
        del labels[exam][task]
    return Matching(
        {exam: tasks for exam, tasks in labels.items() if tasks},
        tuple(line.number for line in file.lines if exams[line.number] and line not in ambiguous),
        tuple(line.number for line in file.lines if not exams[line.number]),
        tuple(line.number for line in ambiguous),
        tuple(sorted(set().union(*contradicted.values()))),
    )


def several_studies(file: LabelFile, numbers: Sequence[int]) -> UserError:
    """That a patient's ID does not tell which of their exams is meant."""
    return UserError(
        f"{file.path}, {line_numbers(numbers)}: this patient has several exams, so PatientID does not tell which is "
        "meant; name exams by AccessionNumber or StudyInstanceUID"
    )


def write_matched(root: Path, file: LabelFile, matching: Matching) -> None:
    """Add labels to the tables of an exam folder, `train.csv` and those of other splits, and say what was matched.

    A table has a line for every exam of its split, with blank cells where there is no label.

    Raises:
        UserError: no line was matched; or a label contradicts one that is there, or stands in MRNet's own file.
    """
    if not matching.matched:
        raise nobody_has(file)
    folder = ExamFolder(root)
    tables = {}
    for split in SPLITS:
        if any(where == split for where, _ in matching.labels):
            tables[split] = _merged(folder, split, file, matching)
    for split, table in tables.items():
        write_table(root, split, table)
    _report(file, matching)


def nobody_has(file: LabelFile) -> UserError:
    """That none of a file's keys is known."""
    return UserError(
        f"none of the {len(file.lines)} keys of {file.path} is that of an exam; is its column really {file.column}, "
        "and did leading zeros or digits get lost, as in a spreadsheet?"
    )


def require_known(index: Index, file: LabelFile) -> None:
    """Refuse, as soon as headers are read, labels that could not be matched in the end.

    Raises:
        UserError: no study has any of the keys; or the key is PatientID, and a labelled patient has several studies.
    """
    if file.column == "path":
        query = "SELECT 1 FROM series WHERE path IN (?1, ?2) OR (path >= ?1 || '/' AND path < ?1 || '0') LIMIT 1"
        keys = [(line.key, line.key.rpartition("/")[0] or ".") for line in file.lines]
    else:
        query = f"SELECT 1 FROM series WHERE {file.column} IN (?, ?) LIMIT 1"
        keys = [(line.key, line.key) for line in file.lines]
    if not any(index.one(query, *key) for key in keys):
        raise nobody_has(file)
    if file.column == "PatientID":
        query = "SELECT count(DISTINCT study) FROM series WHERE PatientID = ?"
        if several := [line.number for line in file.lines if index.one(query, line.key) > 1]:
            raise several_studies(file, several)


def _exams_of_lines(file: LabelFile, rows: Iterable[KeyRow]) -> dict[int, list[KeyRow]]:
    """Number of each line to one row of each exam that it names."""
    lines: dict[str, list[LabelLine]] = defaultdict(list)
    for line in file.lines:
        lines[line.key].append(line)
        if file.column == "path":  # one of the files in a folder
            lines[f"{line.key.rpartition('/')[0] or '.'}/*"].append(line)
    hits: dict[int, dict[Exam, KeyRow]] = defaultdict(dict)
    by_file: dict[int, dict[Exam, KeyRow]] = defaultdict(dict)
    for row in rows:
        for value in _values(row, file.column) if row.exam else ():
            for line in lines.get(value, ()):
                if not line.laterality or row.laterality in {"", line.laterality}:
                    (by_file if value.endswith("/*") else hits)[line.number][row.split, row.exam] = row
    return {line.number: list((hits[line.number] or by_file[line.number]).values()) for line in file.lines}


def _values(row: KeyRow, column: str) -> Iterator[str]:
    """What a line may call the series of a row by; of its path, also each folder above it."""
    if column != "path":
        yield getattr(row, column)
        return
    yield f"{row.path}/*"
    path = row.path
    while path:
        yield path
        path = path.rpartition("/")[0]


def _knees(rows: Sequence[KeyRow]) -> set[tuple[str, str, str]]:
    """Study and side of each; an exam without a study's UID is one of its own. All echoes of a knee are one knee."""
    return {(row.StudyInstanceUID, row.laterality, "" if row.StudyInstanceUID else row.exam) for row in rows}


def _merged(folder: ExamFolder, split: str, file: LabelFile, matching: Matching) -> LabelTable:
    table = folder.table(split)
    for task in file.tasks:
        if (folder.root / f"{split}-{task}.csv").is_file():
            raise UserError(f"{folder.root / f'{split}-{task}.csv'} has labels for {task} already; keep one of the two")
    tasks = (*table.tasks, *(task for task in file.tasks if task not in table.tasks))
    names = sorted(set().union(*(folder.exams(split, plane) for plane in PLANES)) | table.rows.keys())
    rows = {}
    for exam in names:
        cells: dict[str, int | None] = dict(zip(table.tasks, table.rows.get(exam, ()), strict=False))
        for task, (label, number) in matching.labels.get((split, exam), {}).items():
            if cells.get(task) not in {None, label}:
                raise UserError(
                    f"{file.path}, line {number}: its {task} is {label}, and in {folder.root / f'{split}.csv'} exam "
                    f"{exam} has {cells[task]}; correct one of the two"
                )
            cells[task] = label
        rows[exam] = tuple(cells.get(task) for task in tasks)
    return LabelTable(tasks, rows)


def _report(file: LabelFile, matching: Matching) -> None:
    print(
        f"labels: {len(matching.matched)} of {len(file.lines)} lines matched, exams {len(matching.labels)}, "
        f"tasks {', '.join(file.tasks)}"
    )
    said = {
        "unmatched, no exam has their key": matching.unmatched,
        "ambiguous, they could be of several knees (a column laterality tells them apart)": matching.ambiguous,
        "contradicting one another, so that their exam has no label for the task": matching.contradicting,
    }
    for what, numbers in said.items():
        if numbers:
            print(f"labels: {line_numbers(numbers)} {what}", file=sys.stderr)
    if file.unlabelled:
        print(f"labels: {file.unlabelled} lines without any label", file=sys.stderr)
    if file.left_out:
        print(f"labels: columns left out: {', '.join(file.left_out)}", file=sys.stderr)
