import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.trainings import in_this_process, without_reports

from kneessl import cli
from kneessl.errors import UserError
from kneessl.evaluation import auc_interval
from kneessl.exams.folder import write_labels, write_series
from kneessl.experiments.label_curve import count_labels, epochs_for, name_starts, run_label_curve
from kneessl.finetuning.recipes import THESIS
from kneessl.nets.encoder import ClipEncoder, save_weights
from kneessl.training.runs import write_record
from kneessl.views.preprocess import Preprocessing

FINETUNE = {"size": 32, "slices": 2, "batch": 4, "epochs": 1, "precision": "float32"}


@pytest.fixture(scope="module")
def knees(tmp_path_factory):
    root = tmp_path_factory.mktemp("exams") / "knees"
    rng = np.random.default_rng(0)
    for split, names in (("train", range(16)), ("valid", range(16, 26))):
        labels = {f"{i:04d}": i % 2 for i in names}
        for exam in labels:
            write_series(root, split, "sagittal", exam, rng.integers(0, 256, (3, 256, 256)).astype(np.uint8))
        write_labels(root, split, "acl", labels)
    return root


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """As `kneessl pretrain` leaves it."""
    folder = tmp_path_factory.mktemp("runs") / "byol"
    folder.mkdir()
    torch.manual_seed(1)
    save_weights(ClipEncoder().trunk, folder / "encoder.safetensors")
    write_record(folder, Preprocessing(32), [], kind="pretrain", network="resnet18", plane="sagittal")
    return folder


def run(knees: Path, encoder: Path, out: Path, **changes) -> None:
    settings = {"from_run": encoder, "fractions": [0.25, 1.0], "seeds": 1, "finetune": FINETUNE, "jobs": 2}
    with pytest.MonkeyPatch.context() as patch, without_reports():
        patch.setattr("kneessl.experiments.experiment.run_all", in_this_process)
        run_label_curve(knees, "acl", out, **(settings | changes))


@pytest.fixture(scope="module")
def curve(knees, encoder, tmp_path_factory):
    out = tmp_path_factory.mktemp("curve") / "out"
    run(knees, encoder, out, least_steps=2)
    return out


def table(out: Path) -> dict[tuple[str, str], dict[str, str]]:
    with (out / "label_curve.csv").open(newline="") as file:
        return {(row["start"], row["labels"]): row for row in csv.DictReader(file)}


def test_every_start_has_the_same_labels_and_its_own_weights(curve, encoder):
    rows = table(curve)
    assert list(rows) == [("random", "4"), ("random", "16"), ("byol", "4"), ("byol", "16")]
    records = {p.parts[-3]: json.loads(p.read_text()) for p in curve.glob("runs/*/model/run.json")}
    for count, epochs in ((4, 2), (16, 1)):
        random, byol = (records[f"{arm}-{count}-seed0"] for arm in ("random", "byol"))
        assert random["labelled_exams"] == byol["labelled_exams"]
        assert len(byol["labelled_exams"]) == count
        assert (random["start"], byol["start"]) == ("random weights", str(encoder))
        assert random["epochs"] == byol["epochs"] == epochs, "least_steps raises what would be one step"
    assert set(records["byol-4-seed0"]["labelled_exams"]) < set(records["byol-16-seed0"]["labelled_exams"])


