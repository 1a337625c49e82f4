"""NIfTI and bare arrays: which affine is believed, whose volumes they are, and what an array's file does not say."""

import csv

import nibabel
import numpy as np
import pytest

from kneessl.errors import UserError
from kneessl.exams.check import inspect
from kneessl.exams.folder import ExamFolder
from kneessl.sources.importer import import_exams

THICK = {"sag": (4.0, 0.6, 0.6), "cor": (0.6, 4.0, 0.6), "ax": (0.6, 0.6, 4.0)}
"""Voxels in mm along x, y, z."""


def noise(shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1000, shape).astype(np.int16)


def volume(plane="sag", seed=0, slices=8) -> nibabel.Nifti1Image:
    spacing = THICK[plane]
    shape = [slices if side == 4.0 else 40 for side in spacing]
    image = nibabel.Nifti1Image(noise(shape, seed), np.diag([*spacing, 1]))
    image.set_qform(np.diag([*spacing, 1]), 1)
    image.set_sform(np.diag([*spacing, 1]), 1)
    return image


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)


def rows(folder):
    with (folder / "exams.csv").open() as file:
        return list(csv.DictReader(file))


def exams_of(folder):
    """Person to the planes of each of their exams."""
    people: dict[str, dict[str, set[str]]] = {}
    for line in rows(folder):
        people.setdefault(line["patient_group"], {}).setdefault(line["exam"], set()).add(line["plane"])
    return sorted(sorted(map(sorted, exams.values())) for exams in people.values())


# ---- which affine


@pytest.mark.parametrize("plane", ["sag", "cor", "ax"])
@pytest.mark.parametrize("sform", [np.eye(4), np.diag([1, 1, 3.0, 1])])
def test_a_sform_that_contradicts_pixdim_gives_way_to_the_qform(tmp_path, plane, sform):
    save(volume(plane), tmp_path / "right.nii.gz")
    image = volume(plane)
    image.set_sform(sform, 2)
    save(image, tmp_path / "wrong.nii.gz")
    for name in ("right", "wrong"):
        import_exams(tmp_path / f"{name}.nii.gz", tmp_path / name)
    assert rows(tmp_path / "right") == rows(tmp_path / "wrong")
    assert len(rows(tmp_path / "right")) == 1


@pytest.mark.parametrize("plane", ["sag", "ax"])
def test_a_sform_that_contradicts_pixdim_is_refused_without_a_qform(tmp_path, plane):
    image = volume(plane)
    image.set_sform(np.eye(4), 2)
    image.set_qform(None, 0)
    image.header["pixdim"][1:4] = THICK[plane]
    save(image, tmp_path / "knee.nii.gz")
    with pytest.raises(UserError, match=r"its sform has voxels of 1 x 1 x 1, its pixdim of"):
        import_exams(tmp_path / "knee.nii.gz", tmp_path / "out")


# ---- whose


LAYOUTS = {
    "one folder": (["sag", "cor", "ax"], [[["axial", "coronal", "sagittal"]]]),
    "in a folder": (["P1/sag", "P1/cor", "P2/sag"], [[["coronal", "sagittal"]], [["sagittal"]]]),
    "names": (["a_sag", "a_cor", "b_sag_T2"], [[["coronal", "sagittal"]], [["sagittal"]]]),
    "BIDS": (
        ["sub-01/anat/sub-01_acq-sag_PDw", "sub-01/anat/sub-01_acq-cor_PDw", "sub-02/anat/sub-02_acq-sag_PDw"],
        [[["coronal", "sagittal"]], [["sagittal"]]],
    ),
    "BIDS sessions": (
        ["sub-01/ses-1/sub-01_ses-1_sag", "sub-01/ses-2/sub-01_ses-2_sag"],
        [[["sagittal"], ["sagittal"]]],
    ),
    "nnU-Net": (["imagesTr/k_001_0000:sag", "imagesTr/k_001_0001:cor", "imagesTr/k_002_0000:sag"],
                [[["coronal", "sagittal"]], [["sagittal"]]]),
    "same names": (["P1/scan1:sag", "P1/scan2:sag", "P2/scan1:sag", "P2/scan2:cor"],
                   [[["coronal", "sagittal"]], [["sagittal"], ["sagittal"]]]),
    "sides in names": (["a_left_sag", "a_right_sag", "b_left_sag"], [[["sagittal"]], [["sagittal"], ["sagittal"]]]),
    "sides as folders": (["P1/left/sag", "P1/Right/sag", "P2/left/sag", "P2/Right/sag"],
                         [[["sagittal"], ["sagittal"]]] * 2),
    "visits": (["baseline/a:sag", "baseline/b:sag", "followup/a:sag", "visit2/a:sag"],
               [[["sagittal"]], [["sagittal"]] * 3]),
    "flat": (["knee1:sag", "knee2:cor"], [[["coronal"]], [["sagittal"]]]),
    "splits": (["train/0001:sag", "train/0002:sag", "valid/0001:sag", "valid/0002:sag"], [[["sagittal"]]] * 4),
}  # fmt: skip


