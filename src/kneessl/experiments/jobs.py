"""Many trainings, each a process of its own that types the commands a user would type.

So one that runs out of memory takes no other with it, its memory and time are its own, and what is done is not done
again.
"""

import csv
import fcntl
import os
import shlex
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import torch
from tqdm import tqdm

from kneessl import cli
from kneessl.errors import UserError, sentence
from kneessl.files import write_text
from kneessl.progress import progress
from kneessl.training.runs import LAST
from kneessl.workers.apart import INTERRUPTED, Submit

Words = list[str]
SET_BY_EXPERIMENT: Mapping[str, tuple[str, ...]] = {
    "pretrain": ("data", "method", "out", "plane", "seed", "devices", "num_nodes", "resume"),
    "finetune": ("data", "task", "out", "plane", "from_run", "seed", "resume"),
}
"""Settings of a command that every experiment gives each of its trainings itself."""
LAST_FILES = {"evaluate": None, "imbalance": "result.json"}
"""What a command writes last; trainings that are not named here, their record."""


class Job(Protocol):
    """Commands that belong together; when the last one is done, `result.json` is in the folder."""

    @property
    def folder(self) -> Path:
        """Its own, named unlike that of any other job; holds `log.txt`, and `failure.txt` where the job failed."""

    def commands(self) -> Iterator[Words]:
        """The words after `kneessl`; each command is made when the ones before it are done."""


def done(job: Job) -> bool:
    """Whether its figures are there."""
    return (job.folder / "result.json").is_file()


def failure(job: Job) -> str:
    """Why it failed."""
    return (job.folder / "failure.txt").read_text(encoding="utf-8")


def failures(jobs: Iterable[Job]) -> list[str]:
    """A line for each job that failed: which, and why."""
    return [f"{job.folder.name} failed: {failure(job)}" for job in jobs if not done(job)]


def require_one_done(jobs: Sequence[Job]) -> None:
    """Raise a user error with the first job's reason where every job failed."""
    if not any(map(done, jobs)):
        raise UserError(f"every training failed; the first one because: {failure(jobs[0])}")


@dataclass(frozen=True)
class Predictions:
    """What one evaluation says of the exams of one task."""

    exams: list[str]
    labels: np.ndarray
    """int64 `(exams,)`, 0 or 1."""
    scores: Mapping[str, np.ndarray]
    """By each model, its probabilities, float64 `(exams,)`."""


def predictions(job: Job, task: str) -> Predictions:
    """Read the lines of one task in `predictions.csv`, which a job's evaluation has left."""
    with (job.folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = [row for row in reader if row["task"] == task]
    models = (reader.fieldnames or [])[3:]  # after exam, task, label
    return Predictions(
        [row["exam"] for row in rows],
        np.array([int(row["label"]) for row in rows]),
        {model: np.array([float(row[model]) for row in rows]) for model in models},
    )


def check_settings(command: str, settings: Mapping[str, Any] | None, *reserved: str) -> Any:
    """Parse a command's settings before anything is trained, so that a misspelt one ends here.

    Args:
        command: Such as finetune.
        settings: What was asked for.
        reserved: Settings that may not be asked for, since the experiment sets them, beside `SET_BY_EXPERIMENT`.

    Returns:
        As `cli.parse_settings`.

    Raises:
        UserError: a setting that is reserved or that the command does not know, or a value that it does not take.
    """
    settings = settings or {}
    taken = [name for name in (*SET_BY_EXPERIMENT.get(command, ()), *reserved) if name in settings]
    if taken:
        raise UserError(f"{command}: {taken[0]} is not to be set here, since every training is given its own")
    try:
        return cli.parse_settings(command, settings)
    except UserError as error:
        raise UserError(f"{command}: {error}") from error


def run_all(jobs: Sequence[Job], submit: Submit, title: str) -> None:
    """Run the jobs that are not done; a failed one leaves its reason behind, and the rest go on.

    Raises:
        KeyboardInterrupt: somebody asked one of them to stop.
    """
    waiting = [job for job in jobs if not done(job)]
    for job in waiting:
        job.folder.mkdir(parents=True, exist_ok=True)
        (job.folder / "failure.txt").unlink(missing_ok=True)
    run = partial(run_job, debug=cli.debugging())
    running = {submit(run, job, job.folder.name): job for job in waiting}
    with progress(total=len(waiting), title=title, unit="run") as bar:
        while running:
            bar.set_postfix_str(", ".join(job.folder.name for future, job in running.items() if future.running()))
            for future in wait(running, timeout=1, return_when=FIRST_COMPLETED).done:
                note_end(running.pop(future), future.result())
                bar.update()


def note_end(job: Job, status: int) -> None:
    """Say that a job failed, where it did, and see that its reason is there.

    Args:
        job: That has ended.
        status: Of its process.
    """
    if status == INTERRUPTED:
        raise KeyboardInterrupt("the same command with --resume goes on")
    os.scandir(job.folder).close()  # so that a shared file system shows what another machine has just written
    if not done(job) and not (job.folder / "failure.txt").is_file():
        write_text(job.folder / "failure.txt", ended_by(status))
    if not done(job):
        tqdm.write(f"{job.folder.name} failed: {failure(job)}")


def ended_by(exitcode: int | None) -> str:
    """Why a process ended that said nothing itself."""
    if exitcode is not None and exitcode < 0:
        why = " (out of memory, perhaps)" if -exitcode == signal.SIGKILL else ""
        return f"killed by {signal.Signals(-exitcode).name}{why}"
    return f"ended with status {exitcode}"


def run_job(job: Job, threads: int, debug: bool) -> None:
    """Run a job's commands, in a process of its own, with its output in `log.txt`; a done job needs no checkpoints."""
    with (job.folder / "log.txt").open("a", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        torch.set_num_threads(threads)
        try:
            claim(log)
            for words in job.commands():
                if not finished(words):
                    print(f"\n$ kneessl {shlex.join(words)}", flush=True)
                    cli.run(words[0], words[1:])
            for checkpoints in job.folder.glob(f"*/{LAST.parent}"):
                shutil.rmtree(checkpoints)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        except Exception as error:
            reason = sentence(error)
            if reason is None or debug:
                traceback.print_exc()
            first = next(iter(str(error).splitlines()), "")
            write_text(job.folder / "failure.txt", reason or f"{type(error).__name__}: {first[:200]}")


def claim(log: IO[str], seconds: float = 600) -> None:
    """Keep a job's folder to this process, by a lock on its log that ends with it.

    Where a worker of a cluster has gone, its training may still be writing its last checkpoint.

    Raises:
        UserError: another process has kept it for so many seconds.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise UserError("another process is at work in its folder; end that first") from None
            time.sleep(0.5)
        except OSError as error:
            return print(f"without a lock on this file, since its file system has none: {error}")


def finished(words: Words) -> bool:
    """Whether a command has left the last file that it writes; an evaluation is done again."""
    last = LAST_FILES.get(words[0], "run.json")
    return last is not None and (Path(words[words.index("--out") + 1]) / last).is_file()
