from copy import deepcopy

import pytest
import torch
from torch import nn

from kneessl.nets import fast_maps as rooms
from kneessl.nets.alexnet import AlexNet
from kneessl.nets.encoder import ClipEncoder, SliceEncoder
from kneessl.nets.fast_maps import fast_maps, parts
from kneessl.nets.winograd import Winograd


def trained(stem: str = "imagenet") -> SliceEncoder:
    """With weights and statistics of batch norm that folding gets right only if it is right."""
    torch.manual_seed(0)
    encoder = SliceEncoder(stem)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.3, 2.0)
    return encoder.eval().requires_grad_(False)


@pytest.mark.parametrize(("stem", "side"), [("imagenet", 224), ("imagenet", 97), ("imagenet", 32), ("cifar", 40)])
@pytest.mark.parametrize("slices", [1, 7, 16])
def test_maps_are_those_of_pytorch_in_float64(stem, side, slices):
    encoder = trained(stem)
    x = torch.randn(slices, 1, side, side)
    found, right = fast_maps(encoder)(x), deepcopy(encoder).double()(x.double())
    assert found.shape == right.shape
    assert found.dtype == torch.float32
    assert (found - right).abs().max() < 2e-5 * right.abs().max()


def test_many_channels_go_by_minimal_filtering_and_few_do_not():
    blocks = fast_maps(trained()).blocks
    assert [isinstance(c, Winograd) for block in blocks for c in (block.conv1, block.conv2)] == [
        *[False] * 4, *[False, True, True, True] * 3,
    ]  # fmt: skip


def test_a_clip_encoder_is_its_slice_encoder():
    encoder = ClipEncoder("max").eval()
    encoder.slices.load_state_dict(trained().state_dict())
    x = torch.randn(3, 1, 64, 64)
    assert torch.equal(fast_maps(encoder)(x), fast_maps(encoder.slices)(x))


def test_the_same_slices_have_the_same_maps_each_time():
    maps, x = fast_maps(trained()), torch.randn(17, 1, 64, 64)
    assert torch.equal(maps(x), maps(x.clone()))


def test_it_does_not_follow_weights_that_change_afterwards():
    encoder, x = trained(), torch.randn(1, 1, 64, 64)
    maps = fast_maps(encoder)
    before = maps(x)
    with torch.no_grad():
        for weights in encoder.parameters():
            weights.zero_()
    assert torch.equal(maps(x), before)


def test_other_networks_have_no_such_way():
    assert fast_maps(AlexNet()) is None


def test_an_encoder_elsewhere_than_on_the_cpu_has_no_such_way():
    assert fast_maps(SliceEncoder().to("meta")) is None


@pytest.mark.parametrize("count", range(1, 40))
def test_parts_are_even_and_no_longer_than_asked(count):
    slices = torch.arange(count)
    lengths = [len(part) for part in parts(slices, rooms.TOGETHER)]
    assert torch.equal(torch.cat(parts(slices, rooms.TOGETHER)), slices)
    assert max(lengths) <= rooms.TOGETHER
    assert max(lengths) - min(lengths) <= 1
