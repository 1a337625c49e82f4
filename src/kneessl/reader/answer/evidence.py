"""Where a finding comes from, over all planes of an exam: its maps, their heat on the pixels, its key slices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kneessl.evaluate.mistakes import plane_weight
from kneessl.evaluation.stacking import planes_key
from kneessl.exams.folder import Plane
from kneessl.explain.explain import heat
from kneessl.explain.reading import Reading
from kneessl.model.model import Model
from kneessl.reader.answer.assessment import KeySlice
from kneessl.sources.dicom.series import Prepared

KEY_SLICES = 3


@dataclass(frozen=True, eq=False)
class Evidence:
    """One task's, by plane."""

    maps: dict[Plane, np.ndarray]
    """float32 `(slices, h, w)`: what each place adds to the fused logit."""
    heat: dict[Plane, np.ndarray]
    """int8 `(slices, 256, 256)`: the same on the pixels; 127 is the largest size of any value in any plane."""


def evidence_of(model: Model, task: str, planes: Sequence[Plane], readings: Mapping[Plane, Reading]) -> Evidence:
    """Bring the planes' explanations of one task to the scale of the fused logit."""
    key = planes_key(planes)
    maps, warmth = {}, {}
    for plane in planes:
        explanation = readings[plane].explanations[task]
        weight = np.float32(plane_weight(model, task, key, plane))
        maps[plane] = weight * explanation.maps
        warmth[plane] = weight * heat(explanation, model.planes[plane])
    strongest = max(float(np.abs(values).max()) for values in warmth.values()) or 1.0
    return Evidence(maps, {p: np.rint(values * (127 / strongest)).astype(np.int8) for p, values in warmth.items()})


def key_slices(maps: Mapping[Plane, np.ndarray], used: Mapping[Plane, Prepared]) -> tuple[KeySlice, ...]:
    """The slices that speak for a finding most, over all planes; of neighbours only the strongest.

    Args:
        maps: By plane float `(slices, h, w)`, as `Evidence` has them.
        used: The series, of as many slices.
    """
    scores = {plane: values.sum((1, 2)) for plane, values in maps.items()}
    total = sum(float(values[values > 0].sum()) for values in scores.values())
    peaks = [
        (float(value), plane, index)
        for plane, values in scores.items()
        for index, value in enumerate(values)
        if value > 0 and value == values[max(index - 1, 0) : index + 2].max()
    ]
    strongest = sorted(peaks, key=lambda peak: -peak[0])[:KEY_SLICES]
    return tuple(
        KeySlice(plane, index, len(maps[plane]), value / total, used[plane].images[index])
        for value, plane, index in strongest
    )
