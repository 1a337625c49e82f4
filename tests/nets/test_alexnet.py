import pytest
import torch
from torch.nn import functional as F

from kneessl.nets.alexnet import SMALLEST_SIDE, AlexNet

TORCHVISION = {
    "features.0.weight": (64, 3, 11, 11),
    "features.0.bias": (64,),
    "features.3.weight": (192, 64, 5, 5),
    "features.3.bias": (192,),
    "features.6.weight": (384, 192, 3, 3),
    "features.6.bias": (384,),
    "features.8.weight": (256, 384, 3, 3),
    "features.8.bias": (256,),
    "features.10.weight": (256, 256, 3, 3),
    "features.10.bias": (256,),
}
"""torchvision's `alexnet().state_dict()`, without `classifier`."""


def plain_forward(state, x):
    """The layers one by one: (index, stride, padding, pooled afterwards)."""
    for index, stride, padding, pooled in ((0, 4, 2, True), (3, 1, 2, True), (6, 1, 1, False), (8, 1, 1, False)):
        x = F.conv2d(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], stride, padding).clamp(
            min=0
        )
        x = F.max_pool2d(x, 3, 2) if pooled else x
    x = F.conv2d(x, state["features.10.weight"], state["features.10.bias"], 1, 1).clamp(min=0)
    return F.max_pool2d(x, 3, 2)


def test_keys_and_shapes_are_torchvisions():
    assert {k: tuple(v.shape) for k, v in AlexNet().trunk.state_dict().items()} == TORCHVISION


@pytest.mark.parametrize("channels", [1, 3])
def test_forward_equals_the_layers_one_by_one(channels):
    torch.manual_seed(0)
    net = AlexNet().double().eval()
    x = torch.randn(2, channels, 80, 71, dtype=torch.float64)
    with torch.no_grad():
        expected = plain_forward(net.state_dict(), x.expand(-1, 3, -1, -1))
        torch.testing.assert_close(net(x), expected, rtol=1e-12, atol=1e-12)


def test_224_pixels_give_6_and_63_are_the_least():
    net = AlexNet().eval()
    with torch.no_grad():
        assert net(torch.zeros(1, 1, 224, 224)).shape == (1, 256, 6, 6)
        assert net(torch.zeros(1, 1, SMALLEST_SIDE, SMALLEST_SIDE)).shape == (1, 256, 1, 1)
        with pytest.raises(RuntimeError):
            net(torch.zeros(1, 1, SMALLEST_SIDE - 1, SMALLEST_SIDE - 1))
