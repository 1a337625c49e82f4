"""ResNet-18 up to its last feature map (He et al. 2016, table 1); parameters bear torchvision's names.

MONAI has the same network, but importing it takes a second of every start (docs/performance.md).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kneessl.nets.small_maps import Conv2d

WIDTHS = (64, 128, 256, 512)


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut around them: figure 2, projections by option B (section 3.3)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.act = nn.ReLU(inplace=True)
        self.conv2 = Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride > 1 or channels != width:
            self.downsample = nn.Sequential(Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(N, channels, h, w)` -> `(N, width, h / stride, w / stride)`, sides rounded up."""
        y = self.act(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x if self.downsample is None else self.downsample(x)
        return self.act(y)


class ResNet18(nn.Module):
    """ResNet-18 without average and classifier.

    The first convolution keeps torchvision's three input channels. A grey slice would be the same three times, and
    convolution is linear, so one channel is convolved with the channels' summed weights: equal in values and gradients,
    at a third of the reading.

    Args:
        small: For pictures of 32 x 32: a first convolution of 3 x 3 with stride 1 and no max-pooling (Chen et al. 2020,
            appendix B.9), so that a map's side is an eighth of the picture's.
    """

    def __init__(self, small: bool = False) -> None:
        super().__init__()
        side, stride = (3, 1) if small else (7, 2)
        self.conv1 = nn.Conv2d(3, WIDTHS[0], side, stride, padding=side // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.act = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        channels = (WIDTHS[0], *WIDTHS)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(Block(channels[k], width, 1 if k == 0 else 2), Block(width, width, 1))
            for k, width in enumerate(WIDTHS)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def layers(self) -> tuple[nn.Sequential, ...]:
        """The four stages, in order."""
        return self.layer1, self.layer2, self.layer3, self.layer4

    def grey_weight(self) -> Tensor:
        """The first convolution's weights for one channel that stands for all three: `(64, 1, side, side)`."""
        # One channel does not tell channels_last by its strides; only the clone makes the maps that follow so.
        return self.conv1.weight.sum(1, keepdim=True).clone(memory_format=torch.channels_last)

    def stem(self, slices: Tensor) -> Tensor:
        """The first convolution of grey slices or colour pictures."""
        weight = self.grey_weight() if slices.shape[1] == 1 else self.conv1.weight
        return F.conv2d(slices, weight, None, self.conv1.stride, self.conv1.padding)

    def forward(self, slices: Tensor) -> Tensor:
        """float `(N, 1, H, W)` or `(N, 3, H, W)` -> feature maps `(N, 512, h, w)`, h = H / 32, or / 8, rounded up."""
        x = self.maxpool(self.act(self.bn1(self.stem(slices))))
        for layer in self.layers:
            x = layer(x)
        return x
