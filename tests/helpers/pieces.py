"""Pieces of work for processes, which import them by name."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path


def about_this_process(_: object) -> tuple[int, bool, str | None, bool]:
    """Its id, whether it can count the threads of PyTorch as 1, OMP_NUM_THREADS, and whether Ctrl-C is left alone."""
    import torch

    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    return os.getpid(), torch.get_num_threads() == 1, os.environ.get("OMP_NUM_THREADS"), ignored


def call(piece: Callable[[], object]) -> object:
    """Do it."""
    return piece()


def leave_a_file(folder: Path, name: int) -> int:
    """Write a file after a moment, so that others wait meanwhile."""
    time.sleep(0.05)
    (folder / str(name)).touch()
    return name


def fail(name: int) -> int:
    """Only the first piece."""
    if name == 0:
        raise ValueError("piece 0")
    return name


def end_at_once(_: object) -> None:
    """As the system does where memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def sleep(seconds: float) -> None:
    """Be busy."""
    time.sleep(seconds)
