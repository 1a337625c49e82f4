"""DICOM pixels as measured values, in any of the encodings that pydicom and GDCM know."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from pydicom import Dataset
from pydicom.pixels import iter_pixels

from kneessl.errors import UserError
from kneessl.sources.dicom.header import quietly, read_dataset
from kneessl.sources.dicom.image import Image

_PIXELS = [
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "PixelData",
    "FloatPixelData",
    "DoubleFloatPixelData",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
]

_MOST_PIXELS = 2**28
"""A gigabyte as float32; the finest three-dimensional series of a knee have a tenth of it."""


def values(series: Sequence[Image]) -> np.ndarray:
    """Decode images of one size, in the order given, into measured values.

    Rescale slope and intercept are applied, MONOCHROME1 is inverted, and pixel padding becomes NaN.

    Returns:
        float32 `(images, rows, columns)`.

    Raises:
        UserError: more pixels than a series has, or pixels that are missing, cut short, not finite, or in an encoding
            that cannot be read.
    """
    if len(series) * series[0].rows * series[0].columns > _MOST_PIXELS:
        raise UserError(f"{series[0].number} claims more pixels than any knee series has; export it again")
    voxels = np.empty((len(series), series[0].rows, series[0].columns), dtype=np.float32)
    filled = 0
    for _, group in groupby(series, key=lambda image: image.file):
        frames = list(group)
        with quietly():
            try:
                data = read_dataset(frames[0].file, specific_tags=_PIXELS)
                _require_no_more(data, frames[0].number)
                pixels = iter_pixels(data, raw=True, indices=[image.frame for image in frames])
                for image, stored in zip(frames, pixels, strict=True):
                    voxels[filled] = _measured(stored, data, image)
                    filled += 1
            except UserError:
                raise
            except Exception:  # decoders raise nearly anything, and pydicom's text may quote identity
                raise UserError(
                    f"{frames[0].number}: its pixels are missing, cut short or in an unknown encoding; export it again"
                ) from None
    return voxels


def _require_no_more(data: Dataset, number: str) -> None:
    """Refuse frames beyond those that the header tells of: nobody would miss them.

    Raises:
        UserError: pixels that are not compressed are enough for another frame.
    """
    if data.file_meta.TransferSyntaxUID.is_encapsulated or "PixelData" not in data:
        return
    frames = int(data.get("NumberOfFrames") or 1)
    if len(data.PixelData) * 8 >= data.Rows * data.Columns * data.BitsAllocated * (frames + 1):
        raise UserError(f"{number} has pixels for more images than its header tells of; export it again")


def _measured(stored: np.ndarray, data: Dataset, image: Image) -> np.ndarray:
    measured = stored.astype(np.float32) * np.float32(image.slope) + np.float32(image.intercept)
    if image.inverted:
        measured = -measured
    if not np.isfinite(measured).all():
        raise UserError(f"{image.number} has pixels that are not finite numbers; export it again")
    padding = _as_stored(data, "PixelPaddingValue")
    if padding is not None:
        limit = _as_stored(data, "PixelPaddingRangeLimit")
        low, high = sorted((padding, padding if limit is None else limit))
        measured[(stored >= low) & (stored <= high)] = np.nan
    return measured


def _as_stored(data: Dataset, keyword: str) -> int | None:
    """A pixel value in a header, read by the pixels' own representation; None where it is blank.

    Some writers give it as unsigned where pixels are signed, or the other way round, or in bits of the allocated size:
    63536 for -2000. The bits are what counts (PS3.5, 6.2: US or SS by PixelRepresentation).
    """
    value = data.get(keyword)
    if isinstance(value, bytes):
        value = int.from_bytes(value[:2], "little") if value else None
    if value is None or value == "":
        return None
    if "PixelData" not in data:  # floating-point numbers have no representation to choose from
        return int(value)
    signed, stored = data.PixelRepresentation == 1, int(data.BitsStored)
    if _fits(int(value), stored, signed):
        return int(value)
    bits = int(value) % 2 ** int(data.BitsAllocated)
    if not signed:
        return bits
    for length in (int(data.BitsAllocated), stored):
        negative = bits % 2**length - (2**length if bits >> (length - 1) & 1 else 0)
        if _fits(negative, stored, signed):
            return negative
    return int(value)


def _fits(value: int, bits: int, signed: bool) -> bool:
    return -(2 ** (bits - 1)) <= value < 2 ** (bits - 1) if signed else 0 <= value < 2**bits
