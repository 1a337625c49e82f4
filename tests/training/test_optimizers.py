from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from kneessl.training.optimizers import LARS, default_lr, make_optimizer, warmup_cosine


def test_lars_equals_the_formula_in_float64():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    x = torch.randn(6, 5, dtype=torch.float64)
    optimizer = LARS(net.parameters(), lr=0.3, momentum=0.9, weight_decay=0.01, eta=0.001)
    weights = [p.detach().numpy().copy() for p in net.parameters()]
    velocity = [np.zeros_like(w) for w in weights]
    for _ in range(4):
        optimizer.zero_grad()
        net(x).pow(2).sum().backward()
        for w, v, p in zip(weights, velocity, net.parameters(), strict=True):
            d = p.grad.numpy().copy()
            if w.ndim > 1:
                d += 0.01 * w
                d *= 0.001 * np.sqrt((w**2).sum()) / np.sqrt((d**2).sum())
            v *= 0.9
            v += d
            w -= 0.3 * v
        optimizer.step()
        for w, p in zip(weights, net.parameters(), strict=True):
            np.testing.assert_allclose(p.detach().numpy(), w, rtol=1e-12, atol=1e-14)


def test_lars_without_gradient_or_weight_does_not_divide_by_zero():
    zero, unused = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.ones(2, 2))
    zero.grad = torch.ones(2, 2)
    LARS([zero, unused], lr=1.0, weight_decay=0.0).step()
    assert torch.equal(zero.detach(), -torch.ones(2, 2)), "no trust ratio where the weight is zero"
    assert torch.equal(unused.detach(), torch.ones(2, 2))


def test_one_dimensional_parameters_are_never_decayed():
    for name in ("lars", "adamw", "sgd"):
        net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        before = [p.detach().clone() for p in net.parameters()]
        optimizer = make_optimizer(name, net, lr=0.1, weight_decay=0.5)
        for p in net.parameters():
            p.grad = torch.zeros_like(p)
        optimizer.step()
        for old, new in zip(before, net.parameters(), strict=True):
            assert torch.equal(old, new) == (new.ndim == 1), name


def test_default_learning_rates():
    assert default_lr("lars", 256, 300) == pytest.approx(0.3)
    assert default_lr("lars", 128, 100) == pytest.approx(0.225)
    assert default_lr("sgd", 512, 100) == pytest.approx(0.06)
    assert default_lr("adamw", 64, 100) < 0.01, "a LARS learning rate would make AdamW diverge"


def test_sgd_is_nesterovs_by_hand():
    net = nn.Linear(1, 1, bias=False).double()
    w, velocity = net.weight.item(), 0.0
    optimizer = make_optimizer("sgd", net, lr=0.1, weight_decay=0.01)
    for gradient in (1.0, -2.0, 0.5):
        net.weight.grad = torch.full_like(net.weight, gradient)
        optimizer.step()
        decayed = gradient + 0.01 * w
        velocity = 0.9 * velocity + decayed
        w -= 0.1 * (decayed + 0.9 * velocity)
        assert net.weight.item() == pytest.approx(w, abs=1e-12)


def test_schedule_warms_up_to_one_and_ends_at_zero():
    factors = [warmup_cosine(k, 100, 10) for k in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == pytest.approx(1)
    assert factors[55] == pytest.approx(0.5)
    assert factors[100] == pytest.approx(0, abs=1e-12)
    assert all(a >= b for a, b in pairwise(factors[9:]))
    assert warmup_cosine(0, 10, 0) == 1
