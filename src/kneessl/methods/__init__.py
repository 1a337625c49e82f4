"""The methods by name. A method is an `nn.Module` built around a `ClipEncoder` that

- maps two batches of views, each float `(B, S, size, size)`, to its loss and the `(N, dim)` projections to watch;
- has `encoder`, the online clip encoder;
- has `after_step(progress)`, called after each optimiser step with the share of training done.
"""

from collections.abc import Callable
from typing import Literal, Protocol

from torch import Tensor

from kneessl.methods.byol import BYOL
from kneessl.nets.encoder import ClipEncoder

MethodName = Literal["byolmed2d"]


class Method(Protocol):
    """What pre-training needs of a method."""

    encoder: ClipEncoder

    def __call__(self, view1: Tensor, view2: Tensor) -> tuple[Tensor, Tensor]:
        """Two batches of views -> scalar loss, and the projections of the first view."""

    def after_step(self, progress: float) -> None:
        """Follow up on an optimiser step; `progress` from 0 to 1."""


METHODS: dict[MethodName, Callable[..., BYOL]] = {"byolmed2d": BYOL}
