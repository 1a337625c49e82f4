"""A ResNet's maps on CPUs: PyTorch's numbers within rounding, in some two thirds of its time (docs/performance.md).

Three things do that. Batch norm is folded into the convolution before it. A convolution of 3 x 3 on many channels is
done by minimal filtering. And few slices go through the network together, so that a layer finds in the processor's
cache what the one before has written there.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kneessl.nets.encoder import slice_encoder
from kneessl.nets.resnet import Block, ResNet18
from kneessl.nets.winograd import Winograd

TOGETHER = 15
"""Slices at most that go through the network together; with fewer, the last layers' products are small and slow."""
STEM_TOGETHER = 5
"""Slices at most that go through the first layers together, whose maps are the largest."""
MANY = 128
"""Channels from which on minimal filtering is faster: below, its tiles cost more than its multiplications save."""

Maps = Callable[[Tensor], Tensor]
"""float32 `(N, 1, H, W)` -> float32 `(N, C, h, w)`."""


@torch.no_grad()
def fast_maps(encoder: nn.Module) -> Maps | None:
    """`encoder.maps` of grey slices in evaluation mode, as its weights are now; None if it is no ResNet on a CPU."""
    slices = slice_encoder(encoder)
    if slices is None or slices.trunk.conv1.weight.device.type != "cpu":
        return None
    return FastMaps(slices.trunk)


class FastMaps:
    """A `ResNet18` for grey slices, with copies of its weights and its batch norm folded in."""

    def __init__(self, trunk: ResNet18) -> None:
        self.stem, self.pool = folded(trunk.conv1, trunk.bn1, trunk.grey_weight()), trunk.maxpool
        self.blocks = [FastBlock(cast(Block, block)) for stage in trunk.layers for block in stage]

    def __call__(self, slices: Tensor) -> Tensor:
        """float32 `(N, 1, H, W)` -> maps float32 `(N, 512, h, w)`."""
        return torch.cat([self.few(part) for part in parts(slices, TOGETHER)])

    def few(self, slices: Tensor) -> Tensor:
        """The maps of so few slices that they stay in the cache."""
        x = torch.cat([self.pool(self.stem(part).relu_()) for part in parts(slices, STEM_TOGETHER)])
        for block in self.blocks:
            x = block(x)
        return x


class FastBlock:
    """A residual block (`Block`) with copies of its weights and its batch norm folded in."""

    def __init__(self, block: Block) -> None:
        self.conv1, self.conv2 = folded(block.conv1, block.bn1), folded(block.conv2, block.bn2)
        self.short = None if block.downsample is None else folded(*block.downsample)

    def __call__(self, x: Tensor) -> Tensor:
        """Maps `(n, C, h, w)` -> `(n, K, h / stride, w / stride)`, sides rounded up."""
        y = self.conv2(self.conv1(x).relu_())
        y += x if self.short is None else self.short(x)
        return y.relu_()


def folded(conv: Any, norm: Any, weight: Tensor | None = None) -> Maps:
    """A convolution, with other weights than its own if given, and the batch norm after it: one, the faster way."""
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = (norm.bias.double() - norm.running_mean.double() * scale).float()
    weight = (conv.weight if weight is None else weight).double() * scale[:, None, None, None]
    if conv.kernel_size == (3, 3) and conv.stride == (1, 1) and conv.in_channels >= MANY:
        return Winograd(weight, bias)
    # As in `ResNet18.grey_weight`: of one channel, only the clone lies in channels_last.
    weight = weight.float().clone(memory_format=torch.channels_last)
    return lambda x: F.conv2d(x, weight, bias, conv.stride, conv.padding)


def parts(slices: Tensor, together: int) -> tuple[Tensor, ...]:
    """Split slices into parts of at most `together`, of sizes as equal as possible."""
    return slices.tensor_split(-(-len(slices) // together))
