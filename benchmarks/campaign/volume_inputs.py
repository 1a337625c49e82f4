"""NIfTI volumes and bare arrays: headers that contradict themselves, names and folders, masks, damage."""

import gzip
import struct
from pathlib import Path

import nibabel
import numpy as np

from campaign.doors import imported
from campaign.reading import Slice
from campaign.studies import FIELD_MM, SECRET, smooth

Random = np.random.Generator
_TO_LPS = np.array([-1.0, -1.0, 1.0])


# ---- NIfTI


def affine_of(rng: Random, zooms: tuple[float, float, float]) -> np.ndarray:
    """Axes that lead anywhere along the patient's."""
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3) * np.array(zooms)
    affine[:3, 3] = rng.uniform(-90, 90, 3)
    return affine


def volume_of(rng: Random, slices: int = 7, side: int = 24) -> np.ndarray:
    """Its slices along the last axis."""
    return np.stack([smooth(rng, side, side) for _ in range(slices)], axis=2)


def nifti_slices(path: Path, person: str, exam: str) -> list[Slice]:
    """The plain reading of a NIfTI file: its sform where that has the voxels of pixdim, else its qform."""
    image = nibabel.load(path)
    header, values = image.header, np.asarray(image.dataobj, float)
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        raise ValueError("not one volume")
    pixdim = np.array(header["pixdim"][1:4], float)
    affine, _ = header.get_sform(coded=True)
    if affine is None or not np.allclose(np.linalg.norm(affine[:3, :3], axis=0), pixdim, rtol=0.01):
        affine, _ = header.get_qform(coded=True)
    scale = {"meter": 1000.0, "micron": 0.001}.get(header.get_xyzt_units()[0], 1.0)
    columns = (affine[:3, :3] * _TO_LPS[:, None] * scale).T
    zooms = np.linalg.norm(columns, axis=1)
    origin = affine[:3, 3] * _TO_LPS * scale
    own = [int(zooms.argmax())] if zooms.max() >= 1.5 * zooms.min() else [0, 1, 2]
    result = []
    for axis in own:
        rows, columns_of = (other for other in range(3) if other != axis)
        count = 1 if len(own) == 1 else max(1, min(round(3 / zooms[axis]), values.shape[axis]))
        stack = np.moveaxis(values, axis, 0)
        kept = len(stack) // count * count
        first = (len(stack) - kept) // 2
        for number, picture in enumerate(stack[first : first + kept].reshape(-1, count, *stack.shape[1:]).mean(axis=1)):
            at = origin + columns[axis] * (first + number * count + (count - 1) / 2)
            result.append(
                Slice(
                    person=person, issuer="", study=exam, series=f"{path} {axis}", kind=(), tag="", echo=None,
                    along_row=columns[columns_of] / zooms[columns_of], down_column=columns[rows] / zooms[rows],
                    position=at,
                    spacing=(zooms[rows], zooms[columns_of]), number=number, values=picture,
                )
            )  # fmt: skip
    return result


