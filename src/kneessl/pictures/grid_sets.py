"""Which training sets a grid over numbers of images n and ratios r can have."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kneessl.errors import UserError
from kneessl.evaluation.gap import BALANCED
from kneessl.report.grid_content import ratio_text


@dataclass(frozen=True)
class GridSets:
    """The training sets of a grid."""

    counts: Mapping[tuple[int, float], list[int]]
    """n and r -> training images of each class."""
    left_out: list[str]
    """A line for each set that the data does not allow: which, and why."""


def cross(
    images: list[int] | None, ratios: Sequence[float], counts: Callable[[float, int | None], list[int]]
) -> GridSets:
    """Cross numbers of images with ratios, ratio 1 among them, and leave out what cannot be.

    Args:
        images: Rising or not; None for the most that every ratio allows.
        ratios: In any order.
        counts: Ratio, and images in all or None for the most -> images of each class, or a user error.

    Raises:
        UserError: a ratio or number of images is out of range, or no set with a ratio below 1 can be.
    """
    if not all(0 < ratio <= BALANCED for ratio in ratios) or min(ratios) == BALANCED:
        raise UserError(f"ratios is {list(ratios)}; they must be above 0 and up to 1, at least one of them below 1")
    falling = sorted({BALANCED, *ratios}, reverse=True)
    sizes = sorted(set(images)) if images else [min(sum(counts(ratio, None)) for ratio in falling)]
    if sizes[0] < 1:
        raise UserError(f"images is {images}; they must be numbers of training images, above 0")
    possible, left_out = {}, []
    for n in sizes:
        for ratio in falling:
            try:
                possible[n, ratio] = counts(ratio, n)
            except UserError as error:
                left_out.append(f"{n:,} images at ratio {ratio_text(ratio)} are left out: {error}")
    if not any(ratio < BALANCED and (n, BALANCED) in possible for n, ratio in possible):
        raise UserError(f"nothing is left of the grid; {left_out[0]}")
    return GridSets(possible, left_out)
