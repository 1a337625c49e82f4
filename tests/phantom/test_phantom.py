import csv
import dataclasses
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from kneessl.errors import UserError
from kneessl.exams.folder import PLANES, ExamFolder
from kneessl.phantom.command import few, phantom, plan_exams
from kneessl.phantom.knee import TASKS, Plan, draw_knee, scan_knee
from kneessl.phantom.lesions import ACL_KINDS, MENISCUS_KINDS, OTHER_KINDS, draw_lesions

EXAMS = 6
SPLITS = ("train", "valid")
SHARES = {"abnormal": 0.806, "acl": 0.233, "meniscus": 0.371}
NOTHING = dict.fromkeys(TASKS, False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantom") / "knees"
    phantom(out, exams=EXAMS, seed=3, valid_fraction=1 / 3, acl=0.5, meniscus=0.5, workers=1)
    return ExamFolder(out)


LESION_COLUMNS = (
    *("split", "exam", "plane", "slice", "finding", "kind"),
    *("row_min", "row_max", "column_min", "column_max"),
)


def read_lesions(root: Path) -> list[dict[str, str]]:
    with (root / "lesions.csv").open(newline="") as file:
        reader = csv.DictReader(file)
        assert tuple(reader.fieldnames) == LESION_COLUMNS
        return list(reader)


def bytes_of(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def knee_with(number: int, **labels: bool):
    return draw_knee(Plan(0, number, "train", {**NOTHING, "abnormal": True, **labels}))


# What stands on disk


def test_layout_is_that_of_an_exam_folder(folder):
    assert folder.exams("train", "sagittal") == ["0000", "0001", "0002", "0003"]
    assert folder.exams("valid", "axial") == ["0004", "0005"]
    assert not list(folder.root.glob("test*"))
    for split in SPLITS:
        assert folder.tasks(split) == sorted(TASKS)
        for plane in PLANES:
            for exam in folder.exams(split, plane):
                volume = folder.series(split, plane, exam)
                assert 20 <= len(volume) <= 40
                assert volume.max() > 200
                assert volume.min() < 10
    assert not [p for p in folder.root.parent.iterdir() if p != folder.root]


def test_provenance_names_every_series_and_no_two_patients_are_one(folder):
    lines = folder.provenance()
    assert len(lines) == 3 * EXAMS
    assert len({line.patient_group for line in lines}) == EXAMS
    assert len({line.source_sha256 for line in lines}) == EXAMS
    assert {line.laterality for line in lines} == {"L", "R"}
    assert all(0.4 < line.row_mm < 0.8 and 3 < line.slice_mm < 4.5 for line in lines)
    choices = {line.choice for line in lines}
    assert choices == {"synthetic phantom, proton density", "synthetic phantom, proton density, fat-suppressed"}
    assert {(line.source, line.synthetic, line.weighting, line.echo_ms) for line in lines} == {
        ("phantom", True, "PD", None)
    }
    assert all(line.fat_suppressed is line.choice.endswith("fat-suppressed") for line in lines)
    assert folder.synthetic


def test_labels_and_lesions_agree(folder):
    findings = defaultdict(set)
    for row in read_lesions(folder.root):
        findings[row["split"], row["exam"]].add(row["finding"])
    for split in SPLITS:
        labels = {task: folder.labels(split, task) for task in TASKS}
        for exam in folder.exams(split, "sagittal"):
            found = findings[split, exam]
            assert labels["acl"][exam] == ("acl" in found)
            assert labels["meniscus"][exam] == ("meniscus" in found)
            assert labels["abnormal"][exam] == bool(found)


def test_boxes_lie_inside_the_picture_and_hold_a_kind_of_their_finding(folder):
    kinds = {"acl": ACL_KINDS, "meniscus": MENISCUS_KINDS, "abnormal": OTHER_KINDS}
    rows = read_lesions(folder.root)
    assert {row["plane"] for row in rows} == set(PLANES)
    for row in rows:
        assert row["kind"] in kinds[row["finding"]]
        assert 0 <= int(row["row_min"]) <= int(row["row_max"]) < 256
        assert 0 <= int(row["column_min"]) <= int(row["column_max"]) < 256
        assert 0 <= int(row["slice"]) < len(folder.series(row["split"], row["plane"], row["exam"]))


# Determinism and independence


def test_same_seed_gives_the_same_bytes_with_any_number_of_workers(tmp_path):
    shares = {"abnormal": 1, "acl": 0.5, "meniscus": 0.5}
    phantom(tmp_path / "one", exams=2, seed=5, workers=1, **shares)
    phantom(tmp_path / "two", exams=2, seed=5, workers=2, **shares)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def test_another_seed_gives_another_knee():
    first, second = (draw_knee(Plan(seed, 0, "train", NOTHING)) for seed in (0, 1))
    assert first.anatomy != second.anatomy


def test_neither_labels_nor_the_number_of_exams_touch_anatomy_or_scan():
    few, many = plan_exams(4, 0, 0.25, SHARES), plan_exams(50, 0, 0.5, {"abnormal": 1, "acl": 1, "meniscus": 1})
    for a, b in zip(few, many, strict=False):
        one, other = draw_knee(a), draw_knee(b)
        assert one.anatomy == other.anatomy
        assert one.pose.laterality == other.pose.laterality
        np.testing.assert_array_equal(one.pose.ripple_mm, other.pose.ripple_mm)
        for plane in PLANES:
            assert one.scans[plane].tissue == other.scans[plane].tissue
            assert one.scans[plane].slices == other.scans[plane].slices
            assert one.scans[plane].noise == other.scans[plane].noise


# The lesions


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_picture_differs_from_the_sound_knee_in_the_boxes_and_nowhere_else(number):
    knee = knee_with(number, acl=True, meniscus=number == 1)
    plane = PLANES[number % 2]
    volume, boxes = scan_knee(knee, plane)
    sound, none = scan_knee(knee, plane, with_lesions=False)
    assert boxes
    assert none == []
    change = np.abs(volume.astype(int) - sound)
    elsewhere = np.ones(change.shape, bool)
    for box in boxes:
        inside = change[box.slice, box.row_min : box.row_max + 1, box.column_min : box.column_max + 1]
        assert inside.max() >= 10, box
        elsewhere[
            box.slice, max(box.row_min - 8, 0) : box.row_max + 9, max(box.column_min - 8, 0) : box.column_max + 9
        ] = False
    assert change[elsewhere].max() <= 20
    assert change[elsewhere].mean() < 0.05


@pytest.mark.parametrize("kind", ACL_KINDS + MENISCUS_KINDS + OTHER_KINDS)
def test_every_kind_of_lesion_shows(kind):
    labels = {"acl": kind in ACL_KINDS, "meniscus": kind in MENISCUS_KINDS, "abnormal": True}
    for seed in range(500):
        drawn = [lesion for lesion in draw_lesions(np.random.default_rng(seed), **labels) if lesion.kind == kind]
        if drawn:
            break
    knee = dataclasses.replace(knee_with(9), lesions=drawn)
    _, boxes = scan_knee(knee, "sagittal" if kind != "radial" else "axial")
    assert {box.lesion.kind for box in boxes} == {kind}


def test_partial_tears_take_up_few_slices():
    for seed in range(500):
        drawn = draw_lesions(np.random.default_rng(seed), True, False, True)
        if drawn[-1].kind == "partial":
            break
    _, boxes = scan_knee(dataclasses.replace(knee_with(2), lesions=drawn[-1:]), "sagittal")
    assert 1 <= len({box.slice for box in boxes}) <= 4


def test_a_sound_knee_has_no_lesion_and_an_abnormal_one_has():
    rng = np.random.default_rng(0)
    assert draw_lesions(rng, acl=False, meniscus=False, abnormal=False) == []
    for _ in range(50):
        assert {lesion.finding for lesion in draw_lesions(rng, False, False, True)} == {"abnormal"}


# Prevalence


@pytest.mark.parametrize("exams", [1, 7, 120, 1250])
def test_each_split_has_its_share_of_each_finding(exams):
    plans = plan_exams(exams, 0, 0.25, SHARES)
    assert [plan.number for plan in plans] == list(range(exams))
    for split in SPLITS:
        chosen = [plan for plan in plans if plan.split == split]
        assert abs(len(chosen) - exams * (0.25 if split == "valid" else 0.75)) <= 0.5
        for task, share in SHARES.items():
            assert abs(sum(plan.labels[task] for plan in chosen) - share * len(chosen)) <= 0.5
    assert all(plan.labels["abnormal"] for plan in plans if plan.labels["acl"] or plan.labels["meniscus"])


def test_tears_of_acl_and_meniscus_occur_together_and_alone():
    pairs = {(plan.labels["acl"], plan.labels["meniscus"]) for plan in plan_exams(120, 0, 0.25, SHARES)}
    assert pairs == {(False, False), (False, True), (True, False), (True, True)}


# User errors


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"exams": 0}, "exams is 0"),
        ({"exams": 20_000}, "four digits"),
        ({"seed": -1}, "seed is -1"),
        ({"workers": 0}, "workers is 0"),
        ({"valid_fraction": 1.5}, "valid_fraction is 1.5"),
        ({"acl": -0.1}, "acl is -0.1"),
        ({"meniscus": float("nan")}, "meniscus is nan"),
        ({"abnormal": 0.2, "acl": 0.1, "meniscus": 0.3}, "more than abnormal"),
    ],
)
def test_a_wrong_number_is_a_user_error_and_leaves_nothing(tmp_path, wrong, message):
    with pytest.raises(UserError, match=message):
        phantom(tmp_path / "out", **wrong)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_not_overwritten(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="already exists"):
        phantom(tmp_path / "out", exams=1, workers=1)
    assert bytes_of(tmp_path) == {"out/mine.txt": b"mine"}


