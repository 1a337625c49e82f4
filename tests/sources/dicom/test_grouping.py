"""What belongs together: series, stacks, persons; and what is said where a series is parted or was mended."""

import csv
from itertools import count

import numpy as np
import pydicom
import pytest
from helpers.dicom import write_dicom, write_plane

from kneessl.errors import UserError
from kneessl.sources.dicom.grouping import clusters
from kneessl.sources.dicom.image import read_headers
from kneessl.sources.dicom.series import find_knees
from kneessl.sources.importer import import_exams
from kneessl.sources.notes import Notes
from kneessl.sources.volume import directions_of

AXIAL, SAGITTAL = directions_of("IPL"), directions_of("LIP")
CORONAL = directions_of("AIL")  # DICOM's normal is row x column


def noise(slices: int = 8, side: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([slices, seed]).integers(0, 1000, (slices, side, side))


def knees(folder, notes=None):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    notes = Notes(skip_faulty=True) if notes is None else notes
    named = [(file, f"file {n} of {len(files)}") for n, file in enumerate(files, start=1)]
    return find_knees(read_headers(named, notes), 30.0, False, notes)


def change(folder, edit):
    """Edit the files of a folder in the order of their InstanceNumber."""
    read = sorted(((pydicom.dcmread(file), file) for file in folder.iterdir()), key=lambda one: one[0].InstanceNumber)
    for index, (data, file) in enumerate(read):
        edit(index, data)
        data.save_as(file)


def rows(folder):
    with (folder / "exams.csv").open() as file:
        return list(csv.DictReader(file))


# ---- measurement tolerance


@pytest.mark.parametrize("seed", range(3))
def test_clusters_are_those_of_the_widest_gaps_in_any_order(seed):
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.uniform(0, 0.5, (9, 2)), np.array([0, 5]) + rng.uniform(0, 0.5, (7, 2)), [[9, 9]]])
    order = rng.permutation(len(values))
    parts = clusters(values[order], 0.6)
    assert sorted(sorted(order[part].tolist()) for part in parts) == [[*range(9)], [*range(9, 16)], [16]]
    assert [len(part) for part in clusters(values, 0.0)] == [1] * 17
    assert [len(part) for part in clusters(np.zeros((4, 1)), 0.0)] == [4]


def tilted(index, data):
    data.ImageOrientationPatient[2] = -0.0054999 if index < 5 else -0.0055001


def timed(index, data):
    data.EchoTime = "31.0049" if index % 2 else "31.0051"


def spaced(index, data):
    data.PixelSpacing = ["1.00005", "1"] if index % 3 else ["1.00004", "1"]


@pytest.mark.parametrize("edit", [tilted, timed, spaced])
@pytest.mark.parametrize(("slices", "directions"), [(8, AXIAL), (11, SAGITTAL)])
def test_values_on_both_sides_of_a_rounding_edge_are_one_series(tmp_path, edit, slices, directions):
    write_dicom(tmp_path, noise(slices), directions)
    change(tmp_path, edit)
    (knee,) = knees(tmp_path)
    assert [len(series.images) for series in knee.series] == [slices]
    assert knee.remarks == ()


@pytest.mark.parametrize(
    ("attribute", "value", "words"),
    [
        ("ImageType", ["ORIGINAL", "PRIMARY", "M", "NORM"], "2 kinds (ImageType)"),
        ("PixelSpacing", ["1.2", "1.2"], "2 pixel spacings"),
        ("ImageOrientationPatient", ["1", "0", "0", "0", "0.9945", "0.1045"], "2 orientations"),
    ],
)
@pytest.mark.parametrize("moved", [6, 7])
def test_what_parts_a_series_is_said_with_its_parts(tmp_path, capsys, attribute, value, words, moved):
    write_dicom(tmp_path / "src", noise(15), AXIAL)
    change(tmp_path / "src", lambda index, data: setattr(data, attribute, value) if index < moved else None)
    (knee,) = knees(tmp_path / "src")
    said = f"whose images have {words}: parts of {15 - moved} and {moved} images"
    assert said in knee.remarks[0]
    import_exams(tmp_path / "src", tmp_path / "out")
    assert said in capsys.readouterr().err


# ---- persons


@pytest.mark.parametrize("slices", [8, 20])
@pytest.mark.parametrize("planes", ["same", "other"])
def test_two_persons_of_one_study_are_two_exams_of_two_persons(tmp_path, slices, planes):
    write_dicom(tmp_path / "src", noise(slices), AXIAL, SeriesInstanceUID="2.25.5", PatientID="A")
    directions = AXIAL if planes == "same" else SAGITTAL
    write_dicom(tmp_path / "src", noise(slices + 1), directions, SeriesInstanceUID="2.25.6", PatientID="B")
    first, second = knees(tmp_path / "src")
    assert first.key != second.key
    assert {len(knee.series[0].images) for knee in (first, second)} == {slices, slices + 1}
    import_exams(tmp_path / "src", tmp_path / "out")
    assert [line["patient_group"] for line in rows(tmp_path / "out")] == ["g0000", "g0001"]


