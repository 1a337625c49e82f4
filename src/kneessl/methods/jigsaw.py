"""Jigsaw puzzles (Noroozi & Favaro 2016): tell in which order the nine tiles of a slice were put."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kneessl.methods.method import Encoder, Method, Outcome
from kneessl.methods.settings import require_whole
from kneessl.nets.heads import mlp
from kneessl.views.inputs import ViewMaker
from kneessl.views.puzzle import TILES, Puzzle, far_permutations

FLAT = 0.02
"""A tile's standard deviation counts as at least this: about one grey level, so that air is not blown up to noise."""


def order_head(features: int, hidden: int, orders: int) -> nn.Sequential:
    """The nine tiles' features, concatenated in the order shown -> logits over the orders."""
    return mlp(TILES * features, hidden, orders, norm=False)


def solve(encoder: nn.Module, head: nn.Module, tiles: Tensor, labels: Tensor) -> Outcome:
    """Each tile by itself through the same encoder; then all nine tell the order.

    Args:
        encoder: float `(N, 1, p, p)` -> `(N, features)`.
        head: What `order_head` makes.
        tiles: float `(n, 9, p, p)`, shuffled.
        labels: int64 `(n,)`, the number of each order.

    Returns:
        Mean cross-entropy, and each slice's features: the mean over its tiles.
    """
    features = encoder(tiles.flatten(0, 1)[:, None]).unflatten(0, tiles.shape[:2])
    loss = F.cross_entropy(head(features.flatten(1)).float(), labels)
    return Outcome(loss, features.detach().mean(1))


class Jigsaw(Method):
    """Cut a view into 3 x 3 cells, take a tile at random from each, shuffle, and classify the permutation.

    From the paper: cells of 75 pixels and tiles of 64 (here in proportion to the view's size), each tile standardised
    by itself, a trunk shared by all tiles, the permutations chosen far apart. Our reading: ResNet-18 in place of
    AlexNet, its 512 features a tile concatenated and read by one hidden layer, without dropout. Every slice is a
    sample, and its tiles come from one view T, whose crop takes the place of the paper's (225 of 256 pixels, which
    `view1: {crop_area: [0.77, 0.77], crop_ratio: [1, 1]}` comes close to).

    Args:
        encoder: f, used on one tile at a time.
        permutations: How many orders there are to tell apart.
        hidden: Width of the hidden layer.
    """

    def __init__(self, encoder: Encoder, *, permutations: int = 1000, hidden: int = 4096) -> None:
        super().__init__()
        require_whole(hidden=hidden)
        self.encoder = encoder
        self.puzzle = Puzzle(far_permutations(permutations), patch=64 / 75, gap=11 / 75)
        self.head = order_head(encoder.features, hidden, permutations)

    def inputs(self, clips: Tensor, make: ViewMaker, generator: torch.Generator) -> tuple[Tensor, ...]:
        """uint8 `(B, S, H, W)` -> tiles `(B * S, 9, p, p)`, each of mean 0 and standard deviation 1, and labels."""
        view = make(clips.flatten(0, 1)[:, None], make.first, generator)
        tiles, labels = self.puzzle(view[:, 0], generator)
        std, mean = torch.std_mean(tiles, (2, 3), correction=0, keepdim=True)
        return (tiles - mean) / std.clamp(min=FLAT), labels

    def forward(self, tiles: Tensor, labels: Tensor) -> Outcome:
        """Tiles `(N, 9, p, p)` and the orders' numbers `(N,)` -> cross-entropy, and the slices' features."""
        return solve(self.encoder, self.head, tiles, labels)
