"""Whole volumes: NIfTI (`.nii`, `.nii.gz`) and bare `.npy` arrays, cut into the three planes where they allow it."""

from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np

from kneessl.errors import UserError
from kneessl.exams.folder import PLANES, Plane
from kneessl.exams.npy import open_npy
from kneessl.sources.stack import Stack, directions_of

SUFFIXES = (".nii", ".nii.gz", ".npy")
FEWEST_SLICES = 5
_LARGEST_VOXELS = 2**29
_ISOTROPIC = 1.5
_MM_PER_UNIT = {"meter": 1000.0, "micron": 0.001}
_SCANNER = 1  # NIFTI_XFORM_SCANNER_ANAT: the affine leads to the scanner's coordinates, so left and right are known


def read_volume(path: Path, name: str, npy_axes: str, npy_spacing: float) -> Stack:
    """Read a whole volume.

    Args:
        path: a file that ends in one of `SUFFIXES`.
        name: how an error names it.
        npy_axes: where the axes of a bare array lead, such as `ALS`.
        npy_spacing: the distance of its voxels in mm, the same along each axis.

    Raises:
        UserError: a file that is damaged, not one volume of grey values, not finite, or without orientation.
    """
    if path.name.lower().endswith(".npy"):
        return _read_npy(path, name, npy_axes, npy_spacing)
    return _read_nifti(path, name)


def cuts(volume: Stack, name: str) -> Iterator[tuple[Plane, Stack, str]]:
    """The series that a volume allows, each with a reason.

    All three planes where voxels are nearly isotropic, slices averaged to about 3 mm; else the plane it was scanned
    in, across its longest spacing.

    Raises:
        UserError: a plane would have fewer than 5 slices.
    """
    for plane, stack, reason in _cuts(volume):
        if len(stack.voxels) < FEWEST_SLICES:
            raise UserError(f"{name} gives {len(stack.voxels)} {plane} slices; a series needs {FEWEST_SLICES}")
        yield plane, stack, reason


def _cuts(volume: Stack) -> Iterator[tuple[Plane, Stack, str]]:
    shortest, longest = min(volume.spacing), max(volume.spacing)
    if longest < _ISOTROPIC * shortest:
        for plane in PLANES:
            stack, count = volume.displayed(plane).slabs()
            yield plane, stack, f"{plane} cut from a nearly isotropic volume, each slice the mean of {count}"
        return
    thickest = volume.spacing.index(longest)
    order = [thickest, *(axis for axis in range(3) if axis != thickest)]
    stack = Stack(
        volume.voxels.transpose(order),
        volume.directions[order],
        (volume.spacing[order[0]], volume.spacing[order[1]], volume.spacing[order[2]]),
        volume.position,
    )
    yield stack.plane, stack.displayed(), f"{stack.plane} is the volume's own plane, its longest spacing"


def _read_npy(path: Path, name: str, axes: str, spacing: float) -> Stack:
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
    _require_volume(array.shape, name)
    return Stack(np.asarray(array, dtype=np.float32), directions_of(axes), (spacing,) * 3, position=None)


def _read_nifti(path: Path, name: str) -> Stack:
    try:
        image = nibabel.Nifti1Image.from_filename(path)
        header = image.header
        shape = tuple(int(n) for n in header.get_data_shape())
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        if header.get_data_dtype().kind not in "iuf":
            raise UserError(f"{name} holds colour or complex values; it must be one volume of grey values")
        _require_volume(shape, name)
        if not header["qform_code"] and not header["sform_code"]:
            raise UserError(f"{name} states no orientation (qform_code and sform_code are 0); convert it again")
        voxels = np.asarray(image.dataobj, dtype=np.float32).reshape(shape)
        affine = np.asarray(image.affine, dtype=float)
        scale = _MM_PER_UNIT.get(header.get_xyzt_units()[0], 1.0)
        in_scanner = int(header["sform_code"] or header["qform_code"]) == _SCANNER
    except UserError:
        raise
    except Exception:  # nibabel, gzip and struct raise nearly anything on a damaged file
        raise UserError(f"{name} is not a readable NIfTI file: damaged, cut short, or of another format") from None
    if not np.isfinite(voxels).all():
        raise UserError(f"{name} has voxels that are not finite numbers (NaN or infinity); mend or remove them")
    return _placed(voxels, affine, scale, in_scanner, name)


def _placed(voxels: np.ndarray, affine: np.ndarray, scale: float, in_scanner: bool, name: str) -> Stack:
    """Turn NIfTI's affine (x to the right, y to anterior) into LPS geometry."""
    to_lps = np.array([-1.0, -1.0, 1.0]) * scale
    columns = (affine[:3, :3] * to_lps[:, None]).T
    spacing = np.linalg.norm(columns, axis=1)
    if not np.isfinite(affine).all() or spacing.min() <= 0:
        raise UserError(f"{name} has an affine that spans no volume; convert it again")
    directions = columns / spacing[:, None]
    if not np.allclose(directions @ directions.T, np.eye(3), atol=2e-2):
        raise UserError(f"{name} has an affine with shear, so its slices cannot be cut true; resample it first")
    position = affine[:3, 3] * to_lps if in_scanner else None
    return Stack(voxels, directions, (float(spacing[0]), float(spacing[1]), float(spacing[2])), position)


def _require_volume(shape: tuple[int, ...], name: str) -> None:
    if len(shape) != 3 or min(shape) < 2:
        raise UserError(f"{name} has shape {shape}; it must be one volume with three axes")
    if np.prod(shape, dtype=float) > _LARGEST_VOXELS:
        raise UserError(f"{name} claims {shape} voxels, more than any knee exam has")