@pytest.mark.parametrize("slices", [6, 9])
def test_a_series_of_two_persons_is_refused_and_spares_the_others(tmp_path, slices):
    write_dicom(tmp_path, noise(slices), PatientID="Quaxolotl")
    change(tmp_path, lambda index, data: setattr(data, "PatientID", "Zyphira" if index % 2 else "Quaxolotl"))
    with pytest.raises(UserError, match=r"the axial series of file 1 of \d+ has images of 2 patients") as error:
        knees(tmp_path, Notes())
    assert "Quaxolotl" not in str(error.value)
    write_dicom(tmp_path, noise(7), SAGITTAL, SeriesInstanceUID="2.25.77", PatientID="Quaxolotl")
    (knee,) = knees(tmp_path)
    assert [series.plane for series in knee.series] == ["sagittal"]
    assert "has images of 2 patients" in knee.left_out[0]


@pytest.mark.parametrize(
    ("people", "groups", "assumed"),
    [
        ([("7", ""), ("7", "HOSP")], 1, "have an issuer in some files only"),
        ([("7", "HOSP"), ("7", "HOSP")], 1, ""),
        ([("7", "HOSP"), ("7", "OTHER")], 2, ""),
        ([("7", "HOSP"), ("7", "OTHER"), ("7", "")], 1, "have an issuer in some files only"),
        ([("7", ""), ("8", "HOSP")], 2, ""),
        ([("", ""), ("", "")], 2, "without a PatientID"),
        ([("7", ""), ("", "")], 2, "without a PatientID"),
    ],
)
def test_a_missing_issuer_is_no_other_person(tmp_path, capsys, people, groups, assumed):
    for number, (patient, issuer) in enumerate(people):
        tags = {"StudyInstanceUID": f"2.25.1{number}", "SeriesInstanceUID": f"2.25.2{number}", "PatientID": patient}
        write_dicom(tmp_path / "src", noise(6 + number), **tags, IssuerOfPatientID=issuer)
    import_exams(tmp_path / "src", tmp_path / "out")
    assert len({line["patient_group"] for line in rows(tmp_path / "out")}) == groups
    err = capsys.readouterr().err
    assert assumed in err
    assert ("assumed:" in err) is bool(assumed)


def test_a_file_without_the_patient_id_is_of_the_person_of_its_study(tmp_path):
    write_dicom(tmp_path, noise(6), PatientID="A")
    change(tmp_path, lambda index, data: setattr(data, "PatientID", "" if index == 2 else "A"))
    notes = Notes()
    (knee,) = knees(tmp_path, notes)
    assert len(knee.series[0].images) == 6
    assert "some files lack the PatientID" in notes.assumptions()[0]


# ---- positions


@pytest.mark.parametrize(("slices", "directions"), [(7, AXIAL), (13, SAGITTAL), (9, CORONAL)])
@pytest.mark.parametrize("shuffled", [False, True])
def test_one_missing_position_is_the_only_free_place(tmp_path, capsys, slices, directions, shuffled):
    write_dicom(tmp_path / "whole", noise(slices), directions)
    write_dicom(tmp_path / "one", noise(slices), directions)
    numbers = count(1)
    order = [*range(0, slices, 2), *range(1, slices, 2)]

    def edit(index, data):
        if index == slices // 2:  # the middle, from whichever end they are counted
            del data.ImagePositionPatient
        if shuffled:
            data.InstanceNumber = order[next(numbers) - 1]

    change(tmp_path / "one", edit)
    for name in ("whole", "one"):
        import_exams(tmp_path / name, tmp_path / "out" / name)
    first, second = (sorted((tmp_path / "out" / name).rglob("*.npy"))[0] for name in ("whole", "one"))
    np.testing.assert_array_equal(np.load(first), np.load(second))
    assert (
        f"slice {slices // 2 + 1} of {slices} has no position and was put into the only free place"
        in capsys.readouterr().err
    )
    assert "has no position" in rows(tmp_path / "out/one")[0]["choice"]


@pytest.mark.parametrize("missing", [{0}, {7}, {3, 4}, {2, 5}, {0, 1, 2, 3, 4, 5, 6}])
def test_positions_that_cannot_be_told_are_refused_whatever_the_instance_number_says(tmp_path, missing):
    write_dicom(tmp_path, noise(8))

    def edit(index, data):
        if index in missing:
            del data.ImagePositionPatient

    change(tmp_path, edit)
    with pytest.raises(UserError, match=f"has {len(missing)} of 8 images without ImagePositionPatient"):
        knees(tmp_path, Notes())


# ---- both knees


