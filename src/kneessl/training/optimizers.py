"""Optimisers and schedule for pre-training: LARS, AdamW, SGD, warm-up and cosine."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kneessl.errors import UserError
from kneessl.settings import require_not_negative, require_positive

OptimizerName = Literal["lars", "adamw", "sgd"]


@dataclass(frozen=True)
class Optimization:
    """How weights are moved in a training: optimiser, and a rate that rises linearly and falls along a cosine.

    Args:
        epochs: Passes over the data.
        optimizer: Which.
        lr: Highest learning rate.
        weight_decay: Of weight matrices; biases and batch norm are never decayed.
        warmup_epochs: Epochs over which the rate rises, fewer than all; None is a tenth of all steps.
    """

    epochs: int
    optimizer: OptimizerName
    lr: float
    weight_decay: float
    warmup_epochs: int | None

    def __post_init__(self) -> None:
        require_positive(vars(self), "epochs", "lr")
        require_not_negative(vars(self), "weight_decay")
        if self.warmup_epochs is not None and not 0 <= self.warmup_epochs < self.epochs:
            raise UserError(
                f"warmup_epochs is {self.warmup_epochs}; it must be from 0 to {self.epochs - 1}, below epochs"
            )

    def warmup(self, steps: int) -> int:
        """How many of a training's optimiser steps the rate rises over."""
        return round(steps / 10 if self.warmup_epochs is None else steps * self.warmup_epochs / self.epochs)


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling with momentum (You et al. 2017), as BYOL and SimCLR use it.

    For a matrix-like parameter w with gradient g: d = g + weight_decay * w, scaled by eta |w| / |d|; parameters of one
    dimension (biases, batch norm) get neither decay nor scaling. Then v <- momentum * v + d, w <- w - lr * v.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 1e-6,
        eta: float = 1e-3,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "eta": eta})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """One step over all parameters that have a gradient; no value leaves the device."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            update = [p.grad.clone() for p in params]
            matrices = [i for i, p in enumerate(params) if p.ndim > 1]
            if matrices:
                w, d = [params[i] for i in matrices], [update[i] for i in matrices]
                torch._foreach_add_(d, w, alpha=group["weight_decay"])
                w_norm, d_norm = torch._foreach_norm(w), torch._foreach_norm(d)
                torch._foreach_mul_(
                    d,
                    [
                        torch.where((a > 0) & (b > 0), group["eta"] * a / b, 1.0)
                        for a, b in zip(w_norm, d_norm, strict=True)
                    ],
                )
            for p in params:
                self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
            velocity = [self.state[p]["momentum_buffer"] for p in params]
            torch._foreach_mul_(velocity, group["momentum"])
            torch._foreach_add_(velocity, update)
            torch._foreach_add_(params, velocity, alpha=-group["lr"])
        return loss


def default_lr(optimizer: OptimizerName, batch: int, epochs: int) -> float:
    """The learning rate where none is given: a learning rate for LARS makes AdamW diverge, so each has its own rule.

    LARS: 0.3 * batch / 256, or 0.45 * batch / 256 for 100 epochs or fewer (Grill et al. 2020, appendix J).
    AdamW: 1e-3 * sqrt(batch / 256), the square-root rule of adaptive optimisers; ours, measured in docs/results.md.
    SGD: 0.03 * batch / 256 (He et al. 2020, section 4).
    """
    if optimizer == "lars":
        return (0.3 if epochs > 100 else 0.45) * batch / 256
    if optimizer == "sgd":
        return 0.03 * batch / 256
    return 1e-3 * math.sqrt(batch / 256)


OPTIMIZERS: dict[OptimizerName, Callable[..., torch.optim.Optimizer]] = {
    "lars": LARS,
    "adamw": partial(torch.optim.AdamW, fused=True),
    "sgd": partial(torch.optim.SGD, momentum=0.9, nesterov=True, fused=True),
}
"""Makes one, given parameters, lr and weight_decay."""


def make_optimizer(name: OptimizerName, module: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """An optimiser over the trainable parameters of `module`; those of one dimension are never decayed."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    if name == "lars":
        return LARS(trainable, lr=lr, weight_decay=weight_decay)
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return OPTIMIZERS[name](groups, lr=lr)


def warmup_cosine(step: int, steps: int, warmup: int) -> float:
    """Factor of the learning rate: linear from 0 to 1 over `warmup` steps, then half a cosine down to 0 at `steps`."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
