"""Projection and prediction heads."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def mlp(*widths: int, norm: bool = True, bias: bool = True, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear - BN - activation, and so on, and a last Linear with nothing after it.

    Args:
        widths: Inputs, hidden layers, outputs; `mlp(512, 128)` is one Linear.
        norm: Batch norm after each hidden Linear.
        bias: Whether the last Linear has a bias; the hidden ones always have.
        activation: Activation of the hidden layers.
    """
    layers: list[nn.Module] = []
    for inputs, hidden in pairwise(widths[:-1]):
        layers += [nn.Linear(inputs, hidden), *([nn.BatchNorm1d(hidden)] if norm else []), activation()]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1], bias=bias))


def byol_head(inputs: int, hidden: int = 4096, outputs: int = 256) -> nn.Sequential:
    """Linear - BN - ReLU - Linear without bias: BYOL's projector, and its predictor (Grill et al. 2020, appendix J)."""
    return mlp(inputs, hidden, outputs, bias=False)


class Prototypes(nn.Module):
    """Cosines of rows with learnt directions: DINO's last layer, weight-normalised with its norms fixed at 1.

    It is computed in float32 or better: bf16's steps would be a tenth of what the teacher's temperature tells apart.

    Args:
        inputs: Length of a row.
        count: How many directions.
        frozen: Whether the directions stand still at first; set `frozen` to change it.
    """

    frozen: Tensor
    """bool scalar, saved with the weights: whether the directions get a gradient of 0."""

    def __init__(self, inputs: int, count: int, frozen: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(count, inputs))
        self.register_buffer("frozen", torch.tensor(frozen))

    def forward(self, x: Tensor) -> Tensor:
        """`(N, inputs)` -> `(N, count)`, from -1 to 1."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.weight.dtype)
            weight = torch.where(self.frozen, self.weight.detach(), self.weight)
            return F.linear(F.normalize(x, dim=1), F.normalize(weight, dim=1))
