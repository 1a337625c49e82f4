"""Files that do not follow the standard to the letter, as archives and scanners write them."""

import csv
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from helpers.dicom import write_dicom
from pydicom.dataelem import DataElement
from pydicom.uid import DeflatedExplicitVRLittleEndian

from kneessl.errors import UserError
from kneessl.sources.dicom.image import images, read_headers
from kneessl.sources.dicom.pixels import values
from kneessl.sources.dicom.series import find_knees
from kneessl.sources.importer import import_exams
from kneessl.sources.notes import Notes
from kneessl.sources.volume import directions_of

SAGITTAL = directions_of("LIP")


def noise(slices: int = 6, side: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([slices, seed]).integers(0, 1000, (slices, side, side))


def only(folder) -> np.ndarray:
    (file,) = folder.rglob("*.npy")
    return np.load(file)


def rows(folder):
    with (folder / "exams.csv").open() as file:
        return list(csv.DictReader(file))


def in_order(folder):
    return sorted(folder.iterdir(), key=lambda file: pydicom.dcmread(file).InstanceNumber)


# ---- without a preamble


def without_preamble(file):
    file.write_bytes(file.read_bytes()[132:])


def without_meta(explicit, little):
    def strip(file):
        data = pydicom.dcmread(file)
        data.ensure_file_meta()
        if not little:
            data["PixelData"].value = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
        with file.open("wb") as out:
            bare = pydicom.Dataset(data)
            pydicom.dcmwrite(out, bare, enforce_file_format=False, implicit_vr=not explicit, little_endian=little)

    return strip


BARE = [without_preamble, without_meta(True, True), without_meta(False, True), without_meta(True, False)]


@pytest.mark.parametrize("strip", BARE, ids=["preamble", "explicit", "implicit", "big-endian"])
@pytest.mark.parametrize("some", [slice(None), slice(2, 5)])
def test_files_without_a_preamble_are_read(tmp_path, strip, some):
    for name in ("whole", "bare"):
        write_dicom(tmp_path / name, noise(9), SAGITTAL)
    for number, file in enumerate(in_order(tmp_path / "bare")[some]):
        strip(file)
        assert file.read_bytes()[128:132] != b"DICM"
        file.rename(file.with_name(f"IM{number}"))
    for name in ("whole", "bare"):
        import_exams(tmp_path / name, tmp_path / f"out {name}")
    np.testing.assert_array_equal(only(tmp_path / "out whole"), only(tmp_path / "out bare"))


@pytest.mark.parametrize(
    "content", [b"", b"\x08\x00", b"hello, this is text", b"\x02\x00\x01", bytes(200), b"II*\0" * 50]
)
def test_what_only_begins_a_little_like_dicom_is_none(tmp_path, content):
    (tmp_path / "IM1").write_bytes(content)
    notes = Notes(skip_faulty=True)
    assert images(tmp_path / "IM1", "file 1 of 1", notes) == []
    assert str(notes) in {
        "files that are not DICOM (1)",
        "file 1 of 1 is damaged or not DICOM; export it again, or remove it (1)",
    }


def test_a_deflated_bomb_without_a_preamble_is_refused(tmp_path, monkeypatch):
    write_dicom(tmp_path, noise(6))
    file = in_order(tmp_path)[0]
    data = pydicom.dcmread(file)
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.save_as(file)
    without_preamble(file)
    assert len(images(file, "file 1 of 1", Notes())) == 1
    monkeypatch.setattr("kneessl.sources.dicom.header._LARGEST_DEFLATED", 100)
    with pytest.raises(UserError, match="deflated"):
        images(file, "file 1 of 1", Notes())


# ---- pixel padding


def padded(folder, vr, value, limit=None, signed=True, stored=16):
    rng = np.random.default_rng(3)
    for index in range(6):
        voxels = rng.integers(0, 500, (16, 16))
        voxels[:, :5] = -2000 if signed else 60_000
        voxels[:, 5] = -1900 if signed else 60_100
        write_dicom(folder, voxels[None].astype("<i2" if signed else "<u2").view("<u2"), position=(40, 0, -3 * index),
                    InstanceNumber=index + 1, BitsStored=stored, HighBit=stored - 1,
                    PixelRepresentation=int(signed))  # fmt: skip
    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        data[0x00280120] = DataElement(0x00280120, vr, value)
        if limit is not None:
            data[0x00280121] = DataElement(0x00280121, vr, limit)
        data.save_as(file)
    headers = read_headers([(file, "file") for file in folder.iterdir()], Notes())
    return np.isnan(values(headers)).sum(axis=(0, 1)) / 96


@pytest.mark.parametrize(
    ("vr", "value", "limit", "signed", "columns"),
    [
        ("SS", -2000, None, True, 5),
        ("US", 63536, None, True, 5),
        ("US", 63536, 63636, True, 6),
        ("US", 63636, 63536, True, 6),
        ("SS", -2000, -1900, True, 6),
        ("US", 60_000, None, False, 5),
        ("SS", 60_000 - 65_536, None, False, 5),
        ("SS", 60_000 - 65_536, 60_100 - 65_536, False, 6),
        ("US", 7777, None, True, 0),
    ],
)
def test_padding_is_read_by_the_representation_of_the_pixels(tmp_path, vr, value, limit, signed, columns):
    assert padded(tmp_path, vr, value, limit, signed).tolist() == [1] * columns + [0] * (16 - columns)


def test_padding_in_the_bits_that_are_stored(tmp_path):
    assert padded(tmp_path, "US", 2**12 - 2000, stored=12).tolist() == [1] * 5 + [0] * 11


# ---- what may not be read


@pytest.fixture
def closed(monkeypatch):
    """Paths that may not be opened or entered, also where tests run as root."""
    paths: set[str] = set()
    scandir, path_open = os.scandir, Path.open

    def guarded_scandir(path="."):
        if not isinstance(path, int) and os.fspath(path) in paths:
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    def guarded_open(self, *arguments, **options):
        if os.fspath(self) in paths:
            raise PermissionError(13, "Permission denied", os.fspath(self))
        return path_open(self, *arguments, **options)

    monkeypatch.setattr(os, "scandir", guarded_scandir)
    monkeypatch.setattr(Path, "open", guarded_open)
    return paths


@pytest.mark.parametrize("folder", ["Quaxolotl", "deep/Quaxolotl"])
def test_a_folder_that_may_not_be_entered_is_said_by_number(tmp_path, closed, capsys, folder):
    write_dicom(tmp_path / "src", noise(7))
    write_dicom(tmp_path / "src" / folder, noise(8), SeriesInstanceUID="2.25.77", StudyInstanceUID="2.25.78")
    closed.add(str(tmp_path / "src" / folder))
    with pytest.raises(UserError, match=r"folder \d of \d may not be entered \(permission denied\)") as error:
        import_exams(tmp_path / "src", tmp_path / "out", strict=True)
    assert "Quaxolotl" not in str(error.value).replace(str(tmp_path), "")
    import_exams(tmp_path / "src", tmp_path / "out")
    assert len(rows(tmp_path / "out")) == 1
    assert "may not be entered" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["dcm", "npy", "nii"])
