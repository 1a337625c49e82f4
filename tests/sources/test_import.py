import csv
import random
import zipfile
from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from helpers.dicom import write_dicom
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from kneessl.errors import UserError
from kneessl.exams.check import inspect
from kneessl.exams.folder import ExamFolder
from kneessl.sources.dicom.image import images
from kneessl.sources.dicom.pixels import values
from kneessl.sources.dicom.series import find_knees
from kneessl.sources.importer import import_exams
from kneessl.sources.notes import Notes
from kneessl.sources.volume import DISPLAY, Volume, directions_of

IDENTITY = ("Quaxolotl^Zyphira", "PID-7730041", "19230817", "Saint Wumbo Clinic", "ACC-55120")


def noise(slices: int = 6, side: int = 16) -> np.ndarray:
    return np.random.default_rng(slices).integers(0, 1000, (slices, side, side))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "exams.csv").open() as file:
        return list(csv.DictReader(file))


def only(folder: Path, plane: str) -> np.ndarray:
    return np.load(folder / "train" / plane / "0000.npy")


def refused(src: Path, tmp_path: Path, match: str, out: str = "out", **settings) -> str:
    """The import fails with one sentence, and leaves nothing behind."""
    before = set(tmp_path.iterdir())
    with pytest.raises(UserError, match=match) as error:
        import_exams(src, tmp_path / out, strict=True, **settings)
    assert set(tmp_path.iterdir()) == before
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- the real knee: 192 Big Endian files, eight echoes under one SeriesInstanceUID


