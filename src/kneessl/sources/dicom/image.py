"""DICOM headers as light records, one an image.

Of the patient's identity only the ID and its issuer are ever read, to keep exams of one person together, and the
accession number, by which a hospital knows an exam; they go no further than `Image` and an import's index.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydicom.errors import InvalidDicomError
from pydicom.uid import EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage, MRImageStorage

from kneessl.errors import UserError
from kneessl.exams.folder import Plane
from kneessl.sources.dicom.header import LONGEST_MS, Acquisition, Header, acquisition, plausible, quietly, read_header
from kneessl.sources.dicom.scanner import Scanner, scanner_of
from kneessl.sources.files import no_reading
from kneessl.sources.notes import Notes

_MR_IMAGES = {MRImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage}
_LARGEST_SIDE = 4096
_LARGEST_FRAMES = 8192
_PIXEL_MM = (0.01, 100.0)
_FARTHEST_MM = 10_000.0

_REFORMATTED = "reformatted images (MPR)"
_PROJECTED = "projections"
_COMPUTED = "computed maps"
_COMPLEX = "real or imaginary images"
_PHASE = "phase images"
_FAT = "fat images (Dixon)"
_OPPOSED = "opposed-phase images (Dixon)"
_LEFT_OUT_TYPES = {
    "LOCALIZER": "localisers",
    "MOSAIC": "mosaics",
    **dict.fromkeys(("MPR", "REFORMATTED", "RESAMPLED", "CSA MPR", "CSA RESAMPLED", "CPR", "CURVED"), _REFORMATTED),
    **dict.fromkeys(("PROJECTION IMAGE", "PROJECTION", "MIP", "MAX_IP", "MIN_IP", "MINIP", "MNIP"), _PROJECTED),
    **dict.fromkeys(("SUBTRACT", "SUBTRACTION", "SUBTRACTED", "SUB"), "subtractions"),
    **dict.fromkeys(("SCREEN SAVE", "SCREENSAVE", "POSDISP", "CSA REPORT"), "screen saves"),
    **dict.fromkeys(("ADC", "FA", "T1 MAP", "T2 MAP", "T2_STAR MAP", "R2 MAP", "R2_STAR", "FAT_FRACTION"), _COMPUTED),
    **dict.fromkeys(("FF", "FIELD_MAP", "MEAN", "STDDEV", "AVERAGE"), _COMPUTED),
    **dict.fromkeys(("P", "PHASE", "PHASE MAP"), _PHASE),
    **dict.fromkeys(("R", "I", "REAL", "IMAGINARY"), _COMPLEX),
    **dict.fromkeys(("F", "FAT"), _FAT),
    **dict.fromkeys(("OP", "OPP_PHASE", "OUT_PHASE", "OPPOSED_PHASE", "OUT_OF_PHASE"), _OPPOSED),
}
"""By value 3 and later of ImageType, as scanners and workstations write them."""
_GE_COMPONENTS: dict[int | None, str] = {1: "PHASE", 2: "REAL", 3: "IMAGINARY"}
"""Of (0043,102F); 0 is the magnitude."""
_UID = re.compile(r"(?=.{1,64}$)[0-9]+(\.[0-9]+)*")
"""Leading zeros, which many write, are let through: they name nobody."""
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_SECONDARY = "secondary images (such as reformatted series and screen saves)"
# BodyPartExamined is often blank or in the hospital's own words, so only these clear terms count against a series.
_ELSEWHERE = frozenset(
    (
        *("ABDOMEN", "ANKLE", "BRAIN", "BREAST", "CHEST", "CSPINE", "ELBOW", "FOOT", "HAND", "HEAD", "HEART", "HIP"),
        *("LIVER", "LSPINE", "NECK", "PELVIS", "PROSTATE", "SHOULDER", "SKULL", "SPINE", "THORAX", "TSPINE", "WRIST"),
    )
)


@dataclass(frozen=True, slots=True)
class Image:
    """The header of one image: a single-frame file, or one frame of an enhanced file."""

    file: Path
    number: str
    """How an error names the file, such as `file 3 of 192`: a path may carry a patient's name."""
    frame: int
    patient: str
    """PatientID, empty where it is blank; not to be written anywhere."""
    issuer: str
    """IssuerOfPatientID, likewise."""
    study: str
    series: str
    instance: str
    """SOPInstanceUID."""
    series_number: int
    """SeriesNumber, which grows with the time at which a series was made; 0 where it is blank or none."""
    sop_class: str
    """SOPClassUID; empty where it is blank or no UID."""
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
    synthetic: bool
    """SyntheticData: made, not measured."""
    acquisition: Acquisition
    scanner: Scanner
    accession: str = ""
    """AccessionNumber, as the patient's ID not to be written anywhere but into a key file."""
    told_plane: Plane | None = None
    """By a table that came with the files; None where its orientation decides."""


