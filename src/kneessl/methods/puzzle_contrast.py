"""SimCLR and MoCo v2 with jigsaw, in the form of PIRL (Misra & van der Maaten 2020): a slice resembles its own puzzle.

The thesis names both methods and defines neither. From PIRL: tiles of 64 pixels anywhere in cells of 85 (here in
proportion to the view's size), put in any order; each tile's features go through one linear layer to `dim` numbers, the
nine are concatenated as they come, and a second linear layer makes `dim` of them; the slice itself is projected by a
head of its own. Our reading: that head, the loss and its settings are SimCLR's or MoCo v2's, and the puzzle is cut from
view T of a slice.
"""

from typing import cast

import torch
from torch import Tensor, nn

from kneessl import objectives
from kneessl.distributed import gather, global_rows, local_rows
from kneessl.methods.method import Encoder, Outcome
from kneessl.methods.moco import MoCo
from kneessl.methods.simclr import SimCLR
from kneessl.views.inputs import ViewMaker
from kneessl.views.puzzle import TILES, cut_tiles, reorder
from kneessl.views.resample import to_device_of

PATCH, GAP = 64 / 85, 21 / 85


def jumbled(view: Tensor, generator: torch.Generator) -> Tensor:
    """Slices `(N, 1, size, size)` -> their tiles in random order, `(N, 9, p, p)`."""
    tiles = cut_tiles(view[:, 0], PATCH, GAP, generator)
    orders = torch.rand(global_rows(len(tiles)), TILES, generator=generator)[local_rows(len(tiles))].argsort(1)
    return reorder(tiles, to_device_of(orders, tiles))


class PuzzleHead(nn.Module):
    """PIRL's head g: nine tiles' features, in the order shown, to one embedding.

    Args:
        features: Of a tile.
        dim: Of a tile's embedding, and of the result.
    """

    def __init__(self, features: int, dim: int) -> None:
        super().__init__()
        self.tile, self.together = nn.Linear(features, dim), nn.Linear(TILES * dim, dim)

    def forward(self, encoder: nn.Module, tiles: Tensor) -> Tensor:
        """An encoder of single slices, and tiles float `(N, 9, p, p)` -> `(N, dim)`."""
        embedded = self.tile(encoder(tiles.flatten(0, 1)[:, None]))
        return self.together(embedded.unflatten(0, tiles.shape[:2]).flatten(1))


class SimCLRJigsaw(SimCLR):
    """NT-Xent between slices (view T') and their puzzles (from view T).

    Args:
        encoder: f, used on whole slices and on single tiles.
        hidden: Width of the slices' projector.
        dim: Output size of both heads.
        temperature: Of the loss.
    """

    def __init__(self, encoder: Encoder, *, hidden: int = 512, dim: int = 128, temperature: float = 0.1) -> None:
        super().__init__(encoder, hidden, dim, temperature)
        self.puzzle = PuzzleHead(encoder.features, dim)

    def inputs(self, clips: Tensor, make: ViewMaker, generator: torch.Generator) -> tuple[Tensor, ...]:
        """uint8 `(B, S, H, W)` -> slices `(B * S, 1, size, size)` and tiles `(B * S, 9, p, p)`."""
        view1, view2 = super().inputs(clips.flatten(0, 1)[:, None], make, generator)
        return view2, jumbled(view1, generator)

    def forward(self, slices: Tensor, tiles: Tensor) -> Outcome:
        """Slices and their tiles -> the loss, and both projections."""
        z1, z2 = self.projector(self.encoder(slices)), self.puzzle(self.encoder, tiles)
        loss = objectives.nt_xent(gather(z1), gather(z2), self.temperature)
        return Outcome(loss, z1.detach(), z2.detach())


class MoCoV2Jigsaw(MoCo):
    """A slice and its puzzle (both of view T) each seek the key of the slice's view T' among earlier keys.

    The loss is the mean of the two, as in PIRL: the key network holds only the slices' head, which would never learn
    without the slice as a query. MoCo's queue takes the place of PIRL's memory bank.

    Args:
        encoder: f, used on whole slices and on single tiles.
        dim: Output size of both heads.
        momentum: Decay of the key network.
        temperature: Of the loss.
        queue: The number of keys; fewer than there are slices in the training set.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        dim: int = 128,
        momentum: float = 0.999,
        temperature: float = 0.2,
        queue: int = 4096,
    ) -> None:
        super().__init__(encoder, dim, momentum, temperature, queue=queue)
        self.puzzle = PuzzleHead(encoder.features, dim)

    def inputs(self, clips: Tensor, make: ViewMaker, generator: torch.Generator) -> tuple[Tensor, ...]:
        """uint8 `(B, S, H, W)` -> two views of slices, `(B * S, 1, size, size)`, and tiles of the first."""
        view1, view2 = super().inputs(clips.flatten(0, 1)[:, None], make, generator)
        return view1, view2, jumbled(view1, generator)

    def forward(self, view1: Tensor, view2: Tensor, tiles: Tensor) -> Outcome:  # type: ignore[override]
        """Two views and the first one's tiles -> the loss, queries and keys of the slices; the keys join the queue."""
        earlier = self.queue.keys.clone()  # before this batch's own keys join
        by_slice, queries, keys = super().forward(view1, view2)
        q = self.puzzle(self.encoder, tiles)
        by_puzzle = objectives.info_nce(q, cast(Tensor, keys), earlier, self.temperature)
        return Outcome((by_slice + by_puzzle) / 2, queries, keys)
