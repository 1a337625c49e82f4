"""ResNet-18 as an encoder of slices, and the clip encoder that BYOLMed2D adds to it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from kneessl.errors import UserError
from kneessl.files import replacing
from kneessl.nets.resnet import ResNet18
from kneessl.nets.weights import read_tensors, require_finite

Pool = Literal["none", "max", "mean"]
Stem = Literal["imagenet", "cifar"]
FEATURES = 512


@dataclass(frozen=True)
class Grid:
    """Where the cells of an encoder's maps lie on its picture, along either axis, in its pixels.

    It follows from kernels, strides and paddings. Spreading a map evenly over the picture instead, as is common, would
    be half a cell off for a ResNet, whose first cells are centred on the picture's border: 18 pixels of 256 at the
    usual size, more than a meniscal tear is high.
    """

    first: float
    """Centre of the first cell's receptive field; 0 is the centre of the first pixel."""
    step: float
    """Distance between the centres of neighbouring cells."""


class SliceEncoder(nn.Module):
    """ResNet-18 up to its last feature map.

    Args:
        stem: "cifar" is for pictures of 32 x 32 (`ResNet18(small=True)`).
    """

    def __init__(self, stem: Stem = "imagenet") -> None:
        super().__init__()
        small = stem == "cifar"
        self.grid = Grid(0, 8 if small else 32)
        self.trunk = ResNet18(small)

    def maps(self, slices: Tensor) -> Tensor:
        """float `(N, 1, H, W)` or `(N, 3, H, W)` -> feature maps `(N, 512, h, w)`: the same as `forward`."""
        return self(slices)

    def forward(self, slices: Tensor) -> Tensor:
        """float `(N, 1, H, W)` or `(N, 3, H, W)` -> feature maps `(N, 512, h, w)`, h = H / 32, or / 8, rounded up."""
        return self.trunk(slices)


def each_slice(clips: Tensor) -> Tensor:
    """Clips `(B, S, H, W)` -> their slices `(B * S, 1, H, W)`; in colour, `(B, S, 3, H, W)` -> `(B * S, 3, H, W)`."""
    slices = clips.flatten(0, 1)
    return slices if clips.ndim == 5 else slices[:, None]


class ClipEncoder(nn.Module):
    """Slices -> feature maps -> pooled over the slices -> averaged over the picture -> 512 features.

    With `pool="max"` this is BYOLMed2D's encoder (thesis, chapter 4): `(B, S, H, W)` -> ResNet-18 ->
    `(B, S, 512, h, w)` -> max over S -> `(B, 512, h, w)` -> average -> `(B, 512)`. With `pool="none"` every slice
    stays on its own: `(B * S, 512)`.
    """

    features = FEATURES

    def __init__(self, pool: Pool = "max", stem: Stem = "imagenet") -> None:
        super().__init__()
        self.pool = pool
        self.slices = SliceEncoder(stem).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def trunk(self) -> ResNet18:
        """The ResNet, whose parameters bear torchvision's names."""
        return self.slices.trunk

    @property
    def grid(self) -> Grid:
        """Where the cells of its maps lie on the picture."""
        return self.slices.grid

    def maps(self, slices: Tensor) -> Tensor:
        """float `(N, 1, H, W)` or `(N, 3, H, W)` -> feature maps `(N, 512, h, w)`."""
        return self.slices(slices)

    def forward(self, clips: Tensor) -> Tensor:
        """float `(B, S, H, W)`, or `(B, S, 3, H, W)` in colour -> features `(B, 512)`, or `(B * S, 512)` unpooled."""
        maps = self.maps(each_slice(clips))
        if self.pool != "none":
            maps = maps.unflatten(0, clips.shape[:2])
            maps = maps.amax(1) if self.pool == "max" else maps.mean(1)
        return maps.mean((2, 3))


def slice_encoder(encoder: nn.Module) -> SliceEncoder | None:
    """The encoder of single slices within an encoder of either kind; None where it is no ResNet."""
    slices = encoder.slices if isinstance(encoder, ClipEncoder) else encoder
    return slices if isinstance(slices, SliceEncoder) else None


def save_weights(module: nn.Module, path: Path) -> None:
    """Write a module's parameters and buffers as safetensors."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
    with replacing(path) as partial:
        save_file(tensors, partial)


def load_encoder(encoder: nn.Module, path: Path) -> None:
    """Read what `save_weights(encoder.trunk, path)` wrote; a name or shape more, less or other is refused.

    Args:
        encoder: Its attribute `trunk` is the module whose weights the file holds.
        path: `encoder.safetensors` of a run folder.

    Raises:
        UserError: no such file, unreadable, not exactly this trunk's names and shapes, or a weight is not finite.
    """
    tensors = read_tensors(path)
    require_finite(path, tensors)
    try:
        encoder.trunk.load_state_dict(tensors)  # type: ignore[union-attr, operator]
    except RuntimeError as error:
        raise UserError(
            f"{path} does not hold exactly the weights of the network asked for, such as a ResNet-18 with "
            "torchvision's keys; name a run of the same network"
        ) from error
