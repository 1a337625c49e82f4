"""Shared fixtures of the reader's tests."""

import shutil
import tempfile

import numpy as np
import pytest
from helpers.orthanc import PASSWORD, USER, running_orthanc

from kneessl.exams.folder import ExamFolder, write_labels, write_series
from kneessl.finetuning.finetune import finetune
from kneessl.model.fuse import fuse
from kneessl.reader.archive.orthanc import Orthanc

SETTINGS = {"epochs": 1, "size": 32, "batch": 4, "slices": 4, "precision": "32"}


@pytest.fixture(scope="session")
def models(knees, tmp_path_factory):
    """Models of two planes with two tasks, locked; both fused; and one of the sagittal plane with nothing locked."""
    root = tmp_path_factory.mktemp("reader")
    data = root / "knees"
    shutil.copytree(knees, data)
    folder = ExamFolder(data)
    for exam in folder.exams("train", "sagittal"):
        series = np.array(folder.series("train", "sagittal", exam))
        write_series(data, "train", "coronal", exam, series[:, ::-1].copy())
    write_labels(
        data, "train", "Baker's / cyst", {e: int(i % 4 < 2) for i, e in enumerate(folder.exams("train", "sagittal"))}
    )
    for plane in ("sagittal", "coronal"):
        finetune(data, ["acl", "Baker's / cyst"], root / plane, plane=plane, folds=2, **SETTINGS)
    fuse([root / "sagittal", root / "coronal"], root / "fused")
    finetune(data, "acl", root / "unlocked", **SETTINGS)
    return root


@pytest.fixture
def private_temporary_folder(tmp_path_factory, monkeypatch):
    """Everything temporary goes here, and every test must leave it empty."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory):
    """A real archive; skips the test where there is none."""
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


@pytest.fixture
def archive(orthanc, monkeypatch):
    """The real archive, emptied, as the reader asks it."""
    monkeypatch.setenv("KNEESSL_ORTHANC_USER", USER)
    monkeypatch.setenv("KNEESSL_ORTHANC_PASSWORD", PASSWORD)
    orthanc.empty()
    return Orthanc(orthanc.url)