class LeftOut(Exception):
    """This image is no part of a knee MR series; the message says what it is, as a plural noun phrase."""


def read_headers(files: Iterable[tuple[Path, str]], notes: Notes) -> list[Image]:
    """Read the headers of all images in some files.

    Args:
        files: Each with the name that an error gives it, such as `file 3 of 192`.
        notes: Collects what is left out, and why; as `images`.

    Raises:
        UserError: as `images`.
    """
    return [image for file, name in files for image in images(file, name, notes)]


def images(file: Path, number: str, notes: Notes) -> list[Image]:
    """Read the headers of the images in one file.

    Args:
        file: Any file.
        number: How an error names it, such as `file 3 of 192`.
        notes: Collects what is left out: whatever is not DICOM, or not an MR image of a knee in grey values; and,
            where faults are skipped, what is damaged or lacks the attributes that place it in the patient.

    Raises:
        UserError: such a fault, unless faults are skipped.
    """
    study = ""
    with quietly():
        try:
            header = _header(file, number)
            study = _valid(header.text("StudyInstanceUID"))
            _require_knee_mr(header, number)
            return _images(header, file, number, notes)
        except LeftOut as reason:
            notes.leave_out(str(reason), study=study)
        except UserError as error:
            notes.fault(error, study)
        except Exception:  # a damaged header raises nearly anything, and pydicom's text may quote identity
            notes.fault(
                UserError(f"{number} has DICOM attributes that do not follow the standard; export it again"), study
            )
    return []


def _header(file: Path, number: str) -> Header:
    try:
        return read_header(file, number)
    except UserError:
        raise
    except PermissionError:
        raise no_reading(number) from None
    except InvalidDicomError:
        if file.suffix.lower() in {".dcm", ".ima"} or file.stat().st_size == 0:
            raise UserError(f"{number} is damaged or not DICOM; export it again, or remove it") from None
        raise LeftOut("files that are not DICOM") from None
    except Exception:
        raise UserError(f"{number} has a damaged DICOM header; export it again") from None


def _require_knee_mr(header: Header, number: str) -> None:
    if "Rows" not in header:
        # pydicom takes a file that ends in the middle of its header for a whole one.
        kind = header.value("SOPClassUID") or header.data.file_meta.get("MediaStorageSOPClassUID")
        if kind is None or kind in _MR_IMAGES:
            raise UserError(f"{number} is cut short; export it again")
        raise LeftOut("DICOM files that are not images")
    modality = header.text("Modality")
    if modality != "MR":
        # A modality is a code of two letters; anything longer might be text that names someone.
        raise LeftOut(f"images of modality {modality}" if len(modality) == 2 else "images without a known modality")
    if int(header.value("SamplesPerPixel") or 1) != 1 or _photometric(header) not in {"MONOCHROME1", "MONOCHROME2"}:
        raise LeftOut("colour images (RGB or palette)")
    if header.text("BurnedInAnnotation").upper() == "YES":
        raise LeftOut("images with text burned into their pixels")
    elsewhere = set(header.text("BodyPartExamined").upper().split()) & _ELSEWHERE
    if elsewhere:
        raise LeftOut(f"images of another body part ({min(elsewhere)})")


def _photometric(header: Header) -> str:
    return header.text("PhotometricInterpretation") or "MONOCHROME2"


def _images(header: Header, file: Path, number: str, notes: Notes) -> list[Image]:
    """The images of a file that can be part of a series; an enhanced one may hold fat or phase images as well."""
    frames = []
    for index, frame in enumerate(header.frames(_frame_count(header, number))):
        try:
            frames.append(_image(frame, file, number, index))
        except LeftOut as reason:
            notes.leave_out(str(reason), study=_valid(header.text("StudyInstanceUID")))
    if frames and any(_valid(header.text(keyword)) != header.text(keyword) for keyword in _UIDS):
        notes.assume("files whose UIDs are invalid, replaced by a hash of each")
    return frames


def _frame_count(header: Header, number: str) -> int:
    rows, columns = int(header.value("Rows")), int(header.value("Columns"))
    count = int(header.value("NumberOfFrames") or 1)
    if not (0 < rows <= _LARGEST_SIDE and 0 < columns <= _LARGEST_SIDE and 0 < count <= _LARGEST_FRAMES):
        raise UserError(f"{number} claims a size that no MR image has; export it again")
    if count > 1 and len(header.value("PerFrameFunctionalGroupsSequence") or ()) != count:
        raise UserError(f"{number} has several frames, but no functional group for each; export it as enhanced MR")
    return count


