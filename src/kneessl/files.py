"""Writing beside, then renaming: a reader never sees a half-written file or folder."""

import fcntl
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kneessl.errors import UserError, out_of_space


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Note `path` on an error that says that the disk is full, which itself names a temporary file or none.

    Of nested ones, the last note is the outermost, which the user knows.
    """
    try:
        yield
    except Exception as error:
        if out_of_space(error):
            error.add_note(f"writing {path}")
        raise


_UNFINISHED = r"\.{name}\.[a-z0-9_]{{8}}\.partial"
"""What is begun for a file or folder of some name, as `tempfile` completes it."""


def hold(handle: int) -> bool:
    """Lock what was begun until its process ends, however it does.

    Args:
        handle: Of a file or folder.

    Returns:
        False if another process holds it, or if this file system, as some of a network, knows no locks.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def sweep(folder: Path, name: str | None = None) -> None:
    """Delete what processes that were killed have begun to write, and say so; what a living one holds stays.

    Args:
        folder: Where they were to write.
        name: Of what they were to write; anything, also in subfolders, if it is None.
    """
    begun = re.compile(_UNFINISHED.format(name=".+" if name is None else re.escape(name)))
    inside = [] if name else [path for path in folder.rglob("*") if path.is_dir()]
    if gone := sum(discard_abandoned(place, begun) for place in (folder, *inside)):
        print(f"note: {folder}: deleted what a killed process had left unfinished ({gone})", file=sys.stderr)


def discard_abandoned(folder: Path, names: re.Pattern[str]) -> int:
    """Delete the files and folders of such names that no process holds; returns how many went."""
    gone = 0
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        if not names.fullmatch(path.name):
            continue
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:  # gone meanwhile, a link, or another user's
            continue
        try:
            if hold(handle):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
                gone += not path.exists()
        finally:
            os.close(handle)
    return gone


@contextmanager
def held_folder(prefix: str, suffix: str = "", inside: Path | None = None) -> Iterator[Path]:
    """A new folder that only this user may enter, locked while the body runs; it goes with what is still in it.

    Args:
        prefix: Of its name.
        suffix: Of its name.
        inside: Where it is made; by default in the folder for temporary files.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=inside))
    handle = os.open(folder, os.O_RDONLY)
    try:
        hold(handle)
        yield folder
    finally:
        os.close(handle)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def replacing(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes the place of `path`, on failure it goes.

    Args:
        path: What is to be written.
        mode: Who may read and write it then; before, only this user may.
    """
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        partial = Path(name)
        try:
            hold(handle)
            yield partial
            partial.chmod(mode)
            partial.replace(path)
        finally:
            os.close(handle)
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def occupied(path: Path) -> bool:
    """Whether something is there, other than an empty folder."""
    return path.exists() and not (path.is_dir() and not any(path.iterdir()))


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that becomes `path` on success and vanishes on failure.

    What processes that were killed have begun for the same `path` is deleted first.

    Raises:
        UserError: `path` exists and is not an empty folder.
    """
    if occupied(path):
        raise UserError(f"{path} already exists; name a new folder, or remove it first")
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent, path.name)
        with held_folder(f".{path.name}.", ".partial", path.parent) as partial:
            yield partial
            partial.chmod(0o755)
            partial.replace(path)
