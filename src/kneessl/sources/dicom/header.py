"""Reading one DICOM header: which attributes, where those of one frame stand, and how the images were acquired.

Only the attributes named here are ever read. Of free text (descriptions, names of sequences) nothing is kept but words
of the short lists below, so that nothing that a hospital wrote into it can get any further.
"""

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from pydicom import Dataset, config, dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.errors import InvalidDicomError
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from kneessl.errors import UserError

LONGEST_MS, _LARGEST_FLIP_DEG = 20_000.0, 360.0
"""No MR has more; a larger number is damage, or a patient's that came to stand there, and would be quoted."""
_LARGEST_DEFLATED = 2**20
"""Bytes. The deflated encoding can pack a thousand times its own size, and pydicom unpacks it whole."""

_ATTRIBUTES = [
    *("ImageType", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "InstanceNumber"),
    *(
        "Modality",
        "PatientID",
        "IssuerOfPatientID",
        "AccessionNumber",
        "BodyPartExamined",
        "Laterality",
        "ImageLaterality",
    ),
    *("SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "BurnedInAnnotation"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SpacingBetweenSlices", "SliceThickness"),
    *("RescaleIntercept", "RescaleSlope", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("EchoTime", "EffectiveEchoTime", "RepetitionTime", "InversionTime", "FlipAngle", "AcquisitionContrast"),
    *("ScanningSequence", "SequenceVariant", "ScanOptions", "SequenceName", "PulseSequenceName", "EchoPulseSequence"),
    *("Spoiling", "InversionRecovery", "SpectrallySelectedSuppression", "SpectrallySelectedExcitation"),
    *("SeriesDescription", "ProtocolName", "ComplexImageComponent", "SeriesNumber", "SyntheticData"),
    *("Manufacturer", "ManufacturerModelName", "MagneticFieldStrength"),
]
_GE_COMPLEX = 0x0043102F
"""GE's private attribute: which component of the complex image this is."""
_TAGS = {keyword: tag_for_keyword(keyword) or 0 for keyword in _ATTRIBUTES} | {"GEComplexImageComponent": _GE_COMPLEX}
_FRAME_GROUPS = {
    "AcquisitionContrast": "MRImageFrameTypeSequence",
    "ComplexImageComponent": "MRImageFrameTypeSequence",
    "EchoTime": "MREchoSequence",
    "EffectiveEchoTime": "MREchoSequence",
    "FlipAngle": "MRTimingAndRelatedParametersSequence",
    "FrameLaterality": "FrameAnatomySequence",
    "FrameType": "MRImageFrameTypeSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "ImagePositionPatient": "PlanePositionSequence",
    "InversionRecovery": "MRModifierSequence",
    "InversionTimes": "MRModifierSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "RepetitionTime": "MRTimingAndRelatedParametersSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "SpacingBetweenSlices": "PixelMeasuresSequence",
    "SpectrallySelectedExcitation": "MRModifierSequence",
    "SpectrallySelectedSuppression": "MRModifierSequence",
    "Spoiling": "MRModifierSequence",
}
"""The functional group of an enhanced image that an attribute stands in."""

Named = Literal["T1", "PD", "T2", "T2*"]
"""A weighting that a header names."""

_FAT_OPTIONS = frozenset(("FAT_SAT", "FATSAT", "FS", "FSAT", "SFS", "SPAIR", "SPIR", "WATER_EXCITATION", "WE"))
"""Of ScanOptions. PFF and PFP are partial Fourier, GE's SAT_GEMS saturates a slab of tissue: neither is about fat."""
_UNTOLD_OPTIONS = frozenset(("", "NONE", "OTHER"))
_FAT_SELECTED = {"SpectrallySelectedSuppression": "FAT", "SpectrallySelectedExcitation": "WATER"}
_STATED: dict[str, Named] = {"T1": "T1", "PROTON_DENSITY": "PD", "T2": "T2", "T2_STAR": "T2*"}
_GRADIENT_NAMES = re.compile(r"(t?fl|t?fi|fisp|psif|me|de|ci|gre|m?ffe|tfe|f?spgr|efgre|vibe|dess|medic)(\d|_|$)")
"""How the names of gradient-echo sequences begin: Siemens' fl3d, tfl3d, de3d, me2d; Philips' FFE; GE's SPGR."""
_INVERSION_NAMES = re.compile(r"(tir|stir)(\d|_|$)")
_HINTS: tuple[tuple[Named, re.Pattern[str]], ...] = (
    ("T2*", re.compile(r"T2(\*|STAR)|(MEDIC|MERGE)$")),
    ("T1", re.compile(r"T1(?!RHO)")),
    ("T2", re.compile(r"T2|(STIR|TIRM)$")),
    ("PD", re.compile(r"(PD|DP)(W|FS|FSE|TSE|SPAIR)*$|PROTON$")),
)
_FAT_HINT = re.compile(r"((T1|T2|PD)W?)?(FS|FSAT|FATSAT|FATSUP|SPAIR|SPIR|STIR|TIRM|WATER|WE)$")


@dataclass(frozen=True, slots=True)
class Acquisition:
    """How an image was acquired, as far as its contrast depends on it."""

    repetition_ms: float | None
    inversion_ms: float | None
    """None where it is blank or 0, as Philips writes it without an inversion."""
    flip_deg: float | None
    gradient_echo: bool | None
    spoiled: bool
    inversion: bool
    """There is an inversion pulse."""
    fat_by: str
    """Which attribute says that fat is suppressed, with its value; empty where none does."""
    fat_stated: bool
    """Whether the header lists its options, so that a missing fat suppression means that there was none."""
    stated: Named | None
    """AcquisitionContrast."""
    hints: frozenset[Named]
    """What the series' description or protocol name hints at."""
    fat_hinted: bool
    """They hint at fat suppression."""


class Header:
    """The attributes of one file, or of one frame of an enhanced one.

    Args:
        data: What was read of the file.
        groups: The frame's functional groups, then the shared ones.
    """

    def __init__(self, data: Dataset, groups: Sequence[Dataset] = ()) -> None:
        self.data = data
        self._groups = groups
        self._present = set(data.keys())  # a set, as pydicom takes long to find out that an attribute is missing

    def frames(self, count: int) -> "list[Header]":
        """Each image of the file."""
        shared = tuple(self.value("SharedFunctionalGroupsSequence") or ())[:1]
        per_frame = self.value("PerFrameFunctionalGroupsSequence") or ()
        return [Header(self.data, (*per_frame[index : index + 1], *shared)) for index in range(count)]

    def __contains__(self, keyword: str) -> bool:
        return _TAGS.get(keyword) in self._present

    def value(self, keyword: str) -> Any:
        """What stands for an attribute: in the frame's functional group, in the shared one, or else in the file."""
        for groups in self._groups if keyword in _FRAME_GROUPS else ():
            group = groups.get(_FRAME_GROUPS[keyword])
            if group and keyword in group[0]:
                return group[0].get(keyword)
        return self.data[_TAGS[keyword]].value if keyword in self else None

    def number(self, keyword: str) -> float | None:
        """A finite number, or None."""
        value = self.value(keyword)
        return float(value) if not _blank(value) and isfinite(value) else None

    def numbers(self, keyword: str) -> tuple[float, ...] | None:
        """Finite numbers, or None."""
        value = self.value(keyword)
        if _blank(value):
            return None
        numbers = tuple(map(float, value if isinstance(value, Sequence) else [value]))
        return numbers if numbers and all(map(isfinite, numbers)) else None

    def first(self, keyword: str) -> float | None:
        """The first of some numbers; None also where they are damaged, since only the contrast hangs on it."""
        try:
            return (self.numbers(keyword) or (None,))[0]
        except Exception:  # pydicom raises nearly anything over a damaged value
            return None

    def text(self, keyword: str) -> str:
        """Without spaces around it; empty where it is missing."""
        return str(self.value(keyword) or "").strip()

    def codes(self, keyword: str) -> tuple[str, ...]:
        """Values of a code string, in capitals."""
        value = self.value(keyword)
        parts = (value,) if isinstance(value, str) else value or ()
        return tuple(str(part).strip().upper() for part in parts)


def read_header(file: Path, number: str) -> Header:
    """The attributes above of one file.

    Raises:
        UserError: a deflated file that might be too large once it is inflated.
        Exception: anything, where the file is damaged or not DICOM.
    """
    with file.open("rb") as content:
        if read_preamble(content, force=True) is None:
            if not _begins_as_dicom(content.read(8)):
                raise InvalidDicomError
            content.seek(0)
        syntax = _read_file_meta_info(content).get("TransferSyntaxUID")
    if syntax == DeflatedExplicitVRLittleEndian and file.stat().st_size > _LARGEST_DEFLATED:
        raise UserError(f"{number} is a large file in the deflated encoding, which is not safe; export it in another")
    return Header(read_dataset(file, stop_before_pixels=True, specific_tags=list(_TAGS.values())))


def read_dataset(file: Path, **options: Any) -> Dataset:
    """Read a DICOM file, or one without its preamble, or even without its meta header, as some archives store them.

    Args:
        file: One that `read_header` takes.
        options: Of `pydicom.dcmread`.

    Raises:
        Exception: anything, where the file is damaged.
    """
    data = dcmread(file, force=True, **options)
    if "TransferSyntaxUID" not in data.file_meta:
        plain: dict[Any, UID] = {
            (True, True): ImplicitVRLittleEndian,
            (False, True): ExplicitVRLittleEndian,
            (False, False): ExplicitVRBigEndian,
        }
        data.file_meta.TransferSyntaxUID = plain[data.original_encoding]
    return data


def _begins_as_dicom(start: bytes) -> bool:
    """Whether a file without a preamble begins with an element of the meta header (group 2) or of group 8."""
    little, big = start[:2] in {b"\2\0", b"\x08\0"}, start[:2] == b"\0\x08"
    explicit = start[4:6].isalpha() and start[4:6].isupper()
    return len(start) == 8 and ((explicit and (little or big)) or (little and start[6:] == b"\0\0"))


def plausible(value: float | None, most: float) -> float | None:
    """The value where it is one that a scanner can have had, from 0 to `most`; else None."""
    return value if value is not None and 0 <= value <= most else None


def acquisition(header: Header) -> Acquisition:
    """How an image was acquired."""
    sequence = header.codes("ScanningSequence")
    name = (header.text("SequenceName") or header.text("PulseSequenceName")).lower().lstrip("*")
    fat_by, fat_stated = _fat(header)
    words = _words(header.text("SeriesDescription"), header.text("ProtocolName"))
    contrast = header.text("AcquisitionContrast").upper()
    return Acquisition(
        repetition_ms=plausible(header.first("RepetitionTime"), LONGEST_MS),
        inversion_ms=plausible(header.first("InversionTimes") or header.first("InversionTime"), LONGEST_MS) or None,
        flip_deg=plausible(header.first("FlipAngle"), _LARGEST_FLIP_DEG),
        gradient_echo=_gradient_echo(sequence, header.text("EchoPulseSequence").upper(), name),
        spoiled="SP" in header.codes("SequenceVariant") or header.text("Spoiling").upper() not in {"", "NONE"},
        inversion="IR" in sequence
        or header.text("InversionRecovery").upper() == "YES"
        or contrast == "STIR"
        or bool(_INVERSION_NAMES.match(name)),
        fat_by=fat_by,
        fat_stated=fat_stated,
        stated=_STATED.get(contrast),
        hints=frozenset(hint for word in words for hint in _hint(word)),
        fat_hinted=any(map(_FAT_HINT.match, words)),
    )


def _blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value)