@pytest.mark.parametrize(("slices", "directions"), [(8, SAGITTAL), (12, AXIAL), (9, CORONAL)])
@pytest.mark.parametrize("tag", ["", "R"])
def test_two_stacks_of_one_series_are_two_knees(tmp_path, slices, directions, tag):
    for number, x in enumerate((-100, 100)):
        write_dicom(tmp_path / "src", noise(slices, seed=number), directions, position=(x, 0, 0), Laterality=tag)
    import_exams(tmp_path / "src", tmp_path / "out")
    lines = rows(tmp_path / "out")
    assert sorted(line["laterality"] for line in lines) == ["L", "R"]
    assert {line["patient_group"] for line in lines} == {"g0000"}
    for line in lines:
        assert len(np.load(tmp_path / "out/train" / line["plane"] / f"{line['exam']}.npy")) == slices
    assert all("whose images have 2 places" in knee.remarks[0] for knee in knees(tmp_path / "src"))


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        (("RRRRRRRR", "RRRRRRRR"), "it is tagged right, and was taken as the left knee by its place"),
        (("LLLLLLLL", "RRRRRRRR"), "it is tagged left, and was taken as the right knee by its place"),
        (("RRLRRRRR", "LLLLLLLL"), "has images tagged left and images tagged right"),
        (("RRRRRRRR", "LLLLLLLL"), ""),
    ],
)
def test_tags_that_contradict_the_places_of_two_knees_are_said(tmp_path, capsys, tags, said):
    for number, x in enumerate((-100, 100)):
        write_dicom(tmp_path / "src" / str(number), noise(8, seed=number), SAGITTAL, position=(x, 0, 0))
        for file in sorted((tmp_path / "src" / str(number)).iterdir()):
            data = pydicom.dcmread(file)
            data.Laterality = tags[number][data.InstanceNumber - 1]
            data.save_as(file)
    import_exams(tmp_path / "src", tmp_path / "out")
    assert sorted(line["laterality"] for line in rows(tmp_path / "out")) == ["L", "R"]
    told = capsys.readouterr().err
    assert ("check which knee this is" in told) == bool(said)
    assert said in told


@pytest.mark.parametrize("kept", [(8, 8), (6, 10)])
def test_slices_that_are_missing_in_the_middle_are_not_two_knees(tmp_path, kept):
    write_dicom(tmp_path, noise(30))
    for file in tmp_path.iterdir():
        if kept[0] < pydicom.dcmread(file).InstanceNumber <= 30 - kept[1]:
            file.unlink()
    with pytest.raises(UserError, match="so some are missing"):
        knees(tmp_path, Notes())


# ---- what predict flags, an import says


@pytest.mark.parametrize(("slices", "mm", "pixel"), [(7, 15.0, 1.875), (9, 8.0, 2.0)])
def test_a_localiser_is_left_out_whatever_its_header_calls_it(tmp_path, capsys, slices, mm, pixel):
    write_plane(tmp_path / "src", "sagittal", "2.25.5", seed=1)
    write_dicom(tmp_path / "src", noise(slices, 256), CORONAL, (mm, pixel, pixel), SeriesInstanceUID="2.25.6")
    import_exams(tmp_path / "src", tmp_path / "out")
    assert [line["plane"] for line in rows(tmp_path / "out")] == ["sagittal"]
    assert "localisers, by few slices far apart in a wide field (1)" in capsys.readouterr().err
    (knee,) = knees(tmp_path / "src")
    assert [series.plane for series in knee.series] == ["sagittal"]
    assert any(fact.reason.startswith("one of the localisers") for fact in knee.facts)


@pytest.mark.parametrize(
    ("slices", "spacing", "said"),
    [
        (9, (4.0, 1.0, 1.0), "only 9 slices"),
        (20, (6.5, 1.0, 1.0), "slices are 6.5 mm apart"),
        (20, (3.0, 0.5, 0.5), "the field of view is 80 mm"),
    ],
)
def test_what_predict_flags_an_import_says(tmp_path, capsys, slices, spacing, said):
    write_dicom(tmp_path / "src", noise(slices, 160), SAGITTAL, spacing, Laterality="L")
    import_exams(tmp_path / "src", tmp_path / "out")
    assert f"note: 0000 sagittal: {said}" in capsys.readouterr().err
    assert said in rows(tmp_path / "out")[0]["choice"]


@pytest.mark.parametrize(("tag", "x"), [("R", 60), ("L", -80)])
def test_a_side_that_the_place_contradicts_is_said_by_an_import(tmp_path, capsys, tag, x):
    write_dicom(tmp_path / "src", noise(), Laterality=tag, position=(x, 0, 0))
    import_exams(tmp_path / "src", tmp_path / "out")
    side = {"R": "right", "L": "left"}[tag]
    assert f"note: 0000: Series 1 is tagged {side}, but its centre lies" in capsys.readouterr().err
