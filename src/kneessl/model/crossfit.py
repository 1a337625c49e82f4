"""Out-of-fold predictions: what models say of training exams that they have not seen, the ground of every choice."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kneessl.errors import UserError
from kneessl.exams.about import known_of
from kneessl.exams.folder import ExamFolder, Plane
from kneessl.exams.splits import folds as split_folds
from kneessl.exams.splits import folds_by, patient_groups
from kneessl.files import replacing
from kneessl.model.labels import UNKNOWN

COLUMNS = ("exam", "fold", "task", "label", "logit")


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Logits of one plane's models for exams that they have not seen, with the labels.

    Args:
        tasks: Names.
        exams: Names.
        fold: int `(exams,)`.
        truth: int `(exams, tasks)`: 0, 1 or `UNKNOWN`.
        logits: float64 `(exams, tasks)`.
    """

    tasks: Sequence[str]
    exams: Sequence[str]
    fold: np.ndarray
    truth: np.ndarray
    logits: np.ndarray

    def write(self, path: Path) -> None:
        """One line for each exam and task, unrounded; no label where it is unknown."""
        with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for i, exam in enumerate(self.exams):
                for k, task in enumerate(self.tasks):
                    label = "" if self.truth[i, k] == UNKNOWN else self.truth[i, k]
                    writer.writerow([exam, self.fold[i], task, label, float(self.logits[i, k])])

    @classmethod
    def read(cls, path: Path) -> "OutOfFold":
        """Read what `write` has written.

        Raises:
            UserError: no such file, or not of that form.
        """
        if not path.is_file():
            raise UserError(f"{path} is missing; fine-tune with --folds 5, so that there are out-of-fold predictions")
        try:
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file, strict=True))
            exams, tasks = (list(dict.fromkeys(row[name] for row in rows)) for name in ("exam", "task"))
            if [(row["exam"], row["task"]) for row in rows] != [(exam, task) for exam in exams for task in tasks]:
                raise ValueError("exams and tasks in another order")
            shape = (len(exams), len(tasks))
            truth = np.array([int(row["label"] or UNKNOWN) for row in rows]).reshape(shape)
            logits = np.array([float(row["logit"]) for row in rows]).reshape(shape)
            fold = np.array([int(row["fold"]) for row in rows]).reshape(shape)[:, 0]
        except (ValueError, KeyError, TypeError, IndexError, csv.Error) as error:
            raise UserError(f"{path} is damaged; fine-tune again with --folds") from error
        return cls(tasks, exams, fold, truth, logits)


BY = "by:"
"""Begins folds that leave out one scanner after the other, and so on, in place of random patients."""


@dataclass(frozen=True, eq=False)
class Folds:
    """How training exams were dealt.

    Args:
        of_exam: int `(exams,)`, the fold of each.
        names: One a fold.
        rule: In words.
    """

    of_exam: np.ndarray
    names: Sequence[str]
    rule: str


def deal_folds(
    folder: ExamFolder, plane: Plane, exams: list[str], truth: np.ndarray, wanted: int | str, seed: int
) -> Folds:
    """Deal training exams, whole patients: into so many random folds, findings in proportion, or one fold each value.

    Args:
        folder: Exam folder.
        plane: The plane that is trained on.
        exams: `(n,)` names.
        truth: int `(n, tasks)`: 0, 1 or `UNKNOWN`.
        wanted: A number of folds, or `by:` and a characteristic, such as by:scanner.
        seed: Of random folds.

    Raises:
        UserError: fewer than two folds, too few exams of a class for so many, or a characteristic that is not known.
    """
    groups = patient_groups(folder, "train", exams)
    if isinstance(wanted, int):
        if wanted < 2:
            raise UserError(f"folds is {wanted}; it must be 2 or more, or 0 for none")
        fold = split_folds(groups, truth, wanted, seed)
        return Folds(fold, [str(k + 1) for k in range(wanted)], f"{wanted} random folds of whole patients")
    name = wanted.removeprefix(BY)
    values = known_of(name, folder, "train", plane, exams)
    try:
        fold, names, moved = folds_by(groups, truth, values)
    except UserError as error:
        raise UserError(f"folds is {wanted}, and {error}") from error
    rule = f"one fold left out for each {name} ({'; '.join(names)})"
    print(f"folds: {rule}" + (f"; {moved} exams went with their patient to another's fold" if moved else ""))
    return Folds(fold, names, rule)