def _image(header: Header, file: Path, number: str, index: int) -> Image:
    image_type = _image_type(header)
    orientation, spacing = header.numbers("ImageOrientationPatient"), header.numbers("PixelSpacing")
    if orientation is None or len(orientation) != 6 or not _orthonormal(orientation):
        raise UserError(f"{number} has no valid ImageOrientationPatient, so its plane cannot be told; export it again")
    if spacing is None or len(spacing) != 2 or not _PIXEL_MM[0] <= min(spacing) <= max(spacing) <= _PIXEL_MM[1]:
        raise UserError(f"{number} has no valid PixelSpacing, so its scale in mm cannot be told; export it again")
    position = header.numbers("ImagePositionPatient")
    slice_mm = header.number("SpacingBetweenSlices") or header.number("SliceThickness")
    slope, intercept = (_scale(header, keyword, number) for keyword in ("RescaleSlope", "RescaleIntercept"))
    echo_ms = header.number("EffectiveEchoTime")
    instance_number = header.value("InstanceNumber")
    multi_frame = "PerFrameFunctionalGroupsSequence" in header
    return Image(
        file=file,
        number=number,
        frame=index,
        patient=header.text("PatientID"),
        issuer=header.text("IssuerOfPatientID"),
        study=_uid(header, "StudyInstanceUID"),
        series=_uid(header, "SeriesInstanceUID"),
        instance=_valid(header.text("SOPInstanceUID")),
        series_number=int(header.first("SeriesNumber") or 0),
        sop_class=header.text("SOPClassUID") if _UID.fullmatch(header.text("SOPClassUID")) else "",
        image_type=image_type,
        laterality=_laterality(header),
        rows=int(header.value("Rows")),
        columns=int(header.value("Columns")),
        row_mm=spacing[0],
        column_mm=spacing[1],
        slice_mm=abs(slice_mm) if slice_mm and abs(slice_mm) <= _PIXEL_MM[1] else None,
        echo_ms=plausible(header.number("EchoTime") if echo_ms is None else echo_ms, LONGEST_MS),
        instance_number=None if multi_frame or instance_number in {None, ""} else int(instance_number),
        position=position if position and len(position) == 3 and max(map(abs, position)) < _FARTHEST_MM else None,
        orientation=orientation,
        slope=1.0 if slope is None else slope,
        intercept=intercept or 0.0,
        inverted=_photometric(header) == "MONOCHROME1",
        synthetic=header.text("SyntheticData").upper() == "YES",
        acquisition=acquisition(header),
        scanner=scanner_of(header),
        accession=header.text("AccessionNumber"),
    )


def _scale(header: Header, keyword: str, number: str) -> float | None:
    """Slope or intercept; None where it is blank. No grey value is known without it, unlike other numbers."""
    value = header.number(keyword)
    if value is None and header.text(keyword):
        raise UserError(f"{number} has a {keyword} that is not a finite number; export it again")
    return value


def _image_type(header: Header) -> tuple[str, ...]:
    image_type = header.codes("FrameType") or header.codes("ImageType")
    for part in image_type[2:]:
        if part in _LEFT_OUT_TYPES:
            raise LeftOut(_LEFT_OUT_TYPES[part])
    if "SECONDARY" in image_type[1:]:
        raise LeftOut(_SECONDARY)
    component = header.text("ComplexImageComponent").upper() or _GE_COMPONENTS.get(_whole(header), "")
    if component in _LEFT_OUT_TYPES:
        raise LeftOut(_LEFT_OUT_TYPES[component])
    return image_type


def _whole(header: Header) -> int | None:
    """GE's number of the component of a complex image, whose type is lost where the transfer syntax is implicit."""
    value = header.value("GEComplexImageComponent")
    if isinstance(value, bytes):
        return int.from_bytes(value, "little")
    return value if isinstance(value, int) else None


def _laterality(header: Header) -> str:
    for keyword in ("ImageLaterality", "Laterality", "FrameLaterality"):
        if (side := header.text(keyword).upper()) in {"L", "R"}:
            return side
    return ""


def _uid(header: Header, keyword: str) -> str:
    if not (uid := header.text(keyword)):
        raise ValueError(keyword)
    return _valid(uid)


def _valid(uid: str) -> str:
    """The UID, or another in place of one that is none, always the same: such a text may hold a name."""
    if not uid or _UID.fullmatch(uid):
        return uid
    return f"2.25.{int(hashlib.sha256(uid.encode()).hexdigest()[:32], 16)}"


def _orthonormal(orientation: tuple[float, ...]) -> bool:
    (a, b, c), (d, e, f) = orientation[:3], orientation[3:]
    lengths = (a * a + b * b + c * c, d * d + e * e + f * f)
    return all(abs(length - 1) < 1e-2 for length in lengths) and abs(a * d + b * e + c * f) < 1e-2
