"""How GE, Siemens and Philips each write what they scanned: names, options, grey values, private attributes.

After headers of real series: a GE Discovery MR750 knee, a Siemens Trio and an XA10 enhanced file, a Philips Achieva
enhanced file, and series descriptions and scan options that public code for knee MR lists.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from pydicom import Dataset
from pydicom.uid import UID, GrayscaleSoftcopyPresentationStateStorage, SecondaryCaptureImageStorage

from kneessl.exams.folder import Plane
from kneessl.phantom.protocol import SeriesKind

Role = Literal["read", "other", "unfinished", "moved", "localiser", "reformat"]
"""What a series is for: the one to read in its plane; another weighting; a first try that was stopped, or in which the
patient moved, and that was repeated; a localiser; a reformat that was computed from another series."""


@dataclass(frozen=True)
class Acquired:
    """What a vendor's habits depend on, of one series."""

    role: Role
    kind: SeriesKind
    plane: Plane
    matrix: int
    repetition_ms: float
    echo_ms: float
    variant: int
    """Which of a vendor's habits this hospital has, 0 or 1."""
    slope: float
    """Of stored values to the scanner's own; 1 but for Philips."""

    @property
    def gradient_echo(self) -> bool:
        """Localisers are, all else is spin echo."""
        return self.role == "localiser"


_ORIGINAL = ("ORIGINAL", "PRIMARY")


def contrast_name(kind: SeriesKind) -> str:
    """A weighting as DICOM calls it."""
    return {"PD": "PROTON_DENSITY"}.get(kind.weighting, kind.weighting)


class Vendor(ABC):
    """The habits of one vendor."""

    name: ClassVar[str]
    manufacturer: ClassVar[str]
    bits: ClassVar[int] = 12
    signed: ClassVar[bool] = False
    tagged: ClassVar[float]
    """Share of its studies whose images have a side's tag."""
    white: ClassVar[tuple[float, float]]
    """Range of the stored value of white."""
    slopes: ClassVar[tuple[float, float]] = (1.0, 1.0)
    hundreds: ClassVar[bool] = False
    """Series have the numbers 101, 201, 301 rather than 1, 2, 3."""

    @abstractmethod
    def description(self, series: Acquired) -> str:
        """The series' name on the scanner."""

    @abstractmethod
    def image_type(self, series: Acquired) -> list[str]:
        """As a file of one image has it."""

    @abstractmethod
    def add_acquisition(self, data: Dataset, series: Acquired) -> None:
        """What a file of one image says of its pulse sequence, beside the times."""

    @abstractmethod
    def add_private(self, data: Dataset, series: Acquired) -> None:
        """Private blocks."""

    @abstractmethod
    def add_leftover(self, data: Dataset) -> None:
        """What it leaves in a study besides series: class and kind of that file."""

    @abstractmethod
    def file_name(self, series: int, instance: int, uid: str) -> str:
        """As it is exported."""

    def frame_type(self, series: Acquired) -> list[str]:
        """As an enhanced file has it."""
        return self.image_type(series)

    def add_grey_values(self, data: Dataset, stored: np.ndarray, series: Acquired) -> None:
        """Range, window and scale of one image."""
        vr = "SS" if self.signed else "US"
        low, high = int(stored.min()), int(stored.max())
        data.add_new("SmallestImagePixelValue", vr, low)
        data.add_new("LargestImagePixelValue", vr, high)
        data.WindowCenter, data.WindowWidth = f"{(low + high) / 2:.0f}", f"{max(high - low, 1)}"


