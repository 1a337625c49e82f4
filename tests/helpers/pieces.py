"""Pieces of work for processes, which import them by name."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kneessl.errors import UserError


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


def say_where(file: Path, threads: int) -> None:
    """Leave the id of the process, its folder and its threads."""
    file.write_text(f"{os.getpid()}\n{Path.cwd()}\n{threads}")


def end_at_once_apart(_: object, threads: int) -> None:
    """As the system does where memory runs out."""
    end_at_once(threads)


def wait_to_be_stopped(file: Path, threads: int) -> None:
    """As a training: SIGTERM is noted, and ends it after a moment."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    file.write_text("began")
    while not asked:
        time.sleep(0.05)
    file.write_text("stopped")
    sys.exit(130)


def wait_stubbornly(file: Path, threads: int) -> None:
    """Note SIGTERM, and go on."""
    signal.signal(signal.SIGTERM, lambda number, frame: (file.parent / "asked").touch())
    file.write_text("began")
    while True:
        time.sleep(0.05)


@dataclass(frozen=True)
class Scored:
    """A job that fails, or lasts until its process is ended and then is done by the next one, or is done."""

    folder: Path

    def commands(self) -> Iterator[list[str]]:
        """No commands: what it does is done here."""
        if self.folder.name == "fails":
            raise UserError("no luck with fails")
        began = self.folder / "began"
        if self.folder.name == "long" and not began.is_file():
            began.write_text(str(os.getpid()))
            time.sleep(600)
        (self.folder / "result.json").write_text(str(os.getpid()))
        yield from ()
