"""The Lightning module that trains any method on clips that nobody labelled."""

import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from tqdm import tqdm

from kneessl.evaluation.collapse import watch_warnings
from kneessl.methods import Method
from kneessl.nets.encoder import save_weights
from kneessl.training.collapse_watch import CollapseWatch
from kneessl.training.fit import seeded
from kneessl.training.online_probe import OnlineProbe
from kneessl.training.optimizers import Optimization, make_optimizer, warmup_cosine
from kneessl.views.inputs import ViewMaker


class Pretraining(L.LightningModule):
    """Trains a method: views on the device, loss, EMA after each optimiser step, collapse watch each epoch.

    Args:
        method: Is trained.
        make_view: Makes its views.
        by_slice: Every slice of a clip is a clip of its own.
        optimization: How its weights are moved.
        seed: Of every draw.
        out: Run folder; the encoder is saved there beside every checkpoint.
        probe: Reads the encoder's frozen features after some epochs.
        draws: 2 where clips hold two draws of slices, one for each view.
    """

    def __init__(
        self,
        method: Method,
        make_view: ViewMaker,
        by_slice: bool,
        optimization: Optimization,
        seed: int,
        out: Path,
        probe: OnlineProbe | None = None,
        draws: int = 1,
    ) -> None:
        super().__init__()
        self.method = method
        self.make_view, self.by_slice, self.draws = make_view, by_slice, draws
        self.optimization = optimization
        self.seed, self.out, self.probe = seed, out, probe
        self.watch = CollapseWatch(method.encoder)
        self.warned = False

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        """uint8 clips `(B, S, 256, 256)` -> loss."""
        return self.loss(*self.prepare(batch, batch_idx))

    def prepare(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> tuple[Tensor, ...]:
        """Clips -> what the method takes, such as two views; they depend on seed, epoch and batch alone."""
        slices, _, _ = batch
        draws = slices.chunk(self.draws, 1)
        if self.by_slice:  # without pooling, a slice is a clip of one
            draws = tuple(draw.flatten(0, 1)[:, None] for draw in draws)
        generator = seeded(self.seed, self.current_epoch, batch_idx)
        with torch.autocast(slices.device.type, enabled=False):
            if len(draws) == 2:
                return self.make_view.pair(*draws, generator)
            return self.method.inputs(draws[0], self.make_view, generator)

    def loss(self, *inputs: Tensor) -> Tensor:
        """The method's, of what `prepare` made; its embeddings are kept for the collapse watch."""
        outcome = self.method(*inputs)
        self.watch.keep(outcome)
        return outcome.loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """After a real optimiser step, never after a mere micro-batch, the method follows up."""
        super().optimizer_step(*args, **kwargs)
        self.after_step()

    def after_step(self) -> None:
        """What the method does once its weights have moved."""
        self.method.after_step(self.trainer.global_step / self.trainer.estimated_stepping_batches)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Optimiser with warm-up and cosine, stepped with the optimiser."""
        wanted, steps = self.optimization, int(self.trainer.estimated_stepping_batches)
        optimizer = make_optimizer(wanted.optimizer, self, wanted.lr, wanted.weight_decay)
        warmup = wanted.warmup(steps)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: warmup_cosine(k, steps, warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def epoch_facts(self) -> dict[str, float]:
        """The collapse watch's figures; the first process probes, where asked to."""
        facts = self.watch.facts()
        if self.probe is not None and self.trainer.is_global_zero:
            facts |= self.probe(self.method.encoder, self.current_epoch + 1)
        warnings = watch_warnings(facts)
        for warning in warnings:
            if not self.warned and self.trainer.is_global_zero:
                tqdm.write(f"warning: epoch {self.current_epoch + 1}: {warning}", file=sys.stderr)
        self.warned = bool(warnings)
        return facts

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave a usable encoder beside every checkpoint."""
        if self.trainer.is_global_zero:
            save_weights(self.method.encoder.trunk, self.out / "encoder.safetensors")
