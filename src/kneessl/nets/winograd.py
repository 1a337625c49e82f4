"""Minimal filtering: a convolution of 3 x 3 with a quarter of the multiplications (Lavin and Gray 2016).

PyTorch's convolutions on CPUs follow the definition. docs/performance.md has when this is faster.
"""

import math
import threading

import torch
from torch import Tensor

# F(4 x 4, 3 x 3) of "Fast algorithms for convolutional neural networks", along one axis: there B^T, G and A^T.
PICTURE = (
    (4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1),
)  # fmt: skip
KERNEL = (
    (1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1),
)  # fmt: skip
RESULT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))

TOGETHER = 3 * 2**18
"""Values at most that a step makes before the next one takes them: so few that they stay in the processor's cache."""


class Scratch(threading.local):
    """Two pieces of memory that are used again and again: every new one would cost a page fault for each 4 KiB."""

    def __init__(self) -> None:
        self.pieces = [torch.empty(0), torch.empty(0)]

    def take(self, k: int, *shape: int) -> Tensor:
        """Piece `k` in this shape, float32, with anything in it; what was taken from it before is gone."""
        count = math.prod(shape)
        if len(self.pieces[k]) < count:
            with torch.inference_mode(False):  # a tensor made in it could not be written to outside
                self.pieces[k] = torch.empty(count)
        return self.pieces[k][:count].view(shape)


SCRATCH = Scratch()


class Winograd:
    """A convolution of 3 x 3 at stride 1 and padding 1, on CPUs.

    Each square of 4 x 4 results comes from a tile of 6 x 6 pixels that shares two rows or columns with the next one: 36
    multiplications for a pair of channels, where the definition takes 144. All of it is matrix products: tiles to 36
    values each, one product over the channels for each of the 36, and those back to results.

    Args:
        weight: `(K, C, 3, 3)`.
        bias: float32 `(K,)`.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        kernels = both_axes(KERNEL) @ weight.double().flatten(2).mT
        self.weight = kernels.permute(1, 2, 0).float().contiguous()
        self.bias = bias
        self.picture, self.result = both_axes(PICTURE).float(), both_axes(RESULT).float()

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """float32 `(n, C, h, w)` -> `(n, K, h, w)`, fastest in channels_last, which is how the result lies."""
        n, channels, height, width = x.shape
        down, right = -(-height // 4), -(-width // 4)
        y = torch.empty(n, down, 4, right, 4, len(self.bias))
        together = max(1, TOGETHER // (36 * down * right * channels))
        for few, results in zip(x.permute(0, 2, 3, 1).split(together), y.split(together), strict=True):
            self._convolve(few, results)
        return y.view(n, 4 * down, 4 * right, -1)[:, :height, :width].permute(0, 3, 1, 2)

    def _convolve(self, x: Tensor, y: Tensor) -> None:
        """Pictures `(n, h, w, C)` to `y`, `(n, down, 4, right, 4, K)`."""
        n, height, width, channels = x.shape
        _, down, _, right, _, results = y.shape
        padded = SCRATCH.take(0, n, 4 * down + 2, 4 * right + 2, channels).zero_()
        padded[:, 1 : height + 1, 1 : width + 1] = x
        picture, row, column, _ = padded.stride()
        tiles = SCRATCH.take(1, 6, 6, n, down, right, channels)
        tiles.copy_(padded.as_strided(tiles.shape, (row, column, picture, 4 * row, 4 * column, 1)))
        values = SCRATCH.take(0, 36, n * down * right, channels)
        torch.mm(self.picture, tiles.view(36, -1), out=values.view(36, -1))
        products = SCRATCH.take(1, 36, n * down * right, results)
        torch.bmm(values, self.weight, out=products)
        squares = SCRATCH.take(0, 4, 4, n, down, right, results)
        torch.mm(self.result, products.view(36, -1), out=squares.view(16, -1))
        torch.add(squares.permute(2, 3, 0, 4, 1, 5), self.bias, out=y)


def both_axes(rows: tuple[tuple[float, ...], ...]) -> Tensor:
    """The Kronecker product of a one-dimensional transform with itself, for pictures flattened to one line: float64."""
    one = torch.tensor(rows, dtype=torch.float64)
    return torch.kron(one, one)
