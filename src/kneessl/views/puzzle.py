"""Jigsaw puzzles: nine tiles of a slice, cut with random gaps and put in another order."""

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, permutations

import numpy as np
import torch
from torch import Tensor

from kneessl.distributed import global_rows, local_rows
from kneessl.errors import UserError
from kneessl.views.resample import to_device_of

GRID = 3
TILES = GRID * GRID


@lru_cache
def _all_permutations(tiles: int) -> np.ndarray:
    """uint8 `(tiles!, tiles)`, in lexicographic order, the identity first."""
    flat = chain.from_iterable(permutations(range(tiles)))
    return np.fromiter(flat, np.uint8, math.factorial(tiles) * tiles).reshape(-1, tiles)


def _require_count(count: int, tiles: int) -> None:
    if not isinstance(count, int) or not 2 <= count <= math.factorial(tiles):
        raise UserError(
            f"settings.permutations is {count}; nine tiles have {math.factorial(TILES)} orders, "
            "so give a whole number from 2 to that"
        )


@lru_cache
def far_permutations(count: int, tiles: int = TILES, seed: int = 0) -> Tensor:
    """Choose permutations that are far from each other (Noroozi & Favaro 2016, algorithm 1).

    The first is drawn at random; each next one is that with the largest Hamming distance to those chosen, summed over
    them. Of equals, the paper takes any; here it is the first in lexicographic order.

    Args:
        count: How many.
        tiles: What they permute.
        seed: Chooses the first.

    Returns:
        int64 `(count, tiles)`, all different. Cached: do not write into it.

    Raises:
        UserError: there are not that many, or fewer than two are asked for.
    """
    _require_count(count, tiles)
    candidates = np.ascontiguousarray(_all_permutations(tiles).T)
    agreement = np.zeros(candidates.shape[1], np.int32)  # with all chosen, so the smallest is the farthest
    chosen = [int(np.random.default_rng(seed).integers(candidates.shape[1]))]
    while len(chosen) < count:
        last = chosen[-1]
        for row in candidates:
            agreement += row == row[last]
        agreement[last] = np.iinfo(np.int32).max // 2  # never again
        chosen.append(int(agreement.argmin()))
    return torch.from_numpy(candidates.T[chosen].astype(np.int64))


@lru_cache
def random_permutations(count: int, tiles: int = TILES, seed: int = 0) -> Tensor:
    """Draw different permutations at random, the identity as the first of them (SSLM's set).

    Arguments, result and errors are those of `far_permutations`.
    """
    _require_count(count, tiles)
    candidates = _all_permutations(tiles)
    drawn = np.random.default_rng(seed).permutation(len(candidates) - 1)[: count - 1] + 1
    return torch.from_numpy(candidates[np.concatenate([[0], drawn])].astype(np.int64))


def cut_tiles(pictures: Tensor, patch: float, gap: float, generator: torch.Generator) -> Tensor:
    """Cut one square from each cell of a 3 x 3 grid, at a random place that leaves neighbouring squares apart.

    Cells have a third of the side, rounded down; what is left over stays at the right and lower edge.

    Args:
        pictures: `(n, side, side)`, of at least 3 pixels.
        patch: Side of the squares, as a share of the cell's, above 0.
        gap: Largest distance of a square from its cell's upper and left edge, as a share of the cell's side;
            patch + gap is at most 1.
        generator: Draws the places, on the CPU.

    Returns:
        `(n, 9, p, p)`, row by row, on the pictures' device.
    """
    n, device = len(pictures), pictures.device
    cell = pictures.shape[2] // GRID
    side = max(1, round(cell * patch))
    farthest = min(round(cell * gap), cell - side)  # both rounded up might not fit
    drawn = torch.randint(farthest + 1, (2, global_rows(n), TILES, 1), generator=generator)
    offset = to_device_of(drawn[:, local_rows(n)], pictures)
    place = torch.arange(TILES, device=device)[:, None]
    start = torch.stack([place // GRID, place % GRID])[:, None] * cell + offset
    rows, columns = start + torch.arange(side, device=device)
    return pictures[torch.arange(n, device=device)[:, None, None, None], rows[..., :, None], columns[..., None, :]]


def reorder(tiles: Tensor, orders: Tensor) -> Tensor:
    """Put the tiles of each picture in its order: place j gets tile `orders[i, j]` of picture i.

    Args:
        tiles: `(n, 9, ...)`.
        orders: int64 `(n, 9)`, on the same device.

    Returns:
        `(n, 9, ...)`; `reorder(result, orders.argsort(1))` gives the tiles back.
    """
    return tiles[torch.arange(len(tiles), device=tiles.device)[:, None], orders]


@dataclass(frozen=True, eq=False)
class Puzzle:
    """Slices as puzzles whose order is one of a set; what a tile's sides mean, `cut_tiles` says.

    Args:
        orders: int64 `(count, 9)`, on the CPU.
        patch: Side of a tile, as a share of its cell's.
        gap: Largest distance of a tile from its cell's upper and left edge, as a share of the cell's side.
    """

    orders: Tensor
    patch: float
    gap: float

    def __call__(self, pictures: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`(n, side, side)` -> shuffled tiles `(n, 9, p, p)`, and which of `orders` each got, int64 `(n,)`."""
        tiles = cut_tiles(pictures, self.patch, self.gap, generator)
        drawn = torch.randint(len(self.orders), (global_rows(len(pictures)),), generator=generator)
        labels = drawn[local_rows(len(pictures))]
        return reorder(tiles, to_device_of(self.orders[labels], tiles)), to_device_of(labels, tiles)
