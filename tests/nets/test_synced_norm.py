"""What batch norm over all processes computes, `tests/test_two_ranks.py` tells with two of them."""

import pytest
import torch
from torch import nn

from kneessl.nets.synced_norm import NormOnCPU, NormOnGPU, alone, synced


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.BatchNorm1d(144, affine=False))


@pytest.mark.parametrize(("gpu", "kind"), [(False, NormOnCPU), (True, NormOnGPU)])
def test_layers_change_class_and_back_and_stay_what_they_hold(monkeypatch, gpu, kind):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    net = network()
    held = dict(net.named_parameters()) | dict(net.named_buffers())
    assert synced(net) is net
    assert [type(net[i]) for i in (1, 3)] == [kind, kind]
    assert alone(net) is net
    assert [type(net[i]) for i in (1, 3)] == [nn.BatchNorm2d, nn.BatchNorm1d]
    assert all(v is held[k] for k, v in (dict(net.named_parameters()) | dict(net.named_buffers())).items())
    assert str(net) == str(network())


@pytest.mark.parametrize("gpu", [False, True])
def test_one_process_gets_what_plain_batch_norm_gives(monkeypatch, gpu):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    x = torch.randn(5, 1, 8, 8)
    plain, other = network(), synced(network())
    for training in (True, False):
        torch.testing.assert_close(other.train(training)(x), plain.train(training)(x), rtol=1e-4, atol=1e-5)
    assert other.state_dict().keys() == plain.state_dict().keys()
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(other.state_dict()[key], value)


def test_half_precision_goes_in_and_comes_out_and_statistics_are_precise():
    x = 100 + torch.randn(64, 3, 4, 4, dtype=torch.bfloat16)
    norm = synced(nn.BatchNorm2d(3))
    y = norm(x)
    assert y.dtype == torch.bfloat16
    assert norm.running_var.dtype == torch.float32
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * x.float().transpose(0, 1).flatten(1).var(1))
