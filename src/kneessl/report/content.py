"""What a report shows: evaluated models, their mistakes, training curves, augmented views."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kneessl.evaluation import THRESHOLD


@dataclass(frozen=True, eq=False)
class Mistake:
    """One exam that a model got wrong at the threshold of 0.5.

    Raises:
        ValueError: the slices are not uint8 (k, H, W), captions do not match them, or it is no mistake.
    """

    exam: str
    label: int
    """The reference standard, 0 or 1."""
    score: float
    """The model's probability of 1, in [0, 1]."""
    slices: NDArray[np.uint8]
    """(k, H, W), the slices that raised the score most, in anatomical order."""
    captions: Sequence[str] = ()
    """One a slice, such as "slice 14 of 30", or none at all."""

    def __post_init__(self) -> None:
        _check_slices(self.slices, f"mistake {self.exam}")
        if self.captions and len(self.captions) != len(self.slices):
            raise ValueError(f"{self.exam}: {len(self.captions)} captions for {len(self.slices)} slices")
        if (self.score >= THRESHOLD) == bool(self.label):
            raise ValueError(f"{self.exam}: a score of {self.score} for label {self.label} is no mistake")


@dataclass(frozen=True, eq=False)
class Arm:
    """One evaluated model.

    Raises:
        ValueError: exams, labels and scores are not one of each for every exam.
    """

    name: str
    exams: Sequence[str]
    labels: NDArray[np.int64]
    """(n,) the reference standard, 0 or 1."""
    scores: NDArray[np.float64]
    """(n,) probabilities of 1, in [0, 1]."""
    mistakes: Sequence[Mistake] = field(default=())
    """Worst first."""

    def __post_init__(self) -> None:
        if not len(self.exams) == len(self.labels) == len(self.scores):
            raise ValueError(f"{self.name}: exams, labels and scores differ in length")


@dataclass(frozen=True, eq=False)
class Curve:
    """One training run."""

    name: str
    rows: Sequence[Mapping[str, float]]
    """One an epoch: `epoch`, `loss` and any other numbers; a row may lack some of them."""


@dataclass(frozen=True, eq=False)
class Views:
    """One exam as it is and as a model is shown it; `name` is printed as it stands, such as "exam 0007".

    Raises:
        ValueError: slices are not uint8 (k, H, W).
    """

    name: str
    rows: Sequence[tuple[str, NDArray[np.uint8]]]
    """A label, such as "view T", and its slices, (k, H, W)."""

    def __post_init__(self) -> None:
        for label, slices in self.rows:
            _check_slices(slices, f"{self.name}, {label}")


def _check_slices(slices: NDArray[np.uint8], where: str) -> None:
    if slices.ndim != 3 or slices.dtype != np.uint8:
        raise ValueError(f"{where}: slices are uint8 (k, H, W), not {slices.dtype} {slices.shape}")
