"""How MRNet, the supervised baseline (Bien et al. 2018), is trained by its authors' code.

Its network is an AlexNet under `SliceMaxHead`. The authors' starts from ImageNet, here from random weights unless a
file is named; they crop the central 224 pixels of 256 (`--field 0.875`) and stretch each volume to 0-255, here every
network sees what the package's `Preprocessing` makes, by default of the whole field, so that networks are compared on
the same.
"""

from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from kneessl.exams.folder import SIDE, ExamFolder
from kneessl.views.affine import affine
from kneessl.views.clips import Clips
from kneessl.views.preprocess import Preprocessing

MOST_DEGREES = 25
MOST_SHIFT = 25
"""In pixels of a slice of 256."""


class WholeSeries(Clips):
    """Every slice that is kept of a series, in order: uint8 `(slices, 256, 256)`, as many as there are."""

    def __init__(
        self,
        folder: ExamFolder,
        split: str,
        plane: str,
        exams: Sequence[str],
        seed: int,
        preprocessing: Preprocessing,
    ) -> None:
        super().__init__(folder, split, plane, exams, 0, seed, preprocessing)

    def choose(self, index: tuple[int, int, int], total: int) -> np.ndarray:
        """All that are kept, whatever the index."""
        return np.arange(total)[self.preprocessing.middle(total)]


def class_weights(labels: np.ndarray) -> tuple[float, float]:
    """Weights of the loss of a negative and of a positive exam: the share of positives, and that of negatives."""
    share = float(np.mean(labels))
    return share, 1 - share


def shift_turn_flip(slices: Tensor, generator: torch.Generator) -> Tensor:
    """MRNet's augmentation: turn by up to 25 degrees, shift by up to 25 of 256 pixels each way, flip half of the exams.

    One draw an exam, the same for all its slices. Uniform draws and zeros (black) outside are our reading.

    Args:
        slices: float `(n, s, H, W)` from 0 to 1.
        generator: On the CPU.

    Returns:
        The same shape.
    """
    n, _, height, width = slices.shape
    degrees = torch.empty(n).uniform_(-MOST_DEGREES, MOST_DEGREES, generator=generator)
    shift = torch.empty(n, 2).uniform_(-MOST_SHIFT, MOST_SHIFT, generator=generator)
    shift *= torch.tensor([height, width]) / SIDE
    flip = torch.rand(n, generator=generator) < 0.5
    device = slices.device
    moved = affine(slices, degrees.to(device), shift.to(device), torch.ones(n, device=device))
    return torch.where(flip.to(device)[:, None, None, None], moved.flip(3), moved)


class Plateau(Callback):
    """Learning rate x 0.3 whenever the loss has not fallen for more than 5 epochs.

    The authors watch the loss on the 120 exams that they report on. Those must not steer the training, so this watches
    the epoch's mean training loss: our reading. Lightning would step such a schedule only after the epoch's checkpoint
    is written, and forget the step on resuming; this steps it before.
    """

    def __init__(self) -> None:
        self.losses: list[Tensor] = []
        self.restored: dict[str, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take over the optimiser's learning rate."""
        self.schedule = ReduceLROnPlateau(trainer.optimizers[0], factor=0.3, patience=5)
        self.schedule.load_state_dict(self.restored)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the loss of the batch, on its device."""
        self.losses.append(outputs["loss"].detach())

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the schedule the epoch's loss."""
        self.schedule.step(torch.stack(self.losses).float().mean().item())
        self.losses = []

    def state_dict(self) -> dict[str, Any]:
        """The state of the schedule, for the checkpoint."""
        return self.schedule.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep what the checkpoint holds; the schedule itself is made when training starts."""
        self.restored = state_dict
