"""What all arms have in common: the slices, the sizes, and the clock."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader

from kneessl.exams.folder import ExamFolder
from kneessl.views.clips import Clips, clip_loader
from kneessl.views.preprocess import Preprocessing

SPLIT, PLANE = "train", "sagittal"
HIDDEN, DIM = 1024, 256
"""Widths of every arm's projector and predictor: those of lightly's documentation. kneessl's default is 4096, 256."""


@dataclass(frozen=True)
class Workload:
    """The work that every arm does.

    Args:
        data: Exam folder; the sagittal series of its `train` split are read.
        scratch: Folder for what a run of kneessl writes.
        device: Where the networks run.
        precision: What the networks run in; bf16 is autocast.
        batch: Exams in a batch.
        slices: Slices of an exam, drawn at random.
        size: Side of a view in pixels.
        steps: Steps that are measured at a time.
        workers: Processes of each peer's `DataLoader`.
    """

    data: Path
    scratch: Path
    device: torch.device
    precision: Literal["float32", "bf16"]
    batch: int
    slices: int
    size: int
    steps: int
    workers: int

    @property
    def ahead(self) -> int:
        """Batches that worker processes have ready, or in the making, before the first is used: two each."""
        return 2 * self.workers

    @property
    def warmup(self) -> int:
        """Training steps before the measured ones.

        On a GPU they use up what was read ahead at the start, which would flatter a loader that is too slow. A CPU
        trains more slowly than its workers read: after one step the batches ahead are there, and stay there.
        """
        return self.ahead if self.device.type == "cuda" else 1

    def training_clock(self) -> "Clock":
        """For training steps."""
        return Clock(self.device, self.warmup, self.steps)

    def loading_clock(self) -> "Clock":
        """For views alone: of many batches, since those of several workers come at the same time."""
        return Clock(self.device, self.ahead, self.loaded)

    @property
    def loaded(self) -> int:
        """Batches that a loading clock measures."""
        return max(self.steps, 2 * self.ahead)

    @cached_property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing(self.size)

    @cached_property
    def loader(self) -> DataLoader:
        """kneessl's own loader, of more batches than are used: workers that read ahead must not run out of them."""
        folder = ExamFolder(self.data)
        exams = folder.require(SPLIT, PLANE)
        clips = Clips(folder, SPLIT, PLANE, exams, self.slices, 0, self.preprocessing)
        batches = self.ahead + self.loaded + max(self.ahead, 8)  # 8 is what kneessl's four workers read ahead
        return clip_loader(clips, [i % len(exams) for i in range(batches * self.batch)], self.batch)

    def draws(self) -> list[tuple[Path, list[int]]]:
        """Series and slice numbers of each clip, in the order in which kneessl's loader gives them."""
        clips: Clips = self.loader.dataset
        drawn = []
        for index in self.loader.sampler:
            _, i, places = clips[index]
            last = len(clips.folder.series(SPLIT, PLANE, clips.exams[i])) - 1
            path = clips.folder.path(SPLIT, PLANE, clips.exams[i])
            drawn.append((path, (places * last).round().int().tolist()))
        return drawn

    def autocast(self) -> torch.autocast:
        """What a peer's networks run in."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")


class Clock:
    """Seconds that a step takes: the mean of `steps` steps, after `warmup` that are not counted."""

    def __init__(self, device: torch.device, warmup: int, steps: int) -> None:
        self.device, self.warmup, self.last = device, warmup, warmup + steps
        self.ended = 0

    @property
    def done(self) -> bool:
        """Whether the last measured step has ended."""
        return self.ended >= self.last

    def tick(self) -> None:
        """A step has ended."""
        self.ended += 1
        if self.ended == self.warmup:
            self.start = self.now()
        elif self.ended == self.last:
            self.step_seconds = (self.now() - self.start) / (self.last - self.warmup)

    def now(self) -> float:
        """The time at which the device has done all that was asked of it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


@dataclass(frozen=True)
class Arm:
    """One way to pre-train; both functions tick the clock after each step until it is done."""

    name: str
    train: Callable[[Clock], None]
    """Whole training steps."""
    load: Callable[[Clock], None]
    """The views alone, read, made and brought to the device."""


def drive(batches: Iterable[Any], step: Callable[[Any], object], clock: Clock) -> None:
    """Take batches, one step each, until the clock is done."""
    for batch in batches:
        step(batch)
        clock.tick()
        if clock.done:
            break