class Ge(Vendor):
    """GE HealthCare."""

    name = "GE"
    manufacturer = "GE MEDICAL SYSTEMS"
    bits = 16
    signed = True
    tagged = 0.3
    white = (3000, 14000)
    _planes: ClassVar[dict[Plane, str]] = {"sagittal": "SAG", "coronal": "COR", "axial": "AX"}

    def description(self, series: Acquired) -> str:
        """`SAG PD FS`, `Sag PD FatSat FSE`."""
        if series.role == "localiser":
            return ("3-Plane Loc", "3-pl T2* FGRE S")[series.variant]
        plane, weighting, fat = self._planes[series.plane], series.kind.weighting, series.kind.fat_suppressed
        if series.role == "reformat":
            return f"{plane} MPR"
        if series.variant:
            return f"{plane.capitalize()} {weighting}{' FatSat' if fat else ''} FSE"
        return f"{plane} {weighting}{' FS' if fat else ''}"

    def image_type(self, series: Acquired) -> list[str]:
        """Its originals are all `OTHER`."""
        return (
            ["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"] if series.role == "reformat" else [*_ORIGINAL, "OTHER"]
        )

    def frame_type(self, series: Acquired) -> list[str]:
        """Enhanced files name the weighting."""
        return (
            self.image_type(series)
            if series.role == "reformat"
            else [*_ORIGINAL, series.kind.weighting.replace("PD", "PROTON_DENSITY"), "NONE"]
        )

    def add_acquisition(self, data: Dataset, series: Acquired) -> None:
        """Its scan options tell whether fat is suppressed."""
        data.ScanningSequence = "GR" if series.gradient_echo else "SE"
        data.SequenceVariant = "SS" if series.gradient_echo else "SK"
        options = ["FAST_GEMS", "EDR_GEMS", "TRF_GEMS", "FILTERED_GEMS"] if series.variant else ["FAST_GEMS", "NPW"]
        data.ScanOptions = options + (["FS"] if series.kind.fat_suppressed and not series.gradient_echo else [])
        data.add_new("PixelPaddingValue", "SS", -32768)

    def add_private(self, data: Dataset, series: Acquired) -> None:
        """Identification, acquisition, relation, and the parameters with the component of the complex image."""
        data.private_block(0x0009, "GEMS_IDEN_01", create=True).add_new(0x01, "LO", "GE_GENESIS_FF")
        block = data.private_block(0x0019, "GEMS_ACQU_01", create=True)
        block.add_new(0x9C, "LO", "fse-xl" if not series.gradient_echo else "fgre")
        block.add_new(0x9E, "LO", "FSE" if not series.gradient_echo else "FGRE")
        data.private_block(0x0025, "GEMS_SERS_01", create=True).add_new(0x07, "SL", 30)
        block = data.private_block(0x0043, "GEMS_PARM_01", create=True)
        block.add_new(0x2F, "SS", 0)
        block.add_new(0x38, "FL", [0.0] * 6)

    def add_leftover(self, data: Dataset) -> None:
        """A screen save."""
        data.SOPClassUID, data.ConversionType = SecondaryCaptureImageStorage, "WSD"
        data.ImageType, data.SeriesDescription = ["DERIVED", "SECONDARY", "SCREEN SAVE"], "Screen Save"
        data.Rows, data.Columns, data.SamplesPerPixel = 64, 64, 1
        data.PhotometricInterpretation, data.PixelRepresentation = "MONOCHROME2", 0
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11

    def file_name(self, series: int, instance: int, uid: str) -> str:
        """`i7301422.MRDC.12`."""
        return f"i{7_000_000 + series * 1000 + instance}.MRDC.{instance}"


