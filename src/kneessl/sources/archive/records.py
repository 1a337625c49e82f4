"""Headers as records of the index: those of one study and batch of files, as compressed JSON."""

import json
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from kneessl.sources.dicom.header import Acquisition
from kneessl.sources.dicom.image import Image
from kneessl.sources.dicom.scanner import Scanner

_OF_FILE = ("file", "number", "told_plane")
_NAMES = tuple(f.name for f in fields(Image) if f.name not in (*_OF_FILE, "acquisition"))
_ACQUISITION = tuple(f.name for f in fields(Acquisition))


@dataclass(frozen=True)
class Source:
    """What is imported: a folder, of which files are known by number and relative path."""

    folder: Path
    files: int
    alone: str = ""
    """How the user named it where it is one file."""

    def path(self, relative: bytes) -> Path:
        """Where a file is."""
        return self.folder / os.fsdecode(relative)

    def name(self, number: int) -> str:
        """How an error calls a file: a path in a folder may hold the patient's name."""
        return self.alone or f"file {number} of {self.files}"


def pack(images: Iterable[tuple[int, bytes, Image]]) -> bytes:
    """Images as one record, each with the number and relative path of its file; of one file one after the other."""
    files: list[tuple[int, str]] = []
    frames: list[list[Any]] = []
    for number, path, image in images:
        if not files or files[-1][0] != number:
            files.append((number, os.fsdecode(path)))
        acquired = [getattr(image.acquisition, name) for name in _ACQUISITION]
        frames.append([len(files) - 1, [getattr(image, name) for name in _NAMES], acquired])
    return zlib.compress(json.dumps([files, frames], default=sorted, separators=(",", ":")).encode(), 1)


def unpack(record: bytes, source: Source) -> Iterator[Image]:
    """The images of a record, in the order in which they came."""
    files, frames = json.loads(zlib.decompress(record))
    for index, values, acquired in frames:
        number, path = files[index]
        told = dict(zip(_NAMES, map(_tuples, values), strict=True))
        acquisition = dict(zip(_ACQUISITION, acquired, strict=True))
        acquisition["hints"] = frozenset(acquisition["hints"])
        told["scanner"] = Scanner(*told["scanner"])
        file = source.folder / path
        yield Image(file=file, number=source.name(number), acquisition=Acquisition(**acquisition), **told)


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
