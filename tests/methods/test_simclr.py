import pytest
import torch

from kneessl import objectives
from kneessl.errors import UserError
from kneessl.methods.simclr import SimCLR


def test_the_loss_is_nt_xent_of_both_projections(encoder, views):
    method = SimCLR(encoder, hidden=16, dim=4, temperature=0.3)
    loss, z1, z2 = method(*views())
    for z, view in zip((z1, z2), views(), strict=True):
        torch.testing.assert_close(z, method.projector(encoder(view)).detach())
        assert not z.requires_grad
    assert loss.item() == pytest.approx(objectives.nt_xent(z1, z2, 0.3).item(), rel=1e-6)


def test_the_head_is_the_thesiss(encoder):
    encoder.features = 512
    head = SimCLR(encoder).projector
    assert [type(layer).__name__ for layer in head] == ["Linear", "ReLU", "Linear"]
    assert [tuple(layer.weight.shape) for layer in head[::2]] == [(512, 512), (128, 512)]


def test_it_learns_to_tell_clips_apart(encoder, views):
    method = SimCLR(encoder, hidden=16, dim=4)
    view, _ = views(n=8)
    optimizer = torch.optim.Adam(method.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = method(view, view + 0.01).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4


@pytest.mark.parametrize("setting", [{"temperature": 0}, {"hidden": 0}, {"dim": 2.5}, {"temperature": float("inf")}])
def test_nonsense_settings_are_refused_by_name(encoder, setting):
    with pytest.raises(UserError, match=f"settings.{next(iter(setting))} is"):
        SimCLR(encoder, **setting)
