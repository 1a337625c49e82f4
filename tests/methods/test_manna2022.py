import pytest
import torch
from helpers.gradients import assert_every_parameter_learns

from kneessl.errors import UserError
from kneessl.methods.manna2022 import Manna2022
from kneessl.nets.encoder import ClipEncoder
from kneessl.views.puzzle import random_permutations


@pytest.fixture
def method() -> Manna2022:
    torch.manual_seed(0)
    return Manna2022(ClipEncoder("none"), permutations=12, hidden=16)


def test_labels_tell_the_order_of_the_plain_slices_cells(method, maker, generator):
    cells = torch.arange(9).view(3, 3) * 25 + 20
    slices = cells.repeat_interleave(86, 0).repeat_interleave(86, 1)[:256, :256].to(torch.uint8)
    tiles, labels = method.inputs(slices.expand(10, 2, 256, 256), maker(96), generator())
    assert tiles.shape == (20, 9, 24, 24)
    grey = tiles.flatten(2).median(2).values * 49.73 + 58.09
    torch.testing.assert_close(grey, method.puzzle.orders[labels] * 25.0 + 20, atol=1.0, rtol=0)
    assert torch.equal(method.puzzle.orders, random_permutations(12)), "the identity among them"


def test_inputs_depend_on_the_generator_alone(method, clips, maker, generator):
    a, b, c = (method.inputs(clips(), maker(), generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])
    assert not torch.equal(a[0], c[0])


def test_every_parameter_learns(method, clips, maker, generator):
    loss, embeddings, _ = method(*method.inputs(clips(), maker(), generator()))
    assert embeddings.shape == (3, 512)
    loss.backward()
    assert_every_parameter_learns(method)


def test_orders_can_be_learnt(maker, generator):
    """Two orders of cells of different grey: told after a few steps."""
    torch.manual_seed(0)
    method = Manna2022(ClipEncoder("none"), permutations=2, hidden=16)
    cells = torch.arange(9).view(3, 3) * 25 + 20
    slices = cells.repeat_interleave(86, 0).repeat_interleave(86, 1)[:256, :256].to(torch.uint8).expand(8, 1, 256, 256)
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-3)
    for step in range(8):
        loss = method(*method.inputs(slices, maker(32), generator(step))).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1, "chance is 0.69"


def test_nonsense_is_refused():
    with pytest.raises(UserError, match=r"settings\.permutations is 400000"):
        Manna2022(ClipEncoder("none"), permutations=400_000)
