"""How much a long tail costs a representation: the relative gap Delta(n, r), over trainings from several seeds.

Source: H. Liu, J. Z. HaoChen, A. Gaidon, T. Ma, "Self-supervised learning is more robust to dataset imbalance", ICLR
2022, section 2. With A(n, r) the accuracy of a linear classifier on features learnt from n images at ratio r of the
rarest class to the commonest, Delta(n, r) = (A(n, 1) - A(n, r)) / A(n, 1). Seeds are paired: the balanced training and
the long-tailed one by the same seed, and two arms by the same seed. Intervals are Student's, of the mean over seeds:
they say what other seeds would change, and take the test images as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from kneessl.evaluation.auc import LEVEL

BALANCED = 1.0
"""The ratio with which the others are compared."""


@dataclass(frozen=True)
class OverSeeds:
    """A figure of several trainings. Spread and interval are None where there is one training only."""

    by_seed: Mapping[int, float]
    """Seed -> figure; finite, at least one."""
    mean: float
    sd: float | None
    """Standard deviation over seeds, of the sample (n - 1)."""
    low: float | None
    """Of Student's interval of the mean."""
    high: float | None

    @classmethod
    def of(cls, values: Mapping[int, float]) -> "OverSeeds | None":
        """Sum up the figures that are finite; None where there is none."""
        kept = {seed: float(value) for seed, value in values.items() if np.isfinite(value)}
        if not kept:
            return None
        figures, n = np.array(list(kept.values())), len(kept)
        mean = float(figures.mean())
        if n == 1:
            return cls(kept, mean, None, None, None)
        sd = float(figures.std(ddof=1))
        half = float(scipy.stats.t.ppf(0.5 + LEVEL / 2, n - 1)) * sd / n**0.5
        return cls(kept, mean, sd, mean - half, mean + half)

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0; an interval without width, of equal seeds, tells nothing."""
        if self.low is None or self.high is None:
            return False
        return self.low < self.high and (self.low > 0 or self.high < 0)


class Cell(NamedTuple):
    """One training but for its seed."""

    arm: str
    images: int
    """n: training images in all."""
    ratio: float
    """r: of the rarest class to the commonest, above 0 and up to 1."""


@dataclass(frozen=True)
class GapPoint:
    """A cell's accuracy, its gap to the balanced cell of the same arm and n, and how that differs from another arm's.

    None stands where no seed has what is needed.
    """

    accuracy: OverSeeds | None
    gap: OverSeeds | None
    """Delta(n, r); None at ratio 1."""
    less: OverSeeds | None
    """Delta of the reference arm minus this one's: above 0 where this arm loses less. None for the reference."""


def relative_gap(balanced: ArrayLike, imbalanced: ArrayLike) -> NDArray[np.float64]:
    """Return Delta = (A(n, 1) - A(n, r)) / A(n, 1), each training with that of its own seed.

    Args:
        balanced: (...) A(n, 1), in [0, 1]; NaN where a training failed.
        imbalanced: (...) A(n, r), likewise, in the same order of seeds.

    Returns:
        (...) at most 1, below 0 where the long tail was the better one; NaN where either is, or A(n, 1) is 0.

    Raises:
        ValueError: the two differ in shape, or an accuracy is not in [0, 1].
    """
    first, second = np.asarray(balanced, dtype=np.float64), np.asarray(imbalanced, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"accuracies must be paired, but their shapes are {first.shape} and {second.shape}")
    for values in (first, second):
        if ((values < 0) | (values > 1)).any():
            raise ValueError(f"accuracies lie between 0 and 1, but these are {values.tolist()}")
    return (first - second) / np.where(first == 0, np.nan, first)


def gap_points(accuracies: Mapping[Cell, Mapping[int, float]], reference: str) -> dict[Cell, GapPoint]:
    """Turn accuracies into gaps, and compare every arm's gap with the reference arm's at the same n and r.

    Args:
        accuracies: For each cell, seed -> accuracy in [0, 1]; none where all trainings failed.
        reference: The arm with which the others are compared, such as supervised; it may be missing.

    Returns:
        A point for each cell, in the same order.
    """
    gaps = {
        cell: _gaps(accuracies.get(cell._replace(ratio=BALANCED), {}), by_seed)
        for cell, by_seed in accuracies.items()
        if cell.ratio != BALANCED
    }
    points = {}
    for cell, by_seed in accuracies.items():
        gap = gaps.get(cell, {})
        other = gaps.get(cell._replace(arm=reference), {}) if cell.arm != reference else {}
        less = {seed: other[seed] - value for seed, value in gap.items() if seed in other}
        points[cell] = GapPoint(OverSeeds.of(by_seed), OverSeeds.of(gap), OverSeeds.of(less))
    return points


def _gaps(balanced: Mapping[int, float], imbalanced: Mapping[int, float]) -> dict[int, float]:
    """Delta by seed, of the seeds that have both."""
    seeds = [seed for seed in imbalanced if seed in balanced]
    gaps = relative_gap([balanced[seed] for seed in seeds], [imbalanced[seed] for seed in seeds])
    return dict(zip(seeds, gaps.tolist(), strict=True))
