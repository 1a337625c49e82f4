"""S. Manna et al. 2022 (Pattern Recognition Letters 154, 37-43): predict the order of a slice's jumbled patches."""

import torch
from torch import Tensor

from kneessl.methods.jigsaw import order_head, solve
from kneessl.methods.method import Encoder, Method, Outcome
from kneessl.methods.settings import require_whole
from kneessl.methods.sslm import GAP, PATCH
from kneessl.views.inputs import ViewMaker
from kneessl.views.puzzle import Puzzle, random_permutations


class Manna2022(Method):
    """SSLM's puzzle of a plain slice, solved by one trunk that all tiles share.

    Public is the abstract: models "predict the correct ordering of the jumbled image patches that the MR video frames
    are divided into". All else is our reading. The same authors' SSLM says how they make such puzzles (which we take,
    without its distortions: random orders with the identity among them, whole slice, tiles of 64 in cells of 85), and
    predicting an order means telling it from 1000. The paper's own network is not public, so ResNet-18 stands for it,
    which makes what was learnt usable downstream like any other method's encoder.

    Args:
        encoder: f, used on one tile at a time.
        permutations: How many orders there are to tell apart, the identity among them.
        hidden: Width of the hidden layer.
    """

    def __init__(self, encoder: Encoder, *, permutations: int = 1000, hidden: int = 1024) -> None:
        super().__init__()
        require_whole(hidden=hidden)
        self.encoder = encoder
        self.puzzle = Puzzle(random_permutations(permutations), PATCH, GAP)
        self.head = order_head(encoder.features, hidden, permutations)

    def inputs(self, clips: Tensor, make: ViewMaker, generator: torch.Generator) -> tuple[Tensor, ...]:
        """uint8 `(B, S, H, W)` -> tiles `(B * S, 9, p, p)`, standardised, and labels."""
        slices = make.preprocessing(clips.flatten(0, 1)[:, None])[:, 0]
        return self.puzzle(slices, generator)

    def forward(self, tiles: Tensor, labels: Tensor) -> Outcome:
        """Tiles `(N, 9, p, p)` and the orders' numbers `(N,)` -> cross-entropy, and the slices' features."""
        return solve(self.encoder, self.head, tiles, labels)
