"""The files that a user gave: one, or all in a folder."""

from dataclasses import dataclass
from pathlib import Path

from kneessl.errors import UserError


@dataclass(frozen=True)
class SourceFile:
    """One file that the user gave."""

    path: Path
    name: str
    """What an error calls it, such as `file 3 of 192`: a path inside a folder may hold the patient's name."""


def source_files(src: Path) -> list[SourceFile]:
    """As `files_in`, each with the name that an error gives it."""
    files = files_in(src)
    # A file named by the user may be named; paths inside a folder often hold the patient's name.
    return [
        SourceFile(file, str(src) if file == src else f"file {number} of {len(files)}")
        for number, file in enumerate(files, start=1)
    ]


def files_in(src: Path) -> list[Path]:
    """`src` itself, or the files in it and its subfolders but hidden ones, by name.

    Raises:
        UserError: it does not exist, or holds no files.
    """
    if src.is_file():
        return [src]
    if not src.is_dir():
        raise UserError(f"{src} does not exist; name a file or folder with DICOM, NIfTI or .npy volumes")
    inside = (path for path in src.rglob("*") if not any(p.startswith(".") for p in path.relative_to(src).parts))
    files = sorted(path for path in inside if path.is_file())
    if not files:
        raise UserError(f"{src} holds no files; name a folder with DICOM, NIfTI or .npy volumes")
    return files
