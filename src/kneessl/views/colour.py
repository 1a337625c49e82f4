"""Colour jitter of colour pictures as torchvision's ColorJitter does it, each clip in an order of its own.

Pictures are float `(n, s, 3, H, W)` from 0 to 1; every operation clamps its result to that range.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kneessl.views.resample import per_clip, to_device_of


@dataclass(frozen=True)
class ColourParameters:
    """What views of colour pictures need besides what grey ones do; every tensor has n rows and lies on the CPU."""

    saturation: Tensor
    """float32 `(n,)`, a factor; 1 changes nothing."""
    hue: Tensor
    """float32 `(n,)`, from -0.5 to 0.5 of a turn; 0 changes nothing."""
    grayscale: Tensor
    """bool `(n,)`."""
    order: Tensor
    """int64 `(n, 4)`: which of `OPERATIONS` comes first, second, third and last."""

    def __getitem__(self, rows: slice) -> "ColourParameters":
        return ColourParameters(self.saturation[rows], self.hue[rows], self.grayscale[rows], self.order[rows])


def draw_order(brightness_first: Tensor, generator: torch.Generator) -> Tensor:
    """Draw orders of the four operations, uniform over those that agree with `brightness_first`.

    Args:
        brightness_first: bool `(n,)`, whether brightness comes before contrast; a fair coin makes all 24 orders equally
            likely.
        generator: Draws, on the CPU.

    Returns:
        int64 `(n, 4)`, as `ColourParameters.order`.
    """
    moments = torch.rand(len(brightness_first), len(OPERATIONS), generator=generator)
    pair = moments[:, :2].sort(1).values
    pair = torch.where(brightness_first[:, None], pair, pair.flip(1))
    return torch.cat([pair, moments[:, 2:]], dim=1).argsort(1)


def to_grey(pictures: Tensor) -> Tensor:
    """The luma that torchvision takes, `(..., 3, H, W)` -> `(..., 1, H, W)`; its weights sum to 0.9999."""
    red, green, blue = pictures.split(1, dim=-3)
    return 0.2989 * red + 0.587 * green + 0.114 * blue


def blend(pictures: Tensor, towards: Tensor, factor: Tensor) -> Tensor:
    """1 leaves the pictures, 0 gives `towards`, and more than 1 leads away from it; clamped to 0..1."""
    return (towards + (pictures - towards) * factor).clamp(0, 1)


def brighten(pictures: Tensor, factor: Tensor) -> Tensor:
    """The values times the factor, clamped to 0..1."""
    return (pictures * factor).clamp(0, 1)


def change_contrast(pictures: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean of each grey picture."""
    return blend(pictures, to_grey(pictures).mean((-2, -1), keepdim=True), factor)


def saturate(pictures: Tensor, factor: Tensor) -> Tensor:
    """Blend with the grey picture."""
    return blend(pictures, to_grey(pictures), factor)


def turn_hue(pictures: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of HSV by a share of a turn; value and saturation stay."""
    value, least = pictures.amax(-3, keepdim=True), pictures.amin(-3, keepdim=True)
    chroma = value - least
    red, green, blue = pictures.split(1, dim=-3)
    divisor = chroma.clamp(min=torch.finfo(chroma.dtype).tiny)  # grey has no hue, and any will do
    from_green, from_blue = 2 + (blue - red) / divisor, 4 + (red - green) / divisor
    sixths = torch.where(value == red, (green - blue) / divisor, torch.where(value == green, from_green, from_blue))
    # The fall below the value at hue h, in sixths of a turn: for red of (5 + h) mod 6, green 3 + h, blue 1 + h.
    channel = torch.arange(5, 0, -2, device=pictures.device)[:, None, None]
    place = (channel + sixths + 6 * shift) % 6
    return (value - chroma * torch.minimum(place, 4 - place).clamp(0, 1)).clamp(0, 1)


OPERATIONS = (brighten, change_contrast, saturate, turn_hue)
NEUTRAL = torch.tensor([1.0, 1.0, 1.0, 0.0])
"""The amounts at which the operations change nothing."""


def jitter(pictures: Tensor, amounts: Tensor, order: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue, clip by clip in the drawn order.

    At each place of the order the clips go in groups, one for each operation. The groups are found on the CPU and moved
    at once, so the device need not be waited for in between; a neutral amount leaves its clip untouched.

    Args:
        pictures: float `(n, s, 3, H, W)` from 0 to 1, on any device; written to.
        amounts: float32 `(n, 4)`, on the CPU: a column for each of `OPERATIONS`.
        order: int64 `(n, 4)`, on the CPU, as `ColourParameters.order`.

    Returns:
        `pictures`.
    """
    changes = amounts != NEUTRAL
    numbers = range(len(OPERATIONS))
    groups = [(i, ((order[:, at] == i) & changes[:, i]).nonzero()[:, 0]) for at in numbers for i in numbers]
    sizes = [len(rows) for _, rows in groups]
    where = to_device_of(torch.cat([rows for _, rows in groups]), pictures).split(sizes)
    by = to_device_of(torch.cat([amounts[rows, i] for i, rows in groups]), pictures).split(sizes)
    for (i, _), rows, amount in zip(groups, where, by, strict=True):
        if len(rows):
            pictures[rows] = OPERATIONS[i](pictures[rows], per_clip(amount, pictures.dim()))
    return pictures
