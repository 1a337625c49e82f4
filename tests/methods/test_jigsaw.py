import pytest
import torch
from helpers.gradients import assert_every_parameter_learns

from kneessl.errors import UserError
from kneessl.methods.jigsaw import Jigsaw
from kneessl.nets.encoder import ClipEncoder
from kneessl.views.augment import T
from kneessl.views.puzzle import far_permutations


@pytest.fixture
def method() -> Jigsaw:
    torch.manual_seed(0)
    return Jigsaw(ClipEncoder("none"), permutations=12, hidden=16)


def test_inputs_are_tiles_of_a_view_standardised_each(method, clips, maker, generator):
    tiles, labels = method.inputs(clips(3, 2), maker(), generator())
    assert tiles.shape == (6, 9, 14, 14), "cells of 16, tiles of 64 / 75 of that"
    flat = tiles.double().flatten(2)
    assert flat.mean(2).abs().max() < 1e-5
    torch.testing.assert_close(flat.std(2, correction=0), torch.ones(6, 9).double(), atol=1e-4, rtol=0)
    replay = generator()
    view = maker()(clips(3, 2).view(6, 1, 256, 256), T, replay)
    raw, same = method.puzzle(view[:, 0], replay)
    raw = raw.double().flatten(2)
    torch.testing.assert_close(flat, (raw - raw.mean(2, keepdim=True)) / raw.std(2, correction=0, keepdim=True),
                               atol=1e-4, rtol=1e-4)  # fmt: skip
    assert torch.equal(labels, same)


def test_air_is_not_blown_up(method, maker, generator):
    tiles, _ = method.inputs(torch.zeros(2, 1, 256, 256, dtype=torch.uint8), maker(), generator())
    assert tiles.abs().max() < 1e-3


def test_inputs_depend_on_the_generator_alone(method, clips, maker, generator):
    a, b, c = (method.inputs(clips(), maker(), generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])
    assert not torch.equal(a[0], c[0])


def test_loss_is_the_cross_entropy_of_the_concatenated_tiles(method):
    method.eval()  # so that tiles can pass one by one
    tiles, labels = torch.randn(4, 9, 14, 14), torch.tensor([0, 3, 11, 3])
    outcome = method(tiles, labels)
    features = torch.stack([method.encoder(tiles[:, i, None]) for i in range(9)], dim=1)
    logits = method.head(torch.cat([features[:, i] for i in range(9)], dim=1)).double()
    expected = -(logits.softmax(1).log()[torch.arange(4), labels]).mean()
    assert outcome.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(outcome.embeddings, features.detach().mean(1))
    assert not outcome.embeddings.requires_grad


def test_every_parameter_learns(method, clips, maker, generator):
    method(*method.inputs(clips(), maker(), generator())).loss.backward()
    assert_every_parameter_learns(method)


def test_orders_are_far_apart_and_nonsense_is_refused(method):
    assert torch.equal(method.puzzle.orders, far_permutations(12))
    with pytest.raises(UserError, match=r"settings\.permutations is 1;"):
        Jigsaw(ClipEncoder("none"), permutations=1)
    with pytest.raises(UserError, match=r"settings\.hidden is 0"):
        Jigsaw(ClipEncoder("none"), permutations=2, hidden=0)
