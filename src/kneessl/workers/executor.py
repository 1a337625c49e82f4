"""Work in many pieces, through the interface of `concurrent.futures`, wherever it is done."""

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import TypeVar

from kneessl.errors import UserError

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def executor(
    workers: int, cluster: str | None = None, reads: Sequence[Path] = (), writes: Path = Path("out")
) -> Iterator[Executor]:
    """An executor for functions and arguments that can be pickled; what has not begun is dropped when the body fails.

    What has begun is waited for on this machine, so nothing is left half done: pieces should take seconds. Ctrl-C
    reaches this process alone, and a worker ends with it, even where this process is killed.

    Args:
        workers: Processes, one thread of arithmetic each; with 1, this process does each piece when it is submitted,
            or by `map` and `in_order` when its result is asked for.
        cluster: Address of a Dask scheduler whose workers do the pieces instead. They share a file system with this
            process, but do not stand in its folder: pieces have absolute paths.
        reads: Files and folders that a cluster's workers must find.
        writes: A file or folder that they will write, perhaps not there yet.

    Raises:
        UserError: a worker was killed, such as for its memory; or as `cluster_executor`.
    """
    if cluster is not None:
        from kneessl.workers.cluster import cluster_executor

        with cluster_executor(cluster, reads, writes) as pool:
            yield pool
        return
    if workers == 1:
        yield InThisProcess()
        return
    processes = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin)
    try:
        yield processes
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process was ended by the system, out of memory perhaps; run it again with fewer --workers"
        ) from error
    finally:
        processes.shutdown(wait=True, cancel_futures=True)


def in_order(pool: Executor, function: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """The results of a function for each item, in the order of the items: `pool.map` for more items than memory holds.

    Args:
        pool: Of `executor`.
        function: Of one item.
        items: Each is taken when fewer than `ahead` results are waited for.
        ahead: At least the number of workers; a few times that keeps them busy behind a slow piece.
    """
    if isinstance(pool, InThisProcess):
        yield from map(function, items)
        return
    waiting: deque[Future[R]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def require_workers(workers: int | None) -> int:
    """How many processes are meant: as many as there are cores for this one where the user does not say.

    Raises:
        UserError: fewer than 1.
    """
    if workers is not None and workers < 1:
        raise UserError(f"workers is {workers}; use at least 1")
    return len(os.sched_getaffinity(0)) if workers is None else workers


class InThisProcess(Executor):
    """Does each piece when it is submitted; `map` does it when its result is asked for."""

    def submit(self, function: Callable[..., R], /, *args: object, **kwargs: object) -> Future[R]:
        """Do it, and return what came of it; Ctrl-C is raised here."""
        future: Future[R] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future

    def map(
        self, function: Callable[..., R], *iterables: Iterable[object], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[R]:
        """As Python's `map`."""
        return map(function, *iterables)


def _begin() -> None:
    """Make this process a worker: one thread, Ctrl-C left to the parent, and no life without it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = "1"  # NumPy and PyTorch are imported with the first piece of work
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    end_with_parent()


def end_with_parent() -> None:
    """Let this process end as soon as the one that started it has ended, however that was.

    A killed parent tells its workers nothing: they would wait for work for ever, or write what the parent's successor
    writes too.
    """
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    if parent := parent_process():
        wait([parent.sentinel])
        os._exit(1)