def test_an_interrupt_leaves_nothing_half_written(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("kneessl.phantom.command.write_series", interrupted)
    with pytest.raises(KeyboardInterrupt):
        phantom(tmp_path / "out", exams=1, workers=1)
    assert not list(tmp_path.iterdir())


def test_a_plane_looks_the_same_whichever_others_are_written(tmp_path):
    phantom(tmp_path / "one", exams=2, seed=3, planes=("sagittal",), workers=1)
    phantom(tmp_path / "two", exams=2, seed=3, planes=("coronal", "sagittal"), workers=1)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.npy"))
    assert [path.parts[1] for path in files] == ["sagittal", "sagittal"]
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    with pytest.raises(UserError, match="planes"):
        phantom(tmp_path / "none", exams=2, planes=())


# Few labels


@pytest.mark.parametrize("count", [10, 21, 40])
def test_few_labels_are_dealt_by_tear_and_sequence(count):
    plans = [plan for plan in plan_exams(160, 5, 0.25, {**SHARES, "acl": 0.4}) if plan.split == "train"]
    chosen = few(plans, count, "sagittal", seed=5)
    assert len({plan.number for plan in chosen}) == len(chosen) == count
    assert abs(sum(plan.labels["acl"] for plan in chosen) - 0.4 * count) <= 0.5
    for tear in (True, False):
        drawn = [draw_knee(plan).scans["sagittal"].sequence for plan in chosen if plan.labels["acl"] == tear]
        assert abs(len(drawn) - 2 * drawn.count(drawn[0])) <= 1, "half of one sequence, half of the other"
    assert [p.number for p in few(plans, count, "sagittal", 5)] == [p.number for p in chosen]
    assert {p.number for p in few(plans, count, "sagittal", 6)} != {p.number for p in chosen}


def test_the_other_training_exams_have_pictures_and_no_labels(tmp_path):
    settings = {"exams": 8, "acl": 0.5, "planes": ("coronal",), "workers": 1}
    phantom(tmp_path / "few", labelled=2, **settings)
    phantom(tmp_path / "all", **settings)
    some, every = bytes_of(tmp_path / "few"), bytes_of(tmp_path / "all")
    assert some.keys() == every.keys()
    assert {name for name in some if some[name] != every[name]} == {f"train-{task}.csv" for task in TASKS}
    few_labels, all_labels = (ExamFolder(tmp_path / name).labels("train", "acl") for name in ("few", "all"))
    assert len(few_labels) == 2
    assert set(few_labels.values()) == {0, 1}
    assert few_labels.items() <= all_labels.items()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labelled": 99}, "labelled is 99"),
        ({"labelled": 1}, "labelled is 1"),
        ({"labelled": 4, "acl": 0.0}, "0 training exams with an ACL tear"),
        ({"labelled": 4, "dicom": True}, "labelled is for exam folders"),
    ],
)
def test_labels_that_cannot_be_dealt_are_refused_before_anything_is_drawn(tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        phantom(tmp_path / "out", **{"exams": 8, "acl": 0.5, "workers": 1, **settings})
    assert not (tmp_path / "out").exists()
