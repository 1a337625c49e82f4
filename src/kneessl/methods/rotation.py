"""Rotation prediction (Gidaris et al. 2018): tell by how many quarter turns a slice was turned."""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kneessl.methods.method import Encoder, Method, Outcome
from kneessl.views.inputs import ViewMaker

TURNS = 4


class Rotation(Method):
    """Each slice in all four turns in one batch, as the paper found best; a linear layer tells them apart.

    Our reading: each slice is one view T, but never mirrored: a flip swaps medial and lateral, or front and back, and
    which way round a knee lies is what is to be learnt.

    Args:
        encoder: f.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.features, TURNS)

    def inputs(self, clips: Tensor, make: ViewMaker, generator: torch.Generator) -> tuple[Tensor, ...]:
        """uint8 `(B, S, H, W)` -> `(4 * B * S, 1, size, size)` and int64 labels: k quarter turns anticlockwise.

        A slice's four turns are B * S rows apart.
        """
        view = make(clips.flatten(0, 1)[:, None], replace(make.first, flip=0.0), generator)
        turned = torch.cat([view.rot90(k, (2, 3)) for k in range(TURNS)])
        return turned, torch.arange(TURNS, device=view.device).repeat_interleave(len(view))

    def forward(self, turned: Tensor, labels: Tensor) -> Outcome:
        """Turned slices `(N, 1, size, size)` and their turns `(N,)` -> cross-entropy, and the slices' features."""
        features = self.encoder(turned)
        return Outcome(F.cross_entropy(self.head(features).float(), labels), features.detach())
