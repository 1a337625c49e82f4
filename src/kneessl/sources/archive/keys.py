"""The key file: which exam is which for the hospital that holds it. It names patients; nothing else of kneessl does."""

import csv
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from kneessl.errors import UserError
from kneessl.files import replacing


class KeyRow(NamedTuple):
    """One series of an exam, or of a study that gave none, by all that the hospital may know it by."""

    exam: str
    """Empty where the study gave none."""
    split: str
    laterality: str
    """`L`, `R` or empty."""
    StudyInstanceUID: str
    SeriesInstanceUID: str
    AccessionNumber: str
    PatientID: str
    path: str
    """The folder of its files below what was imported, or its file where there is one."""


def require_own_place(keys: Path, out: Path, there: bool) -> None:
    """Refuse a key file within an exam folder: whoever gets the folder would get the patients.

    Args:
        keys: The file to write.
        out: The exam folder.
        there: An earlier one may be there, and is kept.

    Raises:
        UserError: it lies there; or it exists and must not.
    """
    if keys.exists() and not there:
        raise UserError(f"--keys {keys} already exists; name a new file")
    if keys.resolve().is_relative_to(out.resolve()):
        raise UserError(f"--keys {keys} lies in the exam folder, which may be given away; name a file outside {out}")


def write_keys(path: Path, rows: Iterable[KeyRow]) -> None:
    """Write a key file that only this user may read, whole or not at all."""
    with (
        replacing(path, 0o600) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)  # also around a bare \\r
        writer.writerow(KeyRow._fields)
        writer.writerows(rows)


def update_keys(path: Path, rows: Callable[[], Iterable[KeyRow]]) -> None:
    """Write the rows of an import, after those of an earlier file that are of other exams and studies."""
    exams, studies = set(), set()
    for row in rows():
        exams.add(row.exam)
        studies.add(row.StudyInstanceUID)

    def earlier() -> Iterator[KeyRow]:
        for row in read_keys(path) if path.exists() else ():
            if row.exam not in exams if row.exam else row.StudyInstanceUID not in studies:
                yield row

    write_keys(path, chain(earlier(), rows()))


def read_keys(path: Path) -> Iterator[KeyRow]:
    """The rows of a key file.

    Raises:
        UserError: it is missing, or none that `write_keys` wrote.
    """
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            reader = csv.reader(file, strict=True)
            if tuple(next(reader, ())) != KeyRow._fields:
                raise UserError(f"{path}, line 1: this is no key file; name the one that `import --keys` wrote")
            for row in reader:
                if len(row) != len(KeyRow._fields):
                    raise UserError(f"{path}, line {reader.line_num}: damaged; the header has other columns")
                yield KeyRow(*row)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; name the key file that `import --keys` wrote") from None
    except csv.Error as error:
        raise UserError(f"{path} is damaged ({error}); it must be as `import --keys` wrote it") from None
