"""Long pieces of work, each in a process of its own: one that is killed takes no other with it, nor its worker.

The process pools of Python and Dask end with any of their processes, or begin anew with all that these did; and a
process that has trained before would report the memory of both trainings.
"""

import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import PIPE, Popen, TimeoutExpired
from typing import IO, Any, Protocol, cast

from kneessl.workers.executor import executor

INTERRUPTED = 130
"""Exit status of a process that was asked to stop, and did."""


class Submit(Protocol):
    """Has `function(argument, threads)` called in a process of its own; the result is its exit status."""

    def __call__(self, function: Callable[[Any, int], None], argument: Any, name: str) -> Future[int]:
        """Give it a name, for lists of processes."""


@contextmanager
def apart(at_once: int, cluster: str | None, reads: Sequence[Path], writes: Path) -> Iterator[Submit]:
    """Run pieces of work on this machine, `at_once` at a time, or one on each thread of a cluster's workers.

    When the body ends early, running pieces are asked to stop by SIGTERM, and waited for on this machine; a second
    Ctrl-C ends them at once. They are asked as well when this process, or their worker, is killed.

    Args:
        at_once: Pieces on this machine, each with its share of the cores.
        cluster: As of `executor`, and so are the others.
        reads: What the work reads.
        writes: What it writes.

    Raises:
        UserError: as `executor`.
        KeyboardInterrupt: Ctrl-C or SIGTERM.
    """
    with interruptible():
        if cluster is not None:
            with executor(at_once, cluster, reads, writes) as pool:
                yield lambda *piece: pool.submit(run_on_worker, *packed(*piece))
            return
        asked: list[None] = []
        pieces: list[Future[int]] = []
        threads = max(1, (os.cpu_count() or 1) // at_once)
        pool = ThreadPoolExecutor(at_once)

        def submit(function: Callable[[Any, int], None], argument: Any, name: str) -> Future[int]:
            pieces.append(pool.submit(run_apart, *packed(function, argument, name), threads, asked.__len__))
            return pieces[-1]

        try:
            yield submit
        finally:
            asked.append(None)
            pool.shutdown(wait=False, cancel_futures=True)
            begun = [piece for piece in pieces if not piece.cancelled()]
            try:
                wait(begun)  # unlike the pool's own waiting, it can be interrupted and go on
            except KeyboardInterrupt:
                asked.append(None)
                wait(begun)
                raise


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM be as Ctrl-C, and both say how to go on."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt("the same command with --resume goes on")

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def packed(function: Callable[[Any, int], None], argument: Any, name: str) -> tuple[bytes, str]:
    """A piece of work as a worker takes it, which neither imports what it needs nor stands in the same folder."""
    return pickle.dumps((Path.cwd(), function, argument)), name


def run_on_worker(work: bytes, name: str) -> int:
    """As `run_apart`, on a worker of Dask; where someone else than the client stopped it, another worker goes on."""
    from distributed import Reschedule

    from kneessl.workers.cluster import share_of_cores, times_cancelled

    status = run_apart(work, name, share_of_cores(), times_cancelled)
    if status in {INTERRUPTED, -signal.SIGTERM}:
        raise Reschedule
    return status


def run_apart(work: bytes, name: str, threads: int, times_asked: Callable[[], int]) -> int:
    """Do a piece of work in a process, and wait for it.

    Args:
        work: As `packed`.
        name: For lists of processes.
        threads: Of PyTorch, in that process.
        times_asked: How often it was asked to stop; at twice it is killed.

    Returns:
        Its exit status; below 0, the signal that ended it.
    """
    words = [sys.executable, "-P", "-m", "kneessl.workers.apart", name, str(threads)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    # unbuffered, so that closing has nothing left to write; a terminal's Ctrl-C is for this process alone
    with Popen(words, stdin=PIPE, bufsize=0, env=environment, start_new_session=True) as process:
        stdin = cast("IO[bytes]", process.stdin)
        with suppress(BrokenPipeError):
            stdin.write(work)
        while True:
            try:
                return process.wait(timeout=0.2)
            except TimeoutExpired:
                if times_asked() > 0:
                    stdin.close()
                if times_asked() > 1:
                    process.kill()


def main() -> None:
    """Do the piece of work that comes through standard input, which stays open while it is wanted."""
    folder, function, argument = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_stop_when_closed, daemon=True).start()
    os.chdir(folder)
    function(argument, int(sys.argv[2]))


def _stop_when_closed() -> None:
    """Wait until nobody wants the work any more, and take that for a SIGTERM."""
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
