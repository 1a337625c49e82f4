"""Batch norm over the batches of all processes: as many small batches then train as one large batch does."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kneessl.distributed import gather, global_rows


class NormOnGPU(nn.SyncBatchNorm):
    """PyTorch's own, which refuses to work on a CPU."""

    process_group = None
    """All processes."""


class NormOnCPU(nn.modules.batchnorm._BatchNorm):
    """The same on a CPU, in float32 or better.

    Every process must give equally many values, as it does where batches are dealt out evenly.
    """

    momentum: float
    num_batches_tracked: Tensor
    running_mean: Tensor
    running_var: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """`(N, C, ...)` -> the same shape, normalised over the N of all processes."""
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        dims = [d for d in range(x.dim()) if d != 1]
        wide = x.float() if x.dtype.itemsize < 4 else x
        mean = _shared_mean(wide, dims)
        centred = wide - mean
        var = _shared_mean(centred.square(), dims)
        count = global_rows(x.numel() // x.shape[1])
        self._track(mean.detach().flatten(), var.detach().flatten() * (count / (count - 1)))
        y = centred * (var + self.eps).rsqrt()
        if self.affine:
            y = y * self.weight.view_as(mean) + self.bias.view_as(mean)
        return y.to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased_var: Tensor) -> None:
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(unbiased_var, self.momentum)


def _shared_mean(x: Tensor, dims: list[int]) -> Tensor:
    """Mean over `dims`, which are kept, and over all processes; differentiable."""
    return gather(x.mean(dims, keepdim=True)).mean(0, keepdim=True)


def synced(module: nn.Module) -> nn.Module:
    """`module` itself, whose batch norm from now on is over all processes.

    The layers change class in place: their parameters, buffers and the names of those stay what they are.
    """
    over_all: type[nn.Module] = NormOnGPU if torch.cuda.is_available() else NormOnCPU
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.__dict__["alone"] = type(layer)
            layer.__class__ = over_all  # type: ignore[assignment]
    return module


def alone(module: nn.Module) -> nn.Module:
    """Undo `synced`: `module` itself, whose batch norm is over this process's batch."""
    for layer in module.modules():
        if isinstance(layer, NormOnGPU | NormOnCPU):
            layer.__class__ = layer.__dict__.pop("alone")
    return module
