"""Writing beside, then renaming: a reader never sees a half-written file or folder."""

import os
import shutil
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
        os.close(handle)
        partial = Path(name)
        try:
            yield partial
            partial.chmod(mode)
            partial.replace(path)
        finally:
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

    Raises:
        UserError: `path` exists and is not an empty folder.
    """
    if occupied(path):
        raise UserError(f"{path} already exists; name a new folder, or remove it first")
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
        try:
            yield partial
            partial.chmod(0o755)
            partial.replace(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
