"""What a user knows of exams beside their pictures, such as site, sex and age: `about.csv` of an exam folder.

The first line is split,exam and then a name for each characteristic; a line an exam follows. A blank cell is not known.
"""

import csv
import io
from collections.abc import Mapping, Sequence

from kneessl.errors import UserError
from kneessl.exams.folder import SPLITS, ExamFolder

ABOUT = "about.csv"


def read_about(folder: ExamFolder) -> Mapping[str, Mapping[tuple[str, str], str]]:
    """Characteristic -> (split, exam) -> value, never blank; nothing where the folder has no such table.

    Raises:
        UserError: the table is not of that form, or has an exam twice.
    """
    path = folder.root / ABOUT
    if not path.is_file():
        return {}
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""), strict=True)
        names = [name.strip() for name in reader.fieldnames or []]
        reader.fieldnames = names
        if names[:2] != ["split", "exam"] or len(names) < 3 or len(set(names)) < len(names) or not all(names):
            raise UserError(f"{path}, line 1: expected split,exam and then other characteristics, such as site,sex,age")
        known: dict[str, dict[tuple[str, str], str]] = {name: {} for name in names[2:]}
        seen = set()
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                raise UserError(f"{where}: its cells are not as many as those of line 1")
            exam = row["split"].strip(), row["exam"].strip()
            if exam[0] not in SPLITS or exam in seen:
                raise UserError(f"{where}: its split is none of {', '.join(SPLITS)}, or its exam stands here twice")
            seen.add(exam)
            for name, values in known.items():
                if value := row[name].strip():
                    values[exam] = value
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a table of text; save it as plain CSV") from error
    return known


def known_of(name: str, folder: ExamFolder, split: str, plane: str, exams: Sequence[str]) -> list[str]:
    """One characteristic of each exam: scanner or field from `exams.csv`, or a column of about.csv; empty if not known.

    Raises:
        UserError: it is known of no exam.
    """
    if name in {"scanner", "field"}:
        lines = {line.exam: line for line in folder.provenance() if (line.split, line.plane) == (split, plane)}
        values = [str(getattr(lines[exam], name)) if exam in lines else "" for exam in exams]
    else:
        of_exam = read_about(folder).get(name, {})
        values = [of_exam.get((split, exam), "") for exam in exams]
    if not any(values):
        raise UserError(
            f"{name} is not known of any exam of {split}; `kneessl import` keeps scanner and field of DICOM, and "
            f"others stand in {folder.root / ABOUT} (split,exam,{name})"
        )
    return values
