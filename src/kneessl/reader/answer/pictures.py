"""Slices with heat over them, as arrays and as PNG files."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kneessl.reader.answer.assessment import PlaneResult
from kneessl.report.clinical_figures import heated
from kneessl.report.figures import png_bytes

STRONGEST = 127
"""Value of `PlaneResult.heat` that is drawn with full strength."""


def heated_slice(plane_result: PlaneResult, task: str, index: int) -> NDArray[np.uint8]:
    """Return one slice with a task's heat over it: orange speaks for the finding, blue against it.

    Args:
        plane_result: One plane of an answer.
        task: One with heat there.
        index: Index of the slice, from 0.

    Returns:
        uint8 `(256, 256, 3)`, RGB; grey where there is no heat.
    """
    return heated(plane_result.series.volume[index], plane_result.heat[task][index].astype(np.float32), STRONGEST)


def key_slice_png(plane_result: PlaneResult, task: str, index: int) -> bytes:
    """Return `heated_slice` as a PNG file, 256 x 256; the same slice and heat give the same bytes."""
    return png_bytes(Image.fromarray(heated_slice(plane_result, task, index)))
