"""A small encoder that any two-view method can be tried on, and views for it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn


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
