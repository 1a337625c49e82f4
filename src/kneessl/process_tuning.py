"""How the command line makes its process start sooner and run faster; docs/performance.md says how much it gains."""

import ctypes
import gc
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def fast_imports() -> Iterator[None]:
    """Import one command's modules without garbage collection and without TorchMetrics."""
    with no_garbage_collection(), torchmetrics_replaced():
        yield


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect no garbage while modules are imported, nor later among what they made: that takes a seventh of the time.

    The imports make half a million objects, all of which stay. Earlier garbage is collected first, so that it is not
    kept with them.
    """
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def torchmetrics_replaced() -> Iterator[None]:
    """Let Lightning be imported without TorchMetrics, which imports SciPy and matplotlib and takes half of the time.

    Lightning needs two of its classes to recognise metrics, and kneessl gives it none. A later import of TorchMetrics
    gets the real one, and so does a program that imports kneessl as a library.
    """
    if "torchmetrics" in sys.modules:
        yield
        return
    stand_in = ModuleType("torchmetrics")
    for name in ("Metric", "MetricCollection"):
        setattr(stand_in, name, type(name, (), {}))
    sys.modules["torchmetrics"] = stand_in
    try:
        yield
    finally:
        del sys.modules["torchmetrics"]


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""As in glibc's malloc.h."""


def keep_freed_memory() -> None:
    """Keep freed memory in the process for the next step; glibc would return large pieces to the system each time.

    Returned memory comes back by one page fault for each 4 KiB: a tenth of a training step on CPUs. The process stays
    as large as it has ever been. With another C library than glibc nothing changes.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)


def let_waiting_threads_sleep() -> None:
    """Let OpenMP's threads sleep while they wait for each other, unless the user has set otherwise; before PyTorch.

    By default they spin. Alone on the machine that gains nothing here, and beside another busy process each waits for
    one that cannot run: an epoch then takes two to five times as long (docs/performance.md).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