@pytest.fixture(scope="module")
def every_echo(real_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("knee") / "all"
    import_exams(real_data("knee_mese"), out, echo="all")
    return out


def test_real_knee_every_echo_is_an_exam_of_one_patient(every_echo):
    lines = rows(every_echo)
    assert [line["exam"] for line in lines] == [f"{n:04d}" for n in range(8)]
    assert {line["patient_group"] for line in lines} == {"g0000"}
    assert {line["plane"] for line in lines} == {"sagittal"}
    assert {line["laterality"] for line in lines} == {"R"}
    assert {(line["row_mm"], line["column_mm"], line["slice_mm"]) for line in lines} == {("0.625", "0.625", "4.0")}
    assert len({line["source_sha256"] for line in lines}) == 8
    folder = ExamFolder(every_echo)
    assert [len(folder.series("train", "sagittal", line["exam"])) for line in lines] == [24] * 8
    assert not inspect(folder).faults


def test_real_knee_takes_the_echo_nearest_30_ms(real_data, every_echo, tmp_path):
    import_exams(real_data("knee_mese"), tmp_path / "out")
    (line,) = rows(tmp_path / "out")
    assert "echo 31.56 ms (nearest 30 ms; 8 echoes)" in line["choice"]
    assert line == {**rows(every_echo)[4], "exam": "0000", "choice": line["choice"]}
    np.testing.assert_array_equal(only(tmp_path / "out", "sagittal"), np.load(every_echo / "train/sagittal/0004.npy"))


def test_real_knee_is_upright_with_the_patella_to_the_left(every_echo):
    middle = np.load(every_echo / "train/sagittal/0004.npy")[12].astype(float)
    patella, behind, femur, tibia = (
        middle[75:110, 45:65],
        middle[75:110, 230:],
        middle[20:70, 100:125],
        middle[190:230, 115:150],
    )
    assert min(patella.mean(), femur.mean(), tibia.mean()) > 100
    assert behind.mean() < 20
    assert middle[10:30, 5:40].mean() < 20


def test_shuffled_and_renamed_files_give_the_same_bytes(real_data, every_echo, tmp_path):
    files = sorted(real_data("knee_mese").iterdir())
    shuffled = random.Random(5).sample(files, len(files))
    for number, file in enumerate(shuffled):
        link = tmp_path / "src" / f"{number % 7}" / f"IM{number:06d}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    import_exams(tmp_path / "src", tmp_path / "out", echo="all")
    assert tree(tmp_path / "out") == tree(every_echo)


def test_no_identity_gets_out(real_data, tmp_path, capfd, caplog):
    source = tmp_path / "src" / IDENTITY[0]
    source.mkdir(parents=True)
    for file in real_data("knee_mese").iterdir():
        if pydicom.dcmread(file, specific_tags=["EchoTime"]).EchoTime != 31.56:
            continue
        data = pydicom.dcmread(file)
        data.PatientName, data.PatientID, data.PatientBirthDate, data.InstitutionName, data.AccessionNumber = IDENTITY
        data.SeriesDescription = data.ProtocolName = data.StudyDescription = f"knee of {IDENTITY[0]}"
        data.add_new((0x0019, 0x0010), "LO", IDENTITY[0])
        data.save_as(source / f"{IDENTITY[1]}_{file.name}")
    import_exams(tmp_path / "src", tmp_path / "out")
    damaged = sorted(source.iterdir())[3]
    damaged.write_bytes(damaged.read_bytes()[:-5000])
    message = refused(tmp_path / "src", tmp_path, "cut short", out="none")
    written = b"".join(name.encode() + content for name, content in tree(tmp_path / "out").items())
    said = message + "".join(capfd.readouterr()) + caplog.text
    for text in IDENTITY:
        assert text.encode() not in written
        assert text not in said


# ---- encodings


def test_nine_transfer_syntaxes_decode_to_the_same_pixels(real_data, monkeypatch):
    monkeypatch.setattr(
        "kneessl.sources.dicom.image._LEFT_OUT_TYPES", {}
    )  # the slice is a mosaic, which an import refuses
    files = sorted(real_data("dicom_formats/transfer_syntaxes").iterdir())
    decoded = [values(images(file, file.name, Notes())) for file in files]
    assert len(decoded) == 9
    for pixels in decoded:
        np.testing.assert_array_equal(pixels, decoded[0])


def test_brains_and_mosaics_are_no_knees(real_data, tmp_path):
    message = refused(real_data("dicom_formats"), tmp_path, "no knee series")
    assert "mosaics (9)" in message
    assert "another body part (BRAIN) (2)" in message


@pytest.mark.parametrize(
    ("name", "slices", "slice_mm", "echo_ms", "left_out"),
    [("philips.dcm", 32, 4.0, 1.52, "computed maps (32)"), ("siemens_xa10.dcm", 6, 2.4, 30.0, "")],
)
def test_enhanced_multi_frame(real_data, monkeypatch, name, slices, slice_mm, echo_ms, left_out):
    monkeypatch.setattr("kneessl.sources.dicom.image._ELSEWHERE", frozenset())
    file, notes = real_data("dicom_formats/enhanced") / name, Notes()
    headers = images(file, name, notes)
    assert str(notes) == left_out  # half of Philips' frames are a map of the field
    assert {(image.slice_mm, image.echo_ms) for image in headers} == {(slice_mm, echo_ms)}
    assert len({image.position for image in headers}) == len(headers) == slices
    frames = [image.frame for image in headers]
    slopes = np.array([image.slope for image in headers], np.float32)[:, None, None]
    intercepts = np.array([image.intercept for image in headers], np.float32)[:, None, None]
    expected = pydicom.dcmread(file).pixel_array[frames] * slopes + intercepts
    np.testing.assert_allclose(values(headers[::-1]), expected[::-1], rtol=1e-5)
    (knee,) = find_knees(headers, 30.0, True, Notes())
    assert [len(series.images) for series in knee.series] == [slices]


def test_monochrome1_rescale_and_padding(tmp_path):
    bright = noise()
    write_dicom(tmp_path / "plain", bright)
    write_dicom(tmp_path / "inverted", 5000 - bright, PhotometricInterpretation="MONOCHROME1")
    write_dicom(tmp_path / "rescaled", bright, RescaleSlope="2.5", RescaleIntercept="-40")
    padded = bright.copy()
    padded[:, :4] = 60_000
    blank = bright.copy()
    blank[:, :4] = 0
    write_dicom(tmp_path / "padded", padded, PixelPaddingValue=60_000)
    write_dicom(tmp_path / "blank", blank)
    for name in ("plain", "inverted", "rescaled", "padded", "blank"):
        import_exams(tmp_path / name, tmp_path / f"out {name}")
    plain = only(tmp_path / "out plain", "axial").astype(int)
    for name in ("inverted", "rescaled"):
        assert np.abs(only(tmp_path / f"out {name}", "axial") - plain).max() <= 1
    # Padding is black, and does not move the window of what was measured.
    padded_out = only(tmp_path / "out padded", "axial").astype(int)
    assert padded_out[:, :32].max() == 0
    assert np.abs(padded_out[:, 96:] - plain[:, 96:]).mean() < 4


# ---- geometry


def ball(shape, spacing, radius_mm: float) -> np.ndarray:
    grids = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing, strict=True)]
    distance = np.sqrt(sum(grid**2 for grid in np.meshgrid(*grids, indexing="ij")))
    return (np.clip((radius_mm - distance) / min(spacing) + 0.5, 0, 1) * 1000).astype(np.uint16)


