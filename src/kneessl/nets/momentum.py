"""What a momentum network needs: its moving average, the average's schedule, and a queue of its keys."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kneessl.distributed import gather


@torch.no_grad()
def ema_update(target: nn.Module, online: nn.Module, tau: float) -> None:
    """theta_target <- tau * theta_target + (1 - tau) * theta_online, in place, all parameters at once (thesis, 2.9).

    Buffers are left alone: the target's batch-norm layers keep statistics of their own.
    """
    torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), 1 - tau)


def tau_at(progress: float, tau_start: float) -> float:
    """tau = 1 - (1 - tau_start) * (cos(pi k / K) + 1) / 2, from `tau_start` to 1 (Grill et al. 2020, section 3.3).

    Args:
        progress: k / K, the share of all optimiser steps done, from 0 to 1.
        tau_start: tau at the first step.
    """
    return 1 - (1 - tau_start) * (math.cos(math.pi * progress) + 1) / 2


class Queue(nn.Module):
    """The last K keys, first in, first out; at first random directions (He et al. 2020, MoCo).

    Args:
        dim: Length of a key.
        size: K, 1 or more.
    """

    keys: Tensor
    """`(dim, K)`: a unit vector a column; `push` overwrites them in place."""
    end: Tensor
    """int64 scalar: the column that the next key overwrites, which holds the oldest."""

    def __init__(self, dim: int, size: int) -> None:
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(dim, size), dim=0))
        self.register_buffer("end", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, k: Tensor) -> None:
        """Enqueue the batches of all processes, in order of rank, so that their queues stay equal.

        Args:
            k: Keys `(N, dim)`, not normalised; of more than K, the last K stay.
        """
        k = gather(F.normalize(k.to(self.keys.dtype), dim=1))
        size = self.keys.shape[1]
        columns = (self.end + torch.arange(len(k), device=k.device)) % size
        self.keys[:, columns[-size:]] = k[-size:].T
        self.end.add_(len(k)).remainder_(size)
