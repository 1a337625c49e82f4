"""Which series of a study is used, and what is said of those that are not."""

import re
import warnings
from contextlib import contextmanager, suppress
from dataclasses import asdict

import numpy as np
import pydicom
import pytest
from helpers.dicom import write_dicom
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, EnhancedMRImageStorage
from scipy.spatial.transform import Rotation

from kneessl.errors import UserError
from kneessl.sources.dicom.header import quietly
from kneessl.sources.dicom.image import read_headers
from kneessl.sources.dicom.series import find_knees
from kneessl.sources.importer import import_exams
from kneessl.sources.notes import Notes
from kneessl.sources.volume import directions_of

SAGITTAL, CORONAL, AXIAL = directions_of("LIP"), directions_of("PIL"), directions_of("IPL")
CORONAL[0] *= -1  # DICOM's normal is row x column
PD_FS = {"RepetitionTime": 3000, "EchoTime": 34, "ScanOptions": "FS"}
PD = {"RepetitionTime": 3000, "EchoTime": 30, "ScanOptions": "PFP"}
T2_FS = {"RepetitionTime": 4000, "EchoTime": 70, "ScanOptions": "FS"}
T2 = {"RepetitionTime": 4000, "EchoTime": 80, "ScanOptions": "PFP"}
T1 = {"RepetitionTime": 600, "EchoTime": 12, "ScanOptions": "PFP"}
SECRETS = ("Quaxolotl", "7730041", "19230817", "Wumbo", "ACC55120")


def noise(slices: int = 6, side: int = 16) -> np.ndarray:
    return np.random.default_rng(slices).integers(0, 1000, (slices, side, side))


def write(folder, series: int, directions=AXIAL, slices: int = 6, position=(60, 0, 0), **tags):
    tags = {"SeriesInstanceUID": f"2.25.{series}"} | tags
    write_dicom(folder, noise(slices), directions, position=position, **tags)


def knees(folder, weighting=None, notes=None, echo_ms=30.0, every_echo=False):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    notes = Notes(skip_faulty=True) if notes is None else notes
    images = read_headers(((file, f"file {n} of {len(files)}") for n, file in enumerate(files, start=1)), notes)
    return find_knees(images, echo_ms, every_echo, notes, weighting)