def assert_round(image: np.ndarray, diameter: float) -> None:
    inside = image > 127
    height, width = inside.any(axis=1).sum(), inside.any(axis=0).sum()
    assert abs(height - diameter) <= 0.04 * diameter
    assert abs(width - diameter) <= 0.04 * diameter
    assert abs(inside.sum() / (np.pi / 4 * diameter**2) - 1) < 0.05


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((9, 60, 60), (4.0, 1.0, 2.0)), ((9, 40, 150), (4.0, 3.0, 1.0)), ((9, 512, 300), (4.0, 0.25, 0.5))],
)
def test_a_ball_stays_round(tmp_path, shape, spacing):
    write_dicom(tmp_path / "src", ball(shape, spacing, 30.0), spacing=spacing)
    import_exams(tmp_path / "src", tmp_path / "out")
    (line,) = rows(tmp_path / "out")
    pixel_mm = max(shape[1] * spacing[1], shape[2] * spacing[2]) / 256
    assert float(line["row_mm"]) == float(line["column_mm"]) == pytest.approx(pixel_mm, abs=1e-4)
    assert_round(only(tmp_path / "out", "axial")[4], 60.0 / pixel_mm)


def test_a_ball_stays_round_in_nifti(tmp_path):
    spacing = (0.7, 4.0, 1.4)  # slices are the second axis: coronal
    volume = ball((150, 9, 70), spacing, 30.0).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([*spacing, 1])), tmp_path / "knee.nii.gz")
    import_exams(tmp_path / "knee.nii.gz", tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out/train").iterdir()) == ["coronal"]
    assert_round(only(tmp_path / "out", "coronal")[4], 60.0 / (105 / 256))


SIGNED_AXES = [
    np.eye(3)[list(order)] * np.array(signs)[:, None]
    for order in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(SIGNED_AXES), st.tuples(*[st.floats(-0.3, 0.3)] * 3), st.sampled_from(["RAS", "LPI", "RPS"]))
def test_every_orientation_shows_a_corner_of_the_patient_in_the_same_place(axes, tilt, corner):
    directions = axes @ Rotation.from_rotvec(tilt).as_matrix().T
    towards = directions_of(corner).sum(axis=0)
    voxels = np.zeros((4, 5, 6), np.float32)
    # An axis that leads towards the corner has its bright end last.
    voxels[tuple(-1 if axis @ towards > 0 else 0 for axis in axes)] = 1
    stack = Volume(voxels, directions, (3.0, 1.0, 1.0), np.zeros(3))
    shown = stack.displayed()
    code = DISPLAY[stack.plane]
    assert stack.plane == ("sagittal", "coronal", "axial")[int(np.abs(axes[0]).argmax())]
    assert shown.voxels[tuple(-1 if letter in corner else 0 for letter in code)] == 1
    np.testing.assert_allclose(shown.centre, stack.centre, atol=1e-9)
    np.testing.assert_allclose(np.sort(shown.spacing), [1, 1, 3])


@pytest.mark.parametrize("code", ["LIP", "RSA", "PIL", "AIR", "IPL", "SPL", "IRA", "LPS"])
def test_orientation_through_dicom(tmp_path, code):
    directions = directions_of(code)
    if np.linalg.det(directions[[2, 1, 0]]) < 0:  # DICOM's normal is row x column; slices are stored either way round
        directions[0] *= -1
    voxels = np.zeros((6, 16, 16))
    towards = directions_of("LPI").sum(axis=0)
    voxels[tuple(slice(-3, None) if axis @ towards > 0 else slice(0, 3) for axis in directions)] = 1000
    write_dicom(tmp_path / "src", voxels, directions)
    import_exams(tmp_path / "src", tmp_path / "out")
    (line,) = rows(tmp_path / "out")
    shown = only(tmp_path / "out", line["plane"])
    place = tuple(-1 if letter in "LPI" else 0 for letter in DISPLAY[line["plane"]])
    assert shown[place] == 255
    assert shown[tuple(-1 - index for index in place)] == 0


def test_bare_volumes_give_three_upright_planes(real_data, tmp_path):
    import_exams(real_data("knee_fair"), tmp_path / "out", npy_axes="ALS", npy_spacing=1.5, same_patient=True)
    lines = rows(tmp_path / "out")
    assert [(line["exam"], line["plane"]) for line in lines] == [
        (exam, plane) for exam in ("0000", "0001") for plane in ("sagittal", "coronal", "axial")
    ]
    assert {line["patient_group"] for line in lines} == {"g0000"}
    sagittal = only(tmp_path / "out", "sagittal")
    axial = only(tmp_path / "out", "axial")
    assert sagittal.shape == (32, 256, 256)
    assert axial.shape == (64, 256, 256)
    # The padded field is black at both sides of the thinner axis; air fills the back of the coil.
    assert axial[:, :, :60].max() == axial[:, :, -60:].max() == 0
    assert sagittal[:, :, 20:100].mean() > 2 * sagittal[:, :, 170:].mean()


def test_same_volume_as_dicom_and_nifti_looks_alike(tmp_path):
    voxels = noise(6, 32)
    write_dicom(tmp_path / "src", voxels)
    affine = np.eye(4)
    # Array axes (x, y, z) lead to the left, to posterior and down, so RAS has minus signs.
    affine[:3, :3], affine[:3, 3] = np.diag([-1.0, -1.0, -3.0]), (-40, 0, 0)
    image = nibabel.Nifti1Image(voxels.T.astype(np.int16), affine)
    image.set_sform(affine, code="scanner")
    nibabel.save(image, tmp_path / "knee.nii")
    import_exams(tmp_path / "src", tmp_path / "dicom")
    import_exams(tmp_path / "knee.nii", tmp_path / "nifti")
    np.testing.assert_array_equal(only(tmp_path / "dicom", "axial"), only(tmp_path / "nifti", "axial"))
    assert rows(tmp_path / "dicom")[0]["laterality"] == rows(tmp_path / "nifti")[0]["laterality"] == "L"


# ---- choosing


def test_one_series_a_plane_and_one_exam_a_study(tmp_path):
    write_dicom(tmp_path / "src", noise(6), SeriesInstanceUID="2.25.1", EchoTime=80)
    write_dicom(tmp_path / "src", noise(7), SeriesInstanceUID="2.25.2", EchoTime=35)
    write_dicom(tmp_path / "src", noise(9), SeriesInstanceUID="2.25.3", ImageType=["DERIVED", "SECONDARY", "OTHER"])
    write_dicom(tmp_path / "src", noise(8), directions_of("RIP"), SeriesInstanceUID="2.25.4")
    write_dicom(tmp_path / "src", noise(3), directions_of("PIL"), SeriesInstanceUID="2.25.5")
    write_dicom(
        tmp_path / "src",
        noise(11),
        directions_of("PIL"),
        SeriesInstanceUID="2.25.6",
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
    )
    write_dicom(tmp_path / "src", noise(5), StudyInstanceUID="2.25.99", SeriesInstanceUID="2.25.7")
    import_exams(tmp_path / "src", tmp_path / "out")
    lines = rows(tmp_path / "out")
    lengths = {
        (line["plane"], len(np.load(tmp_path / "out/train" / line["plane"] / f"{line['exam']}.npy"))) for line in lines
    }
    assert lengths == {("axial", 7), ("sagittal", 8), ("axial", 5)}
    assert {line["patient_group"] for line in lines} == {"g0000"}
    assert any("1 of 2 series of its plane (echo nearest 30 ms)" in line["choice"] for line in lines)


PD_FS = {"RepetitionTime": 3000, "EchoTime": 34, "ScanOptions": "FS"}
T1 = {"RepetitionTime": 600, "EchoTime": 12, "ScanOptions": "PFP"}


@pytest.mark.parametrize(
    ("tags", "columns"),
    [
        (PD_FS, ("DICOM", "0", "PD", "1", "34.0")),
        (T1, ("DICOM", "0", "T1", "0", "12.0")),
        ({"EchoTime": None}, ("DICOM", "0", "", "", "")),
    ],
)
def test_what_is_known_of_a_series_has_columns_of_its_own(tmp_path, tags, columns):
    write_dicom(tmp_path / "src", noise(), **tags)
    import_exams(tmp_path / "src", tmp_path / "out")
    (line,) = rows(tmp_path / "out")
    names = ("source", "synthetic", "weighting", "fat_suppressed", "echo_ms")
    assert tuple(line[name] for name in names) == columns
    assert not ExamFolder(tmp_path / "out").synthetic


def test_both_knees_of_one_study_are_two_exams_of_one_person(tmp_path):
    write_dicom(tmp_path / "src", noise(6), SeriesInstanceUID="2.25.1", position=(60, 0, 0))
    write_dicom(tmp_path / "src", noise(7), SeriesInstanceUID="2.25.2", position=(-90, 0, 0))
    import_exams(tmp_path / "src", tmp_path / "out")
    lines = rows(tmp_path / "out")
    assert sorted(line["laterality"] for line in lines) == ["L", "R"]
    assert sorted(line["exam"] for line in lines) == ["0000", "0001"]
    assert {line["patient_group"] for line in lines} == {"g0000"}


@pytest.mark.parametrize(
    ("x", "tag", "side", "reason"),
    [
        (60, "R", "R", "from its tag"),
        (60, "", "L", "no tag"),
        (-60, "", "R", "no tag"),
        (0, "", "", "laterality unknown"),
    ],
)
def test_laterality(tmp_path, x, tag, side, reason):
    write_dicom(tmp_path / "src", noise(), position=(x, 0, 0), Laterality=tag)
    import_exams(tmp_path / "src", tmp_path / "out")
    (line,) = rows(tmp_path / "out")
    assert line["laterality"] == side
    assert reason in line["choice"]


def test_blank_patient_ids_fall_back_on_the_study(tmp_path):
    for study in ("2.25.1", "2.25.2"):
        write_dicom(tmp_path / "src", noise(), StudyInstanceUID=study, SeriesInstanceUID=study + ".1", PatientID="")
    import_exams(tmp_path / "src", tmp_path / "out", split="valid")
    assert [line["patient_group"] for line in rows(tmp_path / "out")] == ["g0000", "g0001"]
    assert {line["split"] for line in rows(tmp_path / "out")} == {"valid"}


def test_without_positions_the_instance_number_orders(tmp_path):
    write_dicom(tmp_path / "src", noise(), ImagePositionPatient=None)
    write_dicom(tmp_path / "placed", noise())
    import_exams(tmp_path / "src", tmp_path / "out")
    import_exams(tmp_path / "placed", tmp_path / "out placed")
    assert "InstanceNumber" in rows(tmp_path / "out")[0]["choice"]
    assert len(only(tmp_path / "out", "axial")) == 6


# ---- bad input


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"Modality": "CT"}, r"images of modality CT \(6\)"),
        ({"Modality": "Someone^Famous"}, "without a known modality"),
        ({"BodyPartExamined": "SHOULDER"}, "another body part"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localisers"),
        ({"ImageOrientationPatient": None}, "no valid ImageOrientationPatient"),
        ({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, "no valid ImageOrientationPatient"),
        ({"PixelSpacing": None}, "no valid PixelSpacing"),
        ({"ImagePositionPatient": None, "InstanceNumber": None}, "no complete InstanceNumber"),
        ({"ImagePositionPatient": [1, 2, 3]}, "two images at the same position"),
        ({"StudyInstanceUID": None}, "do not follow the standard"),
        ({"Rows": 40_000}, "claims a size"),
        ({"PixelData": None}, "pixels are missing"),
    ],
)
def test_bad_dicom(tmp_path, tags, message):
    write_dicom(tmp_path / "src", noise(), **tags)
    refused(tmp_path / "src", tmp_path, message)


