"""The path of the README, by its commands: exams -> encoder -> classifier -> figures -> report."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.command_line import kneessl

from kneessl.exams.folder import write_labels, write_series

QUICK = ("--preset", "quick", "--size", 48, "--slices", 4, "--precision", "float32")


@pytest.fixture(scope="module")
def runs(knees, tmp_path_factory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    kneessl("pretrain", knees, "--out", runs / "encoder", *QUICK, "--epochs", 2, "--batch", 4, "--settings.hidden", 32)
    tune = ("finetune", knees, "--task", "acl", *QUICK, "--slices", 12, "--batch", 4, "--epochs", 6)
    kneessl(*tune, "--from", runs / "encoder", "--out", runs / "pretrained")
    kneessl(*tune, "--out", runs / "from-nothing")
    return runs


def test_the_classifier_learns_what_can_be_seen(runs, knees):
    done = kneessl("evaluate", runs / "pretrained", knees, "--against", runs / "from-nothing", "--out", runs / "both")
    figures = json.loads((runs / "both" / "result.json").read_text())
    assert set(figures) == {"pretrained", "from-nothing"}
    for name, summary in figures.items():
        assert summary["acl"]["n"] == 8
        assert summary["acl"]["auc"]["auc"] > 0.9, f"{name}: a bright square is easy"
    assert "AUC" in done.stdout
    assert "Wilson" in done.stdout
    html = (runs / "both" / "report.html").read_text()
    for words in ("from-nothing", "ROC", "onfusion", "view T"):
        assert words in html


@pytest.mark.usefixtures("no_reports")
def test_prediction_is_deterministic_and_independent_of_company(runs, knees, tmp_path):
    kneessl("evaluate", runs / "pretrained", knees)
    kneessl("evaluate", runs / "pretrained", knees, "--against", runs / "from-nothing", "--out", tmp_path / "again")

    def scores(path: Path) -> list[tuple[str, str]]:
        with path.open(newline="") as file:
            return [(row["exam"], row["pretrained"]) for row in csv.DictReader(file)]

    assert scores(runs / "pretrained" / "predictions.csv") == scores(tmp_path / "again" / "predictions.csv")


def test_the_start_matters(runs):
    a, b = ((runs / name / "metrics.csv").read_text() for name in ("pretrained", "from-nothing"))
    assert a.splitlines()[1] != b.splitlines()[1], "--from loads the encoder"


def test_a_run_can_be_done_again_from_its_config(runs, knees, tmp_path):
    kneessl("pretrain", "--config", runs / "encoder" / "config.yaml", "--out", tmp_path / "again", knees)
    first, second = (
        path.read_bytes()
        for path in (runs / "encoder" / "encoder.safetensors", tmp_path / "again" / "encoder.safetensors")
    )
    assert first == second


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nonsense",), "there is no command nonsense"),
        (("pretrain",), "kneessl pretrain --help"),
        (("pretrain", "nowhere", "--out", "x"), "nowhere is not a folder"),
        (("pretrain", "{knees}", "--out", "x", "--epochs", "many"), "epochs"),
        (("pretrain", "{knees}", "--out", "x", "--plane", "oblique"), "plane"),
        (("pretrain", "{knees}", "--out", "x", "--preset", "nonsense"), "has the presets quick, thesis"),
        (("pretrain", "{knees}", "--out", "x", "--colour", "red"), "--colour"),
        (("pretrain", "{knees}", "--out", "x", "--view1.flip", "2"), "flip is 2"),
        (("finetune", "{knees}", "--task", "tumour", "--out", "x"), "tasks with labels in this split: acl"),
        (("finetune", "{knees}", "--task", "acl", "--from", "{knees}", "--out", "x"), "not a run folder"),
        (("evaluate", "{knees}", "{knees}"), "not a run folder"),
        (("check", "nowhere"), "nowhere is not a folder"),
        (("import", "nowhere", "x"), "nowhere"),
        (("phantom", "x", "--exams", "0"), "exams"),
        (("demo", "--out", "{knees}"), "not an earlier demo"),
        (("pretrain", "{knees}", "--out", "{knees}/train-acl.csv/x", "--batch", "2"), "train-acl.csv"),
        (("finetune", "{knees}", "--task", "acl", "--out", "x", "--slices", "1"), "slices is 1"),
        (("finetune", "{knees}", "--task", "acl", "--out", "x", "--seed", "-1"), "seed is -1"),
    ],
)
def test_wrong_input_ends_in_one_sentence(knees, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    done = kneessl(*(w.format(knees=knees) for w in words), expect=2)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("kneessl: ")
    assert message in lines[0]
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_its_process_ends_in_one_sentence_too():
    done = subprocess.run([sys.executable, "-m", "kneessl", "check", "nowhere"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("kneessl: nowhere is not a folder; ")
    assert done.stderr.count("\n") == 1


def test_a_float_series_is_refused_before_a_run_begins(tmp_path):
    for i in range(4):
        write_series(tmp_path / "k", "train", "sagittal", f"{i:04d}", np.ones((3, 256, 256), np.uint8))
    write_labels(tmp_path / "k", "train", "acl", {f"{i:04d}": i % 2 for i in range(4)})
    np.save(tmp_path / "k" / "train" / "sagittal" / "0002.npy", np.full((3, 256, 256), np.nan))
    for words in (("pretrain", "--batch", 4), ("finetune", "--task", "acl")):
        done = kneessl(words[0], tmp_path / "k", *words[1:], "--out", tmp_path / "run", expect=2)
        assert "0002.npy has dtype float64" in done.stderr
        assert not (tmp_path / "run").exists()


def test_a_model_that_travels_alone_is_evaluated_all_the_same(runs, knees, tmp_path):
    (tmp_path / "model").mkdir()
    for name in ("run.json", "model.safetensors"):
        shutil.copy(runs / "from-nothing" / name, tmp_path / "model" / name)
    kneessl("evaluate", tmp_path / "model", knees)
    assert (tmp_path / "model" / "report.html").is_file()
