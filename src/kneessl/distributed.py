"""What the processes of one training have to share."""

from typing import Any

import torch
from torch import Tensor, distributed


def world_size() -> int:
    """How many processes train together; 1 outside of distributed training."""
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

    Every process computes the same loss of the gathered rows. The gradient of its own rows is summed over processes:
    `processes` times the gradient of that one loss, so that DDP's average over processes is the gradient of the loss of
    the whole batch. (A plain `all_gather` would lose the gradient silently.)

    Args:
        x: Of the same shape and type on every process.
    """
    return x if world_size() == 1 else _Gather.apply(x.contiguous())


def global_rows(n: int) -> int:
    """Rows of the batches of all processes, where each has `n`: all draw the same random numbers, one for each."""
    return n * world_size()


def local_rows(n: int) -> slice:
    """Where this process's `n` rows are among the rows of all processes, in order of rank."""
    first = distributed.get_rank() * n if world_size() > 1 else 0
    return slice(first, first + n)


def on_any_process(flag: bool, group: distributed.ProcessGroup | None) -> bool:
    """Whether the flag is true on any process; every process must call this at the same time.

    Args:
        flag: This process's.
        group: A process group for tensors on the CPU; None where only this process trains.
    """
    if group is None:
        return flag
    highest = torch.tensor(int(flag))
    distributed.all_reduce(highest, distributed.ReduceOp.MAX, group)
    return bool(highest)


def close_process_group() -> None:
    """End the connection between the processes: from here on each works alone."""
    if world_size() > 1:
        distributed.destroy_process_group()
