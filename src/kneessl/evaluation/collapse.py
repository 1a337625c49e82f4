"""Has it collapsed? Figures over features of different exams, and the warning that follows from them."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

LEAST_STD = 0.1
LEAST_RANK = 2.0
LEAST_RANK_SHARE = 0.05
"""Of the effective rank in what it could be: between BYOLMed2D, which ends at .02 to .03 and is read worst of all, and
SimCLR, which ends at .09 to .15 and is read among the best (docs/results.md)."""


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


def collapse_warning(std: float, rank: float, share: float) -> str | None:
    """One sentence where projections are all but constant or lie in few dimensions, else None.

    Args:
        std: Their `feature_std`.
        rank: Their `effective_rank`.
        share: Of that rank in the most that it could be, the number of rows or of dimensions.
    """
    if std < LEAST_STD:
        return (
            f"the projected features have collapsed (standard deviation {std:.3f} of 1, effective rank {rank:.1f}): "
            "all exams look alike to the encoder, so do not use it; train again with a smaller --lr or a larger --batch"
        )
    if share < LEAST_RANK_SHARE or rank < LEAST_RANK:
        return (
            f"the projected features lie in few dimensions (effective rank {rank:.1f}, {share:.0%} of what it could "
            "be): fine-tuned, such an encoder was worse than random weights on phantoms; train again with --method "
            "simclr, vicreg or byol_vc, whose losses forbid it"
        )
    return None


def collapse_of(facts: Mapping[str, float]) -> str | None:
    """`collapse_warning` of a line of `metrics.csv`; older versions logged no share, so nothing is said of it."""
    return collapse_warning(facts["feature_std"], facts["effective_rank"], facts.get("rank_share", math.nan))


def watch_warnings(facts: Mapping[str, float]) -> list[str]:
    """What to say of an epoch's figures: collapse, or features that read no better than the untrained encoder's.

    Args:
        facts: A line of `metrics.csv`.
    """
    warnings = [collapse_of(facts)]
    linear, untrained = (facts.get(name, math.nan) for name in ("linear_auc", "untrained_auc"))
    if linear <= untrained:
        warnings.append(
            f"a linear probe on the frozen features has AUC {linear:.3f}, and {untrained:.3f} on those of the "
            "untrained encoder: nothing that helps this finding has been learnt yet; train longer, look closer "
            "(--field, --depth), or take another --method"
        )
    return [warning for warning in warnings if warning]


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
        features: float `(N, dim)`.

    Returns:
        NaN where fewer than 5 eigenvalues differ from 0.
    """
    features = features.double()
    spectrum = torch.linalg.svdvals(features - features.mean(0)).square()
    spectrum = spectrum[: min(len(features) - 1, 100)]
    spectrum = spectrum[spectrum > 1e-12 * spectrum[0]][3:]
    if len(spectrum) < 2:
        return math.nan
    number = torch.arange(4, len(spectrum) + 4, dtype=spectrum.dtype, device=spectrum.device).log()
    number = number - number.mean()
    return -float((number * spectrum.log()).sum() / number.square().sum())
