"""Slices with heat over them, as arrays and as PNG files."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kneessl.reader.answer.assessment import PlaneSeen
from kneessl.report.clinical_figures import heated
from kneessl.report.figures import png_bytes

STRONGEST = 127
"""Of `PlaneSeen.heat`: drawn with full strength."""


def heated_slice(seen: PlaneSeen, task: str, index: int) -> NDArray[np.uint8]:
    """Return one slice with a task's heat over it: orange speaks for the finding, blue against it.

    Args:
        seen: One plane of an answer.
        task: One with heat there.
        index: Of the slice, from 0.

    Returns:
        uint8 `(256, 256, 3)`, RGB; grey where there is no heat.
    """
    return heated(seen.series.volume[index], seen.heat[task][index].astype(np.float32), STRONGEST)


def key_slice_png(seen: PlaneSeen, task: str, index: int) -> bytes:
    """Return `heated_slice` as a PNG file, 256 x 256; the same slice and heat give the same bytes."""
    return png_bytes(Image.fromarray(heated_slice(seen, task, index)))
