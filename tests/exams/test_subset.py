import os
import shutil

import numpy as np
import pytest

from kneessl.errors import UserError
from kneessl.exams.check import inspect
from kneessl.exams.folder import ExamFolder, Provenance, write_labels, write_provenance, write_series
from kneessl.exams.subset import labelled, link, write_subset

TRAIN = {"0001": 1, "0002": 0}
VALID = {"1130": 0, "1131": 1}


@pytest.fixture
def root(tmp_path):
    """Six exams in two planes, labelled for two tasks, as an importer leaves them."""
    root, lines = tmp_path / "knees", []
    for seed, (split, exam) in enumerate([("train", f"{i:04d}") for i in range(4)] + [("valid", e) for e in VALID]):
        for plane in ("sagittal", "coronal"):
            volume = np.random.default_rng([seed, len(plane)]).integers(0, 256, (3, 256, 256), dtype=np.uint8)
            write_series(root, split, plane, exam, volume)
            lines.append(
                Provenance(split, exam, plane, f"p{exam}", "L", 0.5, 0.5, 3.0, f"s{exam}", "synthetic phantom")
            )
    for task in ("acl", "meniscus"):
        write_labels(root, "train", task, {"0000": 0, **TRAIN, "0003": 1})
        write_labels(root, "valid", task, VALID)
    write_provenance(root, lines)
    return root


def subset(root, out, **changes):
    write_subset(ExamFolder(root), out, "acl", "sagittal", {"train": TRAIN, "valid": VALID} | changes)
    return ExamFolder(out)


def test_a_subset_is_a_sound_exam_folder_of_just_these_exams(root, tmp_path):
    folder = subset(root, tmp_path / "some" / "part")
    findings = inspect(folder)
    assert (findings.faults, findings.notices) == ([], [])
    assert folder.exams("train", "sagittal") == list(TRAIN)
    assert folder.exams("valid", "sagittal") == list(VALID)
    assert folder.exams("train", "coronal") == []
    assert folder.tasks("train") == folder.tasks("valid") == ["acl"]
    assert (folder.labels("train", "acl"), folder.labels("valid", "acl")) == (TRAIN, VALID)
    for exam in TRAIN:
        np.testing.assert_array_equal(
            folder.series("train", "sagittal", exam), ExamFolder(root).series("train", "sagittal", exam)
        )


def test_who_is_who_comes_along_but_no_other_exam(root, tmp_path):
    lines = subset(root, tmp_path / "part").provenance()
    assert [(line.split, line.exam, line.plane) for line in lines] == [
        (split, exam, "sagittal") for split, exams in (("train", TRAIN), ("valid", VALID)) for exam in exams
    ]
    assert lines == [
        line for line in ExamFolder(root).provenance() if line.plane == "sagittal" and line.exam not in {"0000", "0003"}
    ]
    (root / "exams.csv").unlink()
    subset(root, tmp_path / "other")
    assert not (tmp_path / "other" / "exams.csv").exists()


def test_series_are_links_that_outlive_their_source_and_a_move(root, tmp_path):
    part = tmp_path / "part"
    subset(root, part)
    source, linked = (folder / "train" / "sagittal" / "0001.npy" for folder in (root, part))
    assert linked.samefile(source)
    assert not linked.is_symlink()
    before = linked.read_bytes()
    moved = shutil.move(part, tmp_path / "moved")
    shutil.rmtree(root)
    assert (moved / "train" / "sagittal" / "0001.npy").read_bytes() == before
    assert inspect(ExamFolder(moved)).faults == []


def test_where_hard_links_cannot_be_symbolic_ones_do(root, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.chdir(tmp_path)
    folder = subset(root.relative_to(tmp_path), tmp_path / "part")
    linked = tmp_path / "part" / "train" / "sagittal" / "0001.npy"
    assert linked.is_symlink()
    assert linked.readlink().is_absolute()
    monkeypatch.chdir("/")
    assert inspect(folder).faults == []


def test_a_link_leads_to_the_file_behind_a_link(tmp_path):
    (tmp_path / "real").write_text("pixels")
    (tmp_path / "name").symlink_to("real")
    link(tmp_path / "name", tmp_path / "new")
    (tmp_path / "name").unlink()
    assert (tmp_path / "new").read_text() == "pixels"
    assert not (tmp_path / "new").is_symlink()
    with pytest.raises(FileNotFoundError):
        link(tmp_path / "nowhere", tmp_path / "newer")
    assert not (tmp_path / "newer").is_symlink()


def test_nothing_is_left_of_a_subset_that_fails(root, tmp_path):
    with pytest.raises(FileNotFoundError):
        subset(root, tmp_path / "part", train={"0001": 1, "0009": 0})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").write_text("")
    with pytest.raises(UserError, match="full already exists"):
        subset(root, tmp_path / "full")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full", "knees"]


def test_labelled_exams_have_a_label_and_a_series(root):
    (root / "train" / "sagittal" / "0003.npy").unlink()
    (root / "train-acl.csv").write_text("0003,1\n0001,1\n0000,0\n")
    assert list(labelled(ExamFolder(root), "train", "acl", "sagittal").items()) == [("0000", 0), ("0001", 1)]
    for arguments, message in (
        (("train", "acl", "axial"), "holds no series"),
        (("valid", "cyst", "sagittal"), "valid-cyst.csv is missing"),
    ):
        with pytest.raises(UserError, match=message):
            labelled(ExamFolder(root), *arguments)