def _gradient_echo(sequence: tuple[str, ...], pulse: str, name: str) -> bool | None:
    if "GR" in sequence or pulse == "GRADIENT" or _GRADIENT_NAMES.match(name):
        return True
    return False if "SE" in sequence or pulse == "SPIN" else None


def _fat(header: Header) -> tuple[str, bool]:
    """By which attribute fat is suppressed, and whether the header would say it if it were."""
    options = set(header.codes("ScanOptions"))
    told_by = [f"ScanOptions {option}" for option in sorted(options & _FAT_OPTIONS)]
    selected = {keyword: header.text(keyword).upper() for keyword in _FAT_SELECTED}
    told_by += [f"{keyword} {wanted}" for keyword, wanted in _FAT_SELECTED.items() if selected[keyword] == wanted]
    return (told_by or [""])[0], bool(options - _UNTOLD_OPTIONS) or any(selected.values())


def _words(*texts: str) -> list[str]:
    text = re.sub("T2[ _-]STAR", "T2STAR", " ".join(texts).upper())
    return re.split(r"[^A-Z0-9*]+", text)


def _hint(word: str) -> list[Named]:
    """The weighting that a word names, if any."""
    return [hint for hint, pattern in _HINTS if pattern.match(word)][:1]


# Its messages quote what stands in headers, and so patients; nobody could tell them from ours.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")


@contextmanager
def quietly() -> Iterator[None]:
    """Keep pydicom from warning about, logging or refusing unusual values: its messages quote them."""
    settings, logger = config.settings, logging.getLogger("pydicom")
    mode, disabled = settings.reading_validation_mode, logger.disabled
    settings.reading_validation_mode, logger.disabled = config.IGNORE, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        settings.reading_validation_mode, logger.disabled = mode, disabled
