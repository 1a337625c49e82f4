"""A ResNet that sees only some patches of a slice, as sparse convolution would (SparK, Tian et al. 2023).

Hidden positions hold 0 in every feature map, which for a convolution is the same as not being there, and batch norm
takes its statistics over the visible ones alone. The layers are the ResNet's own: it goes on as a dense one.
"""

from typing import Any

import torch
from torch import Tensor, nn

from kneessl.nets.resnet import ResNet18

PATCH = 32
"""Side of a patch in pixels: that of one position in ResNet-18's last feature map."""


def split_patches(x: Tensor, rows: int, columns: int) -> Tensor:
    """Maps `(N, C, H, W)` -> their patches `(N * rows * columns, C, H / rows, W / columns)`, row by row."""
    x = x.unflatten(3, (columns, -1)).unflatten(2, (rows, -1))  # (N, C, rows, h, columns, w)
    return x.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def join_patches(patches: Tensor, rows: int, columns: int) -> Tensor:
    """Put patches `(N * rows * columns, C, h, w)` back together as maps `(N, C, rows * h, columns * w)`."""
    x = patches.unflatten(0, (-1, rows, columns)).permute(0, 3, 1, 4, 2, 5)
    return x.flatten(4, 5).flatten(2, 3)


def enlarge(visible: Tensor, x: Tensor) -> Tensor:
    """bool `(N, rows, columns)` -> bool `(N, 1, H, W)` for maps x `(N, C, H, W)`, on their device."""
    factor = x.shape[2] // visible.shape[1]
    return visible.to(x.device).repeat_interleave(factor, 1).repeat_interleave(factor, 2)[:, None]


def masked_norm(norm: nn.Module, x: Tensor, visible: Tensor) -> Tensor:
    """Batch norm of maps `(N, C, H, W)` over their visible patches; the hidden ones become 0.

    Args:
        norm: Batch norm over C channels.
        x: The maps; what they hold at hidden positions does not count.
        visible: bool `(N, rows, columns)`; on the CPU, the device need not be waited for.
    """
    patches = split_patches(x, *visible.shape[1:])
    indices = visible.flatten().nonzero()[:, 0].to(x.device)
    normed = norm(patches.index_select(0, indices))
    return join_patches(torch.zeros_like(patches).index_copy(0, indices, normed.to(x.dtype)), *visible.shape[1:])


def masked_maps(trunk: ResNet18, slices: Tensor, visible: Tensor) -> list[Tensor]:
    """What the four layers of a ResNet-18 make of the visible patches.

    Args:
        trunk: The ResNet.
        slices: float `(N, 1, H, W)`, sides multiples of 32.
        visible: bool `(N, H / 32, W / 32)`.

    Returns:
        `(N, 64, H / 4, W / 4)`, `(N, 128, H / 8, W / 8)`, `(N, 256, H / 16, W / 16)`, `(N, 512, H / 32, W / 32)`.
    """
    x = trunk.stem(slices * enlarge(visible, slices))
    x = trunk.maxpool(trunk.act(masked_norm(trunk.bn1, x, visible)))
    x = x * enlarge(visible, x)
    maps = []
    for layer in trunk.layers:
        for block in layer:
            x = _block(block, x, visible)
        maps.append(x)
    return maps


def _block(block: Any, x: Tensor, visible: Tensor) -> Tensor:
    """A residual block of two convolutions."""
    y = block.act(masked_norm(block.bn1, block.conv1(x), visible))
    y = masked_norm(block.bn2, block.conv2(y), visible)
    if block.downsample is not None:
        conv, norm = block.downsample
        x = masked_norm(norm, conv(x), visible)
    return block.act(y + x)
