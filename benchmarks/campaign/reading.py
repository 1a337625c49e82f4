"""A plain reading of image files, by pydicom, nibabel and NumPy alone: what any answer is held against.

Nothing of kneessl is used here, nor looked up in it: each value is read in the most direct way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import Dataset, config, dcmread

SIDE = 256
LONGEST_ECHO_MS = 20_000
NORMALS = {0: "sagittal", 1: "coronal", 2: "axial"}
SHOWN = {"sagittal": ((0, 0, -1), (0, 1, 0)), "coronal": ((0, 0, -1), (1, 0, 0)), "axial": ((0, 1, 0), (1, 0, 0))}
"""Of a picture of each plane: where it leads downwards and to the right, in the patient (left, posterior, up)."""
ONWARDS = {"sagittal": (1, 0, 0), "coronal": (0, 1, 0), "axial": (0, 0, -1)}
"""Where one picture follows another."""

config.settings.reading_validation_mode = config.IGNORE


@dataclass(eq=False)
class Slice:
    """One image as its file says."""

    person: str
    issuer: str
    study: str
    series: str
    kind: tuple[str, ...]
    tag: str
    echo: float | None
    along_row: np.ndarray
    down_column: np.ndarray
    position: np.ndarray | None
    spacing: tuple[float, float]
    number: int | None
    values: np.ndarray
    """float64, NaN where nothing was measured."""

    @property
    def normal(self) -> np.ndarray:
        return np.cross(self.along_row, self.down_column)

    @property
    def plane(self) -> str:
        return NORMALS[int(np.abs(self.normal).argmax())]

    @property
    def place(self) -> float:
        """Along the direction in which pictures follow one another."""
        onwards = self.normal * np.sign(self.normal @ ONWARDS[self.plane])
        return float("nan") if self.position is None else float(self.position @ onwards)

    @property
    def centre_x(self) -> float:
        if self.position is None:
            return float("nan")
        rows, columns = self.values.shape
        down, right = self.down_column * self.spacing[0] * (rows - 1), self.along_row * self.spacing[1] * (columns - 1)
        return float((self.position + (down + right) / 2)[0])

    def turned(self) -> tuple[np.ndarray, tuple[float, float]]:
        """Its values as they are to be shown, and the distances of rows and columns."""
        down, right = (np.array(direction) for direction in SHOWN[self.plane])
        picture, column, row, spacing = self.values, self.down_column, self.along_row, self.spacing
        if abs(column @ down) + abs(row @ right) < abs(row @ down) + abs(column @ right):
            picture, column, row, spacing = picture.T, row, column, spacing[::-1]
        picture = picture[::-1] if column @ down < 0 else picture
        return (picture[:, ::-1] if row @ right < 0 else picture), spacing


def slices_of(files: Sequence[Path]) -> tuple[list[Slice], int]:
    """The images in some DICOM files, and how many files could not be read as such."""
    result, unread = [], 0
    for file in files:
        try:
            data = dcmread(file, force=True)
            result += frames_of(data)
        except Exception:
            unread += 1
    return result, unread


def frames_of(data: Dataset) -> list[Slice]:
    if data.Modality != "MR":
        raise ValueError("no MR")
    count = int(data.get("NumberOfFrames") or 1)
    if "TransferSyntaxUID" not in data.file_meta:
        implicit, little = data.original_encoding
        data.file_meta.TransferSyntaxUID = (
            "1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.1" if little else "1.2.840.10008.1.2.2"
        )
    stored = data.pixel_array.reshape(count, data.Rows, data.Columns)
    return [slice_of(data, index, stored[index]) for index in range(count)]


def slice_of(data: Dataset, index: int, stored: np.ndarray) -> Slice:
    def value(keyword: str, group: str) -> object:
        for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
            if groups in data and data[groups].value:
                one = data[groups].value[index if groups.startswith("Per") else 0]
                if group in one and keyword in one[group][0]:
                    return one[group][0][keyword].value
        return data.get(keyword)

    orientation = np.array(value("ImageOrientationPatient", "PlaneOrientationSequence"), float)
    if orientation.shape != (6,):
        raise ValueError("no orientation")
    position = value("ImagePositionPatient", "PlanePositionSequence")
    position = position_of(position)
    spacing = [float(v) for v in value("PixelSpacing", "PixelMeasuresSequence")]
    slope = value("RescaleSlope", "PixelValueTransformationSequence")
    values = stored.astype(float) * float(1 if slope in (None, "") else slope)
    values += float(value("RescaleIntercept", "PixelValueTransformationSequence") or 0)
    if data.get("PhotometricInterpretation") == "MONOCHROME1":
        values = -values
    padding, limit = data.get("PixelPaddingValue"), data.get("PixelPaddingRangeLimit")
    if padding is not None:
        low, high = sorted(np.array([padding, padding if limit is None else limit], np.int64).astype(stored.dtype))
        values[(stored >= low) & (stored <= high)] = np.nan
    echo = value("EffectiveEchoTime", "MREchoSequence")
    echo = data.get("EchoTime") if echo is None else echo
    number = data.get("InstanceNumber")
    kind = value("FrameType", "MRImageFrameTypeSequence") or data.get("ImageType") or ()
    tags = [str(data.get(keyword) or "").strip().upper() for keyword in ("ImageLaterality", "Laterality")]
    return Slice(
        person=str(data.get("PatientID") or "").strip(),
        issuer=str(data.get("IssuerOfPatientID") or "").strip(),
        study=str(data.StudyInstanceUID).strip(),
        series=str(data.SeriesInstanceUID).strip(),
        kind=tuple(str(part).strip().upper() for part in kind),
        tag=next((tag for tag in tags if tag in {"L", "R"}), ""),
        echo=float(echo) if echo not in (None, "") and 0 <= float(echo) <= LONGEST_ECHO_MS else None,
        along_row=orientation[:3] / np.linalg.norm(orientation[:3]),
        down_column=orientation[3:] / np.linalg.norm(orientation[3:]),
        position=position,
        spacing=(spacing[0], spacing[1]),
        number=None if number in (None, "") else int(number),
        values=values,
    )  # fmt: skip


def position_of(value: object) -> np.ndarray | None:
    """Three numbers within ten metres, or none."""
    try:
        position = np.array(value, float)
    except (TypeError, ValueError):
        return None
    return position if position.shape == (3,) and np.abs(position).max() < 10_000 else None


def pictures(slices: Sequence[Slice]) -> np.ndarray:
    """What the slices must look like: the window from percentile .5 to 99.5, cubic interpolation to 256 x 256."""
    everything = np.stack([one.values for one in slices])
    measured = everything[np.isfinite(everything)].astype(np.float32)
    if measured.size == 0 or measured.min() == measured.max():
        return np.zeros((len(slices), SIDE, SIDE))
    low, high = np.percentile(measured, (0.5, 99.5))
    if low == high:
        low, high = measured.min(), measured.max()
    shown = []
    for one in slices:
        picture, spacing = one.turned()
        grey = np.nan_to_num(np.clip((picture - low) / (high - low), 0, 1), nan=0).astype(np.float32)
        shown.append(np.rint(np.clip(fitted(grey, spacing), 0, 1) * 255))
    return np.stack(shown)


def fitted(picture: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
    """A picture in a square of 256 x 256 that holds all of it, true in mm, black beside it."""
    rows, columns = picture.shape
    pixel = max(rows * spacing[0], columns * spacing[1]) / SIDE
    height, width = rows * spacing[0] / pixel, columns * spacing[1] / pixel
    if max(abs(height - round(height)), abs(width - round(width))) > 1e-6 or round(height) % 2 or round(width) % 2:
        return between_pixels(rows, spacing[0] / pixel) @ picture @ between_pixels(columns, spacing[1] / pixel).T
    inside = Image.fromarray(picture).resize((round(width), round(height)), Image.Resampling.BICUBIC)
    square = np.zeros((SIDE, SIDE), np.float32)
    top, left = (SIDE - round(height)) // 2, (SIDE - round(width)) // 2
    square[top : top + round(height), left : left + round(width)] = np.asarray(inside)
    return square


def between_pixels(count: int, zoom: float) -> np.ndarray:
    """Cubic interpolation `(256, count)` where Pillow cannot help: the picture's edges lie within pixels."""
    weights = np.zeros((SIDE, count))
    for target in range(SIDE):
        place = (target + 0.5 - SIDE / 2) / zoom + count / 2 - 0.5
        if not -0.5 - 1e-6 < place < count - 0.5 + 1e-6:
            continue
        for source in range(count):
            x = abs(place - source) * min(zoom, 1)
            weights[target, source] = (1.5 * x - 2.5) * x * x + 1 if x < 1 else max(0, 2 - x) * (x - 1) * (x - 2) / 2
        weights[target] /= weights[target].sum()
    return weights


def thumbnails(shown: np.ndarray) -> np.ndarray:
    """Pictures `(n, 256, 256)` as unit vectors, which have a product near 1 where they are alike, or both empty."""
    small = shown.reshape(len(shown), 16, 16, 16, 16).mean(axis=(2, 4)).reshape(len(shown), 256)
    small = small - small.mean(axis=1, keepdims=True)
    length = np.linalg.norm(small, axis=1, keepdims=True)
    return np.concatenate([small / np.maximum(length, 1e-9) * (length > 1), length <= 1], axis=1)
