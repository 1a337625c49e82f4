"""Tissue textures as picture fields: trabeculae in marrow, septa in fat, fibres in muscle."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter

from kneessl.exams.folder import SIDE

BANK = 4
"""Tileable pictures of each texture; a slice takes one of them, shifted at random."""


@dataclass(frozen=True)
class Textures:
    """One picture field a tissue for one slice, each float32 `(1, 256, 256)`."""

    trabeculae: np.ndarray
    """Mean near 0, deviation near 1, as `fibres` and `mottle`."""
    septa: np.ndarray
    """Thin dark lines: 0 in the lobules, down to -1 on a septum."""
    fibres: np.ndarray
    mottle: np.ndarray
    """Broad, faint unevenness."""


def draw_textures(rng: np.random.Generator, slices: int, upright: bool) -> list[Textures]:
    """Draw the textures of each slice; `upright` where the long axis of the leg runs down the picture."""
    bank = _bank()
    names = ("trabeculae", "septa", "fibres" if upright else "fascicles", "mottle")
    choices = rng.integers(0, BANK, (slices, len(names)))
    shifts = rng.integers(0, SIDE, (slices, len(names), 2))
    drawn = []
    for slice_choices, slice_shifts in zip(choices, shifts, strict=True):
        windows = [
            bank[name][i, row : row + SIDE, column : column + SIDE][None]
            for name, i, (row, column) in zip(names, slice_choices, slice_shifts, strict=True)
        ]
        drawn.append(Textures(*windows))
    return drawn


@lru_cache(maxsize=1)
def _bank() -> dict[str, np.ndarray]:
    """The pictures of each texture, laid out two by two, `(BANK, 512, 512)`; the same in every process."""
    rng = np.random.default_rng(20220601)

    def smooth(*sigma_px: float) -> np.ndarray:
        noise = np.stack(
            [gaussian_filter(rng.standard_normal((SIDE, SIDE)), sigma_px, mode="wrap") for _ in range(BANK)]
        )
        return (noise / noise.std()).astype(np.float32)

    trabeculae = 0.6 * smooth(0.9, 0.7) + 0.8 * smooth(2.2, 1.6)
    trabeculae -= 2.2 * np.maximum(smooth(0.9, 0.9) - 2.3, 0)
    sheets = np.minimum(np.abs(smooth(6, 18)), np.abs(smooth(20, 9)))
    septa = -np.clip(1 - sheets / 0.12, 0, 1) * np.clip(0.4 + 0.5 * smooth(10, 10), 0, 1)
    streaks = np.maximum(smooth(9, 0.8) - 1.5, 0) * np.clip(smooth(20, 12) + 0.3, 0, 2)
    fibres = 0.5 * smooth(12, 0.9) + 0.4 * smooth(2, 1) + 2.5 * streaks
    lobules = np.clip(1 - np.abs(smooth(5, 5)) / 0.08, 0, 1) * np.clip(smooth(14, 14) + 0.2, 0, 1)
    fascicles = 0.7 * smooth(1.1, 1.1) + 1.6 * lobules
    pictures = {
        "trabeculae": trabeculae,
        "septa": septa,
        "fibres": fibres,
        "fascicles": fascicles,
        "mottle": smooth(14, 14),
    }
    return {name: np.tile(picture, (1, 2, 2)) for name, picture in pictures.items()}
