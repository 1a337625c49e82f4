import copy

import pytest
import torch
from helpers.gradients import assert_every_parameter_learns
from torch.nn import functional as F

from kneessl import objectives
from kneessl.errors import UserError
from kneessl.methods.moco import MoCo


def test_the_loss_is_info_nce_over_the_queue_before_the_batch_joins_it(encoder, views):
    method = MoCo(encoder, dim=4, queue=16)
    before = method.queue.keys.clone()
    loss, q, k = method(*views())
    assert loss.item() == pytest.approx(objectives.info_nce(q, k, before, 0.2).item(), rel=1e-6)
    torch.testing.assert_close(method.queue.keys[:, :6], F.normalize(k, dim=1).T)
    assert torch.equal(method.queue.keys[:, 6:], before[:, 6:])
    assert method.queue.end == 6


def test_a_gradient_reaches_every_query_parameter_and_no_key_parameter(encoder, views):
    method = MoCo(encoder, dim=4, queue=16)
    outcome = method(*views())
    outcome.loss.backward()
    trained = [*method.encoder.parameters(), *method.projector.parameters()]
    assert_every_parameter_learns(method.encoder, method.projector)
    assert {id(p) for p in trained} == {id(p) for p in method.parameters() if p.requires_grad}
    assert all(p.grad is None for p in method.target.parameters())
    assert not outcome.embeddings.requires_grad
    assert not outcome.partners.requires_grad


def test_two_forwards_before_one_backward(encoder, views):
    """As gradients are added up over micro-batches: the queue moves on in between."""
    method = MoCo(encoder, dim=4, queue=16)
    first = method(*views(1)).loss
    second = method(*views(2)).loss
    (first + second).backward()
    assert method.queue.end == 12


def test_the_key_network_is_a_moving_average(encoder, views):
    method = MoCo(encoder, dim=4, queue=16, momentum=0.9)
    for a, b in zip(encoder.parameters(), method.target[0].parameters(), strict=True):
        assert torch.equal(a, b)
    with torch.no_grad():
        for p in [*method.encoder.parameters(), *method.projector.parameters()]:
            p.add_(1.0)
    before = [p.clone() for p in method.target.parameters()]
    method.after_step(1.0)
    online = [*method.encoder.parameters(), *method.projector.parameters()]
    for old, new, p in zip(before, method.target.parameters(), online, strict=True):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * p.detach(), msg="the same decay at the end as at the start")


def test_v1_has_a_linear_head_and_v2_one_of_two_layers(encoder):
    v1, v2 = MoCo(encoder, mlp=0, temperature=0.07), MoCo(encoder)
    assert [type(layer).__name__ for layer in v1.projector] == ["Linear"]
    assert [type(layer).__name__ for layer in v2.projector] == ["Linear", "ReLU", "Linear"]
    assert [tuple(layer.weight.shape) for layer in v2.projector[::2]] == [(8, 8), (128, 8)]
    assert v2.queue.keys.shape == (128, 4096)


def test_split_batch_norm_has_the_statistics_of_each_group(encoder, views):
    method = MoCo(encoder, dim=4, queue=16, split_bn=3)
    twin = copy.deepcopy(method)
    v1, v2 = views(n=7)
    _, q, k = method(v1, v2)
    for group in ([0, 1, 2], [3, 4], [5, 6]):
        torch.testing.assert_close(q[group], twin.projector(twin.encoder(v1[group])).detach())
    for group in ([0, 3, 6], [1, 4], [2, 5]):
        torch.testing.assert_close(k[group], twin.target(v2[group]).detach())
    assert method.encoder.trunk[1].num_batches_tracked == 3
    whole = MoCo(encoder, dim=4, queue=16)(v1, v2).embeddings
    assert not torch.allclose(whole, q), "one group is another thing"


def test_groups_of_one_are_refused(encoder, views):
    with pytest.raises(UserError, match="split_bn is 4, and a batch holds 6"):
        MoCo(encoder, dim=4, queue=16, split_bn=4)(*views(n=6))


@pytest.mark.parametrize(
    "setting", [{"temperature": 0}, {"queue": 0}, {"momentum": 1.5}, {"split_bn": 0}, {"dim": 1.5}]
)
def test_nonsense_settings_are_refused_by_name(encoder, setting):
    with pytest.raises(UserError, match=f"settings.{next(iter(setting))} is"):
        MoCo(encoder, **setting)
