"""Clips: the slices sampled from a series, read from the memory map and nothing more, or gathered on the device."""

import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from kneessl.distributed import local_rows
from kneessl.exams.folder import ExamFolder
from kneessl.views.preprocess import Preprocessing
from kneessl.views.resample import to_device_of
from kneessl.views.store import ResidentSlices, hold_if_room

T = TypeVar("T")


def sample_slices(total: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Choose `count` of `total` slices at random, without replacement, in anatomical order (thesis, 4.1).

    A series with fewer slices gives each of them once and repeats some, drawn without replacement again.
    """
    rounds, rest = divmod(count, total)
    chosen = np.concatenate([np.tile(np.arange(total), rounds), rng.permutation(total)[:rest]])
    return np.sort(chosen)


def places(chosen: np.ndarray, total: int) -> torch.Tensor:
    """Where slices lie in a series of `total`: float32 `(n,)`, 0 the first, 1 the last; one half for an only slice."""
    return torch.from_numpy(chosen / (total - 1) if total > 1 else np.full(len(chosen), 0.5)).float()


class Clips(Dataset[tuple[torch.Tensor, int, torch.Tensor]]):
    """Clips of `count` slices; indexed by `(epoch, i, k)`, exam i for the k-th time: a draw depends on nothing else.

    Item: uint8 `(draws * count, 256, 256)` of exam `exams[i]`, draw after draw, `i`, and the slices' `places`
    `(draws * count,)`. Slices come from the part of a series that the preprocessing keeps.
    """

    def __init__(
        self,
        folder: ExamFolder,
        split: str,
        plane: str,
        exams: Sequence[str],
        count: int,
        seed: int,
        preprocessing: Preprocessing,
        draws: int = 1,
    ) -> None:
        self.folder, self.split, self.plane, self.exams = folder, split, plane, list(exams)
        self.count, self.seed, self.preprocessing, self.draws = count, seed, preprocessing, draws

    def __len__(self) -> int:
        return len(self.exams)

    def choose(self, index: tuple[int, int, int], total: int) -> np.ndarray:
        """Which slices an item has of a series of `total`: int64 `(draws * count,)`."""
        epoch, i, repeat = index
        kept = self.preprocessing.middle(total)
        rng = np.random.default_rng([self.seed, epoch, i, repeat])
        draws = [sample_slices(kept.stop - kept.start, self.count, rng) for _ in range(self.draws)]
        return kept.start + np.concatenate(draws)

    def __getitem__(self, index: tuple[int, int, int]) -> tuple[torch.Tensor, int, torch.Tensor]:
        _, i, _ = index
        series = self.folder.series(self.split, self.plane, self.exams[i])
        chosen = self.choose(index, len(series))
        return torch.from_numpy(series[chosen]), i, places(chosen, len(series))


class ResidentClips(Dataset[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]):
    """The same clips, gathered a batch at a time on the device that holds their exams' slices."""

    def __init__(self, clips: Clips, slices: ResidentSlices) -> None:
        self.clips, self.slices = clips, slices

    def __len__(self) -> int:
        return len(self.clips)

    def __getitems__(self, indices: Sequence[tuple[int, int, int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The batch of these items of the clips."""
        exams = [i for _, i, _ in indices]
        totals = [self.slices.counts[i] for i in exams]
        chosen = [self.clips.choose(index, total) for index, total in zip(indices, totals, strict=True)]
        where = torch.stack([places(c, total) for c, total in zip(chosen, totals, strict=True)])
        pixels = self.slices.gather(exams, chosen)
        return pixels, to_device_of(torch.tensor(exams), pixels), to_device_of(where, pixels)


class EpochSampler(Sampler[tuple[int, int, int]]):
    """Shuffles `indices` anew each epoch from `(seed, epoch)` alone: a resumed run sees the same order.

    An index named several times counts its repeats, so that each time gives another clip. Lightning calls `set_epoch`
    before every epoch but the first after resuming, whose worker processes have read ahead by then.

    Args:
        indices: What to draw.
        seed: Seed of the order.
        batch: Leave out what is over after so many at a time.
        processes: Deal each such batch out: its first share to the process of rank 0, and so on.
    """

    def __init__(self, indices: Sequence[int], seed: int, batch: int = 1, processes: int = 1) -> None:
        self.seed, self.epoch = seed, 0
        self.batch, self.share = batch, batch // processes
        repeats: Counter[int] = Counter()
        self.draws: list[tuple[int, int]] = []
        for i in indices:
            self.draws.append((int(i), repeats[i]))
            repeats[i] += 1

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.draws) // self.batch * self.share

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.draws))
        batches = order[: len(order) // self.batch * self.batch].reshape(-1, self.batch)
        return ((self.epoch, *self.draws[j]) for j in batches[:, local_rows(self.share)].flat)


def clip_loader(
    clips: Clips, indices: Sequence[int], batch: int, drop_last: bool = False, processes: int = 1
) -> DataLoader:
    """Batches of clips, uint8 `(batch, count, 256, 256)`, their exams' numbers and places; shuffled by the clips' seed.

    A GPU holds all slices where they fit, and a batch is a gather there; where they do not, worker processes read ahead
    into pinned memory. On a CPU the training process reads, which costs it least. The batches are the same.

    Args:
        clips: What to draw from.
        indices: The exams of an epoch; one named twice is drawn twice.
        batch: Exams in a batch.
        drop_last: Leave out a last batch that is not full.
        processes: That share each batch equally; more than one want `drop_last`.

    Raises:
        UserError: a series cannot be read onto the GPU; `ExamFolder.require_readable` says it sooner.
    """
    sampler, share = EpochSampler(indices, clips.seed, batch if drop_last else 1, processes), batch // processes
    held = hold_if_room(clips.folder, clips.split, clips.plane, clips.exams)
    if held is not None:
        return DataLoader(
            ResidentClips(clips, held),
            batch_size=share,
            sampler=sampler,
            drop_last=drop_last,
            collate_fn=already_batched,
        )
    gpu = torch.cuda.is_available()
    return DataLoader(
        clips,
        batch_size=share,
        sampler=sampler,
        drop_last=drop_last,
        num_workers=4 if gpu else 0,
        persistent_workers=gpu,
        pin_memory=gpu,
        worker_init_fn=ignore_interrupt,
    )


def already_batched(batch: T) -> T:
    """Collate function for data sets whose `__getitems__` returns a whole batch: return it unchanged."""
    return batch


def ignore_interrupt(_worker: int) -> None:
    """Leave Ctrl-C, which a terminal sends to every process, to the training process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
