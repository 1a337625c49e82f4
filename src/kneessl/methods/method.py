"""What pre-training asks of a method, and what a method answers."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from kneessl.views.inputs import ViewMaker

MethodSettings = Mapping[str, int | float]
"""A method's own settings, by name."""


class Encoder(Protocol):
    """Slices -> features. `trunk` is what `encoder.safetensors` holds; `features` is the number of features."""

    features: int

    @property
    def trunk(self) -> nn.Module:
        """The module whose parameters and buffers are saved."""

    def __call__(self, clips: Tensor) -> Tensor:
        """float `(B, S, H, W)` -> `(B, features)`."""


class Outcome(NamedTuple):
    """What one forward pass of a method gives."""

    loss: Tensor
    """Scalar, to be made small."""
    embeddings: Tensor
    """`(N, dim)`, detached: one row a clip (or slice), watched for collapse."""
    partners: Tensor | None = None
    """`(N, dim)`, detached: the same clips' other view, where the method has one (for alignment)."""


class Method(nn.Module):
    """A method: its networks, what it makes of clips, and its loss.

    Every method's constructor takes the encoder first, and then its own settings by name.
    """

    encoder: Any
    """An `Encoder`, which is an `nn.Module` too."""

    @classmethod
    def adapt_settings(
        cls, given: MethodSettings, defaults: MethodSettings, samples: int, processes: int
    ) -> MethodSettings:
        """Check the settings asked for against the training, and set what depends on it.

        Args:
            given: What was asked for.
            defaults: What holds otherwise.
            samples: Clips in an epoch; slices, where the encoder does not pool.
            processes: Processes that share every batch.

        Returns:
            `given`, with settings that differ from their defaults in such a training.

        Raises:
            UserError: a setting that does not go with such a training.
        """
        return given

    def inputs(self, clips: Tensor, make: ViewMaker, generator: torch.Generator) -> tuple[Tensor, ...]:
        """uint8 `(B, S, 256, 256)` -> what `forward` takes: the views T and T', unless a method wants something else.

        Every draw comes from `generator` (on the CPU), so that a step depends on seed, epoch and batch alone.
        """
        return make.pair(clips, clips, generator)

    def after_step(self, progress: float) -> None:
        """Follow up on an optimiser step; `progress` is the share of training done, from 0 to 1."""
