"""Small colour pictures as clips of one slice, so that they are trained on by the same loop as exams."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kneessl.views.clips import EpochSampler, already_batched


class PictureClips(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Pictures in memory, uint8 `(n, 3, H, W)`, batch by batch as `Clips` gives exams.

    A batch: uint8 `(B, 1, 3, H, W)`, the pictures' numbers `(B,)`, and places `(B, 1)`, one half for an only slice.
    """

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = torch.from_numpy(pixels)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitems__(self, indices: Sequence[tuple[int, int, int]]) -> tuple[Tensor, Tensor, Tensor]:
        """All of a batch at once, indexed as `EpochSampler` names them: one copy instead of one for each picture."""
        chosen = torch.tensor([i for _, i, _ in indices])
        return self.pixels[chosen][:, None], chosen, torch.full((len(chosen), 1), 0.5)


def picture_loader(pixels: np.ndarray, batch: int, seed: int, drop_last: bool = False) -> DataLoader:
    """Batches of `PictureClips`, shuffled anew each epoch by the seed.

    Args:
        pixels: uint8 `(n, 3, H, W)`.
        batch: Pictures in a batch.
        seed: Of the order.
        drop_last: Leave out a last batch that is not full.
    """
    return DataLoader(
        PictureClips(pixels),
        batch_size=batch,
        sampler=EpochSampler(range(len(pixels)), seed),
        drop_last=drop_last,
        collate_fn=already_batched,
        pin_memory=torch.cuda.is_available(),
    )
