"""Projection and prediction heads."""

from torch import nn


def byol_head(inputs: int, hidden: int = 4096, outputs: int = 256) -> nn.Sequential:
    """Linear - BN - ReLU - Linear without bias: BYOL's projector, and its predictor (Grill et al. 2020, appendix J)."""
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, outputs, bias=False),
    )