class Siemens(Vendor):
    """Siemens Healthineers."""

    name = "Siemens"
    manufacturer = "SIEMENS"
    tagged = 0.8
    white = (500, 1600)
    _planes: ClassVar[dict[Plane, str]] = {"sagittal": "sag", "coronal": "cor", "axial": "tra"}

    def description(self, series: Acquired) -> str:
        """`pd_tse_fs_sag_384`."""
        if series.role == "localiser":
            return ("localizer", "AAHKnee_Scout")[series.variant]
        plane, weighting = self._planes[series.plane], series.kind.weighting.lower()
        if series.role == "reformat":
            return f"{weighting}_MPR_{plane}"
        return f"{weighting}_tse{'_fs' if series.kind.fat_suppressed else ''}_{plane}_{series.matrix}"

    def image_type(self, series: Acquired) -> list[str]:
        """`M\\ND`, or `M\\NORM\\DIS2D` where it evens out the coil and the gradients."""
        if series.role == "reformat":
            return ["DERIVED", "SECONDARY", "MPR", "CSA MPR", "", "CSAPARALLEL", "M", "ND"]
        return [*_ORIGINAL, "M", *(("NORM", "DIS2D") if series.variant else ("ND",))]

    def frame_type(self, series: Acquired) -> list[str]:
        """Of four values."""
        return ["DERIVED", "PRIMARY", "MPR", "NONE"] if series.role == "reformat" else [*_ORIGINAL, "M", "NONE"]

    def add_acquisition(self, data: Dataset, series: Acquired) -> None:
        """Its scan options are blank where fat is not suppressed."""
        data.ScanningSequence = "GR" if series.gradient_echo else "SE"
        data.SequenceVariant = ["SP", "OSP"] if series.gradient_echo else ["SK", "SP", "OSP"]
        data.ScanOptions = "FS" if series.kind.fat_suppressed and not series.gradient_echo else ""
        data.SequenceName = "*fl2d1" if series.gradient_echo else "*tse2d1_9"
        data.add_new("WindowCenterWidthExplanation", "LO", "Algo1")

    def add_private(self, data: Dataset, series: Acquired) -> None:
        """The CSA header, here without its content, and the text at the edge of the picture."""
        block = data.private_block(0x0019, "SIEMENS MR HEADER", create=True)
        block.add_new(0x08, "CS", "IMAGE NUM 4")
        block.add_new(0x0B, "DS", "0")
        block = data.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
        block.add_new(0x08, "CS", "IMAGE NUM 4")
        block.add_new(0x10, "OB", b"SV10\4\3\2\1" + bytes(8))
        block = data.private_block(0x0051, "SIEMENS MR HEADER", create=True)
        block.add_new(0x0B, "SH", f"{series.matrix}*{series.matrix}")
        block.add_new(0x0E, "LO", {"sagittal": "Sag", "coronal": "Cor", "axial": "Tra"}[series.plane])
        block.add_new(0x16, "LO", "p2 M/" + ("NORM/DIS2D" if series.variant else "ND"))

    def add_leftover(self, data: Dataset) -> None:
        """The protocol in a private class, which is no image though it is called MR."""
        data.SOPClassUID, data.SeriesDescription = UID("1.3.12.2.1107.5.9.1"), "PhoenixZIPReport"
        block = data.private_block(0x0029, "SIEMENS CSA NON-IMAGE", create=True)
        block.add_new(0x08, "CS", "MR SERIES")

    def file_name(self, series: int, instance: int, uid: str) -> str:
        """With its series, number, and the end of its UID, as `.IMA`."""
        return f"KNEE.MR.{series:04d}.{instance:04d}.{uid[-14:]}.IMA"


