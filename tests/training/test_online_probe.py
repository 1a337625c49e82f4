import csv
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from kneessl.errors import UserError
from kneessl.exams.folder import ExamFolder, write_labels, write_series
from kneessl.methods.byol import BYOL
from kneessl.nets.encoder import ClipEncoder
from kneessl.training.online_probe import OnlineProbe
from kneessl.training.pretrain import pretrain
from kneessl.views.preprocess import Preprocessing

TINY = {
    "slices": 2, "size": 32, "batch": 4, "epochs": 4, "warmup_epochs": 1, "precision": "float32",
    "settings": {"hidden": 16, "dim": 8},
}  # fmt: skip

SHORT = TINY | {"epochs": 2}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Twenty-four training exams; those labelled 1 are brighter, so that any features tell them apart."""
    root = tmp_path_factory.mktemp("exams") / "knees"
    rng = np.random.default_rng(0)
    labels = {f"{i:04d}": i % 2 for i in range(24)}
    for exam, label in labels.items():
        volume = rng.integers(0, 60, (6, 256, 256)) + 120 * label
        write_series(root, "train", "sagittal", exam, volume.astype(np.uint8))
    write_labels(root, "train", "acl", labels)
    return root


def rows(run):
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def test_probes_are_spread_over_the_training_and_come_last(labelled, tmp_path):
    pretrain(labelled, tmp_path / "run", probe="acl", probes=2, **TINY)
    probed = [not np.isnan(row["linear_auc"]) for row in rows(tmp_path / "run")]
    assert probed == [False, True, False, True]
    last = rows(tmp_path / "run")[-1]
    assert last["linear_auc"] > 0.9, "brightness is easy"
    assert last["knn_auc"] > 0.9
    assert last["untrained_auc"] > 0.9
    assert last["encoder_rank"] >= 1
    assert 0 <= last["alignment"] <= 4
    assert last["uniformity"] <= 0
    assert "linear_auc" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.usefixtures("no_reports")
def test_probing_changes_nothing_of_the_training(labelled, tmp_path):
    pretrain(labelled, tmp_path / "with", probe="acl", probes=2, **SHORT)
    pretrain(labelled, tmp_path / "without", **SHORT)
    a, b = (load_file(tmp_path / name / "encoder.safetensors") for name in ("with", "without"))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert [r["loss"] for r in rows(tmp_path / "with")] == [r["loss"] for r in rows(tmp_path / "without")]


def test_the_valid_split_is_never_read(labelled, tmp_path):
    """There is none here at all, and the probe works."""
    assert not (labelled / "valid").exists()
    probe = OnlineProbe(ExamFolder(labelled), "sagittal", "acl", Preprocessing(32), 1, 1, ClipEncoder("max"))
    torch.manual_seed(0)
    figures = probe(ClipEncoder("none"), 1)
    assert figures["linear_auc"] > 0.9
    assert all(np.isnan(v) for v in probe(ClipEncoder("none"), 2).values())


def test_a_task_without_enough_labels_is_refused_before_anything_is_written(knees, labelled, tmp_path):
    with pytest.raises(UserError, match="at least 10 labelled training exams of each class"):
        pretrain(knees, tmp_path / "run", probe="acl", **TINY)
    with pytest.raises(UserError, match="tasks with labels in this split: acl"):
        pretrain(labelled, tmp_path / "run", probe="nope", **TINY)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_reports")
def test_a_collapsed_run_says_so_in_its_record(labelled, tmp_path, monkeypatch):
    forward = BYOL.forward

    def collapsed(self, view1, view2):
        outcome = forward(self, view1, view2)
        return outcome._replace(embeddings=torch.ones_like(outcome.embeddings))

    pretrain(labelled, tmp_path / "well", **SHORT)
    monkeypatch.setattr(BYOL, "forward", collapsed)
    pretrain(labelled, tmp_path / "ill", **SHORT)
    records = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("well", "ill")]
    assert [r["collapsed"] for r in records] == [False, True]
    assert all(r["peak_memory_bytes"] > 1e8 for r in records)
    assert all(r["seconds"] > 0 for r in records)


def test_features_no_better_than_the_untrained_encoders_are_said(labelled, tmp_path, monkeypatch, capsys):
    """The first probe is of the trained encoder, the second of the untrained one."""
    figures = iter([0.55, 0.61, 0.64])
    monkeypatch.setattr(OnlineProbe, "read", lambda self, encoder: (next(figures), 0.5))
    pretrain(labelled, tmp_path / "run", probe="acl", probes=2, **SHORT)
    said = "a linear probe on the frozen features has AUC 0.550, and 0.610 on those of the untrained encoder"
    printed = capsys.readouterr()
    assert f"epoch 1: {said}" in printed.err
    assert "warning" not in printed.out, "in the end it was better"
    assert [row["untrained_auc"] for row in rows(tmp_path / "run")] == [0.61, 0.61]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["collapsed"] is False
