"""A part of an exam folder as an exam folder of its own, without a second copy of its series."""

from collections.abc import Mapping
from pathlib import Path

from kneessl.exams.folder import ExamFolder, Plane, Split, write_labels, write_provenance
from kneessl.files import new_folder


def labelled(folder: ExamFolder, split: Split, task: str, plane: Plane) -> dict[str, int]:
    """Label (0 or 1) of each exam of a split that has one for `task` and a series in `plane`, sorted by exam.

    Raises:
        UserError: the split has no series in that plane, or no labels for that task.
    """
    labels = folder.labels(split, task)
    return {exam: labels[exam] for exam in folder.require(split, plane) if exam in labels}


def write_subset(
    folder: ExamFolder, out: Path, task: str, plane: Plane, parts: Mapping[Split, Mapping[str, int]]
) -> None:
    """Write an exam folder of some exams of another, whole or not at all: one plane, and the labels of one task.

    Where the other folder has `exams.csv`, these exams' lines come along: they tell patients apart and name a phantom.

    Args:
        folder: Where the series are.
        out: Folder to make.
        task: Whose labels are written.
        plane: Whose series are linked.
        parts: Split to exam to label, 0 or 1.

    Raises:
        UserError: `out` exists and is not an empty folder.
        FileNotFoundError: a series is missing.
    """
    with new_folder(out) as partial:
        for split, labels in parts.items():
            (partial / split / plane).mkdir(parents=True)
            for exam in labels:
                link(folder.path(split, plane, exam), partial / split / plane / f"{exam}.npy")
            write_labels(partial, split, task, dict(labels))
        known: dict[str, Mapping[str, int]] = {str(split): labels for split, labels in parts.items()}
        lines = [line for line in folder.provenance() if line.plane == plane and line.exam in known.get(line.split, {})]
        if lines:
            write_provenance(partial, lines)


def link(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`: a hard link, or a symbolic one where a hard one cannot be.

    A hard link outlives the source's removal and renaming, needs no path, and becomes a file like any other where its
    folder is packed or moved to another file system. It cannot cross file systems, nor, on most Linux systems, lead to
    a file that the user may not write, such as a shared read-only data set: there a symbolic link to the source's
    absolute path does, which holds for as long as the source stays where it is.

    Raises:
        FileNotFoundError: there is no `source`.
    """
    real = source.resolve(strict=True)
    try:
        target.hardlink_to(real)
    except OSError:
        target.symlink_to(real)
