"""SimCLR (Chen et al. 2020): tell a slice's other view from the views of all other slices."""

from torch import Tensor

from kneessl import objectives
from kneessl.distributed import gather
from kneessl.methods.method import Encoder, Method, Outcome
from kneessl.methods.settings import require_positive, require_whole
from kneessl.nets.heads import mlp


class SimCLR(Method):
    """Both views are projected alike; NT-Xent over the batch of all processes.

    Head and sizes are the thesis's, 512-512-128 (W2 ReLU(W1 h), Chen et al. 2020, section 2.1). Our reading: each view
    passes as a forward of its own, where the authors' code normalises both as one batch.

    Args:
        encoder: f.
        hidden: Width of the projector g.
        dim: Its output size.
        temperature: Of the loss; the thesis names .1 to .5.
    """

    def __init__(self, encoder: Encoder, hidden: int = 512, dim: int = 128, temperature: float = 0.1) -> None:
        super().__init__()
        require_whole(hidden=hidden, dim=dim)
        require_positive(temperature=temperature)
        self.encoder = encoder
        self.projector = mlp(encoder.features, hidden, dim, norm=False)
        self.temperature = temperature

    def forward(self, view1: Tensor, view2: Tensor) -> Outcome:
        """Views `(B, S, H, W)` twice -> the loss (thesis, 2.2 and 2.3), and both projections."""
        z1 = self.projector(self.encoder(view1))
        z2 = self.projector(self.encoder(view2))
        loss = objectives.nt_xent(gather(z1), gather(z2), self.temperature)
        return Outcome(loss, z1.detach(), z2.detach())
