"""DICOM studies with something wrong or odd in their bytes, in single attributes, or between their files."""

import copy
import struct
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from campaign.doors import imported, plain, read_by_predict
from campaign.studies import SECRET, file_of, save, series, study_of, text_of, uid
from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

Random = np.random.Generator
PIXELS = b"\xe0\x7f\x10\x00"


def through_a_door(rng: Random, src: Path, work: Path, files: Sequence[Path]) -> str:
    """Import, import with --skip-faulty, or predict's reading."""
    door = rng.integers(3)
    if door == 2:
        return read_by_predict(src, work, plain(files))
    return imported(src, work, plain(files), skip_faulty=bool(door))


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


# ---- relations: each takes a whole study and makes its files disagree

Relation = Callable[[Random], list[Dataset]]


def _copy(images: Sequence[Dataset]) -> list[Dataset]:
    return [copy.deepcopy(data) for data in images]


def _some(rng: Random, images: Sequence[Dataset], at_least: int = 1) -> list[Dataset]:
    count = int(rng.integers(at_least, max(at_least + 1, len(images) // 2)))
    return [images[int(i)] for i in rng.choice(len(images), count, replace=False)]


def two_persons_in_a_study(rng: Random) -> list[Dataset]:
    """Two patients whose series share a StudyInstanceUID, on the same side or not."""
    own = uid(rng)
    planes = ("sagittal", "coronal", "axial")
    other = series(
        rng, planes[int(rng.integers(3))], study=own, person=f"{SECRET[2]}-B", tag="RL"[int(rng.integers(2))]
    )
    return study_of(rng, planes[: int(rng.integers(1, 4))]) + other if rng.random() < 0.2 else [
        *series(rng, planes[int(rng.integers(3))], study=own), *other
    ]  # fmt: skip


def two_persons_in_a_series(rng: Random) -> list[Dataset]:
    """Some images of a series bear another patient's ID."""
    images = series(rng)
    for data in _some(rng, images):
        data.PatientID = f"{SECRET[2]}-B"
    return images


def an_issuer_here_and_there(rng: Random) -> list[Dataset]:
    """Two studies of one ID; some have an issuer, some another."""
    images = series(rng) + series(rng, person=["7730041", "7730042"][int(rng.integers(2))])
    issuers = [["", "A"], ["A", "A"], ["A", "B"], ["", ""]][int(rng.integers(4))]
    for index, data in enumerate(images):
        if issuer := issuers[index // 6]:
            data.IssuerOfPatientID = issuer
    return images


def no_patient(rng: Random) -> list[Dataset]:
    """Two studies, of which one or both lack the ID, wholly or in part."""
    images = series(rng) + series(rng, person=f"{SECRET[2]}-B")
    for data in (images[:6], images[3:9], images, images[:3])[int(rng.integers(4))]:
        data.PatientID = ""
    return images


def slices_missing(rng: Random) -> list[Dataset]:
    """Some slices are not there."""
    images = series(rng, slices=10)
    for index in sorted(rng.choice(10, int(rng.integers(1, 5)), replace=False), reverse=True):
        del images[int(index)]
    return images


def slices_twice(rng: Random) -> list[Dataset]:
    """Some slices stand there twice: copies, or other pixels at the same place."""
    images = series(rng)
    for data in _copy(_some(rng, images)):
        if rng.random() < 0.5:
            data.SOPInstanceUID = uid(rng)
        if rng.random() < 0.3:
            data.PixelData = rng.bytes(len(data.PixelData))
        images.append(data)
    return images


def positions_missing(rng: Random) -> list[Dataset]:
    """One, some or all slices lack their position; numbers may go the other way or be missing."""
    images = series(rng)
    for data in ([images[int(rng.integers(6))]], _some(rng, images, 2), images)[int(rng.integers(3))]:
        if rng.random() < 0.5:
            del data.ImagePositionPatient
        else:
            data.ImagePositionPatient = []
    if rng.random() < 0.3:
        for index, data in enumerate(images):
            data.InstanceNumber = 6 - index
    if rng.random() < 0.2:
        del _some(rng, images)[0].InstanceNumber
    return images


def numbers_against_positions(rng: Random) -> list[Dataset]:
    """InstanceNumbers are shuffled; positions are right."""
    images = series(rng, ("sagittal", "coronal", "axial")[int(rng.integers(3))])
    for data, number in zip(images, rng.permutation(6), strict=True):
        data.InstanceNumber = int(number)
    return images


def orientations_differ(rng: Random) -> list[Dataset]:
    """Orientation differs within a series: by nothing that can be measured, by a little, by a lot, or by sign."""
    images = series(rng)
    size = (1e-7, 1e-4, 3e-3, 0.05, 0.4)[int(rng.integers(5))]
    for data in _some(rng, images, 2):
        if rng.random() < 0.2:
            data.ImageOrientationPatient = [-float(v) for v in data.ImageOrientationPatient]
            continue
        c, s = np.cos(size), np.sin(size)
        row, column = np.array(data.ImageOrientationPatient, float).reshape(2, 3)
        turned = (c * row + s * column, -s * row + c * column)
        data.ImageOrientationPatient = [f"{v:.10g}" for v in np.concatenate(turned)]
    return images


def spacings_differ(rng: Random) -> list[Dataset]:
    """Pixel spacing or slice thickness differs within a series, or contradicts the positions."""
    images = series(rng)
    factor = (1 + 1e-7, 1.0001, 1.01, 2.0)[int(rng.integers(4))]
    for data in _some(rng, images, 2):
        if rng.random() < 0.5:
            data.PixelSpacing = [f"{float(v) * factor:.10g}" for v in data.PixelSpacing]
        else:
            data.SliceThickness, data.SpacingBetweenSlices = f"{4 * factor:.9g}", f"{factor:.9g}"
    return images


def sizes_differ(rng: Random) -> list[Dataset]:
    """Images of two sizes under one SeriesInstanceUID."""
    small, large = series(rng, slices=int(rng.integers(2, 7))), series(rng, side=48)
    for data in small:
        data.StudyInstanceUID, data.SeriesInstanceUID = large[0].StudyInstanceUID, large[0].SeriesInstanceUID
    return small + large


def echoes(rng: Random) -> list[Dataset]:
    """Several echoes under one SeriesInstanceUID, complete or not, their times written now so, now so."""
    first = series(rng)
    images = list(first)
    for number in range(int(rng.integers(1, 4))):
        again = series(rng, study=first[0].StudyInstanceUID, SeriesInstanceUID=first[0].SeriesInstanceUID)
        for data in again:
            data.EchoTime = f"{45 + 15 * number + rng.normal() * (1e-7, 1e-3, 1e-2)[int(rng.integers(3))]:.9g}"
        images += again[: (6, 6, 6, 5, 4, 2)[int(rng.integers(6))]]
    if rng.random() < 0.15:
        del images[-1].EchoTime
    return images


def both_knees(rng: Random) -> list[Dataset]:
    """Two knees in one study, in one series or two, tagged, not tagged or tagged wrongly."""
    own = uid(rng)
    right = series(rng, study=own, x_mm=-80, tag="R", slices=int(rng.integers(6, 10)))
    left = series(rng, study=own, x_mm=80, tag="L")
    if rng.random() < 0.5:
        for data in left:
            data.SeriesInstanceUID = right[0].SeriesInstanceUID
    match int(rng.integers(5)):
        case 0:
            for data in right + left:
                del data.Laterality
        case 1:
            for data in left:
                data.Laterality = "R"
        case 2:
            for data in left:
                del data.Laterality
        case 3:
            for data in right + left:
                data.Laterality = "RL"[int(rng.integers(2))]
    return right + left


def sides_contradict(rng: Random) -> list[Dataset]:
    """The tag says one side and the place the other, or images of a series differ."""
    images = study_of(rng, ("sagittal", "coronal"), x_mm=float(rng.choice([-80, -10, 0, 15, 25, 80])))
    for data in images if rng.random() < 0.4 else _some(rng, images):
        data.Laterality = "L" if rng.random() < 0.8 else ""
    return images


def uid_for_each(rng: Random) -> list[Dataset]:
    """Each image has a series or study UID of its own, as some anonymisers write."""
    images = series(rng)
    keyword = ("SeriesInstanceUID", "StudyInstanceUID", "SOPInstanceUID")[int(rng.integers(3))]
    for data in images if rng.random() < 0.7 else _some(rng, images):
        setattr(data, keyword, uid(rng))
    return images


def uids_shared(rng: Random) -> list[Dataset]:
    """Two series of different studies, persons or planes share a UID."""
    first = series(rng)
    second = series(
        rng, ("sagittal", "axial")[int(rng.integers(2))], person=["7730041", "7730042"][int(rng.integers(2))]
    )
    keywords = ("SeriesInstanceUID", "StudyInstanceUID", "SOPInstanceUID")
    for keyword in {keywords[int(rng.integers(3))] for _ in range(2)}:
        for one, other in zip(first, second, strict=True):
            setattr(other, keyword, getattr(one, keyword))
    return first + second


def uids_invalid(rng: Random) -> list[Dataset]:
    """UIDs that are none, with a name in them."""
    images = study_of(rng, ("sagittal", "axial"))
    text = (f"1.2.{SECRET[0]}", f"{SECRET[1]}.7", "1..2", "9" * 70)[int(rng.integers(4))]
    for data in images:
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"):
            if rng.random() < 0.4:
                value = (
                    text
                    if keyword == "StudyInstanceUID"
                    else f"{text}.{data.InstanceNumber}{data.ImageOrientationPatient[0]:g}"
                )
                set_oddly(data, keyword, value)
    return images


def other_images_among_them(rng: Random) -> list[Dataset]:
    """Localisers, derived, phase or colour images, or another modality, in a series of their own or in this one."""
    images = series(rng)
    wide = rng.random() < 0.3
    other = series(rng, study=images[0].StudyInstanceUID, slices=int(rng.integers(1, 8)), gap_mm=20.0 if wide else 4.0)
    kind = int(rng.integers(7))
    for data in other:
        if rng.random() < 0.95:
            data.ImageType = [["ORIGINAL", "PRIMARY", "LOCALIZER"], ["DERIVED", "SECONDARY", "MPR"], ["ORIGINAL", "PRIMARY", "P"],
                              ["DERIVED", "PRIMARY", "OTHER"], ["ORIGINAL", "PRIMARY", "OTHER"], ["ORIGINAL", "PRIMARY", "R"],
                              ["ORIGINAL", "PRIMARY", "M"]][kind]  # fmt: skip
        if kind == 4:
            data.Modality = ("CT", "SR", "", SECRET[0])[int(rng.integers(4))]
        if rng.random() < 0.5:
            data.SeriesInstanceUID = images[0].SeriesInstanceUID
    return images + other


def several_of_a_plane(rng: Random) -> list[Dataset]:
    """Two or three series of one plane: T1, fat-suppressed, of other lengths, or alike."""
    own = uid(rng)
    result = []
    for _ in range(int(rng.integers(2, 4))):
        one = series(rng, study=own, slices=int(rng.integers(5, 10)))
        for data in one:
            match int(rng.integers(2)) if data is one[0] else -1:
                case 0:
                    kind = {"ScanOptions": "FS"}
                case 1:
                    kind = {"RepetitionTime": 500, "EchoTime": 12}
            for keyword, value in kind.items():
                setattr(data, keyword, value)
        result += one
    return result


def scales_differ(rng: Random) -> list[Dataset]:
    """Slope, intercept, inversion, sign and padding, alike in all images or other in each."""
    images = series(rng)
    for data in images:
        data.RescaleSlope, data.RescaleIntercept = 1.5, -200
    every = rng.random() < 0.5
    for data in images if every else _some(rng, images):
        match int(rng.integers(5)) if not every else int(rng.integers(5)) * 0 + 3:
            case 0:
                data.RescaleSlope = "0.75"
            case 1:
                data.RescaleIntercept = "100"
            case 2:
                data.PhotometricInterpretation = "MONOCHROME1"
            case _:
                values = np.frombuffer(data.PixelData, "<u2").astype("<i2")
                values[: int(rng.integers(1, 300))] = -2000
                data.PixelData, data.PixelRepresentation = values.tobytes(), 1
                set_oddly(data, "PixelPaddingValue", 63536)
    return images


RELATIONS: tuple[Relation, ...] = (
    two_persons_in_a_study, two_persons_in_a_series, an_issuer_here_and_there, no_patient, slices_missing, slices_twice,
    positions_missing, numbers_against_positions, orientations_differ, spacings_differ, sizes_differ, echoes, both_knees,
    sides_contradict, uid_for_each, uids_shared, uids_invalid, other_images_among_them, several_of_a_plane, scales_differ,
)  # fmt: skip


def relations(rng: Random, work: Path) -> str:
    """Files that disagree with one another."""
    images = RELATIONS[int(rng.integers(len(RELATIONS)))](rng)
    order = [images[int(i)] for i in rng.permutation(len(images))]
    files = save(work / "in", order, rng)
    return through_a_door(rng, work / "in", work, files)
