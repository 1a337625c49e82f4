"""Convolutions over maps of a few pixels, as matrix products: what oneDNN is slow at on CPUs in bf16.

Of slices of 64 pixels, a ResNet's last stage sees maps of 2 x 2: there a 3 x 3 convolution of 512 channels takes six
times as long in `conv2d`, forward and backward, as the same sum as one product of patches with weights.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` without bias, dilation or groups; under bf16 autocast on a CPU, small maps go by `MatrixProduct`.

    Small is where the output has fewer pixels than a tenth of its channels (measured from 64 to 512 channels,
    benchmarks/small_maps.py), or is one pixel high or wide: PyTorch 2.13's bfloat16 gradient of a 3 x 3 convolution of
    stride 2 over one-pixel maps is memory that nobody has written to, now and then NaN. Puzzle tiles get that small.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(N, C, h, w)` -> `(N, channels, rows, columns)`."""
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            rows, columns = output_side(x.shape[2], self), output_side(x.shape[3], self)
            if 10 * rows * columns <= self.out_channels or min(x.shape[2:]) == 1:
                dtype = torch.get_autocast_dtype("cpu")
                return MatrixProduct.apply(x.to(dtype), self.weight.to(dtype), self.stride[0], self.padding[0])
        return super().forward(x)


def output_side(side: int, convolution: nn.Conv2d) -> int:
    """Pixels along one side of a convolution's output."""
    return (side + 2 * int(convolution.padding[0]) - convolution.kernel_size[0]) // convolution.stride[0] + 1


class MatrixProduct(torch.autograd.Function):
    """A convolution without bias as one matrix product, and its two gradients as two."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        """Maps `(N, C, h, w)`, weights `(O, C, k, k)` -> `(N, O, rows, columns)`, in channels_last."""
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        patches = gather(x, weight.shape[-1], stride, padding)
        product = patches.flatten(3).flatten(0, 2) @ as_matrix(weight)
        return product.view(*patches.shape[:3], -1).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        """Gradients by maps and weights."""
        x, weight = ctx.saved_tensors
        k, stride, padding = weight.shape[-1], ctx.stride, ctx.padding
        of_products = gradient.permute(0, 2, 3, 1).flatten(0, 2)
        patches = gather(x, k, stride, padding)
        by_weight = patches.flatten(3).flatten(0, 2).T @ of_products
        by_weight = by_weight.view(k, k, x.shape[1], -1).permute(3, 2, 0, 1)
        by_x = None
        if ctx.needs_input_grad[0]:
            by_patch = (of_products @ as_matrix(weight).T).view(patches.shape)
            padded = F.pad(torch.zeros_like(x.permute(0, 2, 3, 1)), (0, 0, *4 * [padding]))
            for i in range(k):
                for j in range(k):
                    taps(padded, i, j, patches.shape, stride).add_(by_patch[:, :, :, i * k + j])
            by_x = padded[:, padding : padding + x.shape[2], padding : padding + x.shape[3]].permute(0, 3, 1, 2)
        return by_x, by_weight, None, None


def as_matrix(weight: Tensor) -> Tensor:
    """Weights `(O, C, k, k)` -> `(k k C, O)`."""
    return weight.permute(2, 3, 1, 0).flatten(0, 2)


def gather(x: Tensor, k: int, stride: int, padding: int) -> Tensor:
    """What each output pixel sees: maps `(N, C, h, w)` -> `(N, rows, columns, k k, C)`."""
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, *4 * [padding]))
    rows, columns = ((n - k) // stride + 1 for n in padded.shape[1:3])
    shape = (len(x), rows, columns)
    return torch.stack([taps(padded, i, j, shape, stride) for i in range(k) for j in range(k)], 3)


def taps(padded: Tensor, i: int, j: int, shape: tuple[int, ...], stride: int) -> Tensor:
    """The pixel that each output pixel `(N, rows, columns)` sees at row i and column j of its patch."""
    _, rows, columns = shape[:3]
    return padded[:, i : i + stride * (rows - 1) + 1 : stride, j : j + stride * (columns - 1) + 1 : stride]
