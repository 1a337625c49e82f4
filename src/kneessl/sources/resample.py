"""From voxels of any scale to uint8 pictures of 256 x 256, true in mm."""

import numpy as np

from kneessl.errors import UserError
from kneessl.exams.folder import SIDE
from kneessl.sources.volume import Volume

PERCENTILES = (0.5, 99.5)
"""The window: these percentiles of the volume become 0 and 255."""
WINDOW = "window from percentile {} to {}".format(*PERCENTILES)
"""In words."""


def window(voxels: np.ndarray) -> tuple[float, float]:
    """The values that become black and white.

    Args:
        voxels: any shape; NaN counts as no measurement.

    Raises:
        UserError: every pixel has the same value.
    """
    measured = voxels[np.isfinite(voxels)]
    if measured.size == 0 or measured.min() == measured.max():
        raise UserError("every pixel has the same value; there is nothing to see in this series")
    low, high = (float(value) for value in np.percentile(measured, PERCENTILES))
    if low == high:  # fewer than 0.5 % of the voxels differ from the rest
        low, high = float(measured.min()), float(measured.max())
    return low, high


def pictures(voxels: np.ndarray, row_mm: float, column_mm: float) -> tuple[np.ndarray, float]:
    """Window a stack and resample it in-plane to squares that hold the whole field of view.

    The shorter side is padded in mm, evenly, with black; so a ball stays round whatever the pixel spacing.

    Args:
        voxels: float `(slices, rows, columns)`.
        row_mm: distance between neighbouring rows.
        column_mm: distance between neighbouring columns.

    Returns:
        uint8 `(slices, 256, 256)`, and the distance in mm between its rows (and columns).

    Raises:
        UserError: every pixel has the same value, or most slices would be of one grey.
    """
    low, high = window(voxels)
    _, rows, columns = voxels.shape
    pixel_mm = max(rows * row_mm, columns * column_mm) / SIDE
    down = _weights(rows, row_mm, pixel_mm)
    across = _weights(columns, column_mm, pixel_mm).T
    result = np.empty((len(voxels), SIDE, SIDE), dtype=np.uint8)
    for index, image in enumerate(voxels):
        grey = np.nan_to_num(np.clip((image - low) / (high - low), 0, 1), nan=0.0).astype(np.float32)
        result[index] = np.rint(np.clip(down @ grey @ across, 0, 1) * 255)
    flat = result.min(axis=(1, 2)) == result.max(axis=(1, 2))
    if 2 * flat.sum() > len(result):
        raise UserError(
            "most of its slices would be of one grey, since other values lie too far from theirs for one window (is a "
            "rescale slope or intercept wrong?); export it again"
        )
    return result, pixel_mm


def pictures_of(name: str, volume: Volume) -> tuple[np.ndarray, float]:
    """As `pictures`; an error names the series."""
    try:
        return pictures(volume.voxels, *volume.spacing[1:])
    except UserError as error:
        raise UserError(f"{name}: {error}") from None


def field_of(volume: Volume) -> str:
    """The field of view of its slices, in words."""
    sides = (f"{n * mm:.0f}" for n, mm in zip(volume.voxels.shape[1:], volume.spacing[1:], strict=True))
    return f"field {' x '.join(sides)} mm"


def _weights(count: int, spacing: float, pixel_mm: float) -> np.ndarray:
    """Cubic interpolation along one axis as a matrix `(256, count)`, both grids centred on one another.

    Where pixels are larger than the source's, the kernel is widened by the same factor, against aliasing. Rows whose
    pixel lies outside the source are zero. Equal grids give the identity.
    """
    scale = pixel_mm / spacing
    centres = (np.arange(SIDE) - (SIDE - 1) / 2) * scale + (count - 1) / 2
    weights = _cubic((centres[:, None] - np.arange(count)) / max(scale, 1.0))
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-6)
    inside = (centres > -0.5 - 1e-6) & (centres < count - 0.5 + 1e-6)
    return np.where(inside[:, None], weights, 0.0).astype(np.float32)


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -1/2."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
