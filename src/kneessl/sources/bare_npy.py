"""Bare `.npy` volumes: voxels alone, so that their axes and spacing have to be told."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from kneessl.errors import UserError
from kneessl.exams.npy import open_npy
from kneessl.sources.exam import FoundExam, ImportedSeries, ImportSettings
from kneessl.sources.files import SourceFile, sha256_of
from kneessl.sources.notes import Notes
from kneessl.sources.volume import Volume, directions_of
from kneessl.sources.volumes import require_volume, series_of


def npy_files(src: Path, files: Sequence[SourceFile]) -> list[SourceFile]:
    """The `.npy` files among some files."""
    return [file for file in files if file.path.suffix.lower() == ".npy"]


def npy_exams(src: Path, files: Sequence[SourceFile], settings: ImportSettings, notes: Notes) -> list[FoundExam]:
    """One exam a volume, each of its own patient."""
    return sorted((_exam(file, settings) for file in files), key=lambda exam: exam.key)


def _exam(file: SourceFile, settings: ImportSettings) -> FoundExam:
    axes, spacing = settings.npy_axes, settings.npy_spacing

    def read() -> Iterator[ImportedSeries]:
        reason = f"bare array; axes {axes} and voxels of {spacing:g} mm assumed"
        yield from series_of(read_npy(file.path, file.name, axes, spacing), file.name, "npy", reason)

    key = sha256_of(file)
    return FoundExam(key, f"volume {key}", (read,))


def read_npy(path: Path, name: str, axes: str, spacing: float) -> Volume:
    """Read a whole volume.

    Args:
        path: A `.npy` file.
        name: What an error calls it.
        axes: Where its axes lead, such as `ALS`.
        spacing: The distance of its voxels in mm, the same along each axis.

    Raises:
        UserError: damaged, or not one volume of integers.
    """
    try:
        array = open_npy(path)
    except UserError:
        raise UserError(f"{name} is not a readable .npy file: damaged, cut short, or holding Python objects") from None
    if array.dtype.kind == "f":
        raise UserError(
            f"{name} holds floating-point numbers ({array.dtype}); a bare .npy volume must hold the scanner's integers"
        )
    if array.dtype.kind not in "iu":
        raise UserError(f"{name} has dtype {array.dtype}; a bare .npy volume must hold integers")
    require_volume(array.shape, name)
    return Volume(np.asarray(array, dtype=np.float32), directions_of(axes), (spacing,) * 3, position=None)
