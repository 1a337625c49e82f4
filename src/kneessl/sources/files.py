"""The files that a user gave: one, or all in a folder."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kneessl.errors import UserError
from kneessl.sources.notes import Notes


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
    """A temporary folder that only this user may enter."""
    with tempfile.TemporaryDirectory(prefix="kneessl-") as folder:
        yield Path(folder)


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
    if src.is_file():
        return Listing([src], [])
    if not src.is_dir():
        raise UserError(f"{src} does not exist; name a file or folder with DICOM, NIfTI or .npy volumes")
    files: list[Path] = []
    folders: list[Path] = []
    closed: set[Path] = set()
    links = 0
    for place, names, inside in os.walk(src, onerror=lambda error: closed.add(Path(error.filename))):
        names[:] = [name for name in names if not name.startswith(".")]
        folders += [Path(place, name) for name in names]
        links += sum(Path(place, name).is_symlink() for name in names)
        for path in (Path(place, name) for name in inside if not name.startswith(".")):
            try:
                if path.is_file():
                    files.append(path)
                else:
                    links += path.is_symlink()
            except PermissionError:  # a folder that may be listed, but not entered
                closed.add(Path(place))
    if src in closed:
        raise no_entry(str(src))
    if not files and not closed:
        raise UserError(f"{src} holds no files; name a folder with DICOM, NIfTI or .npy volumes")
    folders.sort()
    names = [f"folder {folders.index(one) + 1} of {len(folders)}" for one in sorted(closed)]
    return Listing(sorted(files), names, links)
