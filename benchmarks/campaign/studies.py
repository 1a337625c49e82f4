"""Made MR studies of knees as DICOM data sets, every slice of which is unlike all others."""

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

AXES = {"sagittal": (0, 1, 2), "coronal": (1, 0, 2), "axial": (2, 0, 1)}
"""Of each plane, the patient's axes (x to the left, y to posterior, z up) along slices, columns and rows' order."""
ROW_DIRECTION = {"sagittal": (0, 1, 0), "coronal": (1, 0, 0), "axial": (1, 0, 0)}
COLUMN_DIRECTION = {"sagittal": (0, 0, -1), "coronal": (0, 0, -1), "axial": (0, 1, 0)}
FIELD_MM = 160.0
SECRET = ("Quaxolotl", "Zyphira", "7730041", "19230817", "Wumbo", "ACC55120", "Blatherskite")
"""Each stands in every header and in names of files: none may come out anywhere."""


def uid(rng: np.random.Generator) -> str:
    return f"2.25.{rng.integers(2**62)}"


def smooth(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """A picture that no other resembles: uint16, bright and dark patches over a corner mark that no flip leaves."""
    coarse = rng.integers(100, 900, (5, 5)).astype(float)
    down, across = np.linspace(0, 3.999, rows), np.linspace(0, 3.999, columns)
    i, j = down.astype(int), across.astype(int)
    a, b = (down - i)[:, None], (across - j)[None]
    rows_of = coarse[i][:, j] * (1 - a) * (1 - b) + coarse[i + 1][:, j] * a * (1 - b)
    rows_of += coarse[i][:, j + 1] * (1 - a) * b + coarse[i + 1][:, j + 1] * a * b
    return (rows_of + rng.integers(0, 60, (rows, columns))).astype(np.uint16)


def series(
    rng: np.random.Generator,
    plane: str = "sagittal",
    slices: int = 6,
    side: int = 24,
    study: str = "",
    person: str = "7730041",
    x_mm: float = -80.0,
    tag: str = "R",
    gap_mm: float = 4.0,
    pixels: np.ndarray | None = None,
    **tags: object,
) -> list[Dataset]:
    """One series, a data set a slice, in the order of their positions.

    Args:
        rng: Draws UIDs and pixels.
        plane: sagittal, coronal or axial.
        slices: How many.
        side: Rows and columns.
        study: StudyInstanceUID; drawn where it is empty.
        person: PatientID.
        x_mm: Where the middle of the knee lies, to the patient's left.
        tag: Laterality; none where it is empty.
        gap_mm: From slice to slice.
        pixels: uint16 `(slices, rows, columns)` in place of drawn ones.
        tags: Set last.
    """
    row, column = np.array(ROW_DIRECTION[plane], float), np.array(COLUMN_DIRECTION[plane], float)
    normal = np.cross(row, column)
    pixel = FIELD_MM / side
    middle = np.array([x_mm, 0.0, 0.0])
    first = middle - normal * gap_mm * (slices - 1) / 2 - (row + column) * pixel * (side - 1) / 2
    study, own = study or uid(rng), uid(rng)
    result = []
    for index in range(slices):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, uid(rng)
        data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = MRImageStorage, uid(rng)
        data.StudyInstanceUID, data.SeriesInstanceUID = study, own
        data.PatientID, data.PatientName = person, f"{SECRET[0]}^{SECRET[1]}"
        data.PatientBirthDate, data.AccessionNumber = SECRET[3], SECRET[5]
        data.InstitutionName, data.SeriesDescription = f"Saint {SECRET[4]} Clinic", f"knee {SECRET[6]}"
        data.Modality, data.ImageType = "MR", ["ORIGINAL", "PRIMARY", "OTHER"]
        data.RepetitionTime, data.EchoTime = 3000, 30
        data.InstanceNumber, data.SliceThickness = index + 1, gap_mm
        data.ImageOrientationPatient = [float(v) for v in (*row, *column)]
        data.ImagePositionPatient = [round(float(v), 6) for v in first + normal * gap_mm * index]
        data.PixelSpacing = [pixel, pixel]
        if tag:
            data.Laterality = tag
        picture = smooth(rng, side, side) if pixels is None else pixels[index]
        set_pixels(data, picture)
        for name, value in tags.items():
            setattr(data, name, value)
        result.append(data)
    return result


def set_pixels(data: Dataset, picture: np.ndarray) -> None:
    """Put a picture of 16 bits into a data set, uncompressed."""
    data.Rows, data.Columns = picture.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, int(picture.dtype.kind == "i")
    data.PixelData = picture.astype(f"<{picture.dtype.kind}2").tobytes()


def study_of(
    rng: np.random.Generator, planes: Sequence[str] = ("sagittal", "coronal", "axial"), **more: object
) -> list[Dataset]:
    """A study of one knee: a series of each plane."""
    own = uid(rng)
    return [data for plane in planes for data in series(rng, plane, study=own, **more)]  # type: ignore[arg-type]


def save(folder: Path, images: Iterable[Dataset], rng: np.random.Generator) -> list[Path]:
    """One file an image, under names that say nothing of their order and much of the patient."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for data in images:
        path = folder / f"{SECRET[0]}-{rng.integers(2**60):x}.dcm"
        path.write_bytes(file_of(data))
        files.append(path)
    return files


def file_of(data: Dataset) -> bytes:
    """A file in explicit little endian, of elements without sequences; raw ones as they are, however odd."""
    meta = _elements(data.file_meta)
    length = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(meta))
    return bytes(128) + b"DICM" + length + meta + _elements(data)


def _elements(data: Dataset) -> bytes:
    return b"".join(_element(data.get_item(tag)) for tag in sorted(data.keys()))


def _element(element: DataElement | RawDataElement) -> bytes:
    content, vr = element.value, "OW" if str(element.VR) == "OB or OW" else str(element.VR)
    if not isinstance(content, bytes):
        content = struct.pack("<H", content) if vr in {"US", "SS"} else text_of(content).encode()
    content += (b"\0" if vr in {"UI", "OW", "OB"} else b" ") * (len(content) % 2)
    head = struct.pack("<HH", element.tag.group, element.tag.element) + vr.encode()
    long = vr in {"OB", "OW", "UN", "UT", "UC", "SQ"}
    return head + struct.pack("<HI" if long else "<H", *([0] if long else []), len(content)) + content


def text_of(value: object) -> str:
    """A value as text, several with backslashes between them."""
    several = isinstance(value, Sequence) and not isinstance(value, str)
    return "\\".join(map(str, value)) if several else str(value)  # type: ignore[call-overload]
