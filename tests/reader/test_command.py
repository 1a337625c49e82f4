"""`kneessl predict` as a user meets it: files, exit status, batches, and no identity anywhere."""

import csv
import json
import re
import shutil
import zipfile

import numpy as np
import pydicom
import pytest
from helpers.dicom import write_plane
from PIL import Image

from kneessl.cli import run
from kneessl.errors import UserError
from kneessl.reader import command
from kneessl.reader.answer.assess import Assessor

IDENTITY = {
    "PatientName": "Quaxolotl^Zyphira",
    "PatientID": "PID-7730041",
    "PatientBirthDate": "19230817",
    "InstitutionName": "Saint Wumbo Clinic",
    "AccessionNumber": "ACC-55120",
    "SeriesDescription": "SAG PD FS Quaxolotl",
    "ReferringPhysicianName": "Doctor^Xylander",
    "StudyID": "STUDY-8812",
    "StudyDate": "20190213",
}


@pytest.fixture(scope="module")
def model(models):
    """One plane, two tasks."""
    return models / "sagittal"


def status(words):
    """Exit status of a command."""
    try:
        run(words[0], [str(word) for word in words[1:]])
    except SystemExit as end:
        return end.code
    return 0


def result(folder):
    return json.loads((folder / "result.json").read_text())


