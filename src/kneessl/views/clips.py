"""Clips: the slices sampled from a series, read from the memory map and nothing more."""

import signal
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from kneessl.distributed import own_rows
from kneessl.exams.folder import ExamFolder
from kneessl.views.preprocess import Preprocessing


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

    Item: uint8 `(count, 256, 256)` of exam `exams[i]`, `i`, and the slices' `places` `(count,)`. Slices come from the
    part of a series that the preprocessing keeps.
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
    ) -> None:
        self.folder, self.split, self.plane, self.exams = folder, split, plane, list(exams)
        self.count, self.seed, self.preprocessing = count, seed, preprocessing

    def __len__(self) -> int:
        return len(self.exams)

    def __getitem__(self, index: tuple[int, int, int]) -> tuple[torch.Tensor, int, torch.Tensor]:
        epoch, i, repeat = index
        series = self.folder.series(self.split, self.plane, self.exams[i])
        kept = self.preprocessing.middle(len(series))
        rng = np.random.default_rng([self.seed, epoch, i, repeat])
        chosen = kept.start + sample_slices(kept.stop - kept.start, self.count, rng)
        return torch.from_numpy(series[chosen]), i, places(chosen, len(series))


class EpochSampler(Sampler[tuple[int, int, int]]):
    """Shuffles `indices` anew each epoch from `(seed, epoch)` alone: a resumed run sees the same order.

    An index named several times counts its repeats, so that each time gives another clip. Lightning calls `set_epoch`
    before every epoch but the first after resuming, whose worker processes have read ahead by then.

    Args:
        indices: What to draw.
        seed: Of the order.
        batch: Leave out what is over after so many at a time.
        processes: Deal each such batch out: its first share to the process of rank 0, and so on.
    """

    def __init__(self, indices: Sequence[int], seed: int, batch: int = 1, processes: int = 1) -> None:
        self.seed, self.epoch = seed, 0
        self.batch, self.share = batch, batch // processes
        seen: Counter[int] = Counter()
        self.draws: list[tuple[int, int]] = []
        for i in indices:
            self.draws.append((int(i), seen[i]))
            seen[i] += 1

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.draws) // self.batch * self.share

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.draws))
        batches = order[: len(order) // self.batch * self.batch].reshape(-1, self.batch)
        return ((self.epoch, *self.draws[j]) for j in batches[:, own_rows(self.share)].flat)


def clip_loader(
    clips: Clips, indices: Sequence[int], batch: int, drop_last: bool = False, processes: int = 1
) -> DataLoader:
    """Batches of clips, uint8 `(batch, count, 256, 256)`, their exams' numbers and places; shuffled by the clips' seed.

    On a GPU, worker processes read ahead into pinned memory; on a CPU the training process reads, which costs it least.

    Args:
        clips: What to draw from.
        indices: The exams of an epoch; one named twice is drawn twice.
        batch: Exams in a batch.
        drop_last: Leave out a last batch that is not full.
        processes: That share each batch equally; more than one want `drop_last`.

    Raises:
        UserError: a series cannot be read.
    """
    clips.folder.require_readable(clips.split, clips.plane, clips.exams)
    gpu = torch.cuda.is_available()
    return DataLoader(
        clips,
        batch_size=batch // processes,
        sampler=EpochSampler(indices, clips.seed, batch if drop_last else 1, processes),
        drop_last=drop_last,
        num_workers=4 if gpu else 0,
        persistent_workers=gpu,
        pin_memory=gpu,
        worker_init_fn=ignore_interrupt,
    )


def ignore_interrupt(_worker: int) -> None:
    """Leave Ctrl-C, which a terminal sends to every process, to the training process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
