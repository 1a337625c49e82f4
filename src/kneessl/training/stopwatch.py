"""What a training costs beyond its arithmetic: the real loop, and the same step on tensors in place, turn by turn."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from kneessl.training.callbacks import ProgressBar

STAGES = ("read", "gather", "augment", "forward", "backward", "optimizer", "ema")
"""Of a step: slices out of the memory map, a batch of them on the device, what the network takes of it, and so on."""

Stage = Callable[[str], AbstractContextManager[None]]


class Clock:
    """Seconds by stage, lap by lap; on a GPU, until its work is done."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.laps: list[defaultdict[str, float]] = []

    def now(self) -> float:
        """Seconds, once the device has done all that it was asked for."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add what the body takes to the last lap."""
        start = self.now()
        yield
        self.laps[-1][name] += self.now() - start

    def lap(self) -> Stage:
        """Begin a lap; what times its stages."""
        self.laps.append(defaultdict(float))
        return self.stage

    def medians(self) -> dict[str, float]:
        """Of each stage over the laps, in seconds; 0 where there was none."""
        return {name: statistics.median(lap[name] for lap in self.laps) for name in STAGES}


class Timing:
    """What is measured: seconds of a step as it is and of a bare one, a pair for each round, and of a step's stages."""

    def __init__(self, device: torch.device) -> None:
        self.clock = Clock(device)
        self.pipeline: list[float] = []
        """Seconds of a step as it is, from the exams' files on; one for each round."""
        self.ceiling: list[float] = []
        """Seconds of the same step's arithmetic, on tensors in place."""
        self.epoch_ends: list[float] = []
        """Seconds from an epoch's last step to the next one's start."""
        self.exams = self.views = self.flops = 0
        """Exams, pictures and floating-point operations (of matrix products and convolutions) of a step."""

    def count(self, exams: int, inputs: Sequence[Tensor], step: Callable[[], object]) -> None:
        """Note what a step is, from the tensors that it takes."""
        self.exams = exams
        self.views = sum(x.shape[:-2].numel() for x in inputs if x.is_floating_point() and x.dim() > 2)
        with FlopCounterMode(display=False) as counter:
            step()
        self.flops = counter.get_total_flops()


class Measured(Exception):
    """All rounds are done."""


class Stopwatch(Callback):
    """Times a training over some rounds, and then ends it by `Measured`.

    A round is a burst of steps of the training as it is, loop and loader and all; then as many bare steps (forward,
    backward, optimiser, moving average) on tensors in place; then one step in stages. Both bursts of a round lie side
    by side, so that whatever else the machine does meets both. The end of an epoch (its line in the log, its
    checkpoint) is not part of a burst, and timed apart.

    Args:
        rounds: How many.
        seconds: Least length of a burst, which is no longer than an epoch.
    """

    def __init__(self, rounds: int, seconds: float) -> None:
        self.rounds, self.seconds, self.steps = rounds, seconds, 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Now the device and the loader are known."""
        self.timing = Timing(pl_module.device)
        self.loader = cast(Any, trainer.train_dataloader)
        self.clock = self.timing.clock
        self.ahead = self.loader.num_workers * (self.loader.prefetch_factor or 0)
        """Batches that workers have ready when a burst begins: so many of its steps are not counted."""
        for callback in cast(Any, trainer).callbacks:
            if isinstance(callback, ProgressBar):
                callback.bar.total = None  # it would show the weeks that an endless training takes

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A burst lies within an epoch."""
        if trainer.current_epoch:
            self.timing.epoch_ends.append(self.clock.now() - self.ended)
        self.begin()

    def begin(self) -> None:
        """A new burst; a step is its first once those read ahead are over."""
        self.done, self.start = -self.ahead, self.clock.now()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a step; after the burst's last one, do the rest of the round."""
        self.done += 1
        if not self.steps:
            self.warm_up(trainer, pl_module, batch)
            self.begin()
        elif self.done == self.steps:
            self.timing.pipeline.append((self.clock.now() - self.start) / self.steps)
            self.timing.ceiling.append(self.bare(trainer, pl_module, self.steps))
            self.in_stages(trainer, pl_module)
            if len(self.timing.pipeline) == self.rounds:
                raise Measured
            self.begin()
        elif self.done == 0:
            self.start = self.clock.now()
        self.ended = self.clock.now() if trainer.is_last_batch else 0.0

    def warm_up(self, trainer: L.Trainer, module: Any, batch: Any) -> None:
        """The first step is over: keep its tensors, count its operations, and see how many steps make a burst."""
        self.inputs = module.prepare(batch, 0)
        self.timing.count(len(batch[0]), self.inputs, lambda: self.bare(trainer, module, 1))
        longest = max(1, int(trainer.num_training_batches) - self.ahead)
        self.steps = min(longest, max(1, round(self.seconds / self.bare(trainer, module, 1))))

    def bare(self, trainer: L.Trainer, module: Any, steps: int) -> float:
        """Seconds of a step of so many, on the tensors kept."""
        start = self.clock.now()
        for step in range(steps):
            last = (step + 1) % trainer.accumulate_grad_batches == 0
            self.compute(trainer, module, self.inputs, last, lambda _: nullcontext())
        return (self.clock.now() - start) / steps

    def in_stages(self, trainer: L.Trainer, module: Any) -> None:
        """One step, from the exams' files on, the clock read after each stage."""
        stage = self.clock.lap()
        indices = next(iter(self.loader.batch_sampler))
        data = self.loader.dataset
        with stage("read"):  # as a DataLoader does: at once where the data set can
            items = data.__getitems__(indices) if hasattr(data, "__getitems__") else [data[i] for i in indices]
        with stage("gather"):
            batch = trainer.strategy.batch_to_device(self.loader.collate_fn(items))
        with stage("augment"):
            inputs = module.prepare(batch, 0)
        self.compute(trainer, module, inputs, True, stage)

    def compute(self, trainer: L.Trainer, module: Any, inputs: Any, step: bool, stage: Stage) -> None:
        """Forward and backward, and where `step` the optimiser and what follows it."""
        optimizer = trainer.optimizers[0]
        with stage("forward"), trainer.precision_plugin.train_step_context():
            loss = module.loss(*inputs)
        with stage("backward"):
            loss.backward()
        if step:
            with stage("optimizer"):
                optimizer.step()
                optimizer.zero_grad()
            with stage("ema"):
                module.after_step()
