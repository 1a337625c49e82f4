"""What a report shows: evaluated findings, answers on one knee, mistakes, training curves, augmented views."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from kneessl.evaluation import THRESHOLD
from kneessl.evaluation.decisions import OperatingPoints, State
from kneessl.exams.folder import Plane

Place = Literal["internal", "external", "unknown"]


@dataclass(frozen=True, eq=False)
class Mistake:
    """One exam that a model got wrong at the threshold of 0.5.

    Raises:
        ValueError: the slices are not uint8 (k, H, W), captions or heat do not match them, or it is no mistake.
    """

    exam: str
    label: int
    """The reference standard, 0 or 1."""
    score: float
    """The model's probability of 1, in [0, 1]."""
    slices: NDArray[np.uint8]
    """(k, H, W), the slices that raised the score most, by plane and in anatomical order."""
    captions: Sequence[str] = ()
    """One a slice, such as "sagittal, slice 14 of 30", or none at all."""
    heat: NDArray[np.float32] | None = None
    """(k, H, W), what each place of these slices speaks for: above 0 for the finding, below 0 against it."""

    def __post_init__(self) -> None:
        _check_slices(self.slices, f"mistake {self.exam}")
        if self.captions and len(self.captions) != len(self.slices):
            raise ValueError(f"{self.exam}: {len(self.captions)} captions for {len(self.slices)} slices")
        if self.heat is not None and self.heat.shape != self.slices.shape:
            raise ValueError(f"{self.exam}: heat of shape {self.heat.shape} for slices of shape {self.slices.shape}")
        if (self.score >= THRESHOLD) == bool(self.label):
            raise ValueError(f"{self.exam}: a score of {self.score} for label {self.label} is no mistake")


@dataclass(frozen=True, eq=False)
class Arm:
    """What one model says of a finding's exams, and what was locked with it beforehand."""

    name: str
    probabilities: NDArray[np.float64]
    """(n,) of 1, in [0, 1], after recalibration where there is one."""
    before: NDArray[np.float64] | None = None
    """(n,) before recalibration; None where nothing is locked with the model."""
    states: Sequence[State] = ()
    """(n,) at the locked operating points, or none at all."""
    points: Mapping[str, OperatingPoints] = field(default_factory=dict)
    """By set of planes, such as axial+sagittal; empty where nothing is locked."""
    mistakes: Sequence[Mistake] = ()
    """Worst first."""
    heat: str = ""
    """What the mistakes' heat shows, in a sentence."""


@dataclass(frozen=True, eq=False)
class EvaluatedFinding:
    """One task on the exams that are labelled for it, with what every model says of them.

    Raises:
        ValueError: there is not one of each for every exam, or no model.
    """

    task: str
    exams: Sequence[str]
    labels: NDArray[np.int64]
    """(n,) the reference standard, 0 or 1."""
    groups: Sequence[str]
    """(n,) the patient of each exam, by an invented name."""
    arms: Sequence[Arm]
    """The first is the index model, with which the others are compared."""
    subgroups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Characteristic, such as "laterality", to its value for each exam, `(n,)`; empty text where it is not known."""
    prevalences: Mapping[str, float] = field(default_factory=dict)
    """In words, to the share of positives for which predictive values are worked out."""

    def __post_init__(self) -> None:
        if not self.arms:
            raise ValueError(f"{self.task}: there is no model")
        lengths = [len(self.labels), len(self.groups), *(len(values) for values in self.subgroups.values())]
        for arm in self.arms:
            lengths += [len(arm.probabilities), *(len(arm.states),) * bool(arm.states)]
            lengths += [len(arm.before)] if arm.before is not None else []
        if set(lengths) != {len(self.exams)}:
            raise ValueError(f"{self.task}: exams, labels, patients and answers differ in number")


@dataclass(frozen=True)
class Evaluated:
    """What was evaluated, and what was fixed before it was."""

    place: Place
    """Whether the exams are of the same origin as those that the index model was trained on."""
    place_text: str
    """How that is known, and what it means."""
    counts: Sequence[Mapping[str, str | int]]
    """One row a finding: exams there are, left out, evaluated."""
    counts_text: str
    models: Sequence[Mapping[str, str | int]]
    """One row for each network."""
    fixed: Sequence[str]
    """Paragraphs."""
    hashes: Sequence[tuple[str, str]] = ()
    """Model and the hash of what was locked with it."""

    @property
    def heading(self) -> str:
        """In the words of CLAIM 2024."""
        if self.place == "unknown":
            return "Internal or external testing: not known"
        return f"{self.place.capitalize()} testing"


@dataclass(frozen=True, eq=False)
class KeyPicture:
    """A slice that speaks for a finding, as it is and with heat.

    Raises:
        ValueError: they are not uint8 (H, W) and (H, W, 3).
    """

    plane: Plane
    caption: str
    """Such as "sagittal, slice 12 of 24"."""
    slice: NDArray[np.uint8]
    """(H, W)."""
    heated: NDArray[np.uint8]
    """(H, W, 3)."""

    def __post_init__(self) -> None:
        _check_slices(self.slice[None], self.caption)
        if self.heated.shape != (*self.slice.shape, 3) or self.heated.dtype != np.uint8:
            raise ValueError(f"{self.caption}: with heat it is {self.heated.dtype} {self.heated.shape}")


@dataclass(frozen=True, eq=False)
class Answer:
    """What a model says of one task on one knee."""

    task: str
    state: State | None
    """None where it was not assessed, or where no operating points are locked with the model."""
    probability: float | None
    """None where it was not assessed."""
    interval: tuple[float, float] | None
    """95 %, of the probability."""
    calibrated: bool
    planes: Sequence[Plane]
    """What it was said from."""
    reasons: Sequence[str]
    """Why it was not assessed, was held at doubt, or has no state."""
    points: OperatingPoints | None
    key_slices: Sequence[KeyPicture]
    """Strongest first."""
    heat: str
    """What the colours mean."""


@dataclass(frozen=True, eq=False)
class Sheet:
    """All slices of one series that was used, uint8 (k, H, W), in their order.

    Raises:
        ValueError: they are not that.
    """

    plane: Plane
    slices: NDArray[np.uint8]
    key: Mapping[int, Sequence[str]]
    """Index of a key slice to the tasks that it speaks for."""

    def __post_init__(self) -> None:
        _check_slices(self.slices, self.plane)


class SeriesRow(Protocol):
    """What the page of a knee says of one series of the study, used or not."""

    @property
    def number(self) -> int:
        """1, 2, ... within the study."""

    @property
    def plane(self) -> Plane:
        """The plane that is nearest."""

    @property
    def obliquity_deg(self) -> float:
        """Angle between the slices and that plane, in degrees."""

    @property
    def slices(self) -> int:
        """How many it has."""

    @property
    def slice_mm(self) -> float | None:
        """Distance of neighbouring slices; None where it is not known."""

    @property
    def echo_ms(self) -> float | None:
        """Echo time; None where it is not known."""

    @property
    def weighting(self) -> str:
        """Such as `PD`."""

    @property
    def contrast_from(self) -> str:
        """How weighting and fat suppression are known."""

    @property
    def fat_suppressed(self) -> bool | None:
        """None where it is not known."""

    @property
    def laterality(self) -> str:
        """`L`, `R` or empty."""

    @property
    def used(self) -> bool:
        """Whether the model was given it."""

    @property
    def reason(self) -> str:
        """Why it was chosen, or why it was not used."""


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
