"""What the command line does for its process to start sooner and run faster; docs/performance.md has what it gains."""

import ctypes
import gc
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def quick_imports() -> Iterator[None]:
    """For the imports of one command: no garbage collection, and no TorchMetrics."""
    with uncollected(), without_torchmetrics():
        yield


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage collection while modules are imported, nor later of what they made: a seventh of the time goes there.

    They make half a million objects, all of which stay. What was garbage before is collected first, not kept with them.
    """
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def without_torchmetrics() -> Iterator[None]:
    """Let Lightning be imported without TorchMetrics, which imports SciPy and matplotlib and takes half of the time.

    Lightning wants two of its classes, to recognise metrics by, and kneessl hands it none. Whoever imports TorchMetrics
    afterwards has the real one; whoever imports kneessl as a library, too.
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
    """Let freed memory stay with the process for the next step, where glibc would give large pieces back each time.

    What was given back comes again 4 KiB by 4 KiB, each by a page fault: a tenth of a training step on CPUs. The
    process stays as large as it once was. With another C library nothing changes.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)
