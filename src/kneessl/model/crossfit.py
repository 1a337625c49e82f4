"""Out-of-fold predictions: what models say of training exams that they have not seen, the ground of every choice."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kneessl.errors import UserError
from kneessl.exams.folder import ExamFolder
from kneessl.exams.splits import folds as split_folds
from kneessl.exams.splits import patient_groups
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


def deal_folds(folder: ExamFolder, exams: list[str], truth: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The fold of each training exam, int `(n,)`: whole patients, findings in proportion.

    Raises:
        UserError: fewer than two folds, or too few exams of a class for so many.
    """
    if count < 2:
        raise UserError(f"folds is {count}; it must be 2 or more, or 0 for none")
    return split_folds(patient_groups(folder, "train", exams), truth, count, seed)
