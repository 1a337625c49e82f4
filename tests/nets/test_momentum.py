import copy
import math

import pytest
import torch
from torch import nn

from kneessl.nets.momentum import ema_update, tau_at


def test_ema_equals_the_closed_form():
    torch.manual_seed(0)
    online = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double()
    target = copy.deepcopy(online)
    start = [p.detach().clone() for p in target.parameters()]
    with torch.no_grad():
        for p in online.parameters():
            p.add_(torch.randn_like(p))
    tau, steps = 0.97, 25
    for _ in range(steps):
        ema_update(target, online, tau)
    for first, theta, p in zip(start, online.parameters(), target.parameters(), strict=True):
        torch.testing.assert_close(p.data, tau**steps * first + (1 - tau**steps) * theta.data, rtol=1e-12, atol=1e-14)


def test_ema_leaves_the_targets_buffers_alone():
    online, target = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    online.running_mean.fill_(7.0)
    ema_update(target, online, 0.0)
    assert torch.equal(target.running_mean, torch.zeros(2))


def test_tau_rises_along_a_cosine():
    assert tau_at(0, 0.99) == pytest.approx(0.99)
    assert tau_at(1, 0.99) == 1
    assert tau_at(0.5, 0.99) == pytest.approx(0.995)
    assert tau_at(0.25, 0.996) == pytest.approx(1 - 0.004 * (math.cos(math.pi / 4) + 1) / 2)
