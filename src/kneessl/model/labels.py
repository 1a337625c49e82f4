"""Which training exams have which labels, and a part of them where labels are to be few."""

import numpy as np

from kneessl.errors import UserError
from kneessl.evaluation.imbalance import choose
from kneessl.exams.folder import ExamFolder, Plane

FEWEST = 2
"""Exams of each class in a subset of the labels."""
UNKNOWN = -1
"""The label of an exam that has none for a task."""


def labelled_exams(
    folder: ExamFolder, tasks: list[str], plane: Plane, count: int | None, seed: int
) -> tuple[list[str], np.ndarray]:
    """The training exams of one plane with a label for any of `tasks`, or `count` of them.

    Args:
        folder: Exam folder; its `train` split is read.
        tasks: Such as acl.
        plane: Exams without a series in it are left out.
        count: How many, chosen by `label_subset` in the proportion of the first task's classes; None takes all.
        seed: Seed of that choice.

    Returns:
        Exams, and int64 `(n, tasks)`: 0, 1 or `UNKNOWN`.

    Raises:
        UserError: a task without labels, or not of both classes, or not so many.
    """
    known = [folder.labels("train", task) for task in tasks]
    exams = [exam for exam in folder.require("train", plane) if any(exam in labels for labels in known)]
    truth = np.array([[labels.get(exam, UNKNOWN) for labels in known] for exam in exams], dtype=np.int64)
    truth = truth.reshape(len(exams), len(tasks))
    if count is not None:
        first = np.flatnonzero(truth[:, 0] != UNKNOWN)
        chosen = first[label_subset(truth[first, 0], count, seed)]
        exams, truth = [exams[i] for i in chosen], truth[chosen]
    for task, labels in zip(tasks, truth.T, strict=True):
        if not {0, 1} <= set(labels):
            raise UserError(
                f"{folder.root} has {int((labels != UNKNOWN).sum())} {plane} training exams labelled for {task}, not "
                "of both classes; a classifier needs exams labelled 0 and exams labelled 1"
            )
    return exams, truth


def label_subset(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Choose `count` exams in the classes' proportion, so that a smaller choice is part of every larger one.

    Each class is shuffled by the seed, and its first exams are taken: its share of `count`, rounded, but at least 2.

    Args:
        labels: int `(n,)`, 0 or 1.
        count: How many.
        seed: Another one shuffles otherwise.

    Returns:
        int `(count,)`, indices in rising order.

    Raises:
        UserError: `count` is under 4 or over n, or a class has fewer than 2 exams.
    """
    positives, total = int(labels.sum()), len(labels)
    if not 2 * FEWEST <= count <= total or min(positives, total - positives) < FEWEST:
        raise UserError(
            f"labels is {count}, of {total} labelled exams with {positives} positive; it must be from {2 * FEWEST} to "
            f"{total}, and needs {FEWEST} exams of each class"
        )
    share = (2 * count * positives + total) // (2 * total)  # rounded half up, in whole numbers
    share = min(max(share, FEWEST), count - FEWEST)
    return choose(labels, [count - share, share], seed)
