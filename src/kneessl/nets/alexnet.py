"""AlexNet up to its last feature map: the trunk of MRNet as published."""

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from kneessl.nets.encoder import Grid

MAPS = 256
"""Channels of the last feature map."""
SMALLEST_SIDE = 63
"""A smaller slice leaves nothing for the third pooling to pool."""


class AlexNet(nn.Module):
    """The convolutions of AlexNet in its one-column form (Krizhevsky 2014), as torchvision has it; no classifier.

    Parameters bear torchvision's names and shapes (`features.0.weight` is `(64, 3, 11, 11)`). As in `ResNet18`, one
    grey channel is convolved with the three channels' summed weights.
    """

    grid = Grid(31, 32)

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, MAPS, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
        )

    @property
    def trunk(self) -> nn.Module:
        """The encoder itself: the module whose parameters bear torchvision's names."""
        return self

    def maps(self, slices: Tensor) -> Tensor:
        """float `(N, 1, H, W)` or `(N, 3, H, W)` -> feature maps `(N, 256, h, w)`: the same as `forward`."""
        return self(slices)

    def forward(self, slices: Tensor) -> Tensor:
        """float `(N, 1, H, W)` or `(N, 3, H, W)`, H and W at least 63 -> feature maps `(N, 256, h, w)`; 224 gives 6."""
        first = cast(nn.Conv2d, self.features[0])
        weight = first.weight.sum(1, keepdim=True) if slices.shape[1] == 1 else first.weight
        x = F.conv2d(slices, weight, first.bias, stride=4, padding=2)
        return self.features[1:](x)
