"""What a report says and shows of an exam folder."""

from dataclasses import replace

import numpy as np
import torch

from kneessl.exams.folder import SPLITS, ExamFolder
from kneessl.report.content import Views
from kneessl.views.augment import View, augment
from kneessl.views.preprocess import Preprocessing

SHOWN_SLICES = 8
SHOWN_SIDE = 160


def data_rows(folder: ExamFolder, plane: str, task: str | None) -> list[dict[str, str | int | float]]:
    """One table row a split: exams, slices, and positives of `task` if one is given."""
    rows: list[dict[str, str | int | float]] = []
    for split in SPLITS:
        exams = folder.exams(split, plane)
        if not exams:
            continue
        counts = [folder.slices(split, plane, exam) for exam in exams]
        row: dict[str, str | int | float] = {
            "split": split,
            f"{plane} exams": len(exams),
            "slices an exam": f"{min(counts)} to {max(counts)}",
        }
        if task is not None:
            labels = folder.labels(split, task) if task in folder.tasks(split) else {}
            known = [labels[exam] for exam in exams if exam in labels]
            row[f"labelled for {task}"] = len(known)
            row["positive"] = f"{sum(known)} ({sum(known) / len(known):.1%})" if known else "none known"
        rows.append(row)
    return rows


def data_note(folder: ExamFolder) -> str:
    """A phantom is called a phantom wherever its figures stand; other folders need no note."""
    if folder.synthetic:
        return "These knees are a synthetic phantom: no figure here says anything about patients."
    return ""


def show_views(
    folder: ExamFolder,
    split: str,
    plane: str,
    exam: str,
    views: dict[str, View],
    preprocessing: Preprocessing,
    seed: int,
) -> Views:
    """One exam's slices, the part of them that is kept, as they are and as `views` might turn them, one draw each."""
    series = folder.series(split, plane, exam)
    kept = series[preprocessing.middle(len(series))]
    slices = torch.from_numpy(kept[np.linspace(0, len(kept) - 1, SHOWN_SLICES + 2).round().astype(int)[1:-1]])[None]
    generator = torch.Generator().manual_seed(seed)
    preprocessing = replace(preprocessing, size=SHOWN_SIDE)
    central = preprocessing.crop(slices)
    rows = [("slices as they are", _to_uint8(preprocessing.resize(slices)))]
    rows += [(name, _to_uint8(augment(central, view, SHOWN_SIDE, generator))) for name, view in views.items()]
    return Views(f"exam {exam}", rows)


def _to_uint8(pictures: torch.Tensor) -> np.ndarray:
    """float `(1, s, H, W)` from 0 to 1 -> uint8 `(s, H, W)`."""
    return (pictures[0] * 255).round().byte().numpy()
