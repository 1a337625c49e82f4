"""`kneessl label`: labels for an exam folder that was imported before, by the keys that the hospital kept."""

from collections.abc import Iterator
from pathlib import Path

from kneessl.errors import UserError
from kneessl.exams.folder import PLANES, SPLITS, ExamFolder
from kneessl.sources.archive.keys import KeyRow, read_keys
from kneessl.sources.archive.label_file import read_label_file
from kneessl.sources.archive.labelling import match, write_matched


def label(data: Path, labels: Path, keys: Path, tasks: tuple[str, ...] = ()) -> None:
    """Add labels to an exam folder by the keys that the hospital holds, and say which lines were matched.

    Args:
        data: Exam folder that `kneessl import --keys` made.
        labels: CSV whose first column is a key: StudyInstanceUID, SeriesInstanceUID, AccessionNumber, PatientID or
            path; the other columns are tasks with 0, 1 or blank; a column laterality (L, R) tells two knees of a study
            apart.
        keys: The file that `kneessl import --keys` wrote.
        tasks: Columns of LABELS to take; all that hold only 0, 1 and blank by default.

    Raises:
        UserError: a fault in one of the files, or no line matches. Then nothing is written.
    """
    folder, file = ExamFolder(data), read_label_file(labels, tasks)
    write_matched(data, file, match(file, _of_folder(folder, keys)))


def _of_folder(folder: ExamFolder, keys: Path) -> Iterator[KeyRow]:
    """The rows of a key file, which must be that of the folder."""
    there = {(split, exam) for split in SPLITS for plane in PLANES for exam in folder.exams(split, plane)}
    for row in read_keys(keys):
        if row.exam and (row.split, row.exam) not in there:
            raise UserError(f"{keys} names exam {row.exam} in {row.split}, not in {folder.root}; name its own keys")
        yield row
