"""Answers on many studies as the RSNA 2026 challenge takes them: a line a study, a column a finding, probabilities."""

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from kneessl.errors import UserError
from kneessl.files import replacing

_STUDY = "StudyInstanceUID"


def require_submission(path: Path) -> None:
    """Refuse to write over a file that is no submission.

    Raises:
        UserError: there is such a file.
    """
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as file:
            if not file.readline().startswith(f"{_STUDY},"):
                raise UserError(f"--submission {path} exists and is no submission; name a new file")


def write_submission(
    path: Path, tasks: Sequence[str], knees: Iterable[tuple[str, Mapping[str, float | None]]]
) -> tuple[int, int]:
    """Write `submission.csv`, sorted by study; of two knees of one study the larger probability counts.

    Args:
        path: The file.
        tasks: Columns, in their order.
        knees: StudyInstanceUID, and task to probability, None where it was not assessed; empty for a study without an
            answer, whose cells stay blank: no probability is ever made up.

    Returns:
        How many studies there are, and how many of them have a blank cell.
    """
    studies: dict[str, dict[str, float]] = defaultdict(dict)
    for uid, probabilities in knees:
        best = studies[uid]
        for task, probability in probabilities.items():
            if probability is not None:
                best[task] = max(probability, best.get(task, 0.0))
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((_STUDY, *tasks))
        writer.writerows((uid, *(best.get(task) for task in tasks)) for uid, best in sorted(studies.items()))
    return len(studies), sum(len(best) < len(tasks) for best in studies.values())
