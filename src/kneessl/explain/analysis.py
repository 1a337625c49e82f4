"""All that one pass over a series gives: logits, their explanations, and features of the whole."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kneessl.explain.explain import Explanation, explanations
from kneessl.model.model import PlaneModel
from kneessl.model.predict import forward_pass


@dataclass(frozen=True, eq=False)
class SeriesAnalysis:
    """What one plane's model computes from one series."""

    logits: np.ndarray
    """float64 `(tasks,)`, exactly those of `series_logits`."""
    explanations: Mapping[str, Explanation]
    """By task, for the series without test-time shifts."""
    features: np.ndarray
    """float64 `(C,)`, as `ForwardPass.features`: what `PlaneModel.familiarity` judges."""


def analyse_series(model: PlaneModel, series: np.ndarray) -> SeriesAnalysis:
    """Analyse one series, uint8 `(slices, 256, 256)`, in one pass through the encoder, and one for a finer map.

    Where the model averages over test-time shifts, there is one pass more for each of them, for the logits alone. A
    head that does not attribute its logits exactly takes one backward pass a task, through the head and no further.
    """
    one = forward_pass(model, series)
    explained = explanations(model, one.clip, one.maps, one.where, len(series), model.tasks)
    return SeriesAnalysis(one.logits, explained, one.features)
