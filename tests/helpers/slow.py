"""Which tests are slow, so that `make test-quick` can leave them out; and that this is true.

Slow is what trains, starts a process of Python, a browser or an archive, or computes for long. A test is marked `slow`
by hand, or because slow.yaml names it or a fixture that it uses. A test that is not marked, and trains or starts such a
process, fails.
"""

import inspect
import multiprocessing.process
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import yaml

TESTS = Path(__file__).parents[1]
SLOW: dict[str, set[str]] = {
    file: set(names) for file, names in yaml.safe_load((TESTS / "helpers" / "slow.yaml").read_text()).items()
}
"""Slow tests, and fixtures that make each test slow which uses them, by the file that they are in."""
PROGRAMS = ("python", "Orthanc", "node", "chrom")
"""How the names of the programs begin that take long to start."""


def pytest_configure(config: pytest.Config) -> None:
    """Notice processes that are started, from now on."""
    _notice(subprocess.Popen, "__init__", _starts_long)
    _notice(multiprocessing.process.BaseProcess, "start")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Set the mark where it follows from `SLOW`, and let its files begin, in its order.

    All test files are imported by now, so training can be noticed.
    """
    for item in items:
        if _is_slow(item):
            item.add_marker(pytest.mark.slow)
    turn = {TESTS / file: i for i, file in enumerate(SLOW)}
    items.sort(key=lambda item: turn.get(item.path, len(turn)))
    if "lightning" in sys.modules:
        _notice(sys.modules["lightning"].Trainer, "fit")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Fail a test whose fixtures do what is slow, though it is not marked."""
    noticed.clear()
    yield
    _require_mark(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[Any]:
    """Fail a test that does what is slow, though it is not marked."""
    result = yield
    _require_mark(item)
    return result


noticed: set[str] = set()
"""What the test that runs has done that is slow."""
_watched: set[str] = set()


def _require_mark(item: pytest.Item) -> None:
    if noticed and not item.get_closest_marker("slow"):
        pytest.fail(f"not marked as slow, yet this was called: {', '.join(sorted(noticed))} (see helpers/slow.yaml)")


def _is_slow(item: pytest.Item) -> bool:
    definitions = item._fixtureinfo.name2fixturedefs  # pytest has no public name for where a fixture is defined
    fixtures = {name: found[-1].func for name, found in definitions.items()} | {item.originalname: item.function}
    return any(name in SLOW.get(_file_of(function), ()) for name, function in fixtures.items())


def _file_of(function: Any) -> str:
    path = Path(inspect.unwrap(function).__code__.co_filename)
    return path.relative_to(TESTS).as_posix() if path.is_relative_to(TESTS) else ""


def _starts_long(_: object, command: object, *args: object, **kwargs: object) -> bool:
    program = command[0] if isinstance(command, list | tuple) else command
    return Path(str(program)).name.startswith(PROGRAMS)


def _notice(owner: type, name: str, slow: Callable[..., bool] = lambda *args, **kwargs: True) -> None:
    """Let a method be noticed when it is called with arguments that are `slow`."""
    method, called = getattr(owner, name), f"{owner.__name__}.{name}"
    if called in _watched:
        return
    _watched.add(called)

    @wraps(method)
    def noticing(*args: Any, **kwargs: Any) -> Any:
        if slow(*args, **kwargs):
            noticed.add(called)
        return method(*args, **kwargs)

    setattr(owner, name, noticing)