@contextmanager
def no_warnings():
    """Warnings that get out are errors: they may quote what stands in a header."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def line(knee, number):
    return next(line for line in knee.facts if line.number == number)


def chosen(knee, plane="axial"):
    return knee.candidates[plane][0].images[0].series


# ---- ranking


@pytest.mark.parametrize(
    ("better", "worse", "why"),
    [
        ({**PD, "ImageType": ["ORIGINAL", "PRIMARY"]}, {**PD_FS, "ImageType": ["DERIVED", "PRIMARY"]}, "an original"),
        (PD_FS, PD, "PD or T2 with fat suppressed first, T1 last"),
        (T2_FS, {**T1, "EchoTime": 29.9}, "PD or T2 with fat suppressed first, T1 last"),
        (T2, T1, "PD or T2 with fat suppressed first, T1 last"),
        ({**T1, "ScanOptions": "PFP"}, {**T1, "EchoTime": 11, "ScanOptions": "FS"}, "echo nearest 30 ms"),
        (PD_FS, T2_FS, "echo nearest 30 ms"),
        ({**PD, "slices": 9}, {**PD, "slices": 8}, "most slices"),
        (
            {**PD, "ImageType": ["DERIVED", "PRIMARY", "DIXON", "WATER"]},
            {**PD, "ImageType": ["ORIGINAL", "PRIMARY", "M"]},
            "PD or T2 with fat suppressed first, T1 last",
        ),
    ],
)
def test_rank(tmp_path, better, worse, why):
    write(tmp_path, 1, **worse)
    write(tmp_path, 2, **better)
    (knee,) = knees(tmp_path)
    first, second = knee.candidates["axial"]
    assert chosen(knee) == "2.25.2"
    assert (line(knee, first.number).used, line(knee, second.number).used) == (True, False)
    assert f"1 of 2 series of its plane ({why}" in line(knee, first.number).reason
    assert f"series {first.number} of its plane comes first ({why}" in line(knee, second.number).reason
    assert line(knee, first.number).reason == first.choice[0]


def test_equals_are_parted_by_a_hash_and_not_by_file_names(tmp_path):
    for folder, order in (("a", (1, 2, 3)), ("b", (3, 1, 2))):
        for series in order:
            write(tmp_path / folder / str(order), series, **PD)
    first, again = (knees(tmp_path / folder)[0] for folder in ("a", "b"))
    assert chosen(first) == chosen(again)
    assert [asdict(one) for one in first.facts] == [asdict(one) for one in again.facts]
    assert "a hash" in line(first, first.series[0].number).reason


@pytest.mark.parametrize(("wanted", "best"), [("T1", 3), ("PD", 4), ("T2", 5), (None, 4)])
def test_the_weighting_that_is_wanted_comes_first(tmp_path, wanted, best):
    for series, tags in enumerate((PD, T2, T1, PD_FS, T2_FS), start=1):
        write(tmp_path, series, **tags)
    (knee,) = knees(tmp_path, {"axial": wanted} if wanted else None)
    assert chosen(knee) == f"2.25.{best}"
    if wanted == "T1":
        assert "(T1 is wanted of this plane)" in knee.series[0].choice[0]


def test_a_derived_series_or_another_weighting_is_taken_for_want_of_a_better_and_said(tmp_path):
    write(tmp_path, 1, **PD, ImageType=["DERIVED", "PRIMARY", "OTHER"])
    (knee,) = knees(tmp_path, {"axial": "T1"})
    (fact,) = knee.facts
    assert fact.used
    assert fact.reason == (
        "the only series of its plane; not T1, which is wanted of this plane, but there is none; "
        "its ImageType is DERIVED, but there is no original"
    )


def test_import_takes_the_weighting(tmp_path):
    write(tmp_path / "src", 1, CORONAL, **PD_FS)
    write(tmp_path / "src", 2, CORONAL, **T1, slices=7)
    for name, weighting, slices in (("any", None, 6), ("t1", {"coronal": "T1"}, 7)):
        import_exams(tmp_path / "src", tmp_path / name, weighting=weighting)
        assert len(np.load(tmp_path / name / "train/coronal/0000.npy")) == slices
    assert "T1 without fat suppression by TR 600 ms, TE 12 ms" in (tmp_path / "t1/exams.csv").read_text()


def test_facts_of_a_plain_study(tmp_path):
    tilted = AXIAL @ Rotation.from_euler("x", 12, degrees=True).as_matrix().T
    write(tmp_path, 1, SAGITTAL, slices=9, Laterality="L", **PD_FS)
    write(tmp_path, 2, tilted, Laterality="L", **T1)
    (knee,) = knees(tmp_path)
    assert [one.plane for one in knee.series] == ["sagittal", "axial"]
    facts = {one.plane: one for one in knee.facts}
    assert asdict(facts["sagittal"]) == {
        "number": facts["sagittal"].number,
        "plane": "sagittal",
        "obliquity_deg": 0.0,
        "slices": 9,
        "slice_mm": 3.0,
        "echo_ms": 34.0,
        "weighting": "PD",
        "fat_suppressed": True,
        "contrast_from": "TR 3000 ms, TE 34 ms, ScanOptions FS",
        "laterality": "L",
        "used": True,
        "reason": "the only series of its plane",
    }
    assert facts["axial"].obliquity_deg == 12.0
    assert sorted(one.number for one in knee.facts) == [1, 2]
    assert (knee.laterality, knee.laterality_from, knee.laterality_sure, knee.flags) == ("L", "its tag", True, ())
    assert knee.left_out == ()


def test_echoes_of_one_acquisition(tmp_path):
    for echo in (10, 28, 45):
        write(tmp_path, 1, RepetitionTime=3000, EchoTime=echo)
    write(tmp_path, 2, RepetitionTime=3000, EchoTime=90)
    (knee,) = knees(tmp_path)
    facts = {one.echo_ms: one for one in knee.facts}
    used = facts[28.0].number
    assert [one.number for one in knee.candidates["axial"]] == [used, facts[90.0].number]
    assert facts[10.0].reason == f"the echo of series {used}, of the same acquisition, is nearer 30 ms"
    assert facts[90.0].reason == f"series {used} of its plane comes first (echo nearest 30 ms)"
    exams = knees(tmp_path, every_echo=True)
    assert [[one.echo_ms for one in exam.facts if one.used] for exam in exams] == [[10.0], [28.0], [45.0]]
    assert len({exam.key for exam in exams}) == 3
    assert {one.reason for one in exams[0].facts if one.echo_ms in {28.0, 45.0}} == {"its echo is an exam of its own"}


# ---- left out


LEFT_OUT = {
    "localisers": ["ORIGINAL", "PRIMARY", "LOCALIZER"],
    "reformatted images (MPR)": ["DERIVED", "SECONDARY", "MPR", "CSA MPR"],
    "reformatted images (MPR) ": ["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"],
    "reformatted images (MPR)  ": ["DERIVED", "PRIMARY", "M", "RESAMPLED"],
    "projections": ["DERIVED", "SECONDARY", "PROJECTION IMAGE"],
    "projections ": ["DERIVED", "PRIMARY", "MIP"],
    "subtractions": ["DERIVED", "PRIMARY", "SUBTRACT", "NONE"],
    "secondary images": ["DERIVED", "SECONDARY", "OTHER"],
    "screen saves": ["DERIVED", "SECONDARY", "SCREEN SAVE"],
    "fat images (Dixon)": ["DERIVED", "PRIMARY", "DIXON", "FAT"],
    "opposed-phase images (Dixon)": ["ORIGINAL", "PRIMARY", "OP", "OP"],
    "computed maps": ["DERIVED", "PRIMARY", "T2 MAP"],
    "phase images": ["ORIGINAL", "PRIMARY", "P", "ND"],
}


@pytest.mark.parametrize(("what", "image_type"), LEFT_OUT.items())
def test_left_out_by_image_type(tmp_path, what, image_type):
    write(tmp_path, 1, slices=9, ImageType=image_type)
    write(tmp_path, 2, slices=6)
    (knee,) = knees(tmp_path)
    assert chosen(knee) == "2.25.2"
    assert [one.slices for one in knee.facts] == [6]
    (left_out,) = knee.left_out
    assert left_out.startswith(what.strip())
    assert left_out.endswith("(9)")


@pytest.mark.parametrize(
    "image_type", [["ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D"], ["DERIVED", "PRIMARY", "M", "ND"]]
)
def test_normalised_and_corrected_originals_are_kept(tmp_path, image_type):
    write(tmp_path, 1, ImageType=image_type)
    assert knees(tmp_path)[0].facts[0].used


@pytest.mark.parametrize(
    ("tags", "what"),
    [
        ({"BurnedInAnnotation": "YES"}, "images with text burned into their pixels (6)"),
        ({"BodyPartExamined": "L SPINE"}, "images of another body part (SPINE) (6)"),
        ({"Modality": "CT"}, "images of modality CT (6)"),
    ],
)
def test_left_out_by_other_attributes(tmp_path, tags, what):
    write(tmp_path, 1, **tags)
    write(tmp_path, 2, slices=7, BurnedInAnnotation="NO", BodyPartExamined="KNEE")
    (knee,) = knees(tmp_path)
    assert knee.left_out == (what,)
    assert [one.slices for one in knee.facts] == [7]


def test_what_is_left_out_is_told_of_its_own_study_only(tmp_path):
    write(tmp_path, 1, StudyInstanceUID="2.25.100")
    write(tmp_path, 2, StudyInstanceUID="2.25.200")
    write(tmp_path, 3, StudyInstanceUID="2.25.200", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    (tmp_path / "notes.txt").write_text("not DICOM, and of no study that can be told")
    found = {knee.series[0].images[0].study: knee.left_out for knee in knees(tmp_path)}
    assert found == {
        "2.25.100": ("files that are not DICOM (1)",),
        "2.25.200": ("files that are not DICOM (1)", "localisers (6)"),
    }


# ---- series that cannot be used


def removed(folder, number):
    files = [file for file in folder.iterdir() if pydicom.dcmread(file).InstanceNumber == number]
    for file in files:
        file.unlink()


def test_a_series_that_cannot_be_used_leaves_the_others_and_says_why(tmp_path):
    write(tmp_path / "gap", 1, SAGITTAL, slices=9)
    removed(tmp_path / "gap", 6)
    write(tmp_path / "few", 2, CORONAL, slices=4)
    write(tmp_path / "twice", 3, AXIAL, ImagePositionPatient=[1, 2, 3])
    write(tmp_path / "good", 4, AXIAL, slices=7)
    for slices, echo in ((6, 10), (7, 30)):
        write(tmp_path / "echoes", 5, CORONAL, slices=slices, EchoTime=echo)
    notes = Notes(skip_faulty=True)
    (knee,) = knees(tmp_path, notes=notes)
    assert [(one.plane, len(one.images)) for one in knee.series] == [("axial", 7)]
    reasons = {(one.plane, one.slices): one.reason for one in knee.facts}
    assert "gap of 6.0 mm after slice" in reasons["sagittal", 8]
    assert "fewer than 5 slices" in reasons["coronal", 4]
    assert "two images at the same position" in reasons["axial", 6]
    assert "6 images at echo 10 ms, but 7 at another" in reasons["coronal", 6] == reasons["coronal", 7]
    assert [one.slices for one in knee.facts if one.used] == [7]
    assert sorted(one.number for one in knee.facts) == [1, 2, 3, 4, 5, 6]
    assert knee.left_out == ()  # all of these became series
    assert len(notes.left_out) == 4


def test_mixed_orientations_are_parted(tmp_path):
    write(tmp_path, 1, AXIAL, slices=7)
    write(tmp_path, 1, SAGITTAL, slices=3)
    notes = Notes()
    (knee,) = knees(tmp_path, notes=notes)
    reasons = {one.plane: one.reason for one in knee.facts}
    assert reasons["axial"] == "the only series of its plane"
    assert reasons["sagittal"] == "fewer than 5 slices (the images of its series have 2 orientations)"
    assert str(notes) == (
        "series with fewer than 5 slices (the images of their SeriesInstanceUID have 2 orientations) (1)"
    )


def test_what_parts_a_series_until_nothing_of_it_is_left_is_said(tmp_path):
    notes = Notes()
    for echo in (30, 30.2, 30.4):
        write(tmp_path, 1, AXIAL, slices=3, EchoTime=echo)
    assert knees(tmp_path, notes=notes) == []
    assert "their SeriesInstanceUID have 3 echo times) (3)" in str(notes)


def test_a_fault_in_one_study_does_not_touch_another(tmp_path):
    write(tmp_path / "good", 1, StudyInstanceUID="2.25.100")
    (alone,) = knees(tmp_path)
    write(tmp_path / "bad", 2, StudyInstanceUID="2.25.200", ImagePositionPatient=[1, 2, 3])
    write(tmp_path / "worse", 3, StudyInstanceUID="2.25.300", PixelSpacing=[0, 0])
    notes = Notes(skip_faulty=True)
    (knee,) = knees(tmp_path, notes=notes)
    assert (knee.key, knee.facts, knee.left_out) == (alone.key, alone.facts, ())
    assert "two images at the same position" in str(notes)
    assert "no valid PixelSpacing" in str(notes)
    assert notes.of_study("2.25.200") != notes.of_study("2.25.300")


def test_a_study_without_anything_to_use_is_no_knee_but_says_why(tmp_path):
    write(tmp_path, 1, slices=3)
    write(tmp_path, 2, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    notes = Notes(skip_faulty=True)
    assert knees(tmp_path, notes=notes) == []
    assert str(notes) == "localisers (6); series with fewer than 5 slices (1)"


@pytest.mark.parametrize("far", ["1e300", "-20000"])
def test_a_position_out_of_reach_counts_as_missing(tmp_path, far):
    write(tmp_path, 1, ImagePositionPatient=[far, "0", "0"])
    with no_warnings():
        (knee,) = knees(tmp_path)
    assert knee.series[0].order.startswith("InstanceNumber")
    assert knee.laterality == ""


@pytest.mark.parametrize("spacing", [["1e-5", "1"], ["1", "1e4"], ["-1", "1"]])
def test_a_pixel_of_no_possible_size_is_a_fault(tmp_path, spacing):
    write(tmp_path, 1, PixelSpacing=spacing)
    with pytest.raises(UserError, match="file 1 of 6 has no valid PixelSpacing"):
        knees(tmp_path, notes=Notes())


def test_faults_are_raised_unless_they_are_skipped(tmp_path):
    write(tmp_path, 1, ImagePositionPatient=[1, 2, 3])
    with pytest.raises(UserError, match="two images at the same position"):
        knees(tmp_path, notes=Notes())


def test_another_plane_survives_pixels_that_cannot_be_decoded(tmp_path):
    write(tmp_path / "src", 1, SAGITTAL, PixelData=b"\0\0")
    write(tmp_path / "src", 2, AXIAL)
    import_exams(tmp_path / "src", tmp_path / "out")
    assert [path.parent.name for path in (tmp_path / "out").rglob("*.npy")] == ["axial"]


# ---- laterality


def test_a_tag_that_the_position_contradicts(tmp_path):
    write(tmp_path, 1, Laterality="R", position=(60, 0, 0))
    (knee,) = knees(tmp_path)
    assert (knee.laterality, knee.laterality_sure) == ("R", False)
    assert knee.flags == (
        "Series 1 is tagged right, but its centre lies 68 mm to the patient's left; check which knee this is.",
    )


@pytest.mark.parametrize(("x", "side", "sure"), [(60, "L", False), (-90, "R", False), (0, "", False)])
def test_without_a_tag_the_side_is_unsure(tmp_path, x, side, sure):
    write(tmp_path, 1, position=(x, 0, 0))
    (knee,) = knees(tmp_path)
    assert (knee.laterality, knee.laterality_sure, knee.flags) == (side, sure, ())
    assert "no tag" in knee.laterality_from


def test_one_wrong_tag_among_series_of_one_place_makes_no_second_knee(tmp_path):
    for series, (directions, side) in enumerate(((SAGITTAL, "L"), (CORONAL, "R"), (AXIAL, "L")), start=1):
        write(tmp_path, series, directions, Laterality=side, position=(90, 0, 0))
    (knee,) = knees(tmp_path)
    assert (knee.laterality, knee.laterality_sure, len(knee.series)) == ("L", False, 3)
    (flag,) = knee.flags
    assert re.fullmatch(
        r"Series \d is tagged right, but its centre lies \d+ mm to the patient's left, where others are tagged "
        "left, and it was taken as left; check which knee this is.",
        flag,
    )


def test_one_tag_against_one_is_no_majority_and_makes_two_knees(tmp_path):
    """Whoever turns the patient round in one coil gets two knees in one place."""
    write(tmp_path, 1, SAGITTAL, Laterality="L", position=(90, 0, 0))
    write(tmp_path, 2, SAGITTAL, Laterality="R", position=(90, 0, 0))
    found = sorted(knees(tmp_path), key=lambda knee: knee.laterality)
    assert [knee.laterality for knee in found] == ["L", "R"]
    assert [bool(knee.flags) for knee in found] == [False, True]


def test_a_wrong_tag_far_from_the_others_is_another_knee(tmp_path):
    write(tmp_path, 1, SAGITTAL, Laterality="L", position=(90, 0, 0))
    write(tmp_path, 2, AXIAL, Laterality="R", position=(-90, 0, 0))
    assert {knee.laterality for knee in knees(tmp_path)} == {"L", "R"}


def test_tags_within_one_series_that_contradict(tmp_path):
    write(tmp_path, 1, slices=6, Laterality="R")
    some = sorted(tmp_path.iterdir())[0]
    data = pydicom.dcmread(some)
    data.Laterality = "L"
    data.save_as(some)
    (knee,) = knees(tmp_path)
    assert (knee.laterality, knee.laterality_sure) == ("L", False)  # by the centre
    assert knee.flags == ("Series 1 has images tagged left and images tagged right; check which knee this is.",)


def test_series_without_a_tag_follow_the_others(tmp_path):
    write(tmp_path, 1, SAGITTAL, Laterality="L")
    write(tmp_path, 2, AXIAL)
    (knee,) = knees(tmp_path)
    assert {one.laterality for one in knee.facts} == {"L"}
    assert len(knee.series) == 2
    assert (knee.laterality_from, knee.laterality_sure, knee.flags) == ("its tag", True, ())


def test_an_untagged_series_of_the_other_knee_is_not_mixed_in(tmp_path):
    write(tmp_path, 1, SAGITTAL, Laterality="L", position=(60, 0, 0))
    write(tmp_path, 2, AXIAL, position=(-110, 0, 0))
    left, right = sorted(knees(tmp_path), key=lambda knee: knee.laterality)
    assert [one.plane for one in left.series] == ["sagittal"]
    assert [one.plane for one in right.series] == ["axial"]
    assert left.flags == ()
    assert "no tag, and the study's others are tagged left" in right.flags[0]
    assert not right.laterality_sure


def test_where_the_tagged_series_lies_off_its_side_too_the_others_follow_it(tmp_path):
    write(tmp_path, 1, SAGITTAL, Laterality="R", position=(60, 0, 0))
    write(tmp_path, 2, AXIAL, position=(60, 0, 0))
    (knee,) = knees(tmp_path)
    assert (knee.laterality, len(knee.series), len(knee.flags), knee.laterality_sure) == ("R", 2, 2, False)


def test_near_the_middle_two_sides_are_one_knee(tmp_path):
    write(tmp_path, 1, SAGITTAL, position=(25, 0, 0))
    write(tmp_path, 2, AXIAL, position=(-40, 0, 0))
    (knee,) = knees(tmp_path)
    assert (knee.laterality, len(knee.series)) == ("", 2)
    assert "both sides of the middle" in knee.flags[0]


def test_two_knees_and_a_series_of_neither(tmp_path):
    write(tmp_path, 1, SAGITTAL, Laterality="L", slices=6)
    write(tmp_path, 2, SAGITTAL, Laterality="R", slices=7, position=(-60, 0, 0))
    write(tmp_path, 3, AXIAL, slices=8, position=(-8, 0, 0))
    found = {knee.laterality: knee for knee in knees(tmp_path)}
    assert set(found) == {"L", "R"}
    for knee in found.values():
        assert [one.plane for one in knee.series] == ["sagittal"]
        reasons = {one.slices: one.reason for one in knee.facts}
        assert reasons.pop(8) == "its side is unknown, in a study of both knees"
        assert len(reasons) == 1


# ---- prepared


@pytest.mark.parametrize("code", ["LIP", "RIA", "PIR", "AIL", "IPL", "SPR", "SAL"])
def test_images_are_in_the_order_of_the_slices(tmp_path, code):
    directions = directions_of(code)
    if np.linalg.det(directions[[2, 1, 0]]) < 0:
        directions[0] *= -1
    # Each slice is brighter than the one before it, as stored.
    voxels = noise(7, 16) + 5000 * np.arange(7)[:, None, None]
    write_dicom(tmp_path, voxels, directions)
    prepared = knees(tmp_path)[0].series[0].prepared()
    stored = [pydicom.dcmread(image.file).pixel_array.mean() for image in prepared.images]
    shown = prepared.volume.astype(float).mean(axis=(1, 2))
    np.testing.assert_array_equal(np.argsort(stored), np.argsort(shown))
    assert len(set(shown)) == 7


def test_the_images_of_the_real_knee_are_in_the_order_of_its_slices(real_data):
    (knee,) = knees(real_data("knee_mese"))
    prepared = knee.series[0].prepared()
    assert len(prepared.images) == len(prepared.volume) == 24
    for image, shown in zip(prepared.images, prepared.volume, strict=True):
        stored = pydicom.dcmread(image.file).pixel_array.astype(float)
        assert np.corrcoef(stored.ravel(), shown.astype(float).ravel())[0, 1] > 0.95  # saturated by the window
        assert image.echo_ms == 31.56
    assert {one.echo_ms for one in knee.facts if one.used} == {31.56}
    assert len(knee.facts) == 8
    x = [image.position[0] for image in prepared.images]
    assert x == sorted(x)  # from the patient's right to left


def enhanced(file, voxels, positions, image_types, **tags):
    """One enhanced file: a frame for each slice, in the order given."""

    def item(**values):
        data = Dataset()
        for name, value in values.items():
            setattr(data, name, value)
        return data

    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=[*map(float, AXIAL[2]), *map(float, AXIAL[1])])],
        PixelMeasuresSequence=[item(PixelSpacing=[1, 1], SliceThickness=3)],
        MRTimingAndRelatedParametersSequence=[item(RepetitionTime=3000, FlipAngle=90)],
        MREchoSequence=[item(EffectiveEchoTime=34.0)],
    )
    frames = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=list(map(float, position)))],
            MRImageFrameTypeSequence=[item(FrameType=image_type)],
        )
        for position, image_type in zip(positions, image_types, strict=True)
    ]
    write_dicom(
        file.parent,
        voxels[:1],
        SOPClassUID=EnhancedMRImageStorage,
        NumberOfFrames=len(voxels),
        PixelData=voxels.astype("<u2").tobytes(),
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=frames,
        ImageOrientationPatient=None,
        ImagePositionPatient=None,
        PixelSpacing=None,
        EchoTime=None,
        **tags,
    )


def test_frames_of_an_enhanced_file_are_in_the_order_of_the_slices(tmp_path):
    order = [3, 0, 6, 1, 5, 2, 4]
    voxels = noise(7, 16) + 5000 * np.array(order)[:, None, None]
    water, fat = ["DERIVED", "PRIMARY", "DIXON", "WATER"], ["DERIVED", "PRIMARY", "DIXON", "FAT"]
    positions = [(60, 0, 3 * place) for place in order]
    enhanced(tmp_path / "one.dcm", np.concatenate([voxels, voxels]), positions * 2, [water] * 7 + [fat] * 7)
    (knee,) = knees(tmp_path)
    assert knee.left_out == ("fat images (Dixon) (7)",)
    (fact,) = knee.facts
    assert (fact.weighting, fact.fat_suppressed, fact.used) == ("PD", True, True)
    prepared = knee.series[0].prepared()
    frames = [image.frame for image in prepared.images]
    assert [order[frame] for frame in frames] == [6, 5, 4, 3, 2, 1, 0]  # from superior to inferior
    stored = [voxels[frame].mean() for frame in frames]
    np.testing.assert_array_equal(np.argsort(stored), np.argsort(prepared.volume.astype(float).mean(axis=(1, 2))))


# ---- hostile input


def everything_said(knees, notes) -> str:
    said = [str(notes)]
    for knee in knees:
        said += [str([asdict(one) for one in knee.facts]), *knee.flags, *knee.left_out, knee.key, knee.laterality_from]
        said += [str(series.choice) + series.name + series.order for series in knee.series]
    return "\n".join(said)


HOSTILE = st.one_of(
    st.sampled_from([*SECRETS, "", "\\", "NaN", "1e400", "-1", "0", "1\\2", "1e-320", "9" * 20, "L", "Ü\0", "1e300"]),
    st.floats().map(repr),
    st.text("019.eE-\\+ LRabc", max_size=12),
)
ATTRIBUTES = [
    *("ImageType", "Modality", "BodyPartExamined", "Laterality", "ImageLaterality", "PatientID", "SOPInstanceUID"),
    *("PhotometricInterpretation", "BurnedInAnnotation", "StudyInstanceUID", "SeriesInstanceUID", "InstanceNumber"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SpacingBetweenSlices", "SliceThickness"),
    *("RescaleIntercept", "RescaleSlope", "EchoTime", "RepetitionTime", "InversionTime", "FlipAngle", "ScanOptions"),
    *("ScanningSequence", "SequenceVariant", "SequenceName", "PulseSequenceName", "SeriesDescription", "ProtocolName"),
    *("NumberOfFrames", "SpectrallySelectedSuppression", "AcquisitionContrast", "EchoPulseSequence"),
]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    write(folder, 1, **PD_FS)
    return [pydicom.dcmread(file) for file in sorted(folder.iterdir())]


def planted(data, values):
    """A copy whose attributes hold raw bytes, which pydicom would refuse to write as values."""
    data = pydicom.dcmread(pydicom.filebase.DicomBytesIO(_bytes(data)))
    for keyword, value in values.items():
        element = pydicom.dataelem.RawDataElement(
            pydicom.tag.Tag(keyword),
            pydicom.datadict.dictionary_VR(keyword),
            len(raw := _padded(value)),
            raw,
            0,
            False,
            True,
        )
        data._dict[element.tag] = element
    return _bytes(data)


def _padded(value):
    raw = value.encode("utf-8")
    return raw + b" " * (len(raw) % 2)


def _bytes(data):
    buffer = pydicom.filebase.DicomBytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_damaged_attributes_are_refused_or_left_out_and_never_quoted(plain, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("hostile")
    values = data.draw(st.dictionaries(st.sampled_from(ATTRIBUTES), HOSTILE, min_size=1, max_size=6))
    which = data.draw(st.sets(st.integers(0, len(plain) - 1), min_size=1))
    for index, one in enumerate(plain):
        with quietly():
            (folder / f"{index}").write_bytes(planted(one, values) if index in which else _bytes(one))
    said = []
    for notes in (Notes(skip_faulty=True), Notes()):
        with no_warnings():
            try:
                found = knees(folder, notes=notes)
                said.append(everything_said(found, notes))
                said += [series.prepared().choice for knee in found for series in knee.series]
            except UserError as error:
                said.append(str(error))
    assert not [secret for secret in SECRETS if secret in "\n".join(said)]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_damaged_bytes_are_refused_or_left_out(plain, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    for index, one in enumerate(plain):
        content = bytearray(_bytes(one))
        header = content.index(b"\xe0\x7f\x10\x00")
        for _ in range(data.draw(st.integers(0, 4))):
            content[data.draw(st.integers(0, header))] = data.draw(st.integers(0, 255))
        kept = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
        (folder / f"{index}").write_bytes(content[:kept])
    with no_warnings():
        for series in [series for knee in knees(folder) for series in knee.series]:
            with suppress(UserError):
                series.prepared()


@pytest.mark.parametrize("keyword", ["EchoTime", "RepetitionTime", "InversionTime", "FlipAngle", "SliceThickness"])
def test_a_number_that_no_scanner_has_is_not_quoted(tmp_path, keyword):
    write(tmp_path, 1, **(PD_FS | {keyword: 7730041}))
    notes = Notes(skip_faulty=True)
    assert "7730041" not in everything_said(knees(tmp_path, notes=notes), notes)


def test_planted_identity_is_in_nothing_that_is_said(tmp_path):
    everywhere = {
        "PatientName": "Quaxolotl^Zyphira",
        "PatientID": "PID7730041",
        "PatientBirthDate": "19230817",
        "InstitutionName": "Saint Wumbo",
        "AccessionNumber": "ACC55120",
        "SeriesDescription": "t2 knee of Quaxolotl",
        "ProtocolName": "Wumbo PD FS",
        "SequenceName": "Quaxolotl",
        "BodyPartExamined": "WUMBO KNEE",
        "ScanOptions": ["FS", "QUAXOLOTL"],
        "ImageType": ["ORIGINAL", "PRIMARY", "QUAXOLOTL"],
    }
    write(tmp_path / "Quaxolotl", 1, SAGITTAL, **everywhere)
    write(tmp_path / "Quaxolotl", 2, AXIAL, slices=3, **everywhere)
    write(tmp_path / "Quaxolotl", 3, AXIAL, ImagePositionPatient=[1, 2, 3], **everywhere)
    write(tmp_path / "Quaxolotl", 4, AXIAL, PixelSpacing=None, **everywhere)
    write(tmp_path / "Quaxolotl", 5, AXIAL, **everywhere | {"Modality": "WUMBO"})
    notes = Notes(skip_faulty=True)
    (knee,) = found = knees(tmp_path, notes=notes)
    said = everything_said(found, notes) + knee.series[0].prepared().choice
    assert len(knee.facts) == 3
    assert line(knee, knee.series[0].number).fat_suppressed
    assert not [secret for secret in SECRETS if secret.lower() in said.lower()]


def test_a_deflated_file_is_read_unless_it_is_a_bomb(tmp_path, monkeypatch):
    write(tmp_path, 1)
    for file in tmp_path.iterdir():
        data = pydicom.dcmread(file)
        data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        data.save_as(file)
    assert len(knees(tmp_path)[0].series[0].prepared().volume) == 6
    monkeypatch.setattr("kneessl.sources.dicom.header._LARGEST_DEFLATED", 100)
    notes = Notes(skip_faulty=True)
    assert knees(tmp_path, notes=notes) == []
    assert "a large file in the deflated encoding" in str(notes)


def test_a_series_that_claims_too_many_pixels_is_not_decoded(tmp_path, monkeypatch):
    write(tmp_path, 1)
    monkeypatch.setattr("kneessl.sources.dicom.pixels._MOST_PIXELS", 6 * 16 * 16 - 1)
    with pytest.raises(UserError, match="claims more pixels than any knee series has"):
        knees(tmp_path)[0].series[0].prepared()
