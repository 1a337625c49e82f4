"""What is said of one knee of one study: the answer that `result.json`, the pages and the DICOM objects all tell.

Nothing here is an identity but `study_uid` and the `Image`s: they are for DICOM objects that go back to the archive,
and nothing else may write them.
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
    """Slices of that volume."""
    share: float
    """Of all that speaks for the finding in the whole exam, 0 to 1."""
    image: Image


@dataclass(frozen=True, eq=False)
class Finding:
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
    """What it was said from."""
    reasons: tuple[str, ...]
    """Why it was not assessed, why a yes or no was held at doubt, or why there is no state."""
    key_slices: tuple[KeySlice, ...]
    """At most three, the strongest first."""
    points: OperatingPoints | None

    @property
    def answer(self) -> AnswerWord:
        """In a word or three."""
        if self.probability is None:
            return "not assessed"
        return self.state or "no operating points"


@dataclass(frozen=True, eq=False)
class PlaneSeen:
    """One series as the model saw it, and where it looked."""

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
    """Of kneessl."""
    tasks: tuple[str, ...]
    planes: tuple[Plane, ...]
    preprocessing: Mapping[Plane, str]
    """Fingerprints."""
    data_sha256: Mapping[Plane, str]
    """Of what it was trained on; empty where an older run does not say."""
    synthetic: bool | None
    """Trained on a phantom; None where an older run does not say."""
    locked: bool
    """Whether it has operating points."""


@dataclass(frozen=True, eq=False)
class Assessment:
    """All that is said of one knee."""

    key: str
    """16 hexadecimal digits of a hash over study and side: the study's only name."""
    study_uid: str
    laterality: str
    """`L`, `R` or empty."""
    laterality_from: str
    findings: tuple[Finding, ...]
    planes: Mapping[Plane, PlaneSeen]
    missing: tuple[Plane, ...]
    """Planes of the model that could not be used."""
    series: tuple[SeriesFacts, ...]
    left_out: tuple[str, ...]
    flags: tuple[Flag, ...]
    model: ModelFacts
    seconds: float

    @property
    def assessed(self) -> bool:
        """Whether every finding was."""
        return all(finding.probability is not None for finding in self.findings)