def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, closed, kind):
    write_dicom(tmp_path / "src", noise(7))
    file = tmp_path / "src" / f"Quaxolotl.{kind}"
    file.write_bytes(b"content")
    closed.add(str(file))
    with pytest.raises(UserError, match=r"file 8 of 8 may not be read \(permission denied\)") as error:
        import_exams(tmp_path / "src", tmp_path / "out", strict=True)
    assert "Quaxolotl" not in str(error.value)


@pytest.mark.parametrize(("to_folder", "to_nowhere"), [(1, 0), (0, 2), (2, 1)])
def test_links_that_are_not_followed_are_said(tmp_path, capsys, to_folder, to_nowhere):
    write_dicom(tmp_path / "src", noise(7))
    write_dicom(tmp_path / "elsewhere", noise(8), SeriesInstanceUID="2.25.77")
    for number in range(to_folder):
        (tmp_path / "src" / f"folder{number}").symlink_to(tmp_path / "elsewhere")
    for number in range(to_nowhere):
        (tmp_path / "src" / f"nowhere{number}").symlink_to(tmp_path / "gone")
    import_exams(tmp_path / "src", tmp_path / "out")
    assert f"links that lead to a folder or nowhere ({to_folder + to_nowhere})" in capsys.readouterr().err


# ---- UIDs that are none


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
@pytest.mark.parametrize("name", ["DOE_JANE_19700101", "1.2.DOE.3", "1.2..3 Quaxolotl", "1" * 70])
def test_a_uid_that_is_none_is_replaced_always_in_the_same_way(tmp_path, caplog, capfd, keyword, name):
    write_dicom(tmp_path, noise(6))
    file = in_order(tmp_path)[0]
    data = pydicom.dcmread(file)
    setattr(data, keyword, name)
    data.save_as(file)
    capfd.readouterr()
    caplog.clear()
    notes = Notes()
    (image,) = images(file, "file 1 of 1", notes)
    (again,) = images(file, "file 1 of 1", Notes())
    assert image == again
    uid = {"StudyInstanceUID": image.study, "SeriesInstanceUID": image.series, "SOPInstanceUID": image.instance}
    if keyword in uid:
        assert uid[keyword] == f"2.25.{int(hashlib.sha256(name.encode()).hexdigest()[:32], 16)}"
        assert pydicom.uid.UID(uid[keyword]).is_valid
        assert notes.assumptions() == ("files whose UIDs are invalid, replaced by a hash of each (1)",)
    else:
        assert image.sop_class == ""
    assert name not in repr((image.study, image.series, image.instance, image.sop_class))
    assert name not in caplog.text + "".join(capfd.readouterr())


