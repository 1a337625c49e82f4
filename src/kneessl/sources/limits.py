"""Limits on what is received, and an inbox that writes it to numbered files while counting."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from kneessl.errors import UserError

_MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """The most that one study may hold."""

    files: int = 20_000
    bytes: int = 4096 * _MIB
    """Total of all files, after decompression."""
    file_bytes: int = 1024 * _MIB

    def require(self, files: int, size: int, total: int) -> None:
        """Refuse a study by what is known of it so far.

        Args:
            files: How many.
            size: Bytes of one of them.
            total: Bytes of all.

        Raises:
            UserError: too many files, one too large, or too many bytes.
        """
        if files > self.files:
            raise UserError(f"the study has more than {self.files} files; give one study at a time")
        if size > self.file_bytes:
            raise UserError(
                f"the study has a file of more than {_mib(self.file_bytes)}; leave out everything but the knee MR"
            )
        if total > self.bytes:
            raise UserError(f"the study has more than {_mib(self.bytes)}; give one study at a time")

    def require_all(self, sizes: Iterable[int]) -> None:
        """Refuse a study by the bytes of each of its files; as `require`."""
        total = 0
        for files, size in enumerate(sizes, start=1):
            total += size
            self.require(files, size, total)


class Inbox:
    """Writes files that somebody else sent into a folder, numbered in the order of arrival, within limits.

    A context manager: when an error leaves it, the files that it wrote are gone.

    Args:
        folder: Where the files go; private to the user where it is made here.
        limits: What may be written.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self.folder = folder
        self.limits = limits
        self.files: list[Path] = []
        self.bytes = 0
        """Written so far, in all files."""
        self._size = 0
        self._open: BinaryIO | None = None

    def start(self, suffix: str = "") -> None:
        """Begin the next file; `suffix` is chosen by the caller, never taken from the sender.

        Raises:
            UserError: that is more files than the limits allow.
        """
        self.finish()
        number = len(self.files) + 1
        self.limits.require(number, 0, self.bytes)
        path = self.folder / f"{number:05d}{suffix}"
        self._open, self._size = path.open("xb"), 0
        self.files.append(path)

    def write(self, content: bytes) -> None:
        """Add to the file that was begun last.

        Raises:
            UserError: the file or the study becomes too large.
        """
        if self._open is None:
            raise ValueError("no file was begun")
        self._size += len(content)
        self.bytes += len(content)
        self.limits.require(len(self.files), self._size, self.bytes)
        self._open.write(content)

    def finish(self) -> None:
        """Close the file that was begun last."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()
        if error is not None:
            for file in self.files:
                file.unlink(missing_ok=True)


def _mib(count: int) -> str:
    return f"{count / _MIB:g} MiB"
