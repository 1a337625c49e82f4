"""DICOM studies with something wrong or odd in their bytes, in single attributes, or between their files."""

import struct
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from campaign.doors import imported, plain, read_by_predict
from campaign.studies import SECRET, file_of, save, series, study_of, text_of, uid

Random = np.random.Generator
PIXELS = b"\xe0\x7f\x10\x00"


def through_a_door(rng: Random, src: Path, work: Path, files: Sequence[Path]) -> str:
    """Import, import with --strict, or predict's reading."""
    door = rng.integers(3)
    if door == 2:
        return read_by_predict(src, work, plain(files))
    return imported(src, work, plain(files), strict=not door)


# ---- bytes


def damaged(rng: Random, content: bytes, other: bytes) -> bytes:
    """One file's bytes, damaged in one of many ways."""
    data, size = bytearray(content), len(content)
    at = int(rng.integers(size))
    span = int(min(size - at, rng.integers(1, 200)))
    match int(rng.integers(12)):
        case 0 | 1:
            for _ in range(int(rng.integers(1, 20))):
                data[int(rng.integers(size))] = int(rng.integers(256))
        case 2 | 3:  # in the header alone
            for _ in range(int(rng.integers(1, 8))):
                data[int(rng.integers(128, max(200, content.rfind(PIXELS))))] ^= 1 << int(rng.integers(8))
        case 4:
            del data[at:]
        case 5:
            data[at : at + span] = bytes(span)
        case 6:
            data[at:at] = rng.bytes(span)
        case 7:
            del data[at : at + span]
        case 8:
            data[at:] = other[at:]
        case 9:
            return bytes(data) + rng.bytes(span)
        case 10:
            return [b"", rng.bytes(size), bytes(size), b"<html>" + SECRET[0].encode(), content[:132]][
                int(rng.integers(5))
            ]
        case 11:
            start = content.rfind(PIXELS)  # pixel data: its length, or what follows
            data[start + int(rng.integers(12))] = int(rng.integers(256))
            data[start + 8] = int(rng.integers(256))
    return bytes(data)


@cache
def whole_study(number: int) -> tuple[bytes, ...]:
    """The files of a study without a fault."""
    rng = np.random.default_rng(number)
    return tuple(map(file_of, study_of(rng, ("sagittal", "coronal")) if number % 3 == 0 else series(rng)))


def bytes_damaged(rng: Random, work: Path) -> str:
    """A study of which some files are damaged."""
    contents = list(whole_study(int(rng.integers(30))))
    for index in map(int, rng.choice(len(contents), int(rng.integers(1, 4)), replace=False)):
        contents[index] = damaged(rng, contents[index], contents[index - 1])
    (work / "in").mkdir()
    files = []
    for content in contents:
        files.append(work / "in" / f"{SECRET[0]}-{rng.integers(2**60):x}.dcm")
        files[-1].write_bytes(content)
    return through_a_door(rng, work / "in", work, files)


# ---- single attributes

ATTRIBUTES = (
    *("ImageType", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "InstanceNumber"),
    *("Modality", "PatientID", "IssuerOfPatientID", "BodyPartExamined", "Laterality", "ImageLaterality"),
    *("SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "BurnedInAnnotation"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SpacingBetweenSlices", "SliceThickness"),
    *("RescaleIntercept", "RescaleSlope", "EchoTime", "EffectiveEchoTime", "RepetitionTime", "InversionTime"),
    *("FlipAngle", "ScanningSequence", "SequenceVariant", "ScanOptions", "SequenceName", "SeriesDescription"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("SpecificCharacterSet", "PixelData", "PatientName", "AcquisitionContrast", "ComplexImageComponent"),
)
NUMBERS = ("0", "-1", "1e9", "-1e9", "nan", "inf", "1e-9", "4", "30", "0.5", "", "1,5", SECRET[2], "1e400", "--3")
TEXTS = ("", " ", SECRET[0], SECRET[2], "NONE", "MR", "KNEE", "BRAIN", "YES", "L", "R", "B", "\\", "a\\b", "é", "1.2.3")
TYPES = (
    ("DERIVED", "SECONDARY"), ("ORIGINAL", "PRIMARY", "M", "ND"), ("ORIGINAL", "PRIMARY", "P"), ("DERIVED", "PRIMARY"),
    ("ORIGINAL",), ("ORIGINAL", "PRIMARY", "LOCALIZER"), (SECRET[0],), ("ORIGINAL", "PRIMARY", "R"),
)  # fmt: skip


def odd_value(rng: Random, keyword: str, given: object) -> object:
    """A value that no well-behaved file has there, or that many have and few expect."""
    vr = dictionary_VR(keyword)

    def pick(values: Sequence[object]) -> object:
        return values[int(rng.integers(len(values)))]

    if keyword == "ImageType":
        return list(pick(TYPES))
    if keyword == "PixelData":
        given = given or b""
        return [b"", bytes(len(given)), given[:-2], given * 2, rng.bytes(len(given))][int(rng.integers(5))]  # type: ignore[index, arg-type, operator]
    if vr in {"DS", "IS"}:
        if isinstance(given, Sequence) and not isinstance(given, str) and rng.random() < 0.7:
            values = [str(value) for value in given]
            match int(rng.integers(4)):
                case 0:
                    values[int(rng.integers(len(values)))] = str(pick(NUMBERS))
                case 1:
                    values = values[:-1]
                case 2:
                    values = [f"{float(value) * (1 + rng.normal() * 1e-4):.9g}" for value in values]
                case 3:
                    values = [f"{-float(value):g}" for value in values]
            return values
        return str(pick(NUMBERS))
    if vr in {"US", "US or SS"}:
        return int(pick((0, 1, 2, 3, 7, 8, 12, 15, 16, 31, 33, 64, 4097, 65535)))  # type: ignore[call-overload]
    if vr == "UI":
        return pick(("", "1.2.3", SECRET[0], "1..2", "2.25." + "9" * 70, uid(rng), "1.2.840.10008.5.1.4.1.1.7", " 1.2"))
    return pick(TEXTS)


def set_oddly(data: Dataset, keyword: str, value: object) -> None:
    """Set or delete (None) an attribute as the bytes that a file would hold, whatever pydicom thinks of them."""
    tag, vr = Tag(keyword), dictionary_VR(keyword)
    if value is None:
        data.pop(tag, None)
        return
    if isinstance(value, int):
        content = struct.pack("<H", value)
    elif isinstance(value, bytes):
        content = value
    else:
        content = text_of(value).encode()
    vr = "US" if vr == "US or SS" else "OW" if keyword == "PixelData" else vr
    data[tag] = RawDataElement(tag, vr, len(content), content, 0, False, True)


def attribute_odd(rng: Random, work: Path) -> str:
    """A study with an odd attribute in one file, in some, or in all."""
    images = study_of(rng, ("sagittal", "axial")) if rng.random() < 0.3 else series(rng)
    touched: set[str] = set()
    for _ in range(int(rng.integers(1, 3))):
        keyword = ATTRIBUTES[int(rng.integers(len(ATTRIBUTES)))]
        share = (1 / len(images), 0.5, 1.0)[int(rng.integers(3))]
        given = None if keyword in touched else images[0].get(keyword)
        touched.add(keyword)
        value = None if rng.random() < 0.2 else odd_value(rng, keyword, given)
        for data in images:
            if rng.random() < share:
                set_oddly(data, keyword, value if rng.random() < 0.8 else odd_value(rng, keyword, given))
    files = save(work / "in", images, rng)
    return through_a_door(rng, work / "in", work, files)
