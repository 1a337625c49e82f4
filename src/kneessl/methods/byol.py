"""BYOL (Grill et al. 2020), and with an encoder that takes the maximum over slices, BYOLMed2D (thesis, chapter 4)."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from kneessl import objectives
from kneessl.methods.method import Encoder, Method, Outcome
from kneessl.methods.settings import require_share, require_whole
from kneessl.nets.heads import byol_head
from kneessl.nets.momentum import ema_update, tau_at


class BYOL(Method):
    """The online network predicts the target's projection of the other view; the target is its moving average.

    The two views pass as two forwards, so batch-norm statistics are of one view at a time, and the target's batch norm
    runs in training mode, as in the authors' code. The symmetrised loss is summed, not averaged.

    Args:
        encoder: f; its pooling makes the difference between BYOL ("none") and BYOLMed2D ("max").
        hidden: Width of projector g and predictor q.
        dim: Their output size.
        tau: First value of the target's decay, rising to 1 along a cosine.
    """

    def __init__(self, encoder: Encoder, hidden: int = 4096, dim: int = 256, tau: float = 0.99) -> None:
        super().__init__()
        require_whole(hidden=hidden, dim=dim)
        require_share(tau=tau)
        self.encoder = encoder
        self.projector = byol_head(encoder.features, hidden, dim)
        self.predictor = byol_head(dim, hidden, dim)
        self.target = deepcopy(nn.Sequential(self.encoder, self.projector)).requires_grad_(False)
        self.tau = tau

    def forward(self, view1: Tensor, view2: Tensor) -> Outcome:
        """Views `(B, S, H, W)` twice -> L(p1, z2) + L(p2, z1) (thesis, 2.8), and the online projections."""
        y1 = self.projector(self.encoder(view1))
        y2 = self.projector(self.encoder(view2))
        with torch.no_grad():
            z1, z2 = self.target(view1), self.target(view2)
        loss = objectives.byol(self.predictor(y1), z2) + objectives.byol(self.predictor(y2), z1)
        return Outcome(loss + self.regularisation(y1, y2), y1.detach(), y2.detach())

    def regularisation(self, y1: Tensor, y2: Tensor) -> Tensor | float:
        """What is added to the loss for the online projections `(N, dim)` of both views; BYOL adds nothing."""
        return 0.0

    def after_step(self, progress: float) -> None:
        """Move the target towards the online network (thesis, 2.9)."""
        ema_update(self.target, nn.Sequential(self.encoder, self.projector), tau_at(progress, self.tau))
