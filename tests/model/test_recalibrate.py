"""`kneessl recalibrate`: a model of its own, set on a few local exams and on nothing else, under its own hash."""

import json

import numpy as np
import pytest
import torch

from kneessl.classifier.classifier import build_classifier
from kneessl.errors import UserError
from kneessl.evaluate.report import recalibrated_on
from kneessl.exams.folder import ExamFolder, write_labels, write_series
from kneessl.model.crossfit import OutOfFold
from kneessl.model.fuse import fuse
from kneessl.model.locked import decide_on, lock_plane, read_decisions
from kneessl.model.model import load_model
from kneessl.model.predict import predict_split
from kneessl.model.recalibrate import recalibrate
from kneessl.nets.encoder import save_weights
from kneessl.training.runs import write_record
from kneessl.views.preprocess import Preprocessing

TASKS = ["acl", "meniscus"]


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    """24 exams of noise; the last four have no coronal series, and only acl is labelled."""
    root = tmp_path_factory.mktemp("hospital") / "exams"
    rng = np.random.default_rng(0)
    for i in range(24):
        for plane in ("sagittal", "coronal")[: 2 if i < 20 else 1]:
            write_series(root, "train", plane, f"{i:04d}", rng.integers(0, 256, (3, 256, 256), dtype=np.uint8))
    write_labels(root, "train", "acl", {f"{i:04d}": i % 2 for i in range(24)})
    return root


def a_plane(out, plane, seed):
    torch.manual_seed(seed)
    out.mkdir(parents=True)
    save_weights(build_classifier("resnet18", "max", 2, {}), out / "model.safetensors")
    record = {"kind": "finetune", "network": "resnet18", "head": "max", "tasks": TASKS, "plane": plane}
    write_record(out, Preprocessing(32), rows=[], start="random weights", **record)
    (out / "config.yaml").write_text("data: elsewhere\n")
    exams = [f"{i:04d}" for i in range(20)]
    truth = np.stack([np.arange(20) % 2, np.arange(20) // 2 % 2], 1)
    logits = np.random.default_rng(seed).normal(size=(20, 2)) + truth
    lock_plane(out, plane, OutOfFold(TASKS, exams, np.arange(20) // 10, truth, logits), "2 folds by hand")
    return out


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    planes = [a_plane(root / plane, plane, seed) for seed, plane in enumerate(("sagittal", "coronal"))]
    fuse(planes, root / "fused")
    return root


@pytest.fixture(scope="module")
def made(models, hospital, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "here"
    recalibrate(models / "sagittal", hospital, out, labels=21, seed=3)
    return out


def test_it_is_set_on_the_drawn_exams_alone(made, models, hospital):
    locked, folder = read_decisions(made), ExamFolder(hospital)
    exams = list(locked.local.exams)
    assert len(exams) == len(set(exams)) == 21
    logits = predict_split(load_model(models / "sagittal"), folder, "train", exams, "again")["acl"].logits
    labels = folder.labels("train", "acl")
    expected = decide_on(np.array([labels[exam] for exam in exams]), logits)
    assert locked.decisions["acl"]["sagittal"] == expected


def test_it_is_a_model_of_its_own_with_the_same_networks(made, models, hospital):
    before, after = load_model(models / "sagittal"), load_model(made)
    assert after.decisions.local.before == before.sha256 != after.sha256
    assert after.decisions.decisions["meniscus"] == before.decisions.decisions["meniscus"], "nothing is labelled for it"
    assert after.decisions.set_on.startswith("21 labelled exams of another exam folder")
    assert before.decisions.set_on == "out-of-fold predictions of training exams, 2 folds by hand"
    exams = ["0000", "0001"]
    a, b = (predict_split(one, ExamFolder(hospital), "train", exams, "again")["acl"] for one in (before, after))
    assert np.array_equal(a.logits, b.logits)
    assert not np.array_equal(a.probabilities, b.probabilities)
    assert not (made / "out_of_fold.csv").exists()
    curve = json.loads((made / "recalibration.json").read_text())["acl"]["sagittal"]
    assert [point["labels"] for point in curve] == [10]


def test_exams_that_it_was_recalibrated_on_are_recognised(made, models, hospital):
    assert recalibrated_on(made, ExamFolder(hospital), "train")
    assert not recalibrated_on(made, ExamFolder(hospital), "valid")
    assert not recalibrated_on(models / "sagittal", ExamFolder(hospital), "train")


def test_a_fused_model_is_set_for_every_set_of_planes_that_has_exams_enough(models, hospital, tmp_path, capsys):
    recalibrate(models / "fused", hospital, tmp_path / "here", labels=24)
    before, after = load_model(models / "fused"), load_model(tmp_path / "here")
    changed = [k for k, d in after.decisions.decisions["acl"].items() if d != before.decisions.decisions["acl"][k]]
    assert changed == ["coronal+sagittal"]
    assert after.decisions.stacks == before.decisions.stacks
    told = capsys.readouterr().out
    assert "acl: set on coronal+sagittal; as locked: coronal, sagittal" in told
    assert "meniscus: no labels here; as it was locked" in told


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"labels": 25}, "24 labelled train exams"),
        ({"labels": 0}, "labels is 0"),
        ({"labels": 7}, "raise --labels"),
        ({"split": "valid"}, "no valid labels"),
    ],
)
def test_what_cannot_be_recalibrated_is_refused(models, hospital, tmp_path, settings, reason):
    with pytest.raises(UserError, match=reason):
        recalibrate(models / "sagittal", hospital, tmp_path / "here", **settings)
    assert not (tmp_path / "here").exists()


def test_a_changed_list_of_exams_breaks_the_lock(made, tmp_path):
    content = json.loads((made / "decisions.json").read_text())
    content["local"]["exams"] = content["local"]["exams"][1:]
    for file in made.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "decisions.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="have changed since it was locked"):
        read_decisions(tmp_path)
