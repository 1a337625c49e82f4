"""What methods are tried on: a small encoder and views for it; smooth clips, and what makes views of them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from kneessl.views.augment import T_PRIME, T
from kneessl.views.inputs import ViewMaker
from kneessl.views.preprocess import Preprocessing


class TinyEncoder(nn.Module):
    """Clips `(B, S, H, W)` -> eight features, with a convolution and batch norm; any side will do."""

    features = 8

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, clips: Tensor) -> Tensor:
        return self.trunk(clips.mean(1, keepdim=True)).mean((2, 3))


@pytest.fixture
def encoder() -> TinyEncoder:
    torch.manual_seed(0)
    return TinyEncoder()


@pytest.fixture
def views() -> Callable[..., tuple[Tensor, Tensor]]:
    """Two views of `n` clips of two slices."""

    def make(seed: int = 1, n: int = 6) -> tuple[Tensor, Tensor]:
        first, second = torch.randn(2, n, 2, 8, 8, generator=torch.Generator().manual_seed(seed))
        return first, second

    return make


@pytest.fixture
def generator() -> Callable[..., torch.Generator]:
    """Generators by their seed."""
    return lambda seed=0: torch.Generator().manual_seed(seed)


@pytest.fixture
def clips() -> Callable[..., Tensor]:
    """`n` clips of `s` smooth slices, uint8."""

    def make(n: int = 3, s: int = 1) -> Tensor:
        noise = torch.rand(n * s, 1, 9, 9, generator=torch.Generator().manual_seed(0))
        smooth = torch.nn.functional.interpolate(noise, size=(256, 256), mode="bicubic")
        return (smooth * 255).clamp(0, 255).to(torch.uint8).view(n, s, 256, 256)

    return make


@pytest.fixture
def maker() -> Callable[..., ViewMaker]:
    """View makers by the size of their views."""
    return lambda size=48: ViewMaker(Preprocessing(size), T, T_PRIME)
