"""Has it collapsed? Figures over features of different exams, and the warning that follows from them."""

import torch
from torch import Tensor
from torch.nn import functional as F

LEAST_STD = 0.1
LEAST_RANK = 2.0


def feature_std(features: Tensor) -> float:
    """Standard deviation of the L2-normalised features over the exams, averaged over dimensions, times sqrt(dim).

    1 for features spread evenly over the sphere, 0 when all exams look alike (Chen & He 2021, section 4.1).

    Args:
        features: float `(N, dim)`, N at least 2.
    """
    normalised = F.normalize(features.float(), dim=1)
    return float(normalised.std(0, unbiased=False).mean()) * features.shape[1] ** 0.5


def effective_rank(features: Tensor) -> float:
    """RankMe: exp of the entropy of the normalised singular values, from 1 to min(N, dim) (Garrido et al. 2023, eq. 1).

    Taken of the L2-normalised features, mean left in: features that all look alike have rank 1, however noisy.
    """
    singular = torch.linalg.svdvals(F.normalize(features.float(), dim=1))
    p = singular / singular.sum()
    return float(torch.special.entr(p).sum().exp())


def alignment(features: Tensor, partners: Tensor) -> float:
    """Mean squared distance of two views of the same clip on the unit sphere: 0 to 4, small is good.

    Wang & Isola 2020, equation 5 with alpha = 2.

    Args:
        features: float `(N, dim)`.
        partners: float `(N, dim)`, row for row the other view.
    """
    a, b = (F.normalize(x.float(), dim=1) for x in (features, partners))
    return float((a - b).pow(2).sum(1).mean())


def uniformity(features: Tensor) -> float:
    """Log of the mean of exp(-2 d^2) over all pairs on the unit sphere: 0 where all coincide, about -4 at best.

    Wang & Isola 2020, equation 6 with t = 2.

    Args:
        features: float `(N, dim)`, N at least 2.
    """
    distances = torch.pdist(F.normalize(features.float(), dim=1))
    return float((distances.pow(2).mul(-2).exp().mean()).log())


def collapse_warning(std: float, rank: float) -> str | None:
    """One sentence where the features are all but constant, else None."""
    if std >= LEAST_STD and rank >= LEAST_RANK:
        return None
    return (
        f"the projected features have collapsed (standard deviation {std:.3f} of 1, effective rank {rank:.1f}): "
        "all exams look alike to the encoder, so do not use it; "
        "train again with a smaller --lr, larger --batch, or --tau nearer to 1"
    )