@pytest.mark.parametrize(("names", "people"), LAYOUTS.values(), ids=LAYOUTS)
def test_layouts(tmp_path, names, people):
    for seed, name in enumerate(names):
        path, _, plane = name.partition(":")
        plane = plane or next(one for one in THICK if one in path.rsplit("/")[-1])
        save(volume(plane, seed), tmp_path / "src" / f"{path}.nii.gz")
    import_exams(tmp_path / "src", tmp_path / "out")
    assert exams_of(tmp_path / "out") == people


@pytest.mark.parametrize(("name", "labels"), [("sag_mask", 2), ("sag_seg", 120), ("other", 5)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_masks_are_left_out_by_their_content_and_said(tmp_path, capsys, name, labels, dtype):
    save(volume("sag"), tmp_path / "src" / "sag.nii.gz")
    mask = volume("sag")
    values = (np.asarray(mask.dataobj) % labels).astype(dtype)
    save(nibabel.Nifti1Image(values, mask.affine), tmp_path / "src" / f"{name}.nii.gz")
    import_exams(tmp_path / "src", tmp_path / "out")
    assert exams_of(tmp_path / "out") == [[["sagittal"]]]
    assert "masks or label maps, by few different whole numbers (1)" in capsys.readouterr().err


def test_a_damaged_volume_is_left_out_unless_told_otherwise(tmp_path):
    save(volume("sag"), tmp_path / "src" / "sag.nii.gz")
    (tmp_path / "src" / "cor.nii.gz").write_bytes(b"nothing")
    with pytest.raises(UserError, match="not a readable NIfTI"):
        import_exams(tmp_path / "src", tmp_path / "out", strict=True)
    import_exams(tmp_path / "src", tmp_path / "out")
    assert exams_of(tmp_path / "out") == [[["sagittal"]]]


# ---- bare arrays


@pytest.mark.parametrize(("name", "labels"), [("0000", 2), ("mask", 120)])
def test_a_mask_is_no_series(tmp_path, name, labels):
    path = tmp_path / "src" / "sagittal" / f"{name}.npy"
    path.parent.mkdir(parents=True)
    np.save(path, noise((24, 256, 256), 0).astype(np.int64) % labels)
    with pytest.raises(UserError, match="file 1 of 1 is a mask or a map of labels"):
        import_exams(tmp_path / "src", tmp_path / "out")


@pytest.mark.parametrize("dtype", [np.uint16, np.float64, np.float32, np.int16])
@pytest.mark.parametrize("plane", ["sagittal", "axial"])
def test_arrays_in_folders_named_by_plane_are_series_of_that_plane(tmp_path, capsys, dtype, plane):
    for name in (plane, "coronal"):
        for exam in ("0000", "0001"):
            voxels = noise((24, 256, 256), [int(exam), ord(name[0])]).astype(dtype)
            path = tmp_path / "src" / "train" / name / f"{exam}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, voxels)
    import_exams(tmp_path / "src", tmp_path / "out")
    assert exams_of(tmp_path / "out") == [[sorted([plane, "coronal"])]] * 2
    assert {len(np.load(file)) for file in (tmp_path / "out").rglob("*.npy")} == {24}
    assert {(line["row_mm"], line["slice_mm"], line["source"]) for line in rows(tmp_path / "out")} == {
        ("0.0", "0.0", "npy")
    }
    assert ("floating-point values from" in capsys.readouterr().err) is (np.dtype(dtype).kind == "f")
    assert not inspect(ExamFolder(tmp_path / "out")).faults


@pytest.mark.parametrize("shape", [(24, 256, 256), (40, 40, 40)])
@pytest.mark.parametrize("settings", [{}, {"npy_axes": "ALS"}, {"npy_spacing": 1.5}])
def test_a_bare_array_gains_no_planes_by_assumption(tmp_path, shape, settings):
    np.save(tmp_path / "knee.npy", noise(shape))
    with pytest.raises(UserError, match="nothing says where its axes lead"):
        import_exams(tmp_path / "knee.npy", tmp_path / "out", **settings)
    import_exams(tmp_path / "knee.npy", tmp_path / "out", npy_axes="LIP", npy_spacing=1.5)
    assert {line["plane"] for line in rows(tmp_path / "out")} == {"sagittal", "coronal", "axial"}


def test_what_check_advises_works(tmp_path):
    path = tmp_path / "src" / "train" / "sagittal" / "0000.npy"
    path.parent.mkdir(parents=True)
    np.save(path, noise((24, 256, 256)).astype(np.float64))
    (fault,) = inspect(ExamFolder(tmp_path / "src")).faults
    assert "import it with `kneessl import`" in fault
    import_exams(path, tmp_path / "out")
    assert not inspect(ExamFolder(tmp_path / "out")).faults
