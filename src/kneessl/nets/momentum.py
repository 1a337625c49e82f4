"""The target network: an exponential moving average of the online one."""

import math

import torch
from torch import nn


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
