import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kneessl.nets.heads import Prototypes, byol_head, mlp


def names(head: nn.Sequential) -> list[str]:
    return [type(layer).__name__ for layer in head]


def test_mlp_has_the_layers_it_says():
    assert names(mlp(5, 4)) == ["Linear"]
    assert names(mlp(5, 4, 3)) == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert names(mlp(5, 4, 3, norm=False)) == ["Linear", "ReLU", "Linear"]
    deep = mlp(5, 4, 3, 2, norm=False, activation=nn.GELU, bias=False)
    assert names(deep) == ["Linear", "GELU", "Linear", "GELU", "Linear"]
    assert [tuple(layer.weight.shape) for layer in deep[::2]] == [(4, 5), (3, 4), (2, 3)]
    assert deep[-1].bias is None
    assert deep[0].bias is not None


def test_byols_head_is_linear_norm_relu_linear_without_bias():
    head = byol_head(5, 7, 3)
    assert names(head) == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert head[-1].bias is None
    assert head[0].weight.shape == (7, 5)
    assert head[-1].weight.shape == (3, 7)


def test_prototypes_are_cosines_whatever_the_lengths():
    torch.manual_seed(0)
    layer, x = Prototypes(5, 9), torch.randn(4, 5)
    expected = F.cosine_similarity(x[:, None], layer.weight[None], dim=2)
    torch.testing.assert_close(layer(x), expected)
    with torch.no_grad():
        layer.weight *= 7
    torch.testing.assert_close(layer(3 * x), expected)
    assert layer(torch.zeros(1, 5)).isfinite().all()


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_prototypes_get_a_gradient_of_zero_and_pass_it_on(frozen):
    torch.manual_seed(0)
    layer, x = Prototypes(5, 9, frozen=frozen), torch.randn(4, 5, requires_grad=True)
    layer(x).square().sum().backward()
    assert layer.weight.grad is not None, "DDP waits for it"
    assert bool((layer.weight.grad == 0).all()) == frozen
    assert x.grad.abs().min() > 0


def test_prototypes_stay_float32_under_autocast():
    torch.manual_seed(0)
    layer, x = Prototypes(64, 9), torch.randn(4, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(x), layer(x.float()))
        assert layer(x.bfloat16()).dtype == torch.float32
    torch.testing.assert_close(layer(x), F.cosine_similarity(x[:, None], layer.weight[None], dim=2))
