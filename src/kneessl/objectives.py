"""The losses: pure functions of tensors, computed in float32 or better whatever the networks ran in.

A loss that compares the clips of a batch with each other wants them from all processes: `kneessl.distributed.gather`.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import torch
from torch import Tensor
from torch.nn import functional as F

P = ParamSpec("P")

SMALLEST_STD = 1e-4
"""Barlow Twins: a feature that varies less over the batch counts as constant; its rounding errors are not blown up."""


def _precise(loss: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Hand a loss its tensors in float32 or better, and keep autocast from narrowing its matrix products again."""

    def widen(x: Any) -> Any:
        return x.float() if isinstance(x, Tensor) and x.is_floating_point() and x.dtype.itemsize < 4 else x

    @wraps(loss)
    def widened(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        device = next(x.device.type for x in (*args, *kwargs.values()) if isinstance(x, Tensor))
        with torch.autocast(device, enabled=False):
            return loss(*map(widen, args), **{k: widen(v) for k, v in kwargs.items()})

    return widened


@_precise
def byol(p: Tensor, z: Tensor) -> Tensor:
    """Mean over the batch of 2 - 2 cos(p, z), the squared distance of the two directions (thesis, 2.7).

    Args:
        p: Predictions `(N, dim)`, not normalised.
        z: Target projections `(N, dim)`, not normalised; the caller stops their gradient.

    Returns:
        Scalar from 0 (same direction) to 4 (opposite).
    """
    return (2 - 2 * F.cosine_similarity(p, z, dim=1)).mean()


@_precise
def simsiam(p: Tensor, z: Tensor) -> Tensor:
    """Mean over the batch of -cos(p, z) (Chen and He 2021, equation 1).

    Args:
        p: Predictions `(N, dim)`, not normalised.
        z: Projections `(N, dim)` of the other view, not normalised; the caller stops their gradient.

    Returns:
        Scalar from -1 (same direction) to 1 (opposite).
    """
    return -F.cosine_similarity(p, z, dim=1).mean()


@_precise
def nt_xent(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """SimCLR's loss: each of the 2N views is to be told from all others as its partner's (thesis, 2.2 and 2.3).

    Args:
        z1: Projections `(N, dim)` of the first views, not normalised.
        z2: Those of the second views, in the same order.
        temperature: Above 0; divides the cosines.

    Returns:
        Scalar, 0 or more: the mean over the 2N anchors.
    """
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    logits = (z @ z.T / temperature).masked_fill(itself, -torch.inf)
    partner = torch.arange(len(z), device=z.device).roll(len(z1))
    return F.cross_entropy(logits, partner)


@_precise
def info_nce(q: Tensor, k: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """MoCo's loss: each query is to be told from the queue as its own key's (thesis, 2.4).

    Args:
        q: Queries `(N, dim)`, not normalised.
        k: Keys `(N, dim)`, not normalised; row i belongs to row i of `q`. The caller stops their gradient.
        queue: Keys of other clips `(dim, K)`, a key a column, not necessarily normalised. They are copied: the queue
            may move on before `backward`.
        temperature: Above 0; divides the cosines.

    Returns:
        Scalar, 0 or more: the mean over the N queries.
    """
    q, k, queue = F.normalize(q, dim=1), F.normalize(k, dim=1), F.normalize(queue, dim=0)
    positive = (q * k).sum(1, keepdim=True)
    logits = torch.cat([positive, q @ queue], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.int64, device=q.device))


@_precise
def barlow_twins(za: Tensor, zb: Tensor, lambd: float) -> Tensor:
    """Sum of (1 - C_ii)^2 plus `lambd` times the sum of C_ij^2, i != j, where C correlates the views (thesis, 2.6).

    Args:
        za: Projections `(N, dim)` of one view, not standardised; each feature is, over the batch.
        zb: Those of the other view, in the same order.
        lambd: Weight of the redundancy between features.

    Returns:
        Scalar, 0 or more. A feature that is constant over the batch correlates with nothing: C = 0.
    """
    za, zb = ((z - z.mean(0)) / z.std(0, correction=0).clamp_min(SMALLEST_STD) for z in (za, zb))
    c = za.T @ zb / len(za)
    return (1 - c.diagonal()).square().sum() + lambd * _off_diagonal(c).square().sum()


@_precise
def vicreg(za: Tensor, zb: Tensor, invariance: float = 25, variance: float = 25, covariance: float = 1) -> Tensor:
    """Views alike, features of standard deviation 1 or more, and uncorrelated (Bardes et al. 2022, equations 1 to 6).

    As in the authors' code, and unlike their equations, the squared distance is divided by `dim` too, and the variance
    terms of the two views are averaged; the covariance terms are added.

    Args:
        za: Projections `(N, dim)` of one view.
        zb: Those of the other view, in the same order.
        invariance: Weight of the distance between views.
        variance: Weight of the shortfall of standard deviations from 1.
        covariance: Weight of the squared covariances between features.

    Returns:
        Scalar, 0 or more. In a batch of one every variance is 0.
    """

    def spread(z: Tensor) -> tuple[Tensor, Tensor]:
        centred = z - z.mean(0)
        c = centred.T @ centred / max(len(z) - 1, 1)
        shortfall = F.relu(1 - (c.diagonal() + 1e-4).sqrt()).mean()
        return shortfall, _off_diagonal(c).square().sum() / z.shape[1]

    (v_a, c_a), (v_b, c_b) = spread(za), spread(zb)
    return invariance * F.mse_loss(za, zb) + variance * (v_a + v_b) / 2 + covariance * (c_a + c_b)


@_precise
def dino(
    student: Tensor,
    teacher: Tensor,
    centre: Tensor,
    student_temperature: float,
    teacher_temperature: float | Tensor,
) -> Tensor:
    """Cross-entropy of the student's distribution under the teacher's, centred and sharpened (Caron et al. 2021).

    Args:
        student: Logits `(N, dim)` of one view.
        teacher: Logits `(N, dim)` of another view; the caller stops their gradient.
        centre: Subtracted from the teacher's logits, `(dim,)` or `(1, dim)`.
        student_temperature: Above 0.
        teacher_temperature: Above 0.

    Returns:
        Scalar, 0 or more: the mean over the batch.
    """
    wanted = ((teacher - centre) / teacher_temperature).softmax(1)
    return -(wanted * (student / student_temperature).log_softmax(1)).sum(1).mean()


@_precise
def masked_mse(predicted: Tensor, patches: Tensor, masked: Tensor) -> Tensor:
    """Squared error of the masked patches against their own normalised pixels (He et al. 2022; Tian et al. 2023).

    Args:
        predicted: `(N, L, pixels)`.
        patches: What was there, `(N, L, pixels)`; each patch is brought to mean 0 and variance 1.
        masked: bool `(N, L)`, with at least one True; other patches do not count.

    Returns:
        Scalar, 0 or more: the mean over all pixels of masked patches.
    """
    deviation = (patches.var(2, keepdim=True) + 1e-6).sqrt()  # as the authors: a patch of air is no division by zero
    wanted = (patches - patches.mean(2, keepdim=True)) / deviation
    errors = (predicted - wanted).square().mean(2)
    return (errors * masked).sum() / masked.sum()


def _off_diagonal(square: Tensor) -> Tensor:
    """The matrix with zeros on its diagonal."""
    return square - square.diagonal().diag()
