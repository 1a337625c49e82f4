"""BYOL whose features may not fall into a few dimensions: VICReg's variance and covariance terms beside BYOL's loss."""

from torch import Tensor

from kneessl import objectives
from kneessl.distributed import gather
from kneessl.methods.byol import BYOL
from kneessl.methods.method import Encoder
from kneessl.methods.settings import require_positive


class BYOLVC(BYOL):
    """BYOL (Grill et al. 2020) plus the variance and covariance terms of VICReg (Bardes et al. 2022, equations 1 to 4).

        loss = L(p1, z2) + L(p2, z1) + variance * (v(y1) + v(y2)) / 2 + covariance * (c(y1) + c(y2))

    v is the mean shortfall of the standard deviations of the projections' features from 1, c the sum of their squared
    covariances, divided by `dim`; both over the samples of all processes. BYOL's batch norm and moving target keep the
    variance up but not the rank: at batches of 16 exams its projections fall into 4 to 6 of 256 dimensions, and what
    they lose cannot be read off the encoder any more. Every slice is a sample of its own unless told otherwise: of the
    maximum over slices much less can be read. The combination is ours, and so are the weights (docs/results.md); each
    half is from its paper.

    Args:
        encoder: f.
        hidden: Width of projector g and predictor q.
        dim: Their output size.
        tau: First value of the target's decay, rising to 1 along a cosine.
        variance: Weight of v.
        covariance: Weight of c.
    """

    def __init__(
        self,
        encoder: Encoder,
        hidden: int = 4096,
        dim: int = 256,
        tau: float = 0.9,
        variance: float = 1.0,
        covariance: float = 0.005,
    ) -> None:
        super().__init__(encoder, hidden, dim, tau)
        require_positive(variance=variance, covariance=covariance)
        self.variance, self.covariance = variance, covariance

    def regularisation(self, y1: Tensor, y2: Tensor) -> Tensor:
        """VICReg's loss of the projections of both views `(N, dim)`, without its distance between views."""
        return objectives.vicreg(gather(y1), gather(y2), 0.0, self.variance, self.covariance)
