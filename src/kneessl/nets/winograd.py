"""Minimal filtering: a convolution of 3 x 3 with a quarter of the multiplications (Lavin and Gray 2016).

PyTorch's convolutions on CPUs follow the definition. docs/performance.md has when this is faster.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

# "Fast algorithms for convolutional neural networks", equation 15 and those after it: F(4 x 4, 3 x 3), along one axis.
PICTURE = (
    (4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1),
)  # fmt: skip
KERNEL = (
    (1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1),
)  # fmt: skip
RESULT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


class Winograd:
    """A convolution of 3 x 3 at stride 1 and padding 1.

    Each square of 4 x 4 results comes from a tile of 6 x 6 pixels, two of which overlap those of the next tile: 36
    multiplications for a pair of channels, where the definition takes 144. All of it is matrix products: tiles to 36
    values each, one product over the channels for each of the 36, and those back to results.

    Args:
        weight: `(K, C, 3, 3)`.
        bias: float32 `(K,)`.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        kernels = both_axes(KERNEL).to(weight.device) @ weight.double().flatten(2).mT
        self.weight = kernels.permute(1, 2, 0).float().contiguous()
        self.bias = bias
        self.picture, self.result = (both_axes(rows).float().to(weight.device) for rows in (PICTURE, RESULT))

    def __call__(self, x: Tensor) -> Tensor:
        """float32 `(n, C, h, w)` -> `(n, K, h, w)`, fastest in channels_last, which is how the result lies."""
        n, channels, height, width = x.shape
        down, right = -(-height // 4), -(-width // 4)
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 4 * right + 1 - width, 1, 4 * down + 1 - height)).contiguous()
        clip, row, column, _ = x.stride()
        tiles = x.as_strided((6, 6, n, down, right, channels), (row, column, clip, 4 * row, 4 * column, 1))
        values = (self.picture @ tiles.reshape(36, -1)).view(36, -1, channels)
        products = values @ self.weight
        squares = (self.result @ products.flatten(1)).view(4, 4, n, down, right, -1).permute(2, 3, 0, 4, 1, 5)
        y = squares.new_empty(squares.shape)
        torch.add(squares, self.bias, out=y)
        return y.view(n, 4 * down, 4 * right, -1)[:, :height, :width].permute(0, 3, 1, 2)


def both_axes(rows: tuple[tuple[float, ...], ...]) -> Tensor:
    """What does the same along both axes of pictures whose pixels stand in one line: float64."""
    one = torch.tensor(rows, dtype=torch.float64)
    return torch.kron(one, one)
