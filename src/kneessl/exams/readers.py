"""Labels of several readers of the same exams: `train-acl.reader1.csv` and so on, beside the labels that are used."""

import numpy as np

from kneessl.exams.folder import READER, ExamFolder


def readers_of(folder: ExamFolder, split: str, task: str, exams: list[str]) -> dict[str, np.ndarray]:
    """Each reader's labels of some exams: float64 `(n,)`, 0, 1, or NaN where the reader has none; by name, sorted.

    Raises:
        UserError: a file is no label file.
    """
    start = f"{split}-{task}{READER}"
    stems = sorted(path.stem for path in folder.root.glob(f"{split}-*.csv"))
    found = {}
    for name in [stem.removeprefix(start) for stem in stems if stem.startswith(start)]:
        labels = folder.read_labels(split, f"{task}{READER}{name}")
        found[name] = np.array([labels.get(exam, np.nan) for exam in exams], dtype=np.float64)
    return found