def test_the_table_holds_what_the_runs_left(curve):
    for (arm, count), row in table(curve).items():
        with (curve / "runs" / f"{arm}-{count}-seed0" / "predictions.csv").open(newline="") as file:
            lines = list(csv.DictReader(file))
        expected = auc_interval([int(r["label"]) for r in lines], [float(r["model"]) for r in lines], scale="logit")
        assert len(lines) == 10
        assert float(row["auc"]) == pytest.approx(expected.auc)
        assert float(row["auc_low"]) == pytest.approx(expected.low)
        assert (row["needed"] == "") == (arm == "random")
    page = (curve / "label_curve.html").read_text()
    assert "What pre-training is worth in labels: acl" in page
    assert (curve / "label_curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_failed_training_is_named_and_resuming_does_only_what_is_missing(curve, knees, encoder, capsys):
    job = curve / "runs" / "byol-4-seed0"
    before = {p: p.stat().st_mtime_ns for p in curve.glob("runs/*/model/model.safetensors")}
    rows = table(curve)
    weights = (job / "model" / "model.safetensors").read_bytes()
    (job / "model" / "model.safetensors").write_bytes(b"no weights")
    (job / "result.json").unlink()
    with pytest.raises(UserError, match="already holds a run"):
        run(knees, encoder, curve, least_steps=2)
    with pytest.raises(UserError, match=r"other settings than now asked for \(least_steps\)"):
        run(knees, encoder, curve, resume=True)
    run(knees, encoder, curve, least_steps=2, resume=True)
    assert re.search(r" 4 +byol +failed", capsys.readouterr().out)
    assert table(curve)["byol", "4"]["auc"] == ""
    assert table(curve)["random", "4"] == rows["random", "4"]
    assert "byol-4-seed0 failed: " in (curve / "label_curve.html").read_text()
    assert "model.safetensors" in (job / "failure.txt").read_text()

    (job / "model" / "model.safetensors").write_bytes(weights)
    run(knees, encoder, curve, least_steps=2, resume=True)
    assert table(curve) == rows
    after = {p: p.stat().st_mtime_ns for p in curve.glob("runs/*/model/model.safetensors") if p.parent.parent != job}
    assert after.items() <= before.items()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fractions": [0.01, 0.05]}, "fractions 0.01 and 0.05 of 16 labelled exams are both 4 labels"),
        ({"fractions": [1.0, 0.5]}, "rising, and up to 1"),
        ({"fractions": [0.5, 1.5]}, "rising, and up to 1"),
        ({"fractions": [0.0, 1.0]}, "above 0"),
        ({"fractions": [float("nan")]}, "above 0"),
        ({"finetune": {"epoch": 3}}, "finetune: .*epoch"),
        ({"finetune": {"labels": 3}}, "finetune: labels is not to be set here"),
        ({"finetune": {"epochs": 0}}, "epochs is 0"),
        ({"finetune": {"network": "sslm"}}, "sslm cannot start from random weights"),
        ({"finetune": {"network": "mrnet_alexnet"}}, "byol.encoder.safetensors does not hold exactly the weights"),
        ({"from_run": Path("nowhere")}, "nowhere is not a run folder"),
        ({"weights": Path("nowhere.pth")}, "nowhere.pth is missing"),
        ({"seeds": 0}, "seeds is 0"),
        ({"jobs": 0}, "jobs is 0"),
        ({"least_steps": -1}, "least_steps is -1"),
        ({"plane": "axial"}, "holds no series"),
    ],
)
def test_wrong_settings_end_before_anything_is_written(knees, encoder, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        run(knees, encoder, tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_too_few_valid_exams_of_a_class_end_it(knees, encoder, tmp_path):
    valid = knees / "valid-other.csv"
    valid.write_text("0016,0\n0017,1\n0018,0\n")
    (knees / "train-other.csv").write_text((knees / "train-acl.csv").read_text())
    with pytest.raises(UserError, match="too few valid sagittal exams labelled for other"):
        run_label_curve(knees, "other", tmp_path / "out", from_run=encoder, fractions=[1.0], finetune=FINETUNE)


def test_starts_are_called_by_their_folders(tmp_path):
    starts = name_starts([tmp_path / "a", tmp_path / "b"], Path("imagenet.pth"))
    assert list(starts) == ["random", "weights", "a", "b"]
    assert starts["random"] == []
    assert starts["weights"] == ["--weights", "imagenet.pth"]
    assert starts["b"] == ["--from", str(tmp_path / "b")]
    for runs, weights in (["a", "x/a"], None), (["random"], None), (["weights"], Path("w.pth")):
        with pytest.raises(UserError, match="there is a start called"):
            name_starts([tmp_path / run for run in runs], weights)


def test_counts_and_epochs():
    assert count_labels([0.001, 0.05, 0.25, 1.0], 810) == [4, 40, 202, 810]
    assert [epochs_for(THESIS, count, 100) for count in (3, 4, 1000)] == [34, 30, 30], "batch 1, 30 epochs"
    assert epochs_for(THESIS, 4, 0) == 30


def test_one_run_or_several_on_the_command_line(monkeypatch, tmp_path):
    parser, _, switches = cli.make_parser("label-curve")
    for words, expected in (("runs/a", Path("runs/a")), ("[runs/a,runs/b]", [Path("runs/a"), Path("runs/b")])):
        given = ["knees", "--task", "acl", "--out", "o", "--from", words, "--finetune.frozen", "true"]
        values = parser.parse_args(cli.normalise(given, switches))
        assert values.from_run == expected
        assert values.finetune == {"frozen": True}
