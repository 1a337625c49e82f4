"""SparK's light decoder: from feature maps of four scales back to a picture (Tian et al. 2023)."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from kneessl.nets.small_maps import Conv2d


def up(inputs: int, outputs: int) -> nn.Sequential:
    """Twice the height and width, then two convolutions: `(N, inputs, H, W)` -> `(N, outputs, 2 H, 2 W)`."""
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, inputs, kernel_size=4, stride=2, padding=1),
        Conv2d(inputs, inputs, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU6(inplace=True),
        Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
    )


class LightDecoder(nn.Module):
    """A U-Net's way up, in five doublings; its channels halve with each.

    Args:
        width: Channels at the coarsest scale, a multiple of 32.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.widths = [width >> i for i in range(6)]
        self.ups = nn.ModuleList(up(a, b) for a, b in pairwise(self.widths))
        self.last = nn.Conv2d(self.widths[-1], 1, kernel_size=1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps from coarse to fine, i-th `(N, widths[i], 2^i h, 2^i w)`, five at most -> `(N, 1, 32 h, 32 w)`."""
        x = maps[0]
        for i, block in enumerate(self.ups):
            x = block(x + maps[i] if 0 < i < len(maps) else x)
        return self.last(x)
