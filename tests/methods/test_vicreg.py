import pytest
import torch

from kneessl import objectives
from kneessl.errors import UserError
from kneessl.methods.vicreg import VICReg


def test_the_loss_is_that_of_both_embeddings_with_the_given_weights(encoder, views):
    method = VICReg(encoder, hidden=16, invariance=2, variance=3, covariance=5)
    loss, za, zb = method(*views())
    for z, view in zip((za, zb), views(), strict=True):
        torch.testing.assert_close(z, method.expander(encoder(view)).detach())
        assert not z.requires_grad
    expected = objectives.vicreg(za, zb, invariance=2, variance=3, covariance=5)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_expander_has_three_layers_of_one_width(encoder):
    head = VICReg(encoder, hidden=16).expander
    assert [type(layer).__name__ for layer in head] == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear"]
    assert [tuple(layer.weight.shape) for layer in head[::3]] == [(16, 8), (16, 16), (16, 16)]


def test_a_width_that_is_no_number_of_units_is_refused(encoder):
    with pytest.raises(UserError, match=r"settings\.hidden is 16\.5"):
        VICReg(encoder, hidden=16.5)
