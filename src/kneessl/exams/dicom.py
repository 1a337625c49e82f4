"""DICOM headers as light records, one an image.

Only the attributes named here are ever read. Of the patient's identity that is the ID alone, to keep exams of one
person together; it goes no further than `Image.person`.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import Dataset, config, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage, MRImageStorage

from kneessl.errors import UserError

_HEADER = [
    "ImageType",
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "PatientID",
    "IssuerOfPatientID",
    "BodyPartExamined",
    "EchoTime",
    "EffectiveEchoTime",
    "SpacingBetweenSlices",
    "SliceThickness",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "Laterality",
    "ImageLaterality",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelSpacing",
    "RescaleIntercept",
    "RescaleSlope",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]
_MR_IMAGES = {MRImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage}
_LARGEST_SIDE = 4096
_LARGEST_FRAMES = 8192

_LEFT_OUT_TYPES = {
    "LOCALIZER": "localisers",
    "MOSAIC": "mosaics",
    "PROJECTION IMAGE": "projections",
    "P": "phase images",
    "PHASE MAP": "phase images",
    "R": "real or imaginary images",
    "I": "real or imaginary images",
}
# BodyPartExamined is often blank or in the hospital's own words, so only these clear terms count against a series.
_ELSEWHERE = frozenset(
    [
        "ABDOMEN",
        "ANKLE",
        "BRAIN",
        "BREAST",
        "CHEST",
        "CSPINE",
        "ELBOW",
        "FOOT",
        "HAND",
        "HEAD",
        "HEART",
        "HIP",
        "LIVER",
        "LSPINE",
        "NECK",
        "PELVIS",
        "PROSTATE",
        "SHOULDER",
        "SKULL",
        "SPINE",
        "THORAX",
        "TSPINE",
        "WRIST",
    ]
)


@dataclass(frozen=True, slots=True)
class Image:
    """The header of one image: a single-frame file, or one frame of an enhanced file."""

    file: Path
    number: str
    """How an error names the file, such as `file 3 of 192`: a path may carry a patient's name."""
    frame: int
    person: str
    """A key for the patient; not to be written anywhere."""
    study: str
    series: str
    instance: str
    """SOPInstanceUID."""
    image_type: tuple[str, ...]
    laterality: str
    """`L`, `R` or empty."""
    rows: int
    columns: int
    row_mm: float
    column_mm: float
    slice_mm: float | None
    """SpacingBetweenSlices, else SliceThickness."""
    echo_ms: float | None
    instance_number: int | None
    position: tuple[float, ...] | None
    """ImagePositionPatient: centre of the first pixel, LPS, mm."""
    orientation: tuple[float, ...]
    """ImageOrientationPatient: unit vectors along a row (to the next column) and down a column (to the next row)."""
    slope: float
    intercept: float
    inverted: bool
    """MONOCHROME1: small values are bright."""


class LeftOut(Exception):
    """This file is no part of a knee MR series; the message says what it is, as a plural noun phrase."""


def images(file: Path, number: str) -> list[Image]:
    """Read the headers of the images in one file.

    Raises:
        LeftOut: the file is not DICOM, or not an MR image of a knee in grey values.
        UserError: the file is DICOM, but damaged or without the attributes that place it in the patient.
    """
    with quietly():
        try:
            header = dcmread(file, stop_before_pixels=True, specific_tags=_HEADER)
        except InvalidDicomError:
            if file.suffix.lower() in {".dcm", ".ima"} or file.stat().st_size == 0:
                raise UserError(f"{number} is damaged or not DICOM; export it again, or remove it") from None
            raise LeftOut("files that are not DICOM") from None
        except Exception:  # a damaged header raises nearly anything, and pydicom's text may quote identity
            raise UserError(f"{number} has a damaged DICOM header; export it again") from None
        try:
            _require_knee_mr(header, number)
            return [_image(header, file, number, frame) for frame in range(_frame_count(header, number))]
        except (LeftOut, UserError):
            raise
        except Exception:
            raise UserError(f"{number} has DICOM attributes that do not follow the standard; export it again") from None


def _require_knee_mr(header: Dataset, number: str) -> None:
    if "Rows" not in header:
        # pydicom takes a file that ends in the middle of its header for a whole one.
        kind = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")
        if kind is None or kind in _MR_IMAGES:
            raise UserError(f"{number} is cut short; export it again")
        raise LeftOut("DICOM files that are not images")
    modality = str(header.get("Modality") or "").strip()
    if modality != "MR":
        # A modality is a code of two letters; anything longer might be text that names someone.
        raise LeftOut(f"images of modality {modality}" if len(modality) == 2 else "images without a known modality")
    if int(header.get("SamplesPerPixel") or 1) != 1 or _photometric(header) not in {
        "MONOCHROME1",
        "MONOCHROME2",
    }:
        raise LeftOut("colour images (RGB or palette)")
    elsewhere = set(str(header.get("BodyPartExamined") or "").upper().split()) & _ELSEWHERE
    if elsewhere:
        raise LeftOut(f"images of another body part ({min(elsewhere)})")


