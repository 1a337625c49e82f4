import copy

import pytest
import torch

from kneessl import objectives
from kneessl.methods.byol import BYOL
from kneessl.nets.encoder import ClipEncoder


@pytest.fixture
def method() -> BYOL:
    torch.manual_seed(0)
    return BYOL(ClipEncoder("max"), hidden=32, dim=16, tau=0.9)


def views(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 2, 32, 32, generator=generator), torch.randn(3, 2, 32, 32, generator=generator)


def test_loss_is_the_sum_of_both_directions(method):
    v1, v2 = views()
    twin = copy.deepcopy(method)
    loss, *watched = method(v1, v2)
    y1, y2 = twin.projector(twin.encoder(v1)), twin.projector(twin.encoder(v2))
    z1, z2 = twin.target(v1), twin.target(v2)
    expected = objectives.byol(twin.predictor(y1), z2) + objectives.byol(twin.predictor(y2), z1)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for projection, y in zip(watched, (y1, y2), strict=True):
        torch.testing.assert_close(projection, y.detach())
        assert not projection.requires_grad


def test_the_target_starts_equal_gets_no_gradient_and_trains_its_batch_norm(method):
    for a, b in zip(method.encoder.parameters(), method.target[0].parameters(), strict=True):
        assert torch.equal(a, b)
    method(*views()).loss.backward()
    assert all(p.grad is None for p in method.target.parameters())
    assert all(p.grad is not None for p in method.encoder.parameters())
    assert method.target[0].slices.trunk.bn1.num_batches_tracked == 2, "two forwards in training mode"


def test_views_pass_as_two_forwards_not_as_one_batch(method):
    method(*views())
    assert method.encoder.slices.trunk.bn1.num_batches_tracked == 2


def test_after_step_moves_the_target_by_the_schedule(method):
    with torch.no_grad():
        for p in method.encoder.parameters():
            p.add_(1.0)
    before = [p.clone() for p in method.target[0].parameters()]
    method.after_step(0.0)
    for old, online, new in zip(before, method.encoder.parameters(), method.target[0].parameters(), strict=True):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * online.data)
    before = [p.clone() for p in method.target.parameters()]
    method.after_step(1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, method.target.parameters(), strict=True)), "tau ends at 1"


def test_the_predictor_is_online_only_and_heads_have_byols_shape(method):
    assert [type(m).__name__ for m in method.projector] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert method.projector[3].bias is None
    assert method.predictor[3].bias is None
    assert len(method.target) == 2
