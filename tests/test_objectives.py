import math

import numpy as np
import pytest
import torch

from kneessl import objectives


def byol_by_hand(p: np.ndarray, z: np.ndarray) -> float:
    """Thesis, equation 2.7, one pair at a time, in float64."""
    terms = []
    for a, b in zip(p.astype(np.float64), z.astype(np.float64), strict=True):
        a, b = a / math.sqrt(sum(a * a)), b / math.sqrt(sum(b * b))
        terms.append(sum((a - b) ** 2))
    return sum(terms) / len(terms)


@pytest.mark.parametrize(("n", "dim"), [(1, 2), (7, 3), (64, 256)])
def test_byol_equals_the_squared_distance_of_directions(n, dim):
    rng = np.random.default_rng(n)
    p, z = rng.normal(size=(2, n, dim)) * 10
    assert objectives.byol(torch.tensor(p), torch.tensor(z)).item() == pytest.approx(byol_by_hand(p, z), abs=1e-12)


def test_byol_known_values():
    p = torch.tensor([[3.0, 0.0]])
    assert objectives.byol(p, p * 5).item() == pytest.approx(0, abs=1e-6)
    assert objectives.byol(p, torch.tensor([[0.0, 2.0]])).item() == pytest.approx(2)
    assert objectives.byol(p, -p).item() == pytest.approx(4)
    both = objectives.byol(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    assert both.item() == pytest.approx(2), "the mean over the batch, not the sum"


def test_byol_gradient():
    p, z = torch.randn(2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(objectives.byol, (p.requires_grad_(), z.requires_grad_()))


def test_byol_is_float32_whatever_the_networks_ran_in():
    p = torch.randn(8, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = objectives.byol(p, p.roll(1, 0))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(byol_by_hand(p.float().numpy(), p.roll(1, 0).float().numpy()), rel=1e-5)


def test_byol_survives_huge_and_zero_vectors():
    p = torch.tensor([[1e18, 1e18], [0.0, 0.0]], requires_grad=True)
    loss = objectives.byol(p, torch.tensor([[1e18, 1e18], [1.0, 0.0]]))
    loss.backward()
    assert loss.isfinite()
    assert p.grad.isfinite().all()
