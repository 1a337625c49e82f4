"""SSLM (S. Manna et al., also published as SKID): tell in which of 1000 orders a slice's nine tiles were put."""

import torch
from torch import Tensor
from torch.nn import functional as F

from kneessl.distributed import global_rows, local_rows
from kneessl.methods.method import Method, Outcome
from kneessl.methods.settings import require_whole
from kneessl.nets.heads import mlp
from kneessl.nets.sslm import SSLMEncoder
from kneessl.views.affine import affine
from kneessl.views.inputs import ViewMaker
from kneessl.views.puzzle import Puzzle, random_permutations
from kneessl.views.resample import to_device_of

PATCH, GAP = 64 / 85, 9 / 85
"""The authors' tile and largest offset, of a cell of 85 pixels."""
DEGREES = torch.tensor([-15.0, 0.0, 15.0])
SHIFTS = torch.tensor([-6.0, 0.0, 6.0]) / 64
"""Of a tile's side."""
SCALES = torch.tensor([1.0, 1.1])
BRIGHTNESS = torch.tensor([0.85, 0.9, 1.0, 1.1, 1.15])
NOISE = 0.05
"""Standard deviation over values from 0 to 1; the authors' is 0.1 over values from -1 to 1."""


def distort(tiles: Tensor, generator: torch.Generator) -> Tensor:
    """Turn, scale, shift and brighten each tile a little, and add noise.

    Values and chances are the authors'; their order (turn and scale, then shift, then brightness, then noise) is our
    reading, and so is black where a moved tile leaves its square empty.

    Args:
        tiles: float `(n, 9, p, p)`, from 0 to 1.
        generator: On the CPU.

    Returns:
        The same shape, from 0 to 1.
    """
    flat = tiles.flatten(0, 1)[:, None]
    n, local = global_rows(len(flat)), local_rows(len(flat))

    def one_of(values: Tensor, *shape: int) -> Tensor:
        return values[torch.randint(len(values), (n, *shape), generator=generator)[local]]

    degrees, shift, scale = one_of(DEGREES), one_of(SHIFTS, 2) * tiles.shape[-1], one_of(SCALES)
    factor = torch.where(torch.rand(n, generator=generator)[local] < 0.5, one_of(BRIGHTNESS), 1.0)
    noise = NOISE * torch.randn(n, *flat.shape[1:], generator=generator)[local]
    moved = affine(flat, to_device_of(degrees, flat), to_device_of(shift, flat), to_device_of(scale, flat))
    brightened = (moved * to_device_of(factor, flat)[:, None, None, None]).clamp(0, 1)
    return (brightened + to_device_of(noise, flat)).clamp(0, 1).view_as(tiles)


class SSLM(Method):
    """Each shuffled tile goes to the branch of its place; the branches' joint map tells the order.

    The authors cut a plain slice of 256 x 256, without any view: so does this, at the preprocessing's size, in
    proportion. Their values run from -1 to 1; ours are standardised like every other method's, so that whole slices
    later look to the network as its tiles did. They train a batch of 16 slices of one exam at a time by RMSprop.

    Args:
        encoder: SSLM's own network.
        permutations: How many orders there are to tell apart, the identity among them.
        hidden: Width of the hidden layer; the authors' is 1024.
    """

    encoder: SSLMEncoder

    def __init__(self, encoder: SSLMEncoder, *, permutations: int = 1000, hidden: int = 1024) -> None:
        super().__init__()
        require_whole(hidden=hidden)
        self.encoder = encoder
        self.puzzle = Puzzle(random_permutations(permutations), PATCH, GAP)
        self.head = mlp(encoder.features, hidden, permutations, norm=False)

    def inputs(self, clips: Tensor, make: ViewMaker, generator: torch.Generator) -> tuple[Tensor, ...]:
        """uint8 `(B, S, H, W)` -> distorted tiles `(B * S, 9, p, p)`, standardised, and labels."""
        slices = make.preprocessing.resize(clips.flatten(0, 1)[:, None])[:, 0]
        tiles, labels = self.puzzle(slices, generator)
        return make.preprocessing.standardise(distort(tiles, generator)), labels

    def forward(self, tiles: Tensor, labels: Tensor) -> Outcome:
        """Tiles `(N, 9, p, p)` and the orders' numbers `(N,)` -> cross-entropy, and the tile sets' features."""
        features = self.encoder.tile_maps(tiles).mean((2, 3))
        return Outcome(F.cross_entropy(self.head(features).float(), labels), features.detach())
