"""NIfTI volumes (`.nii`, `.nii.gz`)."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import nibabel
import numpy as np

from kneessl.errors import UserError
from kneessl.sources.exam import FoundExam, ImportedSeries, ImportSettings
from kneessl.sources.files import SourceFile, sha256_of
from kneessl.sources.notes import Notes
from kneessl.sources.volume import Volume
from kneessl.sources.volumes import require_volume, series_of

_SUFFIXES = (".nii", ".nii.gz")
_MM_PER_UNIT = {"meter": 1000.0, "micron": 0.001}
_SCANNER = 1  # NIFTI_XFORM_SCANNER_ANAT: the affine leads to the scanner's coordinates, so left and right are known


def nifti_files(src: Path, files: Sequence[SourceFile]) -> list[SourceFile]:
    """The NIfTI volumes among some files, by suffix."""
    return [file for file in files if file.path.name.lower().endswith(_SUFFIXES)]


def nifti_exams(src: Path, files: Sequence[SourceFile], settings: ImportSettings, notes: Notes) -> list[FoundExam]:
    """One exam a volume, each of its own patient."""
    return sorted((_exam(file) for file in files), key=lambda exam: exam.key)


def _exam(file: SourceFile) -> FoundExam:
    def read() -> Iterator[ImportedSeries]:
        yield from series_of(read_nifti(file.path, file.name), file.name, "NIfTI", "NIfTI")

    key = sha256_of(file)
    return FoundExam(key, f"volume {key}", (read,))


def read_nifti(path: Path, name: str) -> Volume:
    """Read a whole volume.

    Args:
        path: A NIfTI file.
        name: What an error calls it.

    Raises:
        UserError: damaged, not one volume of grey values, not finite, or without orientation.
    """
    try:
        image = nibabel.Nifti1Image.from_filename(path)
        header = image.header
        shape = tuple(int(n) for n in header.get_data_shape())
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        if header.get_data_dtype().kind not in "iuf":
            raise UserError(f"{name} holds colour or complex values; it must be one volume of grey values")
        require_volume(shape, name)
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


def _placed(voxels: np.ndarray, affine: np.ndarray, scale: float, in_scanner: bool, name: str) -> Volume:
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
    return Volume(voxels, directions, (float(spacing[0]), float(spacing[1]), float(spacing[2])), position)