def test_colour_images(tmp_path):
    write_dicom(tmp_path / "src", noise(), SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    refused(tmp_path / "src", tmp_path, "colour images")


def test_too_few_slices_and_constant_pixels(tmp_path):
    write_dicom(tmp_path / "few", noise(4))
    refused(tmp_path / "few", tmp_path, "fewer than 5 slices")
    write_dicom(tmp_path / "flat", np.full((6, 8, 8), 7))
    refused(tmp_path / "flat", tmp_path, "every pixel has the same value")


def test_missing_and_repeated_slices(tmp_path):
    write_dicom(tmp_path / "src", noise(8))
    files = sorted((tmp_path / "src").iterdir(), key=lambda f: pydicom.dcmread(f).InstanceNumber)
    copy = tmp_path / "src" / "copy.dcm"
    copy.write_bytes(files[2].read_bytes())
    refused(tmp_path / "src", tmp_path, "the same image twice")
    copy.unlink()
    files[4].unlink()
    refused(tmp_path / "src", tmp_path, "a gap of 6.0 mm after slice")


def test_an_echo_that_lacks_a_slice(tmp_path):
    write_dicom(tmp_path / "src", noise(8), EchoTime=10)
    write_dicom(tmp_path / "src", noise(7), EchoTime=30)
    refused(tmp_path / "src", tmp_path, "7 images at echo 30 ms, but 8")


@pytest.mark.parametrize("kept", [0, 100, 200, 400, 900])
def test_truncated_dicom(tmp_path, kept):
    write_dicom(tmp_path / "src", noise())
    file = sorted((tmp_path / "src").iterdir())[0]
    file.write_bytes(file.read_bytes()[:kept])
    refused(tmp_path / "src", tmp_path, "file 1 of 6")


def test_faulty_series_are_left_out_when_asked(tmp_path, capsys):
    write_dicom(tmp_path / "src", noise(6), StudyInstanceUID="2.25.1", SeriesInstanceUID="2.25.2")
    write_dicom(tmp_path / "src", noise(6), StudyInstanceUID="2.25.3", ImagePositionPatient=[1, 2, 3])
    import_exams(tmp_path / "src", tmp_path / "out")
    assert len(rows(tmp_path / "out")) == 1
    assert "two images at the same position" in capsys.readouterr().err


def test_nothing_to_import(tmp_path):
    refused(tmp_path / "missing", tmp_path, "does not exist")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", tmp_path, "holds no files")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "notes.txt").write_text("hello")
    refused(tmp_path / "text", tmp_path, r"files that are not DICOM \(1\)")
    (tmp_path / "text" / "knee.dcm").write_text("hello")
    refused(tmp_path / "text", tmp_path, "damaged or not DICOM")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"echo": "long"}, "--echo long"),
        ({"echo": "nan"}, "--echo nan"),
        ({"npy_axes": "ALA"}, "--npy_axes ALA"),
        ({"npy_axes": "xyz"}, "--npy_axes xyz"),
        ({"npy_spacing": 0.0}, "--npy_spacing"),
    ],
)
def test_bad_settings(tmp_path, settings, message):
    np.save(tmp_path / "knee.npy", noise(16))
    refused(tmp_path / "knee.npy", tmp_path, message, **settings)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((16, 16, 16), np.float32), "every pixel has the same value"),
        (np.full((16, 16, 16), np.nan), "floating-point numbers"),
        (np.zeros((16, 16, 16, 3), np.uint8), "must be one volume"),
        (np.zeros((16, 16, 16), np.uint8), "every pixel has the same value"),
        (np.zeros((0, 16, 16), np.uint8), "must be one volume|not a readable"),
        (np.zeros((16, 16, 16), bool), "must hold integers or real numbers"),
        (noise(6), "3 axial slices"),
    ],
)
def test_bad_bare_volumes(tmp_path, array, message):
    np.save(tmp_path / "knee.npy", array)
    refused(tmp_path / "knee.npy", tmp_path, message, npy_axes="IPL", npy_spacing=1.5)


