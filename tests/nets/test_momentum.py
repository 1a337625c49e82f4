import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kneessl.nets.momentum import Queue, ema_update, tau_at


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


def directions(n: int, dim: int = 4, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def test_the_queue_starts_with_unit_vectors_of_all_directions():
    torch.manual_seed(0)
    keys = Queue(64, 1000).keys
    assert keys.shape == (64, 1000)
    torch.testing.assert_close(keys.norm(dim=0), torch.ones(1000))
    assert keys.mean(1).norm() < 0.1


@pytest.mark.parametrize("sizes", [[2, 2, 2], [3, 3, 3, 3], [5, 1, 4], [7], [7, 3], [12], [1] * 17, [15, 2], [0, 3]])
def test_the_queue_holds_the_last_keys_whatever_the_batches(sizes):
    torch.manual_seed(0)
    queue = Queue(4, 7)
    history = queue.keys.T.clone()
    for i, n in enumerate(sizes):
        k = directions(n, seed=i)
        queue.push(k)
        history = torch.cat([history, F.normalize(k, dim=1)])
    columns = (queue.end + torch.arange(7)) % 7  # from the oldest
    torch.testing.assert_close(queue.keys.T[columns], history[-7:])
    torch.testing.assert_close(queue.keys.norm(dim=0), torch.ones(7))
    one_by_one = Queue(4, 7)
    for i, n in enumerate(sizes):
        for key in directions(n, seed=i):
            one_by_one.push(key[None])
    assert queue.end == one_by_one.end


def test_the_queue_keeps_no_gradient_and_goes_with_the_weights():
    queue = Queue(4, 7)
    queue.push(directions(3).requires_grad_())
    assert not queue.keys.requires_grad
    assert set(queue.state_dict()) == {"keys", "end"}
    assert not list(queue.parameters())
    queue.push(directions(2).bfloat16())
    assert queue.keys.dtype == torch.float32
