"""NIfTI volumes (`.nii`, `.nii.gz`)."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import nibabel
import numpy as np

from kneessl.errors import UserError
from kneessl.exams.folder import Plane
from kneessl.sources.exam import FoundExam, ImportedSeries, ImportSettings, Person
from kneessl.sources.files import SourceFile, sha256_of
from kneessl.sources.notes import Notes
from kneessl.sources.subjects import Subject, is_label_map, subjects
from kneessl.sources.volume import Volume
from kneessl.sources.volumes import planes_of, require_volume, series_of

_SUFFIXES = (".nii", ".nii.gz")
_MM_PER_UNIT = {"meter": 1000.0, "micron": 0.001}
_SCANNER = 1  # NIFTI_XFORM_SCANNER_ANAT: the affine leads to the scanner's coordinates, so left and right are known


def nifti_files(src: Path, files: Sequence[SourceFile]) -> list[SourceFile]:
    """The NIfTI volumes among some files, by suffix."""
    return [file for file in files if file.path.name.lower().endswith(_SUFFIXES)]


def nifti_exams(src: Path, files: Sequence[SourceFile], settings: ImportSettings, notes: Notes) -> list[FoundExam]:
    """One exam for all volumes of a knee, as far as names and folders tell which those are; see `subjects`.

    A second volume of the same plane becomes a further exam of the same person. Masks are left out.

    Raises:
        UserError: a damaged volume, unless `notes` skips faults.
    """
    found: dict[Subject, dict[str, tuple[SourceFile, tuple[Plane, ...]]]] = defaultdict(dict)
    for file, subject in zip(files, subjects(src, [file.path for file in files]), strict=True):
        try:
            key, volume = sha256_of(file), read_nifti(file.path, file.name)
        except UserError as error:
            notes.fault(error)
            continue
        if is_label_map(volume.voxels, file.path.name):
            notes.leave_out("masks or label maps, by few different whole numbers")
            continue
        found[subject][key] = (file, planes_of(volume))
    exams = [exam for subject, volumes in found.items() for exam in _exams(subject, volumes)]
    people = Counter(subject.person for subject, volumes in found.items() for _ in volumes)
    together = sum(count for count in people.values() if count > 1)
    notes.assume("NIfTI volumes taken as of one person with others, by their names or folders", together)
    alone = sum(count == 1 for count in people.values())
    notes.assume("NIfTI volumes taken as of a person each", alone if len(people) > 1 else 0)
    return sorted(exams, key=lambda exam: exam.key)


def _exams(subject: Subject, volumes: dict[str, tuple[SourceFile, tuple[Plane, ...]]]) -> Iterator[FoundExam]:
    """As few exams as there can be with one series a plane."""
    exams: list[dict[Plane, str]] = []
    for key in sorted(volumes):
        _, planes = volumes[key]
        exam = next((exam for exam in exams if not set(planes) & set(exam)), None)
        if exam is None:
            exams.append(exam := {})
        exam.update(dict.fromkeys(planes, key))
    for exam in exams:
        keys = sorted(set(exam.values()))
        of_exam = [volumes[key][0] for key in keys]
        person = Person(f"subject {subject.person}")
        parts = tuple(partial(_read, file) for file in of_exam)
        yield FoundExam(keys[0], keys[0], person, parts, files=tuple(file.path for file in of_exam))


def _read(file: SourceFile) -> Iterator[ImportedSeries]:
    yield from series_of(read_nifti(file.path, file.name), file.name, "NIfTI", "NIfTI")


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
        affine, code = _affine(header, name)
        scale = _MM_PER_UNIT.get(header.get_xyzt_units()[0], 1.0)
    except UserError:
        raise
    except Exception:  # nibabel, gzip and struct raise nearly anything on a damaged file
        raise UserError(f"{name} is not a readable NIfTI file: damaged, cut short, or of another format") from None
    if not np.isfinite(voxels).all():
        raise UserError(f"{name} has voxels that are not finite numbers (NaN or infinity); mend or remove them")
    return _placed(voxels, affine, scale, code == _SCANNER, name)


def _affine(header: nibabel.Nifti1Header, name: str) -> tuple[np.ndarray, int]:
    """The affine to believe, and its code: the sform where its voxels are as large as pixdim says, else the qform.

    Programs that do not know what a sform is for write the identity. The qform has its voxels from pixdim itself.

    Raises:
        UserError: the sform contradicts pixdim, and there is no qform.
    """
    sform, sform_code = header.get_sform(coded=True)
    qform, qform_code = header.get_qform(coded=True)
    voxel = np.asarray(header["pixdim"][1:4], dtype=float)
    if sform is not None and np.allclose(np.linalg.norm(sform[:3, :3], axis=0), voxel, rtol=0.01):
        return sform, int(sform_code)
    if qform is not None:
        return qform, int(qform_code)
    sides = " x ".join(f"{side:.3g}" for side in np.linalg.norm(np.asarray(sform)[:3, :3], axis=0))
    raise UserError(
        f"{name} contradicts itself: its sform has voxels of {sides}, its pixdim of "
        f"{' x '.join(f'{side:.3g}' for side in voxel)}, and it has no qform; convert it again"
    )


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
