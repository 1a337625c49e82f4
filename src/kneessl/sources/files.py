"""The files that a user gave: one, or all in a folder."""

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kneessl.errors import UserError
from kneessl.files import discard_abandoned, held_folder
from kneessl.sources.notes import Notes

EntryKind = Literal["file", "folder", "closed", "link"]
_PRIVATE = "kneessl-study-"
_ABANDONED = re.compile(f"{_PRIVATE}[a-z0-9_]{{8}}")
"""What a process that is killed while it holds a study leaves in the folder for temporary files."""


@dataclass(frozen=True)
class Listing:
    """What a folder holds."""

    files: list[Path]
    """By name."""
    closed: list[str]
    """What an error calls each folder that may not be entered."""
    links: int = 0
    """Symbolic links that lead to a folder or nowhere; they are not followed."""


@dataclass(frozen=True)
class SourceFile:
    """One file that the user gave."""

    path: Path
    name: str
    """What an error calls it, such as `file 3 of 192`: a path inside a folder may hold the patient's name."""


def source_files(src: Path, notes: Notes) -> list[SourceFile]:
    """`src` itself, or the files in it, each with the name that an error gives it.

    Raises:
        UserError: as `files_in`; or a folder may not be entered, unless `notes` skips faults.
    """
    listing = files_in(src)
    files = listing.files
    for name in listing.closed:
        notes.fault(no_entry(name))
    if listing.links:
        notes.leave_out("links that lead to a folder or nowhere", listing.links)
    # A file named by the user may be named; paths inside a folder often hold the patient's name.
    return [
        SourceFile(file, str(src) if file == src else f"file {number} of {len(files)}")
        for number, file in enumerate(files, start=1)
    ]


@contextmanager
def private_folder() -> Iterator[Path]:
    """A temporary folder that only this user may enter; those that killed processes left behind go first, unsaid."""
    discard_abandoned(Path(tempfile.gettempdir()), _ABANDONED)
    with held_folder(_PRIVATE) as folder:
        yield folder


def sha256_of(file: SourceFile) -> str:
    """Hash of a file's bytes, in hexadecimal digits.

    Raises:
        UserError: it may not be read.
    """
    try:
        with file.path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except PermissionError:
        raise no_reading(file.name) from None


def no_entry(name: str) -> UserError:
    """That a folder may not be entered."""
    return UserError(f"{name} may not be entered (permission denied); ask for the right to, or leave it out")


def no_reading(name: str) -> UserError:
    """That a file may not be read."""
    return UserError(f"{name} may not be read (permission denied); ask for the right to, or leave it out")


def files_in(src: Path) -> Listing:
    """`src` itself, or the files in it and its subfolders, but hidden ones.

    Raises:
        UserError: it does not exist, may not be entered, or holds no files.
    """
    found: dict[EntryKind, list[Path]] = {"file": [], "folder": [], "closed": [], "link": []}
    for kind, path in entries(src):
        found[kind].append(path)
    folders = sorted(found["folder"])
    names = [f"folder {folders.index(one) + 1} of {len(folders)}" for one in sorted(set(found["closed"]))]
    return Listing(sorted(found["file"]), names, len(found["link"]))


def entries(src: Path) -> Iterator[tuple[EntryKind, Path]]:
    """What lies in a folder and its subfolders, but hidden things, in no order; of a file, itself.

    Each is a file, a folder, a folder that may not be entered (once more, as `closed`), or a symbolic link that leads
    to a folder or nowhere, which is not followed. No list of them is kept: an archive has millions.

    Raises:
        UserError: `src` does not exist, may not be entered, or holds no files.
    """
    if src.is_file():
        yield "file", src
        return
    if not src.is_dir():
        raise UserError(f"{src} does not exist; name a file or folder with DICOM, NIfTI or .npy volumes")
    something = False
    for kind, path in _inside(src):
        if kind == "closed" and path == src:
            raise no_entry(str(src))
        something |= kind in {"file", "closed"}
        yield kind, path
    if not something:
        raise UserError(f"{src} holds no files; name a folder with DICOM, NIfTI or .npy volumes")


def _inside(folder: Path) -> Iterator[tuple[EntryKind, Path]]:
    closed = not os.access(folder, os.X_OK)  # one that may be listed, but whose files nobody may open
    try:
        with os.scandir(folder) as content:
            for entry in content:
                if closed or entry.name.startswith("."):
                    continue
                path = Path(entry.path)
                if entry.is_dir():
                    yield "folder", path
                if entry.is_dir(follow_symlinks=False):
                    yield from _inside(path)
                elif entry.is_file():
                    yield "file", path
                elif entry.is_symlink():
                    yield "link", path
    except OSError:
        closed = True
    if closed:
        yield "closed", folder
