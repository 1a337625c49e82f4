import copy

import pytest
import torch
from helpers.gradients import assert_every_parameter_learns

from kneessl import objectives
from kneessl.errors import UserError
from kneessl.methods.puzzle_contrast import MoCoV2Jigsaw, PuzzleHead, SimCLRJigsaw, jumbled
from kneessl.nets.encoder import ClipEncoder
from kneessl.views.augment import T_PRIME, T


@pytest.fixture
def simclr() -> SimCLRJigsaw:
    torch.manual_seed(0)
    return SimCLRJigsaw(ClipEncoder("none"), hidden=16, dim=8, temperature=0.3)


@pytest.fixture
def moco() -> MoCoV2Jigsaw:
    torch.manual_seed(0)
    return MoCoV2Jigsaw(ClipEncoder("none"), dim=8, momentum=0.9, temperature=0.3, queue=12)


def test_a_jumbled_slice_holds_a_tile_of_each_cell_in_any_order(generator):
    cells = torch.arange(9.0).view(3, 3).repeat_interleave(17, 0).repeat_interleave(17, 1)
    tiles = jumbled(cells.expand(400, 1, 51, 51), generator())
    assert tiles.shape == (400, 9, 13, 13)
    shown = tiles.amax((2, 3))
    assert torch.equal(shown, tiles.amin((2, 3)))
    assert torch.equal(shown.sort(1).values, torch.arange(9.0).expand(400, 9))
    assert len(shown.unique(dim=0)) > 390, "hardly two orders alike"
    for place in range(9):
        assert len(shown[:, place].unique()) == 9, "every tile can come to every place"


def test_the_head_is_two_linear_layers_over_tiles_in_the_order_shown():
    torch.manual_seed(0)
    head = PuzzleHead(4, 3).double()
    tiles = torch.randn(2, 9, 2, 2, dtype=torch.float64)
    found = head(lambda x: x.flatten(1), tiles)
    w1, b1, w2, b2 = head.tile.weight, head.tile.bias, head.together.weight, head.together.bias
    for i in range(2):
        embedded = [w1 @ tiles[i, j].flatten() + b1 for j in range(9)]
        torch.testing.assert_close(found[i], w2 @ torch.cat(embedded) + b2)
    assert not torch.allclose(found, head(lambda x: x.flatten(1), tiles.flip(1)))


def test_simclr_contrasts_slices_with_their_puzzles(simclr, clips, maker, generator):
    slices, tiles = simclr.inputs(clips(3, 2), maker(), generator())
    assert slices.shape == (6, 1, 48, 48)
    assert tiles.shape == (6, 9, 12, 12)
    twin = copy.deepcopy(simclr)
    loss, z1, z2 = simclr(slices, tiles)
    expected1 = twin.projector(twin.encoder(slices)).detach()
    expected2 = twin.puzzle(twin.encoder, tiles).detach()
    torch.testing.assert_close(z1, expected1)
    torch.testing.assert_close(z2, expected2)
    assert loss.item() == pytest.approx(objectives.nt_xent(expected1, expected2, 0.3).item(), rel=1e-5)
    loss.backward()
    assert_every_parameter_learns(simclr)


def test_mocos_loss_is_the_mean_of_both_queries_against_earlier_keys(moco, clips, maker, generator):
    view1, view2, tiles = moco.inputs(clips(3, 2), maker(), generator())
    assert view1.shape == view2.shape == (6, 1, 48, 48)
    twin, before = copy.deepcopy(moco), moco.queue.keys.clone()
    loss, queries, keys = moco(view1, view2, tiles)
    q, k = twin.projector(twin.encoder(view1)).detach(), twin.target(view2)
    g = twin.puzzle(twin.encoder, tiles).detach()
    torch.testing.assert_close(queries, q)
    torch.testing.assert_close(keys, k)
    expected = (objectives.info_nce(q, k, before, 0.3) + objectives.info_nce(g, k, before, 0.3)) / 2
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(moco.queue.keys[:, :6], torch.nn.functional.normalize(k, dim=1).T)
    torch.testing.assert_close(moco.queue.keys[:, 6:], before[:, 6:])


def test_all_but_the_key_network_learns_and_that_follows(moco, clips, maker, generator):
    moco(*moco.inputs(clips(), maker(), generator())).loss.backward()
    for name, p in moco.named_parameters():
        if name.startswith("target."):
            assert p.grad is None, name
        else:
            assert p.grad is not None, name
            assert p.grad.abs().sum() > 0, name
    with torch.no_grad():
        for p in moco.projector.parameters():
            p.add_(1)
    old = [p.clone() for p in moco.target[1].parameters()]
    moco.after_step(0.5)
    for was, now, online in zip(old, moco.target[1].parameters(), moco.projector.parameters(), strict=True):
        torch.testing.assert_close(now.data, 0.9 * was.data + 0.1 * online.data)


@pytest.mark.parametrize("name", ["simclr", "moco"])
def test_inputs_depend_on_the_generator_alone(name, request, clips, maker, generator):
    method = request.getfixturevalue(name)
    a, b, c = (method.inputs(clips(), maker(), generator(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert all(not torch.equal(x, y) for x, y in zip(a, c, strict=True))


def test_the_puzzle_is_cut_from_view_t_and_its_partner_is_view_t_prime(simclr, moco, clips, maker, generator):
    replay, make = generator(), maker()
    slices = clips(3, 2).view(6, 1, 256, 256)
    view1, view2 = make(slices, T, replay), make(slices, T_PRIME, replay)
    tiles = jumbled(view1, replay)
    found = *simclr.inputs(clips(3, 2), make, generator()), *moco.inputs(clips(3, 2), make, generator())
    for got, expected in zip(found, (view2, tiles, view1, view2, tiles), strict=True):
        assert torch.equal(got, expected)


def test_nonsense_is_refused():
    with pytest.raises(UserError, match=r"settings\.temperature is 0"):
        SimCLRJigsaw(ClipEncoder("none"), temperature=0)
    with pytest.raises(UserError, match=r"settings\.queue is 0"):
        MoCoV2Jigsaw(ClipEncoder("none"), queue=0)