@pytest.mark.slow
def test_pydicom_is_quiet_also_where_nobody_asked_it_to_be():
    program = (
        "import kneessl.sources.dicom.image, pydicom, logging; logging.basicConfig(level=0); data = pydicom.Dataset();"
        "data.StudyInstanceUID = data.PatientBirthDate = 'DOE_JANE'; data.EchoTime = 'DOE'"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "DOE" not in said.stdout
    assert "DOE_JANE" not in said.stderr


# ---- complex images


def ge(value, implicit=False):
    def edit(data):
        block = data.private_block(0x0043, "GEMS_PARM_01", create=True)
        if implicit:
            block.add_new(0x2F, "UN", int(value).to_bytes(2, "little"))
        else:
            block.add_new(0x2F, "SS", value)

    return edit


def component(value):
    def edit(data):
        data.ComplexImageComponent = ("MAGNITUDE", "PHASE", "REAL", "IMAGINARY")[value]

    return edit


@pytest.mark.parametrize("tell", [ge, lambda value: ge(value, implicit=True), component])
@pytest.mark.parametrize("components", [(0, 1), (0, 1, 2, 3), (3, 0)])
def test_of_a_complex_series_the_magnitude_is_taken(tmp_path, capsys, tell, components):
    write_dicom(tmp_path / "plain", noise(7, seed=0), SAGITTAL)
    for value in components:
        write_dicom(tmp_path / "src" / str(value), noise(7, seed=value), SAGITTAL)
        for file in (tmp_path / "src" / str(value)).iterdir():
            data = pydicom.dcmread(file)
            tell(value)(data)
            data.save_as(file)
    import_exams(tmp_path / "plain", tmp_path / "out plain")
    import_exams(tmp_path / "src", tmp_path / "out")
    np.testing.assert_array_equal(only(tmp_path / "out"), only(tmp_path / "out plain"))
    left_out = capsys.readouterr().err
    assert ("phase images (7)" in left_out) is (1 in components)
    others = 7 * len({2, 3} & set(components))
    assert (f"real or imaginary images ({others})" in left_out) is bool(others)


# ---- random series UIDs


@pytest.mark.parametrize("slices", [6, 24])
@pytest.mark.parametrize("keyword", ["SeriesInstanceUID", "StudyInstanceUID"])
def test_a_uid_of_its_own_for_each_file_is_said_to_be_that(tmp_path, slices, keyword):
    write_dicom(tmp_path, noise(slices))
    for number, file in enumerate(tmp_path.iterdir()):
        data = pydicom.dcmread(file)
        setattr(data, keyword, f"2.25.9{number}")
        data.save_as(file)
    notes = Notes(skip_faulty=True)
    named = [(file, "file") for file in sorted(tmp_path.iterdir())]
    assert find_knees(read_headers(named, notes), 30.0, False, notes) == []
    assert f"each with a {keyword} of its own" in str(notes)
    assert f"({slices})" in str(notes)


# ---- many of a kind


@pytest.mark.parametrize(("count", "broken"), [(24, "PixelSpacing"), (9, "ImageOrientationPatient")])
def test_bad_files_of_a_kind_are_counted_in_one_line(tmp_path, capsys, count, broken):
    write_dicom(tmp_path / "src", noise(count), **{broken: None})
    write_dicom(tmp_path / "src", noise(7), SAGITTAL, SeriesInstanceUID="2.25.77")
    (tmp_path / "src" / "zzz.dcm").write_bytes(b"hello")
    import_exams(tmp_path / "src", tmp_path / "out")
    left_out = capsys.readouterr().err.splitlines()[0]
    assert left_out.count(f"no valid {broken}") == 1
    assert f"({count} alike)" in left_out
    assert left_out.count(";") == 3  # one between the two kinds, and one in each sentence


# ---- what the campaign found (benchmarks/reliability.py)


@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept"])
@pytest.mark.parametrize("value", [b"nan ", b"inf ", b"-inf"])
def test_a_scale_that_is_not_finite_is_refused_and_not_left_away(tmp_path, keyword, value):
    write_dicom(tmp_path / "in", noise(), SAGITTAL, **{keyword: "123"})
    file = in_order(tmp_path / "in")[2]
    content = file.read_bytes()
    assert content.count(b"DS\4\000123 ") == 1
    file.write_bytes(content.replace(b"DS\4\000123 ", b"DS\4\0" + value))
    with pytest.raises(UserError, match=rf"file \d of 6 has a {keyword} that is not a finite number"):
        import_exams(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize("times", [2, 3])
def test_pixels_beyond_those_that_the_header_tells_of_are_refused(tmp_path, times):
    write_dicom(tmp_path / "in", noise(), SAGITTAL)
    file = in_order(tmp_path / "in")[2]
    data = pydicom.dcmread(file)
    data.PixelData = data.PixelData * times
    data.save_as(file)
    with pytest.raises(UserError, match=r"file \d of 6 has pixels for more images than its header tells of"):
        import_exams(tmp_path / "in", tmp_path / "out")