def test_one_study_becomes_one_folder(model, tmp_path, capsys):
    write_plane(tmp_path / "study" / "deep" / "er", "sagittal", "2.25.5.1")
    out = tmp_path / "answer"
    assert status(["predict", model, tmp_path / "study", "--out", out, "--dicom"]) == 0
    told = result(out)
    assert told["schema"] == "kneessl answer 1"
    assert "Not a medical device" in told["notice"]
    assert told["planes"]["sagittal"]["slices"] == 20
    assert told["laterality"]["side"] == "R"
    assert [f["task"] for f in told["findings"]] == ["acl", "Baker's / cyst"]
    assert np.load(out / "slices" / "sagittal.npy").shape == (20, 256, 256)
    for finding in told["findings"]:
        heat = np.load(out / told["planes"]["sagittal"]["heat"][finding["task"]])
        assert (heat.dtype, heat.shape) == (np.int8, (20, 256, 256))
        assert finding["answer"] in {"yes", "doubt", "no"}
        assert 0 <= finding["interval"][0] <= finding["probability"] <= finding["interval"][1] <= 1
        for key in finding["key_slices"]:
            assert 1 <= key["slice"] <= key["of"] == 20
            assert Image.open(out / key["picture"]).size == (256, 256)
    assert told["model"]["synthetic"] is False
    assert len(told["model"]["sha256"]) == 64
    assert {p.name for p in out.iterdir()} == {
        "result.json", "report.html", "slices", "heat", "key-slices", "sr.dcm", "capture.dcm"
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert f"knee {told['study']} (right)" in printed
    assert "probability" in printed


def test_zip_and_folder_say_the_same(model, tmp_path):
    write_plane(tmp_path / "study", "sagittal", "2.25.5.1")
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for file in (tmp_path / "study").iterdir():
            archive.write(file, f"inside/{file.name}")
    for name in ("study", "study.zip"):
        assert status(["predict", model, tmp_path / name, "--out", tmp_path / f"{name}.answer"]) == 0
    a, b = (result(tmp_path / f"{name}.answer") for name in ("study", "study.zip"))
    assert a | {"seconds": 0} == b | {"seconds": 0}


def test_what_is_not_assessed_shows_in_the_status(model, tmp_path, capsys):
    write_plane(tmp_path / "study", "coronal", "2.25.5.1")
    assert status(["predict", model, tmp_path / "study", "--out", tmp_path / "answer"]) == 1
    assert {f["answer"] for f in result(tmp_path / "answer")["findings"]} == {"not assessed"}
    assert "not assessed" in capsys.readouterr().out
    assert "not assessed" in (tmp_path / "answer" / "report.html").read_text().lower()


def test_both_knees_of_a_study_are_two_answers(model, tmp_path):
    write_plane(tmp_path / "study", "sagittal", "2.25.5.1", Laterality="R")
    write_plane(tmp_path / "study", "sagittal", "2.25.5.2", seed=2, Laterality="L")
    assert status(["predict", model, tmp_path / "study", "--out", tmp_path / "answer"]) == 0
    with (tmp_path / "answer" / "studies.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert sorted(line["side"] for line in lines) == ["L", "R"]
    for line in lines:
        told = result(tmp_path / "answer" / line["study"])
        assert told["laterality"]["side"] == line["side"]
        assert {f["task"]: f["answer"] for f in told["findings"]} == {t: line[t] for t in ("acl", "Baker's / cyst")}


def test_a_batch_goes_on_past_a_bad_study_lists_it_and_goes_on_where_it_stopped(model, tmp_path, capsys):
    batch = tmp_path / "batch"
    write_plane(batch / "a", "sagittal", "2.25.5.1", StudyInstanceUID="2.25.1")
    (batch / "b").mkdir(parents=True)
    (batch / "b" / "x.dcm").write_bytes(b"no DICOM")
    (batch / "c.zip").write_bytes(b"PK\x03\x04 no zip")
    write_plane(batch / "d", "sagittal", "2.25.5.1", StudyInstanceUID="2.25.2", seed=4)
    out = tmp_path / "answers"
    assert status(["predict", model, batch, "--out", out, "--each"]) == 1
    lines = list(csv.DictReader((out / "studies.csv").open()))
    assert [bool(line["problem"]) for line in lines] == [False, True, True, False]
    assert [line["number"] for line in lines] == ["1", "2", "3", "4"]
    assert "without an answer 2" in capsys.readouterr().out
    good = [out / line["study"] / "result.json" for line in lines if not line["problem"]]
    before = [file.stat().st_mtime_ns for file in good]
    good[1].unlink()
    shutil.rmtree(good[1].parent)
    assert status(["predict", model, batch, "--out", out, "--each"]) == 1
    assert good[0].stat().st_mtime_ns == before[0], "an answer that is there is not made again"
    assert good[1].is_file()


@pytest.mark.parametrize("each", [True, False])
def test_a_batch_that_is_killed_at_its_first_answer_is_known_as_one(model, tmp_path, monkeypatch, each):
    write_plane(tmp_path / "in" / "study", "sagittal", "2.25.5.1", Laterality="R")
    write_plane(tmp_path / "in" / "study", "sagittal", "2.25.5.2", seed=2, Laterality="L")
    out, there, answer = tmp_path / "answers", [], command.answer_knee

    def noting(*arguments):
        there.append((out / "studies.csv").is_file())
        return answer(*arguments)

    monkeypatch.setattr(command, "answer_knee", noting)
    words = [tmp_path / "in", "--each"] if each else [tmp_path / "in" / "study"]
    assert status(["predict", model, *words, "--out", out]) == 0
    assert there == [True, True]


@pytest.mark.parametrize(
    "sop_class", ["05703841015643452503209109170649121759226008273168", "1.3.46.670589.11.0.0.12.1"]
)
def test_a_study_of_an_unknown_class_is_answered_as_dicom_too(model, tmp_path, capfd, sop_class):
    write_plane(tmp_path / "study", "sagittal", "2.25.5.1", SOPClassUID=sop_class)
    out = tmp_path / "answer"
    assert status(["predict", model, tmp_path / "study", "--out", out, "--dicom"]) == 0
    report = pydicom.dcmread(out / "sr.dcm")
    assert "CurrentRequestedProcedureEvidenceSequence" not in report
    assert sop_class.encode() not in (out / "sr.dcm").read_bytes()
    assert "Warning" not in capfd.readouterr().err


def test_a_uid_that_is_a_name_is_neither_written_nor_said(model, tmp_path, capfd, caplog):
    write_plane(tmp_path / "study", "sagittal", "2.25.5.1", StudyInstanceUID="QUAXOLOTL_ZYPHIRA")
    caplog.clear()  # pydicom warned of it as the test wrote it
    capfd.readouterr()
    out = tmp_path / "answer"
    assert status(["predict", model, tmp_path / "study", "--out", out, "--dicom"]) == 0
    said = capfd.readouterr()
    assert "QUAXOLOTL" not in said.out + said.err + caplog.text
    assert not [file.name for file in out.rglob("*") if file.is_file() and b"QUAXOLOTL" in file.read_bytes()]


def test_two_studies_that_share_a_uid_are_answered_each_by_its_own_pixels(model, tmp_path):
    for name, slices, seed in (("a", 20, 0), ("b", 18, 4), ("c", 22, 5)):
        write_plane(tmp_path / "batch" / name, "sagittal", "2.25.5.1", slices=slices, seed=seed)
    out = tmp_path / "answers"
    for _ in range(2):  # the second time all are there already
        assert status(["predict", model, tmp_path / "batch", "--out", out, "--each"]) == 0
        lines = list(csv.DictReader((out / "studies.csv").open()))
        assert [result(out / line["study"])["planes"]["sagittal"]["slices"] for line in lines] == [20, 18, 22]


def test_a_fault_of_kneessl_in_one_study_does_not_end_the_batch(model, tmp_path, monkeypatch):
    write_plane(tmp_path / "batch" / "a", "sagittal", "2.25.5.1", StudyInstanceUID="2.25.1")
    write_plane(tmp_path / "batch" / "b", "sagittal", "2.25.5.1", StudyInstanceUID="2.25.2", seed=4)
    assess = Assessor.assess
    calls = []

    def fails_once(self, knee):
        calls.append(knee)
        if len(calls) == 1:
            raise KeyError("Quaxolotl^Zyphira")
        return assess(self, knee)

    monkeypatch.setattr(Assessor, "assess", fails_once)
    out = tmp_path / "answers"
    assert status(["predict", model, tmp_path / "batch", "--out", out, "--each"]) == 1
    first, second = csv.DictReader((out / "studies.csv").open())
    assert re.fullmatch(
        r"the study could not be assessed, because of a fault in kneessl \(KeyError at test_command\.py:\d+\)",
        first["problem"],
    )
    assert not second["problem"]
    assert (out / second["study"] / "result.json").is_file()


def test_no_identity_in_anything_that_is_written_or_said(model, tmp_path, capfd, caplog):
    study = tmp_path / "Quaxolotl_Zyphira_19230817"
    write_plane(study, "sagittal", "2.25.5.1", **IDENTITY)
    write_plane(study / "PID-7730041", "coronal", "2.25.5.2", **IDENTITY)
    write_plane(study, "axial", "2.25.5.3", slices=3, **IDENTITY)
    (study / "Saint Wumbo Clinic.txt").write_text("ACC-55120")
    out = tmp_path / "answer"
    assert status(["predict", model, study, "--out", out, "--dicom"]) == 0
    written = b"".join(p.read_bytes() + str(p.relative_to(out)).encode() for p in out.rglob("*") if p.is_file())
    said = capfd.readouterr()
    everything = written + (said.out + said.err + caplog.text).encode()
    words = {part for value in IDENTITY.values() for part in value.replace("^", " ").split()} - {
        "SAG",
        "PD",
        "FS",
        "Doctor",
        "Clinic",
    }
    for word in words:
        assert word.encode() not in everything, word
    sr = pydicom.dcmread(out / "sr.dcm")
    assert not sr.PatientName
    assert not sr.PatientID


@pytest.mark.parametrize("make", ["missing", "empty", "text"])
def test_what_is_no_study_is_refused_in_a_sentence_and_leaves_nothing(model, tmp_path, make):
    study = tmp_path / "study"
    if make != "missing":
        study.mkdir()
    if make == "text":
        (study / "a.txt").write_text("hello")
    with pytest.raises(UserError) as error:
        run("predict", [str(model), str(study), "--out", str(tmp_path / "answer")])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "answer").exists()


def test_a_folder_that_is_something_else_is_not_written_into(model, tmp_path):
    write_plane(tmp_path / "study", "sagittal", "2.25.5.1")
    (tmp_path / "answer").mkdir()
    (tmp_path / "answer" / "thesis.tex").touch()
    with pytest.raises(UserError, match="name a new folder"):
        run("predict", [str(model), str(tmp_path / "study"), "--out", str(tmp_path / "answer")])
    assert [p.name for p in (tmp_path / "answer").iterdir()] == ["thesis.tex"]


def test_a_batch_needs_studies(model, tmp_path):
    with pytest.raises(UserError, match="holds no studies"):
        run("predict", [str(model), str(tmp_path), "--out", str(tmp_path / "answer"), "--each"])


def test_the_real_knee(model, real_data, tmp_path):
    assert status(["predict", model, real_data("knee_mese"), "--out", tmp_path / "answer"]) == 0
    told = result(tmp_path / "answer")
    assert told["planes"]["sagittal"]["slices"] == 24
    assert told["laterality"]["side"] == "R"
    echoes = {line["echo_ms"]: line["used"] for line in told["series"]}
    assert len(echoes) == 8
    assert [echo for echo, used in echoes.items() if used] == [min(echoes, key=lambda echo: abs(echo - 30))]
