from copy import deepcopy

import pytest
import torch
from torch import nn

from kneessl.nets import onnx_maps as rooms
from kneessl.nets.alexnet import AlexNet
from kneessl.nets.encoder import ClipEncoder, SliceEncoder
from kneessl.nets.onnx_maps import onnx_maps


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
@pytest.mark.parametrize("slices", [1, 5])
def test_maps_are_those_of_pytorch_in_float64(stem, side, slices):
    encoder = trained(stem)
    x = torch.randn(slices, 1, side, side)
    found, right = onnx_maps(encoder)(x), deepcopy(encoder).double()(x.double())
    assert found.shape == right.shape
    assert found.dtype == torch.float32
    assert (found - right).abs().max() < 2e-5 * right.abs().max()


def test_a_clip_encoder_is_its_slice_encoder():
    encoder = ClipEncoder("max").eval()
    encoder.slices.load_state_dict(trained().state_dict())
    x = torch.randn(3, 1, 64, 64)
    assert torch.equal(onnx_maps(encoder)(x), onnx_maps(encoder.slices)(x))


def test_it_does_not_follow_weights_that_change_afterwards():
    encoder, x = trained(), torch.randn(1, 1, 64, 64)
    maps = onnx_maps(encoder)
    before = maps(x)
    encoder.trunk.conv1.weight.zero_()
    assert torch.equal(maps(x), before)


def test_other_networks_have_no_such_way():
    assert onnx_maps(AlexNet()) is None


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_without_onnx_runtime_there_is_no_such_way(monkeypatch, missing):
    monkeypatch.setattr(rooms, "find_spec", lambda name: None if name == missing else object())
    assert onnx_maps(trained()) is None