def test_damaged_bare_volumes(tmp_path):
    np.save(tmp_path / "knee.npy", noise(16))
    (tmp_path / "knee.npy").write_bytes((tmp_path / "knee.npy").read_bytes()[:-9])
    refused(tmp_path / "knee.npy", tmp_path, "not a readable .npy", npy_axes="ALS", npy_spacing=1.5)


def test_bad_nifti(tmp_path):
    volume = noise(16).astype(np.float32)
    with_nan = volume.copy()
    with_nan[3, 4, 5] = np.nan
    colour = np.zeros((16, 16, 16), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    unoriented = nibabel.Nifti1Image(volume, None)
    bad = {
        "nan": (nibabel.Nifti1Image(with_nan, np.eye(4)), "not finite"),
        "colour": (nibabel.Nifti1Image(colour, np.eye(4)), "colour or complex"),
        "four": (nibabel.Nifti1Image(np.stack([volume] * 2, -1), np.eye(4)), "one volume with three axes"),
        "unoriented": (unoriented, "states no orientation"),
        "sheared": (nibabel.Nifti1Image(volume, np.eye(4) + np.eye(4, k=1) * 0.4), "shear"),
    }
    for name, (image, message) in bad.items():
        nibabel.save(image, tmp_path / f"{name}.nii.gz")
        refused(tmp_path / f"{name}.nii.gz", tmp_path, message)
    whole = (tmp_path / "nan.nii.gz").read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "cut.nii.gz", tmp_path, "not a readable NIfTI")
    (tmp_path / "text.nii").write_text("hello")
    refused(tmp_path / "text.nii", tmp_path, "not a readable NIfTI")


def test_an_existing_folder_is_never_touched(tmp_path):
    np.save(tmp_path / "knee.npy", noise(16))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kept").write_text("kept")
    refused(tmp_path / "knee.npy", tmp_path, "already exists")
    assert (tmp_path / "out" / "kept").read_text() == "kept"


@pytest.mark.parametrize(("slices", "nested"), [(7, False), (9, True)])
def test_a_zip_is_imported_as_its_folder_is(tmp_path, slices, nested):
    write_dicom(tmp_path / "src" / "a" / "b", noise(slices))
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for file in sorted((tmp_path / "src").rglob("*.dcm")):
            archive.write(file, file.relative_to(tmp_path / "src") if nested else file.name)
    for name in ("src", "study.zip"):
        import_exams(tmp_path / name, tmp_path / f"out {name}")
    assert tree(tmp_path / "out src") == tree(tmp_path / "out study.zip")
    (tmp_path / "bad.zip").write_bytes((tmp_path / "study.zip").read_bytes()[:-30])
    refused(tmp_path / "bad.zip", tmp_path, "zip is damaged")
