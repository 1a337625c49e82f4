"""The workers of a Dask cluster: what must be so before any work goes there, and what is said when the cluster ends.

Importing this raises UserError where distributed, of the extra `cluster`, is not installed.
"""

import asyncio
import logging
import pickle
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from kneessl.errors import UserError

try:
    from dask.system import CPU_COUNT
    from distributed import Client, get_worker, rpc
    from distributed.client import CancelledError as FutureLost
except ModuleNotFoundError:
    raise UserError('distributed missing for --cluster; run `pip install "kneessl[cluster]"` first') from None

T = TypeVar("T")
SAME = ("python", "distributed", "kneessl")
"""What must have one version here, on the scheduler and on all workers."""
PATIENCE = 10.0
"""Seconds for a scheduler to answer."""


@contextmanager
def cluster_executor(address: str, reads: Sequence[Path], writes: Path) -> Iterator[Executor]:
    """An executor of a cluster's workers, which have been seen to find the data; what they have not done is dropped.

    Args:
        address: The scheduler's, such as tcp://10.0.0.1:8786.
        reads: Files and folders that are there.
        writes: A file or folder that the work will write, perhaps not there yet.

    Raises:
        UserError: no scheduler answers, a version differs, a worker lacks a folder, or the scheduler goes away.
    """
    here = asyncio.run(ask_scheduler(address))
    log = logging.getLogger("distributed")
    level = log.level
    log.setLevel(logging.CRITICAL)  # what goes wrong is told in one sentence
    client = Client(address, timeout=PATIENCE, set_as_default=False)
    try:
        require_fit(client, address, here, reads, writes)
        pool = client.get_executor(pure=False)
        try:
            yield Sealing(pool)
        finally:
            pool.shutdown(wait=False)
    except (CancelledError, FutureLost) as error:
        raise UserError(
            f"the scheduler at {address} has gone, and with it the work that was not done; what is done stays"
        ) from error
    finally:
        client.close()
        log.setLevel(level)


class Sealing(Executor):
    """Hands pieces on as bytes, since Dask writes what a piece that fails was called with into a worker's log."""

    def __init__(self, pool: Executor) -> None:
        self.pool = pool

    def submit(self, function: Callable[..., T], /, *args: object, **kwargs: object) -> Future[T]:
        """As that of any executor."""
        return self.pool.submit(open_and_call, Sealed(pickle.dumps((function, args, kwargs))))


@dataclass(frozen=True)
class Sealed:
    """A call that shows nothing of itself."""

    call: bytes = field(repr=False)


def open_and_call(sealed: Sealed) -> Any:
    """Do what was sealed, on a worker."""
    function, args, kwargs = pickle.loads(sealed.call)
    return function(*args, **kwargs)


async def ask_scheduler(address: str) -> dict[str, str]:
    """The versions that this process and the scheduler share.

    Raises:
        UserError: nothing answers at the address, something else than a scheduler does, or a version differs.
    """
    try:
        async with rpc(address, timeout=PATIENCE) as scheduler:
            identity = await asyncio.wait_for(scheduler.identity(), PATIENCE)
            versions = await asyncio.wait_for(scheduler.versions(packages=["kneessl"]), PATIENCE)
    except ValueError as error:
        raise UserError(f"cluster is {address!r}, which is no address such as tcp://10.0.0.1:8786 ({error})") from error
    except (OSError, TypeError, AttributeError) as error:
        raise UserError(
            f"no Dask scheduler answers at {address}; is it running, and may this machine connect to it?"
        ) from error
    if identity["type"] != "Scheduler":
        raise UserError(f"at {address} is a Dask {identity['type'].lower()}; give the address of its scheduler")
    here = {name: version_here(name) for name in SAME}
    require_same("the scheduler", address, here, versions)
    return here


def require_same(who: str, address: str, here: Mapping[str, str], versions: Mapping[str, Any]) -> None:
    """Raise a user error where a version differs from that of this process."""
    for name, ours in here.items():
        theirs = shown(name, versions["packages"])
        if theirs != ours:
            raise UserError(
                f"{who} at {address} has {name} {theirs}, and this process has {ours}; start scheduler and workers "
                "from the same environment as this command"
            )


def version_here(name: str) -> str:
    """Of this process."""
    return shown(name, {name: platform.python_version() if name == "python" else version(name)})


def shown(name: str, packages: Mapping[str, str | None]) -> str:
    """A version as it must be the same; of Python, 3.11 for 3.11.7."""
    found = packages.get(name)
    if found is None:
        return "missing"
    return ".".join(found.split(".")[:2]) if name == "python" else found


def require_fit(client: Client, address: str, here: Mapping[str, str], reads: Sequence[Path], writes: Path) -> None:
    """See that every worker has the same versions and files, among them one that is made for this beside `writes`."""
    if not client.scheduler_info(n_workers=1)["workers"]:
        print(f"waiting for a worker of the scheduler at {address}", flush=True)
    client.submit(abs, 1, pure=False).result()
    versions_here_and_there: Any = client.get_versions(packages=["kneessl"])
    for worker, versions in versions_here_and_there["workers"].items():
        require_same("the worker", worker, here, versions)
    beside = next(folder for folder in writes.absolute().parents if folder.is_dir())
    with tempfile.NamedTemporaryFile(prefix=".kneessl-", dir=beside) as mark:
        paths = [str(path.absolute()) for path in (*reads, Path.cwd(), Path(mark.name))]
        for worker, lacking in client.run(missing, paths).items():
            if lacking is not None:
                what = f"does not see what is written in {beside}" if lacking == mark.name else f"has no {lacking}"
                raise UserError(
                    f"the worker at {worker} {what}; all workers must share a file system with this machine, at the "
                    "same path"
                )


def missing(paths: Sequence[str]) -> str | None:
    """The first path that is not there, as seen from where this is called."""
    return next((path for path in paths if not Path(path).exists()), None)


def times_cancelled() -> int:
    """Whether the task that calls this is wanted no more: 1 when its client has taken it back, or is gone."""
    worker = get_worker()
    task = worker.state.tasks.get(worker.get_current_task())
    return int(task is None or task.state == "cancelled")


def share_of_cores() -> int:
    """How many of this worker's cores belong to each of its threads."""
    return max(1, CPU_COUNT // get_worker().state.nthreads)
