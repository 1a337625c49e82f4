"""VICReg (Bardes, Ponce and LeCun 2022): views alike, features that vary, and do not covary."""

from torch import Tensor

from kneessl import objectives
from kneessl.distributed import gather
from kneessl.methods.method import Encoder, Method, Outcome
from kneessl.methods.settings import require_whole
from kneessl.nets.heads import mlp


class VICReg(Method):
    """Invariance between two views; variance and covariance over the batch of all processes.

    Args:
        encoder: f.
        hidden: Width of the expander's three layers, and so its output size; 8192 in the paper.
        invariance: Weight of the squared distance between views.
        variance: Weight of the shortfall of standard deviations from 1.
        covariance: Weight of the squared covariances.
    """

    def __init__(
        self,
        encoder: Encoder,
        hidden: int = 2048,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
    ) -> None:
        super().__init__()
        require_whole(hidden=hidden)
        self.encoder = encoder
        self.expander = mlp(encoder.features, hidden, hidden, hidden, bias=False)
        self.weights = invariance, variance, covariance

    def forward(self, view1: Tensor, view2: Tensor) -> Outcome:
        """Views `(B, S, H, W)` twice -> the loss (Bardes et al. 2022, equation 6), and both expanded embeddings."""
        za = self.expander(self.encoder(view1))
        zb = self.expander(self.encoder(view2))
        return Outcome(objectives.vicreg(gather(za), gather(zb), *self.weights), za.detach(), zb.detach())
