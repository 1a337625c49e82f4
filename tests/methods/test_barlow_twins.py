import pytest
import torch

from kneessl import objectives
from kneessl.errors import UserError
from kneessl.methods.barlow_twins import BarlowTwins


def test_the_loss_is_that_of_both_projections(encoder, views):
    method = BarlowTwins(encoder, hidden=16, lambd=0.02)
    loss, za, zb = method(*views())
    for z, view in zip((za, zb), views(), strict=True):
        torch.testing.assert_close(z, method.projector(encoder(view)).detach())
        assert not z.requires_grad
    assert loss.item() == pytest.approx(objectives.barlow_twins(za, zb, 0.02).item(), rel=1e-6)


def test_the_projector_has_three_layers_of_one_width(encoder):
    head = BarlowTwins(encoder, hidden=16).projector
    assert [type(layer).__name__ for layer in head] == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear"]
    assert [tuple(layer.weight.shape) for layer in head[::3]] == [(16, 8), (16, 16), (16, 16)]
    assert head[-1].bias is None


def test_a_width_of_nothing_is_refused(encoder):
    with pytest.raises(UserError, match=r"settings\.hidden is 0"):
        BarlowTwins(encoder, hidden=0)
