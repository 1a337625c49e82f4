"""Series on the training device: all slices in one tensor, so that a batch of clips is one gather there."""

import sys
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kneessl.exams.folder import SIDE, ExamFolder
from kneessl.progress import progress
from kneessl.views.resample import to_device_of


class ResidentSlices:
    """All slices of some series, one series after the other, on one device.

    Args:
        pixels: uint8 `(slices in all, 256, 256)`.
        counts: Slices in each series.
    """

    def __init__(self, pixels: Tensor, counts: Sequence[int]) -> None:
        self.pixels, self.counts = pixels, list(counts)
        self.first = np.cumsum([0, *counts])

    def gather(self, series: Sequence[int], chosen: Sequence[np.ndarray]) -> Tensor:
        """Slices of B series in a new tensor; the host only says which, and does not wait for the device.

        Args:
            series: Numbers of the series, one named twice if need be.
            chosen: int64 `(S,)` for each of them: which of its slices.

        Returns:
            uint8 `(B, S, 256, 256)`.
        """
        rows = torch.from_numpy(self.first[series, None] + np.stack(chosen))
        return self.pixels.index_select(0, to_device_of(rows.flatten(), self.pixels)).unflatten(0, rows.shape)


def hold(folder: ExamFolder, split: str, plane: str, exams: Sequence[str], device: torch.device) -> ResidentSlices:
    """Read series onto a device, one at a time.

    Raises:
        UserError: a series cannot be read.
    """
    counts = [folder.slices(split, plane, exam) for exam in exams]
    held = ResidentSlices(torch.empty((sum(counts), SIDE, SIDE), dtype=torch.uint8, device=device), counts)
    bar = progress(exams, title="read series", unit="exam", keep=False)
    for exam, place in zip(bar, held.pixels.split(counts), strict=True):
        place.copy_(torch.from_numpy(np.array(folder.series(split, plane, exam))))
    return held


def hold_if_room(folder: ExamFolder, split: str, plane: str, exams: Sequence[str]) -> ResidentSlices | None:
    """Read series onto the GPU; None where there is none, or, with a line that says so, where they are too much for it.

    Raises:
        UserError: a series cannot be read.
    """
    gpu = gpu_memory()
    if gpu is None:
        return None
    device, free = gpu
    needed = sum(folder.path(split, plane, exam).stat().st_size for exam in exams)
    if fits_in_memory(needed, free):
        return hold(folder, split, plane, exams, device)
    print(
        f"note: the {plane} series take {needed / 1e9:.1f} GB, more than half of the {free / 1e9:.1f} GB "
        "that are free on the GPU; they are read from disk during training",
        file=sys.stderr,
    )
    return None


def fits_in_memory(needed: int, free: int) -> bool:
    """Whether series may take so many bytes of those that are free; the other half is for the training itself."""
    return needed <= free // 2


def gpu_memory() -> tuple[torch.device, int] | None:
    """The GPU that trains, and how many of its bytes are free or only kept for reuse by PyTorch."""
    if not torch.cuda.is_available():
        return None
    free, _ = torch.cuda.mem_get_info()
    kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return torch.device("cuda", torch.cuda.current_device()), free + kept
