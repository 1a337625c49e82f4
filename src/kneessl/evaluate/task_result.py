"""Labels and predictions on the exams of a split, for one task: what an evaluation computes its figures from."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kneessl.model.predict import Predictions


@dataclass(frozen=True, eq=False)
class TaskResult:
    """Models on the exams of a split that are labelled for one task."""

    task: str
    exams: list[str]
    labels: np.ndarray
    """int64 `(n,)`, 0 or 1."""
    groups: list[str]
    """The patient of each exam, by an invented name."""
    answers: Mapping[str, Predictions]
    """By model."""
