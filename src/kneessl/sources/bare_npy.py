"""Bare `.npy` arrays: voxels alone. Their axes and spacing have to be told, or their plane by a folder's name."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from kneessl.errors import UserError
from kneessl.exams.folder import PLANES, Plane
from kneessl.exams.npy import open_npy
from kneessl.sources.exam import FEWEST_SLICES, FoundExam, ImportedSeries, ImportSettings, Person
from kneessl.sources.files import SourceFile, sha256_of
from kneessl.sources.notes import Notes
from kneessl.sources.resample import WINDOW, pictures_of
from kneessl.sources.subjects import is_label_map
from kneessl.sources.volume import DISPLAY, Volume, directions_of
from kneessl.sources.volumes import require_volume, series_of


def npy_files(src: Path, files: Sequence[SourceFile]) -> list[SourceFile]:
    """The `.npy` files among some files."""
    return [file for file in files if file.path.suffix.lower() == ".npy"]


def npy_exams(src: Path, files: Sequence[SourceFile], settings: ImportSettings, notes: Notes) -> list[FoundExam]:
    """One exam a volume; of series in folders named by plane, as MRNet has them, one for each name.

    Raises:
        UserError: nothing says where an array's axes lead, or it may not be read, unless `notes` skips faults.
    """
    exams: dict[tuple[str, ...], dict[str, tuple[Path, Callable[[], Iterator[ImportedSeries]]]]] = defaultdict(dict)
    for file in files:
        try:
            key = sha256_of(file)
            plane = _plane_of_folder(file.path)
            if settings.npy_axes and settings.npy_spacing:
                exams[(key,)][key] = file.path, partial(_volume, file, settings.npy_axes, settings.npy_spacing)
            elif plane:
                exams[str(file.path.parents[1]), file.path.stem][key] = file.path, partial(_series, file, plane)
            else:
                raise UserError(
                    f"{file.name} is a bare array, and nothing says where its axes lead and how far its voxels are "
                    "apart; give --npy_axes, such as ALS, and --npy_spacing in mm; or, where it is one series, put it "
                    "into a folder named sagittal, coronal or axial"
                )
        except UserError as error:
            notes.fault(error)
    found = []
    for series in exams.values():
        key = min(series)
        files, parts = zip(*(series[one] for one in sorted(series)), strict=True)
        found.append(FoundExam(key, key, Person(f"volume {key}"), parts, files=files))
    return sorted(found, key=lambda exam: exam.key)


def _plane_of_folder(path: Path) -> Plane | None:
    name = path.parent.name.lower()
    return next((plane for plane in PLANES if name == plane), None)


def _volume(file: SourceFile, axes: str, spacing: float) -> Iterator[ImportedSeries]:
    voxels, remarks = read_npy(file.path, file.name)
    volume = Volume(voxels, directions_of(axes), (spacing,) * 3, position=None)
    reason = f"bare array; axes {axes} and voxels of {spacing:g} mm as told"
    yield from series_of(volume, file.name, "npy", reason, remarks)


def _series(file: SourceFile, plane: Plane) -> Iterator[ImportedSeries]:
    voxels, remarks = read_npy(file.path, file.name)
    if len(voxels) < FEWEST_SLICES:
        raise UserError(f"{file.name} has {len(voxels)} slices; a series needs {FEWEST_SLICES}")
    # One millimetre stands for the spacing that is not known: only the pixels' shape matters to the pictures.
    volume = Volume(voxels, directions_of(DISPLAY[plane]), (1.0,) * 3, position=None)
    pictures, _ = pictures_of(file.name, volume)
    reasons = ("bare array", f"{plane} by its folder's name", "spacing not known; square pixels assumed")
    yield ImportedSeries(
        plane=plane,
        volume=pictures,
        pixel_mm=0.0,
        slice_mm=0.0,
        laterality="",
        source="npy",
        source_sha256=volume.sha256(),
        choice="; ".join((*reasons, "laterality unknown", WINDOW)),
        remarks=remarks,
    )


def read_npy(path: Path, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read a whole array.

    Args:
        path: A `.npy` file.
        name: What an error calls it.

    Returns:
        float32, three axes; and the range of its values in words where they are floating-point numbers.

    Raises:
        UserError: damaged, not one volume of grey values, or not finite.
    """
    try:
        array = open_npy(path)
    except UserError:
        raise UserError(f"{name} is not a readable .npy file: damaged, cut short, or holding Python objects") from None
    if array.dtype.kind not in "iuf":
        raise UserError(f"{name} has dtype {array.dtype}; a bare .npy volume must hold integers or real numbers")
    require_volume(array.shape, name)
    voxels = np.asarray(array, dtype=np.float32)
    if is_label_map(voxels, path.name):
        raise UserError(f"{name} is a mask or a map of labels, by few different whole numbers; leave it out")
    if not np.isfinite(voxels).all():
        raise UserError(f"{name} has floating-point numbers that are not finite (NaN or infinity); mend or remove them")
    if array.dtype.kind != "f":
        return voxels, ()
    return voxels, (f"floating-point values from {voxels.min():g} to {voxels.max():g}",)
