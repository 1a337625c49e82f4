"""Resampling as a pair of matrices: crop, resize and flip cost two matrix products for a whole clip."""

import math

import torch
from torch import Tensor


def resize_matrix(start: Tensor, length: Tensor, source: int, size: int) -> Tensor:
    """Antialiased bicubic resizing (Keys, a = -0.5) of `source[start:start + length]` to `size` samples.

    Equal to `torch.nn.functional.interpolate(crop, mode="bicubic", antialias=True)` along one axis: the kernel
    widens when shrinking, never looks outside the crop, and its weights sum to one.

    Args:
        start: int64 `(n,)`, first sample of each crop.
        length: int64 `(n,)`, samples in each crop.
        source: Samples in the source.
        size: Samples in the result.

    Returns:
        float32 `(n, size, source)`.
    """
    start, length = start.double()[:, None, None], length.double()[:, None, None]
    scale = length / size
    centre = start + (torch.arange(size, device=start.device).double()[None, :, None] + 0.5) * scale
    reach = 2 * max(1.0, source / size)  # a crop is no longer than its source, and so no kernel wider than this
    first = (centre - reach).floor()
    taps = first + torch.arange(math.ceil(2 * reach) + 2, device=start.device)
    weights = _keys((taps + 0.5 - centre) / scale.clamp(min=1))
    weights = torch.where((taps >= start) & (taps < start + length), weights, 0)
    weights = (weights / weights.sum(2, keepdim=True)).float()
    matrix = weights.new_zeros(len(weights), size, source)
    return matrix.scatter_add_(2, taps.long().clamp_(0, source - 1), weights)


def _keys(x: Tensor, a: float = -0.5) -> Tensor:
    """The cubic convolution kernel (Keys 1981, equation 4, with a = -1/2)."""
    x = x.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return torch.where(x <= 1, near, torch.where(x < 2, far, 0))


def blur_matrix(sigma: Tensor, radius: int, size: int) -> Tensor:
    """Gaussian blur along one axis, kernel cut at `radius` pixels, picture mirrored at its edges.

    Args:
        sigma: float `(n,)`, above 0, in pixels.
        radius: The kernel has 2 * radius + 1 taps.
        size: Samples along the axis, more than `radius`.

    Returns:
        float32 `(n, size, size)`.
    """
    taps = torch.arange(-radius, radius + 1, device=sigma.device)
    kernel = torch.softmax(-0.5 * (taps / sigma.double()[:, None]) ** 2, dim=1)
    index = (torch.arange(size, device=sigma.device)[:, None] + taps).abs()
    index = torch.where(index >= size, 2 * (size - 1) - index, index)
    matrix = torch.zeros(len(sigma), size, size, device=sigma.device)
    return matrix.scatter_add_(2, index.expand(len(sigma), -1, -1), kernel.float()[:, None].expand(-1, size, -1))


def to_device_of(values: Tensor, reference: Tensor) -> Tensor:
    """Copy `values` from the CPU to the device of `reference`, without waiting for the GPU to finish its work."""
    return values.to(reference.device, non_blocking=True)


def per_clip(values: Tensor, dims: int) -> Tensor:
    """Insert dimensions of 1 after the first, `(n, ...)` -> `(n, 1, ..., 1, ...)`, to broadcast one value per clip.

    Args:
        values: Any tensor whose first dimension counts clips.
        dims: Dimensions of the result, as many as the clips have.
    """
    return values[(slice(None), *[None] * (dims - values.dim()))]


def separable(pictures: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """`rows @ picture @ columns.T` for every slice and channel of every clip.

    Args:
        pictures: float `(n, ..., H, W)`: grey clips `(n, s, H, W)`, colour clips `(n, s, 3, H, W)`.
        rows: float `(n, h, H)`.
        columns: float `(n, w, W)`.

    Returns:
        float `(n, ..., h, w)`.
    """
    dims = pictures.dim()
    return per_clip(rows, dims) @ (pictures @ per_clip(columns, dims).transpose(-2, -1))
