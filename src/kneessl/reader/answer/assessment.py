"""The answer on one knee of one study, as `result.json`, the pages and the DICOM objects present it.

Only `study_uid` and the `Image`s lead to the patient: they are for DICOM objects, and nothing else may write them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kneessl.evaluation.decisions import OperatingPoints, State
from kneessl.exams.folder import Plane
from kneessl.sources.dicom.image import Image
from kneessl.sources.dicom.series import Prepared, SeriesFacts

NOTICE = "Not a medical device; for research only. Nothing here may guide the care of a patient."
NO_DIAGNOSIS = (
    "The model was trained on synthetic knees (a phantom): its answer is not a diagnosis and says nothing about a "
    "patient."
)

AnswerWord = Literal["yes", "doubt", "no", "not assessed", "no operating points"]
FlagKind = Literal["quality", "unfamiliar", "laterality", "data", "model"]


@dataclass(frozen=True)
class Flag:
    """Something that a reader must know before trusting the answer."""

    kind: FlagKind
    plane: Plane | None
    """None where it is about the whole study."""
    text: str


@dataclass(frozen=True, eq=False)
class KeySlice:
    """A slice that speaks for a finding."""

    plane: Plane
    index: int
    """In the displayed volume, from 0."""
    of: int
    """Number of slices of that volume."""
    share: float
    """Share of the positive evidence for the finding in the whole exam, 0 to 1."""
    image: Image


@dataclass(frozen=True, eq=False)
class TaskAssessment:
    """The answer on one task."""

    task: str
    state: State | None
    """At the locked operating points; None where it was not assessed, or the model has none locked."""
    probability: float | None
    """None where it was not assessed."""
    interval: tuple[float, float] | None
    """95 %, of the probability; None where the model has no recalibration locked."""
    calibrated: bool
    planes: tuple[Plane, ...]
    """The planes that the answer was computed from."""
    reasons: tuple[str, ...]
    """Why it was not assessed, why a yes or no was held at doubt, or why there is no state."""
    key_slices: tuple[KeySlice, ...]
    """At most three, the strongest first."""
    points: OperatingPoints | None

    @property
    def answer(self) -> AnswerWord:
        """The answer in words."""
        if self.probability is None:
            return "not assessed"
        return self.state or "no operating points"


@dataclass(frozen=True, eq=False)
class PlaneResult:
    """The answer's part that belongs to one plane: the series that was read, and its heat maps."""

    series: Prepared
    facts: SeriesFacts
    maps: Mapping[str, np.ndarray]
    """By task float32 `(slices, h, w)`: what each place adds to the fused logit."""
    exact: bool
    """Whether the maps deal the logit out exactly; otherwise they are Grad-CAM's."""
    heat: Mapping[str, np.ndarray]
    """By task int8 `(slices, 256, 256)`: the maps on the pixels, 127 the strongest of this finding in all planes."""


@dataclass(frozen=True, eq=False)
class ModelFacts:
    """Which model answered."""

    name: str
    """The last part of its folder's path."""
    sha256: str
    version: str
    """Version of kneessl."""
    tasks: tuple[str, ...]
    planes: tuple[Plane, ...]
    preprocessing: Mapping[Plane, str]
    """Fingerprints of the preprocessing."""
    data_sha256: Mapping[Plane, str]
    """Hashes of the training data; empty where an older run does not record them."""
    synthetic: bool | None
    """Trained on a phantom; None where an older run does not record it."""
    locked: bool
    """Whether it has operating points."""


@dataclass(frozen=True, eq=False)
class Assessment:
    """The answer on one knee."""

    key: str
    """16 hexadecimal digits of a hash over study and side: the study's only name."""
    study_uid: str
    laterality: str
    """`L`, `R` or empty."""
    laterality_from: str
    findings: tuple[TaskAssessment, ...]
    planes: Mapping[Plane, PlaneResult]
    missing: tuple[Plane, ...]
    """Planes of the model that could not be used."""
    series: tuple[SeriesFacts, ...]
    left_out: tuple[str, ...]
    flags: tuple[Flag, ...]
    model: ModelFacts
    seconds: float

    @property
    def assessed(self) -> bool:
        """Whether every finding was assessed."""
        return all(finding.probability is not None for finding in self.findings)
