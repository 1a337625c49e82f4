"""What the processes of one training have to share."""

from typing import Any

import torch
from torch import Tensor, distributed


class _Gather(torch.autograd.Function):
    """All processes' rows, on every process."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, x)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)  # reduced in place, and not ours
        distributed.all_reduce(gradient)
        return gradient.chunk(distributed.get_world_size())[distributed.get_rank()]


def gather(x: Tensor) -> Tensor:
    """Rows of all processes: `(N, ...)` -> `(processes * N, ...)`, in order of rank; alone, x itself.

    Every process computes the same loss of the gathered rows, and its gradient adds up what all of them want of its own
    rows: `processes` times the gradient of that one loss. DDP's average over processes then is the gradient of the loss
    of the whole batch. (A plain `all_gather` would drop the gradient without a word.)

    Args:
        x: Of the same shape and type on every process.
    """
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return x
    return _Gather.apply(x.contiguous())
