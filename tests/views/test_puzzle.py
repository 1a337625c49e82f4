"""Permutation sets against brute force, and puzzles that can be put together again."""

from itertools import permutations

import pytest
import torch

from kneessl.errors import UserError
from kneessl.views.puzzle import Puzzle, cut_tiles, far_permutations, random_permutations, reorder


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(n: int, side: int) -> torch.Tensor:
    """Pictures whose pixel says where it is: (picture, row, column) as one number."""
    return torch.arange(n * side * side, dtype=torch.float64).view(n, side, side)


def distance(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    return sum(x != y for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("count", [2, 5, 24])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_greedy_set_equals_brute_force(count, seed):
    found = [tuple(p) for p in far_permutations(count, 4, seed).tolist()]
    left = [p for p in permutations(range(4)) if p != found[0]]
    expected = [found[0]]
    while len(expected) < count:
        best = max(left, key=lambda p: sum(distance(p, q) for q in expected))  # the first of equals
        expected.append(best)
        left.remove(best)
    assert found == expected


def test_a_thousand_permutations_of_nine_are_as_far_apart_as_the_papers():
    """Noroozi & Favaro 2016, table 4: average distance 8.00 and smallest 2, over 1000 permutations."""
    chosen = far_permutations(1000)
    assert len(chosen.unique(dim=0)) == 1000
    assert torch.equal(chosen.sort(1).values, torch.arange(9).expand(1000, 9))
    apart = (chosen[:, None] != chosen[None]).sum(2)[~torch.eye(1000, dtype=torch.bool)]
    assert apart.double().mean() == pytest.approx(8.0, abs=0.02)
    assert apart.min() >= 2
    assert torch.equal(far_permutations.__wrapped__(20), far_permutations(20)), "the same every time"
    assert not torch.equal(far_permutations(20, seed=1), far_permutations(20))


def test_sslms_set_is_random_and_begins_with_the_identity():
    drawn = random_permutations(1000)
    assert drawn[0].tolist() == list(range(9))
    assert len(drawn.unique(dim=0)) == 1000
    apart = (drawn[:, None] != drawn[None]).sum(2)[~torch.eye(1000, dtype=torch.bool)]
    assert apart.double().mean() == pytest.approx(8.0, abs=0.02), "two random permutations of nine agree in one place"
    assert torch.equal(random_permutations.__wrapped__(1000), drawn)
    assert len(random_permutations(24, 4).unique(dim=0)) == 24, "all there are"


@pytest.mark.parametrize("choose", [far_permutations, random_permutations])
@pytest.mark.parametrize("count", [0, 1, 362881, 10.5, -3])
def test_impossible_numbers_of_permutations_are_refused(choose, count):
    with pytest.raises(UserError, match=r"settings\.permutations is .*362880"):
        choose(count)


@pytest.mark.parametrize("side", [27, 32, 64, 224, 256])
def test_tiles_are_pieces_of_their_cells_at_random_places(side):
    pictures = numbered(40, side)
    tiles = cut_tiles(pictures, 64 / 85, 9 / 85, generator())
    cell, patch = side // 3, tiles.shape[2]
    gap = min(round(cell * 9 / 85), cell - patch)
    assert patch == round(cell * 64 / 85)
    assert tiles.shape == (40, 9, patch, patch)
    down, right = set(), set()
    for i in range(40):
        for c in range(9):
            row, column = divmod(int(tiles[i, c, 0, 0]) - i * side * side, side)
            assert torch.equal(tiles[i, c], pictures[i, row : row + patch, column : column + patch])
            down.add(row - c // 3 * cell)
            right.add(column - c % 3 * cell)
    assert down == right == set(range(gap + 1))
    assert gap > 0


def test_published_sides():
    """SSLM: 64 in cells of 85, offsets 0 to 9; jigsaw: 64 in cells of 75, offsets 0 to 11."""
    for side, patch, gap in ((256, 64 / 85, 9 / 85), (225, 64 / 75, 11 / 75)):
        tiles = cut_tiles(numbered(200, side), patch, gap, generator())
        assert tiles.shape[2] == 64
        columns = (tiles[:, 0, 0, 0] % side).unique()
        assert columns.tolist() == list(range(round(side // 3 * gap) + 1))


def test_whole_cells_in_order_are_the_picture():
    pictures = numbered(2, 12)
    tiles = cut_tiles(pictures, 1, 0, generator())
    rows = [torch.cat([tiles[:, 3 * r + c] for c in range(3)], dim=2) for r in range(3)]
    assert torch.equal(torch.cat(rows, dim=1), pictures)


def test_labels_undo_the_shuffle():
    puzzle = Puzzle(random_permutations(50), 64 / 85, 9 / 85)
    cells = torch.arange(9.0).view(3, 3).repeat_interleave(10, 0).repeat_interleave(10, 1)  # each cell its own number
    tiles, labels = puzzle(cells.expand(200, 30, 30), generator())
    shown = tiles.amax((2, 3))
    assert torch.equal(shown, tiles.amin((2, 3)))
    assert torch.equal(shown.long(), puzzle.orders[labels])
    restored = reorder(tiles, puzzle.orders[labels].argsort(1))
    assert torch.equal(restored[:, :, 0, 0], torch.arange(9.0).expand(200, 9))
    assert len(labels.unique()) > 40, "all orders occur"


def test_all_draws_come_from_the_generator():
    puzzle = Puzzle(random_permutations(50), 0.5, 0.5)
    (a, la), (b, lb), (c, lc) = (puzzle(numbered(8, 60), generator(s)) for s in (3, 3, 4))
    assert torch.equal(a, b)
    assert torch.equal(la, lb)
    assert not torch.equal(a, c)
    assert not torch.equal(la, lc)