def odd_nifti(rng: Random, path: Path, zooms: tuple[float, float, float]) -> None:
    """Write one volume, with something odd in three of four."""
    volume, affine = volume_of(rng), affine_of(rng, zooms)
    image = nibabel.Nifti1Image(volume, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    damage = int(rng.integers(20))
    match damage:
        case 0:
            image.set_sform(np.eye(4), 2)
        case 1:
            image.set_sform(None, 0)
        case 2:
            image.set_qform(None, 0)
        case 3:
            image.set_sform(None, 0)
            image.set_qform(None, 0)
        case 4:
            image.header["pixdim"][1:4] = (1, 1, 1)
        case 5:
            image = nibabel.Nifti1Image(volume.astype(np.float32) * (np.nan if rng.random() < 0.3 else 0.1), affine)
            image.set_sform(affine, 1)
        case 6:
            image = nibabel.Nifti1Image(volume[..., None], affine)
            image.set_sform(affine, 1)
        case 7:
            image = nibabel.Nifti1Image(np.stack([volume, volume], axis=3), affine)
        case 8:
            image.header.set_xyzt_units("meter" if rng.random() < 0.5 else "unknown")
        case 9:
            image.header.set_slope_inter(2.0, -50.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    content = path.read_bytes()
    content = gzip.decompress(content) if path.name.endswith(".gz") else content
    edited = bytearray(content)
    match damage:
        case 10 | 11:
            edited[int(rng.integers(348))] ^= 1 << int(rng.integers(8))
        case 12:
            del edited[int(rng.integers(len(edited))) :]
        case 13:
            edited[int(rng.integers(352, len(edited)))] = 255
        case 14:
            struct.pack_into("<h", edited, 40 + 2 * int(rng.integers(1, 8)), int(rng.integers(-5, 400)))
    if bytes(edited) != content:
        path.write_bytes(gzip.compress(bytes(edited), 1) if path.name.endswith(".gz") else bytes(edited))
    if damage == 15:
        path.write_bytes(path.read_bytes()[:-9])


def nifti(rng: Random, work: Path) -> str:
    """One to three volumes in names and folders of BIDS, nnU-Net, folders by subject, or none; now and then a mask."""
    ending = (".nii", ".nii.gz")[int(rng.integers(2))]
    thick = (6.0, 6.0, 12.0)
    names = {
        0: {f"sub-{SECRET[0]}/sub-{SECRET[0]}_pd{ending}": ("a", "a")},
        1: {f"sub-{n}/anat/sub-{n}_acq-sag_pd{ending}": (n, n) for n in ("01", "02")},
        2: {f"sub-01/ses-{n}/sub-01_ses-{n}_t1{ending}": ("01", n) for n in "12"},
        3: {f"{SECRET[0]}/sag{ending}": ("a", "a"), f"{SECRET[1]}/sag{ending}": ("b", "b")},
        4: {f"imagesTr/knee_00{n}_0000{ending}": (f"{n}", f"{n}") for n in (1, 2)},
        5: {f"alone{ending}": ("a", "a")},
    }[int(rng.integers(6))]
    for name in names:
        odd_nifti(rng, work / "in" / name, thick)
    masks = 0
    if rng.random() < 0.15:
        first = next(iter(names))
        image = nibabel.Nifti1Image((volume_of(rng) > 500).astype(np.uint8), np.diag([6, 6, 9, 1]))
        nibabel.save(image, work / "in" / first.replace(ending, f"_mask{ending}"))
        masks = 1

    def reading() -> tuple[list[Slice], int]:
        slices, unread = [], masks
        for name, (person, exam) in names.items():
            try:
                slices += nifti_slices(work / "in" / name, person, f"{person} {exam}")
            except Exception:
                unread += 1
        return slices, unread

    return imported(work / "in", work, reading, strict=not rng.integers(2))


# ---- bare arrays

_AXES = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}
_SHOWN = {"sagittal": "LIP", "coronal": "PIL", "axial": "IPL"}


def array_slices(array: np.ndarray, code: str, person: str, exam: str) -> list[Slice]:
    """Slices along the first axis of an array whose axes lead as a code says; nobody knows where they lie."""
    directions = []
    for letter in code:
        directions.append(np.zeros(3))
        directions[-1][_AXES[letter][0]] = _AXES[letter][1]
    spacing = FIELD_MM / max(array.shape[1:])
    return [
        Slice(
            person=person, issuer="", study=exam, series=exam + code, kind=(), tag="", echo=None,
            along_row=directions[2],
            down_column=directions[1], position=directions[0] * number, spacing=(spacing, spacing), number=number,
            values=values.astype(np.float32).astype(float),
        )
        for number, values in enumerate(array)
    ]  # fmt: skip


def odd_array(rng: Random, path: Path) -> None:
    """Write one array, with something odd in half of all."""
    volume = np.moveaxis(volume_of(rng, slices=int(rng.integers(4, 9))), 2, 0).astype(
        (np.uint16, np.int16, np.float32, np.float64, np.int64)[int(rng.integers(5))]
    )
    damage = int(rng.integers(14))
    match damage:
        case 0:
            volume = np.asfortranarray(volume)
        case 1 if volume.dtype.kind == "f":
            volume[0, 0, 0] = (np.nan, np.inf, 1e30)[int(rng.integers(3))]
        case 2:
            volume = (volume[0], volume[None], volume.astype(complex), np.zeros_like(volume))[int(rng.integers(4))]
        case 3:
            volume = volume.astype(object)
        case 4:
            volume = volume.astype(volume.dtype.newbyteorder(">"))
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, volume)
    content = bytearray(path.read_bytes())
    match damage:
        case 5:
            del content[int(rng.integers(len(content))) :]
        case 6 | 7:
            content[int(rng.integers(128))] ^= 1 << int(rng.integers(8))
        case 8:
            content += rng.bytes(50)
    path.write_bytes(content)


def arrays(rng: Random, work: Path) -> str:
    """Series in folders named by plane, as MRNet's, of which one lies elsewhere now and then."""
    names = [(plane, f"{exam:04d}") for plane in _SHOWN for exam in range(2) if rng.random() < 0.5] or [
        ("axial", "0000")
    ]
    for plane, exam in names:
        odd_array(rng, work / "in" / plane / f"{exam}.npy")
    if rng.random() < 0.1:
        odd_array(rng, work / "in" / SECRET[0] / "0000.npy")

    def reading() -> tuple[list[Slice], int]:
        slices, unread = [], 0
        for file in sorted((work / "in").rglob("*.npy")):
            try:
                array = np.load(file)
                slices += array_slices(array, _SHOWN[file.parent.name], file.stem, file.stem)
            except Exception:
                unread += 1
        return slices, unread

    return imported(work / "in", work, reading, strict=not rng.integers(2))
