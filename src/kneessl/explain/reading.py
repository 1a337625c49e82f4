"""All that is read off one series at once: logits, where they come from, and features of the whole."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kneessl.explain.explain import Explanation, explanations
from kneessl.model.model import PlaneModel
from kneessl.model.predict import forward_pass


@dataclass(frozen=True, eq=False)
class Reading:
    """One series under one plane's model."""

    logits: np.ndarray
    """float64 `(tasks,)`, exactly those of `series_logits`."""
    explanations: Mapping[str, Explanation]
    """By task, of the series as it is, without test-time shifts."""
    features: np.ndarray
    """float64 `(C,)`, as `ForwardPass.features`: what `PlaneModel.familiarity` judges."""


def read_series(model: PlaneModel, series: np.ndarray) -> Reading:
    """Read one series, uint8 `(slices, 256, 256)`, in one pass through the encoder.

    Where the model averages over test-time shifts, there is one pass more for each of them, for the logits alone. A
    head that does not deal its logits out exactly takes one backward pass a task, through the head and no further.
    """
    found = forward_pass(model, series)
    seen = explanations(model, found.maps, found.where, len(series), model.tasks)
    return Reading(found.logits, seen, found.features)
