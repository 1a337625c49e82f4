"""What goes along with every training: the log of its epochs, a progress bar, a stop between batches, checkpoints."""

import csv
import math
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins import TorchCheckpointIO
from torch import Tensor, distributed

from kneessl.distributed import global_rows, on_any_process
from kneessl.errors import UserError
from kneessl.files import replacing
from kneessl.progress import progress
from kneessl.training.runs import LAST


class EpochLog(Callback):
    """One line of `metrics.csv` an epoch: loss, exams/s, learning rate, and what the module's `epoch_facts` adds.

    The lines live in the checkpoint too, so a resumed run's file has no gap and no line twice. They are of all
    processes, and the first one writes them.
    """

    def __init__(self, out: Path, data: str) -> None:
        self.path, self.data = out / "metrics.csv", data
        self.rows: list[dict[str, float]] = []

    def state_dict(self) -> dict[str, Any]:
        """What the checkpoint keeps: the rows so far, and the hash of the data."""
        return {"rows": self.rows, "data": self.data}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint, whose data must be today's."""
        if state_dict["data"] != self.data:
            raise UserError(f"the training data has changed since {self.path.parent} began; choose another --out")
        self.rows = state_dict["rows"]

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self.start, self.exams = time.monotonic(), 0
        self.losses: list[Tensor] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the loss on its device: reading it would make the host wait."""
        self.losses.append(outputs["loss"].detach())
        self.exams += global_rows(len(batch[0]))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add the line; a loss that is not a number ends the run."""
        local = torch.stack(self.losses).float().mean()
        loss = trainer.strategy.reduce(local, reduce_op="mean").item() * trainer.accumulate_grad_batches  # type: ignore[union-attr]
        seconds = time.monotonic() - self.start
        if not math.isfinite(loss):
            raise UserError(
                f"the loss is {loss} in epoch {trainer.current_epoch + 1}: training diverged; "
                "start again with a smaller --lr"
            )
        self.rows.append(
            {
                "epoch": trainer.current_epoch + 1,
                "loss": loss,
                "lr": trainer.optimizers[0].param_groups[0]["lr"],
                **pl_module.epoch_facts(),  # type: ignore[operator]
                "exams_per_s": self.exams / seconds,
                "seconds": seconds,
            }
        )
        if not trainer.is_global_zero:
            return
        with replacing(self.path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            columns = list(dict.fromkeys(name for row in self.rows for name in row))  # older versions logged fewer
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows({k: f"{v:.6g}" for k, v in row.items()} for row in self.rows)


class ProgressBar(Callback):
    """One bar over all epochs, of the first process: exams done, exams/s, time left, its own loss."""

    def __init__(self, title: str, exams_per_epoch: int, unit: str) -> None:
        self.title, self.exams_per_epoch, self.unit = title, exams_per_epoch, unit
        self.loss_read = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the bar, at the epoch where a resumed run goes on."""
        self.bar = progress(
            total=self.exams_per_epoch * (trainer.max_epochs or 0),
            initial=self.exams_per_epoch * trainer.current_epoch,
            title=self.title,
            unit=self.unit,
            hidden=not trainer.is_global_zero,
        )

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move on; the loss is read at most twice a second, since reading it waits for the device."""
        if time.monotonic() - self.loss_read > 0.5:
            self.loss_read = time.monotonic()
            loss = outputs["loss"].item() * trainer.accumulate_grad_batches
            self.bar.set_postfix(epoch=trainer.current_epoch + 1, loss=f"{loss:.3f}", refresh=False)
        self.bar.update(global_rows(len(batch[0])))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the bar."""
        self.bar.close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Close the bar, so that the message stands on a line of its own."""
        if hasattr(self, "bar"):
            self.bar.close()


class StopAsked(Exception):
    """Ctrl-C was pressed, or the process was asked to end; raised between two batches."""


class StopBetweenBatches(Callback):
    """Ctrl-C and SIGTERM end training between two batches, a second one at once.

    A KeyboardInterrupt raised while a checkpoint is moved into place was swallowed there, and training went on; after a
    SIGTERM Lightning ends as if all were done.

    Of several processes all stop before the same batch, whichever was asked: one alone would leave the others waiting.
    They agree over a group of their own on the CPU, so a GPU need not be waited for.
    """

    def __init__(self) -> None:
        self.asked = False
        self.group: distributed.ProcessGroup | None = None
        self.before: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take over both signals, where a signal handler may be set."""
        if trainer.world_size > 1:
            self.group = distributed.new_group(backend="gloo")
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self.ask) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Note the wish, and leave the next signal to whoever handled it before."""
        self.asked = True
        self.give_back()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stop where it was asked for."""
        if on_any_process(self.asked, self.group):
            self.asked = True
            raise StopAsked

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give the signals back to Lightning, before it gives them back to whoever handled them before the training.

        Later, Lightning's handlers would stay in place, and keep the trainer and the model in memory.
        """
        self.give_back()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Put the handlers back where training ends early, too."""
        self.give_back()

    def give_back(self) -> None:
        """Put back the handlers that stood before."""
        while self.before:
            signal.signal(*self.before.popitem())


class Saver(ModelCheckpoint):
    """Writes `checkpoints/last.ckpt` at the end of an epoch, unless it did less than `pause` seconds ago.

    An epoch of small pictures is over sooner than its checkpoint is written; the last epoch is always saved.
    """

    def __init__(self, out: Path, pause: float) -> None:
        super().__init__(
            dirpath=out / LAST.parent,
            filename=LAST.stem,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        self.pause, self.saved = pause, -math.inf

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save, where it is time."""
        last = trainer.current_epoch + 1 == trainer.max_epochs
        due = last or time.monotonic() - self.saved >= self.pause
        if trainer.strategy.broadcast(due):  # all processes save together, by the first one's clock
            super().on_train_epoch_end(trainer, pl_module)
            self.saved = time.monotonic()


class WholeCheckpoints(TorchCheckpointIO):
    """Writes each checkpoint beside the last one, which stays where the disk is full or the process is killed.

    Lightning's own is written to the folder for temporary files, and copied from there where that is on another disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write one, whole or not at all."""
        with replacing(Path(path)) as partial:
            torch.save(checkpoint, partial)
