"""Gradients after a backward pass."""

from torch import nn


def assert_every_parameter_learns(*modules: nn.Module) -> None:
    """Each parameter has a gradient that is finite, and not 0 everywhere."""
    for module in modules:
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().sum() > 0, name
