"""What an importer finds: exams whose files are known, and whose pixels are read only when they are written."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kneessl.errors import UserError
from kneessl.exams.folder import Plane, Split, Weighting
from kneessl.sources.volume import directions_of

DEFAULT_ECHO_MS = 30.0
FEWEST_SLICES = 5
"""A shorter series is none; localisers are."""
_LONGEST_ECHO_MS = 10_000
_LARGEST_NPY_MM = 100


@dataclass(frozen=True)
class ImportSettings:
    """What the user wants of an import.

    Raises:
        UserError: a setting is out of range; the message names the option of the command.
    """

    echo: str = "30"
    """The echo time wanted, in ms, or `all`."""
    npy_axes: str | None = None
    """Where the axes of a bare array lead, such as `ALS`; None where the user does not say."""
    npy_spacing: float | None = None
    """mm, the same along each axis; None where the user does not say."""
    weighting: Mapping[Plane, Weighting] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not 0 <= self.echo_ms < _LONGEST_ECHO_MS:
            raise UserError(f"--echo {self.echo}: give an echo time in ms, such as 30, or all")
        try:
            directions_of(self.npy_axes or "ALS")
        except ValueError:
            raise UserError(
                f"--npy_axes {self.npy_axes}: give three letters, one each of A/P, L/R and S/I, such as ALS"
            ) from None
        if self.npy_spacing is not None and not 0 < self.npy_spacing < _LARGEST_NPY_MM:
            raise UserError(f"--npy_spacing {self.npy_spacing}: give the distance of voxels in mm, such as 1.5")

    @property
    def every_echo(self) -> bool:
        """Whether each echo becomes an exam of its own."""
        return self.echo == "all"

    @property
    def echo_ms(self) -> float:
        """The echo time that is wanted; NaN where the setting is no number."""
        try:
            return DEFAULT_ECHO_MS if self.every_echo else float(self.echo)
        except ValueError:
            return float("nan")


@dataclass(frozen=True)
class Acquired:
    """By which scanner a series was made, and how; the fields of `Provenance` of the same names."""

    maker: str = ""
    model: str = ""
    field_t: float | None = None
    repetition_ms: float | None = None
    inversion_ms: float | None = None
    flip_deg: float | None = None


@dataclass(frozen=True, eq=False)
class ImportedSeries:
    """One series, ready for an exam folder."""

    plane: Plane
    volume: np.ndarray
    """uint8 `(slices, 256, 256)`, turned as `kneessl.sources.volume.DISPLAY` says."""
    pixel_mm: float
    """Distance of its rows, and of its columns; 0 where the source does not say, as for `slice_mm`."""
    slice_mm: float
    laterality: str
    """`L`, `R` or empty."""
    source: str
    """As `Provenance.source`."""
    source_sha256: str
    choice: str
    """What was chosen, and why, in words."""
    remarks: tuple[str, ...] = ()
    """Phrases on what the user should know of it."""
    obliquity_deg: float = 0.0
    """Angle between the normal of its slices and the axis of its plane."""
    weighting: Weighting = "unknown"
    fat_suppressed: bool | None = None
    echo_ms: float | None = None
    acquired: Acquired = Acquired()
    synthetic: bool = False
    """Made, no patient's knee."""


class Person(NamedTuple):
    """One person among some exams; not to be written anywhere."""

    name: str
    """Such as `patient` and the ID, or `study` and its UID where there is none."""
    issuer: str = ""
    """Of the ID; empty where some of its images have none."""


@dataclass(frozen=True, eq=False)
class FoundExam:
    """An exam whose headers are known and whose pixels are still on disk."""

    key: str
    """Orders the exams of one source; depends on no file name."""
    study: str
    """StudyInstanceUID, or what stands for it; of DICOM not to be written anywhere."""
    person: Person
    """Equal for exams of one person; not to be written anywhere."""
    parts: tuple[Callable[[], Iterator[ImportedSeries]], ...]
    """Each decodes, turns and resamples some of its series."""
    split: Split | None = None
    """Where the source has it published; None where it is the user's choice."""
    labels: dict[str, int] = field(default_factory=dict)
    """Task to label, where the source has labels."""
    remarks: tuple[str, ...] = ()
    """Sentences on what contradicts its side, and on what was assumed of its series."""
    series: tuple[str, ...] | None = None
    """SeriesInstanceUIDs of what may belong to it; None for all of its study."""
    files: tuple[Path, ...] = ()
    """Of volumes, by which their path is told."""
