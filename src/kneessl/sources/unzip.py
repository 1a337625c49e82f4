"""Zip files that somebody else made: taken in within limits, under names of ours, or refused with one sentence.

An archive in the archive is written as the one file that it is and never opened; it counts among the files
that are not DICOM.
"""

import io
import stat
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from kneessl.errors import UserError
from kneessl.sources.limits import Inbox, Limits

_CHUNK = 2**20
_LOCAL_HEADER = 30
"""Bytes of an entry before its name, extra field and content."""
_DIRECTORY_BYTES_A_FILE = 1024
"""The directory's line on a file has 46 bytes, its name and extra fields; all lines are read at once."""
_ENCRYPTED = 0x1
_LARGEST_RATIO = 200
_RATIO_FROM = 100 * 2**20
"""Few black slices shrink a thousandfold and are no bomb: the ratio counts from this many bytes on."""
_SUFFIXES = (".dcm", ".ima", ".nii", ".nii.gz", ".npy")
"""That are kept, as they tell what a file is."""


def is_zip(path: Path) -> bool:
    """Whether a file begins as a zip does and is not DICOM (which may begin with anything)."""
    with path.open("rb") as file:
        start = file.read(132)
    return start.startswith((b"PK\x03\x04", b"PK\x05\x06")) and start[128:] != b"DICM"


def unpack(zip_path: Path, into: Path, limits: Limits) -> list[Path]:
    """Write the files of a zip into a folder as `00001.dcm`, `00002` ..., in the order of their names in the zip.

    Hidden files are skipped. No name or path of the zip is used or shown.

    Args:
        zip_path: The zip.
        into: The folder; made if it is missing.
        limits: On what comes out, and on the length of the zip's directory.

    Raises:
        UserError: the zip is damaged or encrypted; it has links, overlapping entries, entries whose path leads out of
            it, or a compression other than deflate; it holds nothing, or more than the limits. Nothing is left then.
    """
    most = max(_RATIO_FROM, _LARGEST_RATIO * zip_path.stat().st_size)
    with _BoundedFile(zip_path, limits) as file, _opened(file) as archive, Inbox(into, limits) as inbox:
        entries = [entry for entry in archive.infolist() if not entry.filename.endswith("/")]
        _require_no_overlap(entries)
        for entry in entries:
            _require_plain(entry)
        wanted = sorted((entry for entry in entries if not _is_hidden(entry)), key=lambda entry: entry.filename)
        if not wanted:
            raise UserError("the zip holds no files")
        limits.require_all(entry.file_size for entry in wanted)
        for entry in wanted:
            _copy(archive, entry, inbox, most)
        return inbox.files


class _BoundedFile(io.FileIO):
    """A file for `zipfile`, which reads the whole directory at once, as long as the zip says that it is."""

    def __init__(self, path: Path, limits: Limits) -> None:
        super().__init__(path)
        self.most = 2 * _CHUNK + _DIRECTORY_BYTES_A_FILE * limits.files
        self.limits = limits

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self.most:
            raise UserError(f"the zip has more than {self.limits.files} files, or is damaged; give one study at a time")
        return super().read(size)


def _opened(file: BinaryIO) -> zipfile.ZipFile:
    with _reading():
        return zipfile.ZipFile(file)


@contextmanager
def _reading() -> Iterator[None]:
    """Turn errors of `zipfile`, whose texts name the entry, into our own."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception:  # a hostile zip raises nearly anything
        raise UserError("the zip is damaged or not a zip; make it again") from None


def _require_no_overlap(entries: Sequence[zipfile.ZipInfo]) -> None:
    """Refuse entries that share bytes; those that hide it in an extra field still meet the ratio and the limits."""
    spans = sorted(
        (entry.header_offset, entry.header_offset + _LOCAL_HEADER + entry.compress_size) for entry in entries
    )
    if any(end > start for (_, end), (start, _) in pairwise(spans)):
        raise UserError("the zip has entries that overlap, as only a decompression bomb has")


def _require_plain(entry: zipfile.ZipInfo) -> None:
    path = entry.filename.replace("\\", "/")
    if path.startswith("/") or path[1:2] == ":" or ".." in path.split("/"):
        raise UserError("the zip has an entry whose path leads out of it; make it again, of the study's folder alone")
    if stat.S_IFMT(entry.external_attr >> 16) not in {0, stat.S_IFREG}:
        raise UserError("the zip has an entry that is a link or a device; make it again, of files alone")
    if entry.flag_bits & _ENCRYPTED:
        raise UserError("the zip is encrypted; unpack it, and give the folder")
    if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise UserError("the zip has a compression other than deflate; make it again with deflate")


def _is_hidden(entry: zipfile.ZipInfo) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(entry.filename).parts)


def _copy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, inbox: Inbox, most: int) -> None:
    """Inflate one entry; an entry that is longer or shorter than the directory says fails its checksum."""
    name = entry.filename.lower()
    inbox.start(next((suffix for suffix in _SUFFIXES if name.endswith(suffix)), ""))
    with _reading():
        content = archive.open(entry)
    with content:
        while chunk := _next(content):
            inbox.write(chunk)
            if inbox.bytes > most:
                raise UserError(f"the zip grows more than {_LARGEST_RATIO}-fold, as only a decompression bomb does")


def _next(content: IO[bytes]) -> bytes:
    with _reading():
        return content.read(_CHUNK)
