"""The losses: pure functions of tensors, computed in float32 or better whatever the networks ran in."""

from torch import Tensor
from torch.nn import functional as F


def byol(p: Tensor, z: Tensor) -> Tensor:
    """Mean over the batch of 2 - 2 cos(p, z), the squared distance of the two directions (thesis, 2.7).

    Args:
        p: Predictions `(N, dim)`, not normalised.
        z: Target projections `(N, dim)`, not normalised; the caller stops their gradient.

    Returns:
        Scalar from 0 (same direction) to 4 (opposite).
    """
    p, z = (x if x.dtype.itemsize >= 4 else x.float() for x in (p, z))
    return (2 - 2 * F.cosine_similarity(p, z, dim=1)).mean()
