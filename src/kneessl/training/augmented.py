"""An exam as augmentation changes it, for the page of a run or of an evaluation."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from kneessl.exams.folder import ExamFolder
from kneessl.report.content import Views
from kneessl.views.augment import View, augment
from kneessl.views.preprocess import Preprocessing

SLICES = 8
SIDE = 160
"""Of a slice, in pixels."""


def augmented_exam(
    folder: ExamFolder,
    split: str,
    plane: str,
    exam: str,
    views: Mapping[str, View],
    preprocessing: Preprocessing,
    seed: int,
) -> Views:
    """Return slices of one exam, from the part that is kept: as they are, and as each view may change them."""
    series = folder.series(split, plane, exam)
    kept = series[preprocessing.middle(len(series))]
    slices = torch.from_numpy(kept[np.linspace(0, len(kept) - 1, SLICES + 2).round().astype(int)[1:-1]])[None]
    generator = torch.Generator().manual_seed(seed)
    preprocessing = replace(preprocessing, size=SIDE)
    central = preprocessing.crop(slices)
    rows = [("slices as they are", _to_uint8(preprocessing.resize(slices)))]
    rows += [(name, _to_uint8(augment(central, view, SIDE, generator))) for name, view in views.items()]
    return Views(f"exam {exam}", rows)


def _to_uint8(pictures: torch.Tensor) -> np.ndarray:
    """float `(1, s, H, W)` from 0 to 1 -> uint8 `(s, H, W)`."""
    return (pictures[0] * 255).round().byte().numpy()
