import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kneessl.nets.encoder import ClipEncoder
from kneessl.nets.small_maps import Conv2d, MatrixProduct

SHAPES = [  # side, kernel, stride
    *((1, 3, 1), (1, 3, 2), (2, 3, 1), (2, 3, 2), (3, 1, 2), (4, 3, 2), (4, 1, 1), (5, 3, 2), (6, 5, 3), (7, 3, 1)),
]


@pytest.mark.parametrize(("side", "kernel", "stride"), SHAPES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_the_convolutions(side, kernel, stride, layout):
    generator = torch.Generator().manual_seed(side)
    x = torch.randn(3, 5, side, side + 1, dtype=torch.float64, generator=generator)
    x = x.to(memory_format=layout).requires_grad_()
    weight = torch.randn(7, 5, kernel, kernel, dtype=torch.float64, generator=generator, requires_grad=True)
    expected = F.conv2d(x, weight, None, stride, kernel // 2)
    product = MatrixProduct.apply(x, weight, stride, kernel // 2)
    torch.testing.assert_close(product, expected)
    assert product.is_contiguous(memory_format=torch.channels_last)
    gradient = torch.randn(expected.shape, dtype=torch.float64, generator=generator)
    for ours, wanted in zip(
        torch.autograd.grad(product, (x, weight), gradient),
        torch.autograd.grad(expected, (x, weight), gradient),
        strict=True,
    ):
        torch.testing.assert_close(ours, wanted)


@pytest.mark.parametrize(
    ("channels", "side", "product"), [(512, 7, True), (512, 8, False), (16, 1, True), (16, 2, False)]
)
def test_only_small_maps_under_bfloat16_go_by_matrix_products(channels, side, product):
    convolution, x = Conv2d(4, channels, 3, padding=1, bias=False), torch.randn(2, 4, side, side)
    assert "Convolution" in type(convolution(x).grad_fn).__name__, "float32 is left as it is"
    with torch.autocast("cpu", torch.bfloat16):
        y = convolution(x)
    assert ("MatrixProduct" in type(y.grad_fn).__name__) is product
    assert y.dtype == torch.bfloat16


def test_the_first_maps_need_no_gradient():
    convolution = Conv2d(4, 512, 3, padding=1, bias=False)
    with torch.autocast("cpu", torch.bfloat16):
        convolution(torch.randn(2, 4, 2, 2)).float().sum().backward()
    assert torch.isfinite(convolution.weight.grad).all()


@pytest.mark.parametrize("side", [64, 96])
def test_a_resnets_gradients_are_as_exact_as_with_plain_convolutions(side, monkeypatch):
    """Both in bfloat16, against float32: the products' error is no larger than the convolutions'."""

    def gradients(narrow: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        encoder = ClipEncoder("max")
        clips = torch.randn(8, 2, side, side)
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            features = encoder(clips)
        features.float().pow(2).mean().backward()
        return [p.grad.clone() for p in encoder.slices.trunk.layer4.parameters()]

    exact, products = gradients(False), gradients(True)
    monkeypatch.setattr(Conv2d, "forward", nn.Conv2d.forward)
    plain = gradients(True)

    def error(others: list[torch.Tensor]) -> float:
        return max(float((a - b).norm() / a.norm()) for a, b in zip(exact, others, strict=True))

    assert error(products) < 1.3 * error(plain)
