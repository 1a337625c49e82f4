"""One kind of progress bar for everything that takes long; none where standard error is no terminal."""

from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(
    iterable: Iterable[T] | None = None,
    *,
    title: str,
    unit: str,
    total: int | None = None,
    initial: int = 0,
    keep: bool = True,
    delay: float = 0.0,
    hidden: bool = False,
) -> "tqdm[T]":
    """A progress bar on standard error.

    Args:
        iterable: What to go through; None for a bar that is moved by `update`.
        title: What is done.
        unit: What is counted.
        total: How many there are, where the iterable does not know.
        initial: How many are done already.
        keep: Leave the full bar on the screen.
        delay: Seconds before the bar is shown.
        hidden: Show none, whatever standard error is.
    """
    settings: dict[str, Any] = {"disable": True if hidden else None}  # None: shown on a terminal alone
    return tqdm(
        iterable, desc=title, unit=unit, total=total, initial=initial, leave=keep, delay=delay, mininterval=0.5,
        dynamic_ncols=True, **settings,
    )  # fmt: skip
