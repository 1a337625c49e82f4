import copy

import pytest
import torch

from kneessl import objectives
from kneessl.errors import UserError
from kneessl.methods.simsiam import SimSiam


def test_the_loss_is_the_mean_of_both_directions(encoder, views):
    method = SimSiam(encoder, dim=16, hidden=4)
    twin = copy.deepcopy(method)
    v1, v2 = views()
    loss, first, second = method(v1, v2)
    z1, z2 = twin.projector(twin.encoder(v1)), twin.projector(twin.encoder(v2))
    torch.testing.assert_close(first, z1.detach())
    torch.testing.assert_close(second, z2.detach())
    expected = (objectives.simsiam(twin.predictor(z1), z2) + objectives.simsiam(twin.predictor(z2), z1)) / 2
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert not first.requires_grad


def test_the_other_side_is_a_constant(encoder, views):
    """The gradient is that of a loss whose targets are numbers."""
    method = SimSiam(encoder, dim=16, hidden=4)
    twin = copy.deepcopy(method)
    v1, v2 = views()
    method(v1, v2).loss.backward()
    z1, z2 = twin.projector(twin.encoder(v1)), twin.projector(twin.encoder(v2))
    c1, c2 = (torch.tensor(z.tolist()) for z in (z1, z2))
    ((objectives.simsiam(twin.predictor(z1), c2) + objectives.simsiam(twin.predictor(z2), c1)) / 2).backward()
    for a, b in zip(method.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_the_heads_are_the_papers(encoder):
    method = SimSiam(encoder, dim=16, hidden=4)
    assert [type(m).__name__ for m in method.projector] == ["Linear", "BatchNorm1d", "ReLU"] * 2 + [
        "Linear",
        "BatchNorm1d",
    ]
    assert not method.projector[-1].affine
    assert [type(m).__name__ for m in method.predictor] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert method.predictor[0].weight.shape == (4, 16)
    assert method.predictor[-1].bias is not None


def test_nonsense_settings_are_refused_by_name(encoder):
    with pytest.raises(UserError, match=r"settings\.hidden is 0"):
        SimSiam(encoder, hidden=0)
