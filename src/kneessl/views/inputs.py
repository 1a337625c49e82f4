"""Views ready for a network: drawn, resampled, standardised."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kneessl.views.augment import View, augment
from kneessl.views.preprocess import Preprocessing


@dataclass(frozen=True)
class ViewMaker:
    """Makes standardised views of clips, on the clips' device.

    Args:
        preprocessing: Size of the views, and how they are standardised.
        first: What view T may do.
        second: What view T' may do.
    """

    preprocessing: Preprocessing
    first: View
    second: View

    def __call__(self, clips: Tensor, view: View, generator: torch.Generator, size: int | None = None) -> Tensor:
        """Make one view of each clip.

        Args:
            clips: uint8, grey `(B, S, H, W)` or in colour `(B, S, 3, H, W)`.
            view: What the view may do.
            generator: Draws it, on the CPU.
            size: Side of the views, in pixels; the preprocessing's unless given.

        Returns:
            float32 `(B, S, size, size)` or `(B, S, 3, size, size)`, standardised.
        """
        central = self.preprocessing.crop(clips)
        return self.preprocessing.standardise(augment(central, view, size or self.preprocessing.size, generator))

    def pair(self, first: Tensor, second: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """View T of the first clips and view T' of the second, which may be the same."""
        return self(first, self.first, generator), self(second, self.second, generator)
