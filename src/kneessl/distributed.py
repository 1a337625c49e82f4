"""What the processes of one training have to share."""

from typing import Any

import torch
from torch import Tensor, distributed


def world() -> int:
    """How many processes work together."""
    together = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if together else 1


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
    return x if world() == 1 else _Gather.apply(x.contiguous())


def everyones(n: int) -> int:
    """Rows of all processes where each has `n`: random numbers are drawn for all of them, so that all draw alike."""
    return n * world()


def own_rows(n: int) -> slice:
    """Where this process's `n` rows lie among everyone's, in order of rank; alone, all of them."""
    first = distributed.get_rank() * n if world() > 1 else 0
    return slice(first, first + n)


def anywhere(flag: bool, group: distributed.ProcessGroup | None) -> bool:
    """Whether the flag is up on any process; every process must ask at the same time.

    Args:
        flag: This process's.
        group: One that takes tensors on the CPU; None where there is but this process.
    """
    if group is None:
        return flag
    up = torch.tensor(int(flag))
    distributed.all_reduce(up, distributed.ReduceOp.MAX, group)
    return bool(up)


def leave() -> None:
    """End the processes' connection, so that what comes after is each one's own again."""
    if world() > 1:
        distributed.destroy_process_group()
