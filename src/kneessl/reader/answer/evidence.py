"""Evidence for a finding over all planes of an exam: maps, their heat on the pixels, key slices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kneessl.evaluate.mistakes import plane_weight
from kneessl.evaluation.stacking import planes_key
from kneessl.exams.folder import Plane
from kneessl.explain.analysis import SeriesAnalysis
from kneessl.explain.explain import heat
from kneessl.model.model import Model
from kneessl.reader.answer.assessment import KeySlice
from kneessl.sources.dicom.series import Prepared

KEY_SLICES = 3


@dataclass(frozen=True, eq=False)
class Evidence:
    """The evidence for one task, by plane."""

    maps: dict[Plane, np.ndarray]
    """float32 `(slices, h, w)`: what each place adds to the fused logit."""
    heat: dict[Plane, np.ndarray]
    """int8 `(slices, 256, 256)`: the same on the pixels; 127 is the largest size of any value in any plane."""


def evidence_of(model: Model, task: str, planes: Sequence[Plane], analyses: Mapping[Plane, SeriesAnalysis]) -> Evidence:
    """Bring the planes' explanations of one task to the scale of the fused logit."""
    key = planes_key(planes)
    maps, pixel_maps = {}, {}
    for plane in planes:
        explanation = analyses[plane].explanations[task]
        weight = np.float32(plane_weight(model, task, key, plane))
        maps[plane] = weight * explanation.maps
        pixel_maps[plane] = weight * heat(explanation, model.planes[plane])
    strongest = max(float(np.abs(values).max()) for values in pixel_maps.values()) or 1.0
    return Evidence(maps, {p: np.rint(values * (127 / strongest)).astype(np.int8) for p, values in pixel_maps.items()})


def key_slices(maps: Mapping[Plane, np.ndarray], used: Mapping[Plane, Prepared]) -> tuple[KeySlice, ...]:
    """The slices with the most evidence for a finding, over all planes; of neighbouring slices only the strongest.

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