def _photometric(header: Dataset) -> str:
    return str(header.get("PhotometricInterpretation") or "MONOCHROME2").strip()


def _frame_count(header: Dataset, number: str) -> int:
    count = int(header.get("NumberOfFrames") or 1)
    if not (0 < header.Rows <= _LARGEST_SIDE and 0 < header.Columns <= _LARGEST_SIDE and count <= _LARGEST_FRAMES):
        raise UserError(f"{number} claims a size that no MR image has; export it again")
    if count > 1 and len(header.get("PerFrameFunctionalGroupsSequence") or []) != count:
        raise UserError(f"{number} has several frames, but no functional group for each; export it as enhanced MR")
    return count


def _image(header: Dataset, file: Path, number: str, frame: int) -> Image:
    orientation = _numbers(header, frame, "ImageOrientationPatient", "PlaneOrientationSequence")
    spacing = _numbers(header, frame, "PixelSpacing", "PixelMeasuresSequence")
    if orientation is None or len(orientation) != 6 or not _orthonormal(orientation):
        raise UserError(f"{number} has no valid ImageOrientationPatient, so its plane cannot be told; export it again")
    if spacing is None or len(spacing) != 2 or min(spacing) <= 0:
        raise UserError(f"{number} has no valid PixelSpacing, so its scale in mm cannot be told; export it again")
    position = _numbers(header, frame, "ImagePositionPatient", "PlanePositionSequence")
    slice_mm = _number(header, frame, "SpacingBetweenSlices", "PixelMeasuresSequence") or _number(
        header, frame, "SliceThickness", "PixelMeasuresSequence"
    )
    echo_ms = _number(header, frame, "EffectiveEchoTime", "MREchoSequence")
    slope = _number(header, frame, "RescaleSlope", "PixelValueTransformationSequence")
    intercept = _number(header, frame, "RescaleIntercept", "PixelValueTransformationSequence")
    instance_number = header.get("InstanceNumber")
    multi_frame = "PerFrameFunctionalGroupsSequence" in header
    return Image(
        file=file,
        number=number,
        frame=frame,
        person=_person(header),
        study=str(header.StudyInstanceUID),
        series=str(header.SeriesInstanceUID),
        instance=str(header.get("SOPInstanceUID") or ""),
        image_type=_image_type(header, frame),
        laterality=_laterality(header, frame),
        rows=int(header.Rows),
        columns=int(header.Columns),
        row_mm=spacing[0],
        column_mm=spacing[1],
        slice_mm=abs(slice_mm) if slice_mm else None,
        echo_ms=_number(header, frame, "EchoTime", "MREchoSequence") if echo_ms is None else echo_ms,
        instance_number=None if multi_frame or instance_number in {None, ""} else int(instance_number),
        position=position if position and len(position) == 3 else None,
        orientation=orientation,
        slope=1.0 if slope is None else slope,
        intercept=intercept or 0.0,
        inverted=_photometric(header) == "MONOCHROME1",
    )


def _holder(header: Dataset, frame: int, keyword: str, group: str) -> Dataset:
    """Where an attribute of one frame stands: its functional group, the shared one, or else the header itself."""
    for sequence in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        items = header.get(sequence)
        if items:
            found = items[frame if sequence.startswith("Per") else 0].get(group)
            if found and keyword in found[0]:
                return found[0]
    return header


def _numbers(header: Dataset, frame: int, keyword: str, group: str) -> tuple[float, ...] | None:
    parts = _holder(header, frame, keyword, group).get(keyword)
    numbers = tuple(float(part) for part in parts) if parts else ()
    return numbers if numbers and np.isfinite(numbers).all() else None


def _number(header: Dataset, frame: int, keyword: str, group: str) -> float | None:
    value = _holder(header, frame, keyword, group).get(keyword)
    return float(value) if value not in (None, "") and np.isfinite(float(value)) else None


def _image_type(header: Dataset, frame: int) -> tuple[str, ...]:
    frame_type = _holder(header, frame, "FrameType", "MRImageFrameTypeSequence").get("FrameType")
    image_type = tuple(str(part).strip().upper() for part in frame_type or header.get("ImageType") or ())
    for part in image_type[2:]:
        if part in _LEFT_OUT_TYPES:
            raise LeftOut(_LEFT_OUT_TYPES[part])
    return image_type


def _laterality(header: Dataset, frame: int) -> str:
    frame_side = _holder(header, frame, "FrameLaterality", "FrameAnatomySequence").get("FrameLaterality")
    for value in (header.get("ImageLaterality"), header.get("Laterality"), frame_side):
        if str(value or "").strip().upper() in {"L", "R"}:
            return str(value).strip().upper()
    return ""


def _person(header: Dataset) -> str:
    patient = str(header.get("PatientID") or "").strip()
    if not patient:
        return f"study {header.StudyInstanceUID}"
    return f"patient {patient} of {header.get('IssuerOfPatientID') or ''}"


def _orthonormal(orientation: tuple[float, ...]) -> bool:
    vectors = np.array(orientation).reshape(2, 3)
    return bool(np.allclose(vectors @ vectors.T, np.eye(2), atol=1e-2))


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
