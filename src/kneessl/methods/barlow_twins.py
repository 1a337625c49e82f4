"""Barlow Twins (Zbontar et al. 2021): each feature alike in both views, and different features uncorrelated."""

from torch import Tensor

from kneessl import objectives
from kneessl.distributed import gather
from kneessl.methods.method import Encoder, Method, Outcome
from kneessl.methods.settings import require_whole
from kneessl.nets.heads import mlp


class BarlowTwins(Method):
    """The cross-correlation of the two views' projections, over the batch of all processes, is to be the identity.

    Args:
        encoder: f.
        hidden: Width of the projector's three layers, and so its output size; 8192 in the paper.
        lambd: Weight of the redundancy between features.
    """

    def __init__(self, encoder: Encoder, hidden: int = 2048, lambd: float = 0.0051) -> None:
        super().__init__()
        require_whole(hidden=hidden)
        self.encoder = encoder
        self.projector = mlp(encoder.features, hidden, hidden, hidden, bias=False)
        self.lambd = lambd

    def forward(self, view1: Tensor, view2: Tensor) -> Outcome:
        """Views `(B, S, H, W)` twice -> the loss (thesis, 2.6), and both projections."""
        za = self.projector(self.encoder(view1))
        zb = self.projector(self.encoder(view2))
        return Outcome(objectives.barlow_twins(gather(za), gather(zb), self.lambd), za.detach(), zb.detach())
