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


def lidar(views: Tensor, within_floor: float = 1e-4) -> float:
    """LiDAR: the effective rank of what tells clips apart, relative to what tells views of a clip apart.

    exp of the entropy of the eigenvalues of W^-1/2 B W^-1/2, where B is the covariance of the clips' means and W the
    mean covariance of the views about them (Thilak et al. 2024, equations 3 to 5); in float64.

    Args:
        views: float `(n, q, dim)`: n clips, q views of each, both at least 2.
        within_floor: Added to the diagonal of W, which a few views leave singular.

    Returns:
        From 1 to min(n - 1, dim).
    """
    views = views.double()
    n, q, dim = views.shape
    means = views.mean(1)
    about = (views - means[:, None]).reshape(-1, dim)
    within = about.T @ about / (n * (q - 1)) + within_floor * torch.eye(dim, dtype=views.dtype, device=views.device)
    values, vectors = torch.linalg.eigh(within)
    whitened = (means - means.mean(0)) @ vectors * values.clamp_min(within_floor / 2).rsqrt()
    spectrum = torch.linalg.svdvals(whitened).square()
    return float(torch.special.entr(spectrum / spectrum.sum()).sum().exp())


def alpha_req(features: Tensor) -> float:
    """alpha-ReQ: how steeply the eigenvalues of the features' covariance fall, as the power of their number.

    Near 1 is best; far above it, few directions carry everything (Agrawal et al. 2022). The power is fitted by least
    squares to the logarithms of the 4th to the 100th eigenvalue; in float64.

    Args:
        features: float `(N, dim)`, both at least 8.
    """
    features = features.double()
    spectrum = torch.linalg.svdvals(features - features.mean(0)).square()
    spectrum = spectrum[: min(len(features) - 1, 100)]
    spectrum = spectrum[spectrum > 1e-12 * spectrum[0]][3:]
    number = torch.arange(4, len(spectrum) + 4, dtype=spectrum.dtype, device=spectrum.device).log()
    number = number - number.mean()
    return -float((number * spectrum.log()).sum() / number.square().sum())
