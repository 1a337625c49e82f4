"""SimSiam (Chen and He 2021): predict the other view's projection, with neither negatives nor a moving average."""

from torch import Tensor, nn

from kneessl import objectives
from kneessl.methods.method import Encoder, Method, Outcome
from kneessl.methods.settings import require_whole
from kneessl.nets.heads import mlp


class SimSiam(Method):
    """A predictor on one side and a stopped gradient on the other keep the projections from collapsing.

    Args:
        encoder: f.
        dim: Width of the projector's three layers.
        hidden: Width of the predictor's hidden layer, a bottleneck.
    """

    def __init__(self, encoder: Encoder, dim: int = 2048, hidden: int = 512) -> None:
        super().__init__()
        require_whole(dim=dim, hidden=hidden)
        self.encoder = encoder
        # batch norm closes the projector, without a scale of its own, as in the authors' code
        self.projector = nn.Sequential(
            *mlp(encoder.features, dim, dim, dim, bias=False), nn.BatchNorm1d(dim, affine=False)
        )
        self.predictor = mlp(dim, hidden, dim)

    def forward(self, view1: Tensor, view2: Tensor) -> Outcome:
        """Views `(B, S, H, W)` twice -> D(p1, z2) / 2 + D(p2, z1) / 2 (equation 4), and both projections."""
        z1 = self.projector(self.encoder(view1))
        z2 = self.projector(self.encoder(view2))
        p1, p2 = self.predictor(z1), self.predictor(z2)
        loss = objectives.simsiam(p1, z2.detach()) / 2 + objectives.simsiam(p2, z1.detach()) / 2
        return Outcome(loss, z1.detach(), z2.detach())
