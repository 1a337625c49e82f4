import pytest
import torch
from helpers.gradients import assert_every_parameter_learns

from kneessl.errors import UserError
from kneessl.methods.sslm import SSLM, distort
from kneessl.nets.sslm import SSLMEncoder
from kneessl.views.affine import affine
from kneessl.views.puzzle import random_permutations


@pytest.fixture
def method() -> SSLM:
    torch.manual_seed(0)
    return SSLM(SSLMEncoder(width=2), permutations=12, hidden=8)


def test_a_slice_of_256_gives_the_published_tiles(method, clips, maker, generator):
    tiles, labels = method.inputs(clips(2, 2), maker(256), generator())
    assert tiles.shape == (4, 9, 64, 64)
    assert labels.shape == (4,)
    assert labels.max() < 12
    values = tiles * (49.73 / 255) + 58.09 / 255
    assert values.min() >= -1e-5
    assert values.max() <= 1 + 1e-5
    small, _ = method.inputs(clips(), maker(64), generator())
    assert small.shape == (3, 9, 16, 16)


def test_labels_tell_the_order(method, maker, generator):
    """Cells of their own grey, 25 apart: distortions change a tile's middle by less than half of that."""
    cells = torch.arange(9).view(3, 3) * 25 + 40
    slices = cells.repeat_interleave(86, 0).repeat_interleave(86, 1)[:256, :256].to(torch.uint8)
    tiles, labels = method.inputs(slices.expand(40, 1, 256, 256), maker(256), generator())
    middle = tiles[:, :, 16:48, 16:48].mean((2, 3))
    ranks = middle.argsort(1).argsort(1)
    # Brightness by 15 % can swap neighbours in rank, so all nine agree on average rather than always.
    assert (ranks - method.puzzle.orders[labels]).abs().double().mean() < 0.6
    assert torch.equal(method.puzzle.orders, random_permutations(12))


def test_distortions_are_the_published_ones(clips, generator):
    """Every distorted tile is, up to noise, one of 54 moves times one of five brightnesses."""
    tile = clips(1)[0, 0, :64, :64].double() / 255 * 0.8
    many = distort(tile.expand(20, 9, 64, 64), generator()).flatten(0, 1)
    moves = torch.cartesian_prod(torch.tensor([-15.0, 0, 15]), torch.tensor([-6.0, 0, 6]), torch.tensor([-6.0, 0, 6]),
                                 torch.tensor([1, 1.1]))  # fmt: skip
    moved = affine(tile.expand(54, 1, 64, 64), moves[:, 0], moves[:, 1:3], moves[:, 3])[:, 0]
    levels = torch.tensor([0.85, 0.9, 1, 1.1, 1.15])
    known = (moved[:, None] * levels[:, None, None]).clamp(0, 1).flatten(0, 1)
    rms = torch.cdist(many.flatten(1), known.flatten(1)) / 64
    best = rms.min(1)
    assert best.values.max() < 0.055, "what is left is noise of 0.05, clipped"
    assert best.values.min() > 0.03
    assert len((best.indices // 5).unique()) > 45, "all moves occur"
    plain = (best.indices % 5 == 2).double().mean()
    assert plain == pytest.approx(0.5 + 0.5 / 5, abs=0.12), "half keep their brightness, and a fifth of the rest"


def test_inputs_depend_on_the_generator_alone(method, clips, maker, generator):
    a, b, c = (method.inputs(clips(), maker(64), generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])
    assert not torch.equal(a[0], c[0])


def test_loss_and_gradients(method, clips, maker, generator):
    tiles, labels = method.inputs(clips(6), maker(64), generator())
    loss, embeddings, _ = method(tiles, labels)
    logits = method.head(embeddings).double()
    assert loss.item() == pytest.approx(-logits.log_softmax(1)[torch.arange(6), labels].mean().item(), rel=1e-5)
    assert embeddings.shape == (6, 32)
    loss.backward()
    assert_every_parameter_learns(method)


def test_nonsense_is_refused():
    with pytest.raises(UserError, match=r"settings\.permutations is 0"):
        SSLM(SSLMEncoder(width=2), permutations=0)
    with pytest.raises(UserError, match=r"settings\.hidden is 2\.5"):
        SSLM(SSLMEncoder(width=2), hidden=2.5)