class Philips(Vendor):
    """Philips Healthcare."""

    name = "Philips"
    manufacturer = "Philips Medical Systems"
    tagged = 0.6
    white = (1800, 3600)
    slopes = (0.4, 3.0)
    hundreds = True
    _planes: ClassVar[dict[Plane, str]] = {"sagittal": "SAG", "coronal": "COR", "axial": "TRA"}

    def description(self, series: Acquired) -> str:
        """`sPDW_SPAIR SAG`, `T1W_TSE COR`."""
        if series.role == "localiser":
            return ("Survey", "SURVEY_SHC")[series.variant]
        plane, weighting = self._planes[series.plane], series.kind.weighting
        if series.role == "reformat":
            return f"MPR {plane}"
        return f"{'s' if series.variant else ''}{weighting}W_{'SPAIR' if series.kind.fat_suppressed else 'TSE'} {plane}"

    def image_type(self, series: Acquired) -> list[str]:
        """`M_SE\\M\\SE`."""
        if series.role == "reformat":
            return ["DERIVED", "SECONDARY", "MPR"]
        technique = "FFE" if series.gradient_echo else "SE"
        return [*_ORIGINAL, f"M_{technique}", "M", technique]

    def frame_type(self, series: Acquired) -> list[str]:
        """Enhanced files name the weighting."""
        if series.role == "reformat":
            return ["DERIVED", "PRIMARY", "MPR", "NONE"]
        return [*_ORIGINAL, contrast_name(series.kind), "M"]

    def add_acquisition(self, data: Dataset, series: Acquired) -> None:
        """Its scan options say FS, or OTHER for SPAIR too."""
        data.ScanningSequence = "GR" if series.gradient_echo else "SE"
        data.SequenceVariant = "SS" if series.gradient_echo else "SK"
        fat = series.kind.fat_suppressed and not series.gradient_echo and series.variant
        data.ScanOptions = "FS" if fat else "OTHER"
        data.InversionTime = "0"
        data.PulseSequenceName = "FFE" if series.gradient_echo else "TSE"

    def add_private(self, data: Dataset, series: Acquired) -> None:
        """Technique, prepulse, and the private scale: stored values in the scanner's own units."""
        block = data.private_block(0x2001, "Philips Imaging DD 001", create=True)
        block.add_new(0x20, "LO", "FFE" if series.gradient_echo else "TSE")
        block.add_new(0x1C, "CS", "SPAIR" if series.kind.fat_suppressed else "NO")
        block.add_new(0x21, "CS", "N")
        block = data.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
        block.add_new(0x0D, "FL", 0.0)
        block.add_new(0x0E, "FL", 1 / (series.slope * 1.7e-3))

    def add_grey_values(self, data: Dataset, stored: np.ndarray, series: Acquired) -> None:
        """With slope and intercept to displayed values, in which the window is given."""
        low, high = float(stored.min()) * series.slope, float(stored.max()) * series.slope
        data.WindowCenter, data.WindowWidth = f"{(low + high) / 2:.10g}", f"{max(high - low, 1):.10g}"
        data.RescaleIntercept, data.RescaleSlope, data.RescaleType = "0", f"{series.slope:.10g}", "normalized"

    def add_leftover(self, data: Dataset) -> None:
        """A presentation state."""
        data.SOPClassUID, data.Modality = GrayscaleSoftcopyPresentationStateStorage, "PR"
        data.ContentLabel, data.PresentationLUTShape = "PSINTERACTIVE", "IDENTITY"

    def file_name(self, series: int, instance: int, uid: str) -> str:
        """Numbered through."""
        return f"IM_{instance:04d}"


@dataclass(frozen=True)
class Scanner:
    """One scanner of the hospital."""

    vendor: Vendor
    model: str
    software: tuple[str, ...]
    tesla: float
    enhanced: bool
    """Writes one enhanced file a series, rather than one a slice."""
    matrices: tuple[int, ...]
    """Rows and columns of its pictures."""


SCANNERS = (
    Scanner(Ge(), "DISCOVERY MR750w", ("24", "LX", "MR Software release:DV24.0_R01_1344.a"), 3.0, False, (512,)),
    Scanner(Ge(), "SIGNA Premier", ("29", "LX", "MR Software release:RX29.1_R02"), 3.0, True, (512,)),
    Scanner(Siemens(), "Aera", ("syngo MR E11",), 1.5, False, (320, 384)),
    Scanner(Siemens(), "MAGNETOM Vida", ("syngo MR XA31",), 3.0, True, (384, 448)),
    Scanner(Philips(), "Ingenia", ("5.7.1", "5.7.1.2"), 3.0, False, (400, 480)),
    Scanner(Philips(), "Ingenia Ambition X", ("5.9.0", "5.9.0.1"), 1.5, True, (352, 400)),
)
