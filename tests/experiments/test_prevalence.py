import csv
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from helpers.trainings import in_this_process, without_reports
from sklearn.metrics import roc_auc_score

from kneessl import cli
from kneessl.errors import UserError
from kneessl.exams.check import inspect
from kneessl.exams.folder import ExamFolder, write_labels, write_series
from kneessl.experiments.prevalence import BALANCES, choose_exams, run_prevalence, training_counts
from kneessl.experiments.prevalence_runs import PrevalenceFineTuning, PrevalencePretraining, TrainingSet
from kneessl.nets.weights import read_tensors

PRETRAIN = {
    "size": 32, "slices": 2, "batch": 10, "epochs": 1, "warmup_epochs": 0, "precision": "float32",
    "settings": {"hidden": 16, "dim": 8},
}  # fmt: skip
FINETUNE = {"size": 32, "slices": 2, "batch": 10, "epochs": 1, "precision": "float32", "head": "attention"}


@pytest.fixture(scope="module")
def knees(tmp_path_factory):
    """Training exams: 12 positive, 18 negative, one without a label; valid: 5 and 5."""
    root = tmp_path_factory.mktemp("exams") / "knees"
    rng = np.random.default_rng(0)
    train = {f"{i:04d}": int(i % 5 < 2) for i in range(30)}
    valid = {f"{i:04d}": i % 2 for i in range(100, 110)}
    for split, labels in (("train", train), ("valid", valid)):
        for exam in [*labels, *(["0099"] if split == "train" else [])]:
            write_series(root, split, "sagittal", exam, rng.integers(0, 256, (2, 256, 256)).astype(np.uint8))
        write_labels(root, split, "acl", labels)
    return root


def run(knees: Path, out: Path, **changes) -> None:
    settings = {
        "prevalences": [0.2, 0.5], "exams": 20, "seeds": 1, "pretrain": PRETRAIN, "finetune": FINETUNE, "jobs": 2
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch, without_reports():
        patch.setattr("kneessl.experiments.experiment.run_all", in_this_process)
        patch.setattr("kneessl.experiments.prevalence.BALANCES", ("oversample",))
        run_prevalence(knees, "acl", out, **(settings | changes))


@pytest.fixture(scope="module")
def trained(knees, tmp_path_factory):
    out = tmp_path_factory.mktemp("prevalence") / "out"
    run(knees, out)
    return out


def table(out: Path) -> dict[tuple[str, ...], dict[str, str]]:
    with (out / "prevalence.csv").open(newline="") as file:
        return {(r["readout"], r["balance"], r["prevalence"], r["arm"]): r for r in csv.DictReader(file)}


def record(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())


def auc(folder: Path, column: str) -> float:
    with (folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    return roc_auc_score([int(r["label"]) for r in rows], [float(r[column]) for r in rows])


def test_the_exam_folders_are_sound_and_equally_large(trained, knees):
    chosen = {}
    for name, positives in (("50-percent-seed0", 10), ("20-percent-seed0", 4)):
        folder = ExamFolder(trained / "exams" / name)
        assert inspect(folder).faults == []
        chosen[name] = folder.labels("train", "acl")
        assert (len(chosen[name]), sum(chosen[name].values())) == (20, positives)
        assert folder.exams("train", "sagittal") == sorted(chosen[name])
        assert folder.labels("valid", "acl") == ExamFolder(knees).labels("valid", "acl")
        assert folder.path("train", "sagittal", min(chosen[name])).samefile(
            ExamFolder(knees).path("train", "sagittal", min(chosen[name]))
        )
    half, fifth = chosen.values()
    assert {e for e, label in fifth.items() if label} < {e for e, label in half.items() if label}
    assert {e for e, label in half.items() if not label} < {e for e, label in fifth.items() if not label}


def test_both_arms_have_the_same_exams_and_settings_and_their_own_start(trained):
    runs = trained / "runs"
    for name, positives in (("50-percent-seed0", 10), ("20-percent-seed0", 4)):
        exams = ExamFolder(trained / "exams" / name).exams("train", "sagittal")
        encoder = runs / f"{name}-encoder" / "encoder"
        assert record(encoder)["exams"] == 20
        ours, theirs = (
            record(runs / f"{name}-{arm}-oversample" / "model") for arm in ("self-supervised", "supervised")
        )
        assert ours["labelled_exams"] == theirs["labelled_exams"] == exams
        assert ours["positives"] == theirs["positives"] == [positives]
        assert (ours["start"], theirs["start"]) == (str(encoder), "random weights")
        assert ours["data_sha256"] == record(encoder)["data_sha256"]
    for name in ("self-supervised", "supervised"):
        config = (runs / f"20-percent-seed0-{name}-oversample" / "model" / "config.yaml").read_text()
        assert "balance: oversample" in config
        assert "head: attention" in config


def test_every_encoder_is_read_by_the_same_balanced_labels(trained):
    runs = trained / "runs"
    balanced = ExamFolder(trained / "exams" / "50-percent-seed0").exams("train", "sagittal")
    linear = sorted(runs.glob("*/linear"))
    assert [p.parent.name for p in linear] == [
        f"{name}-{kind}"
        for name in ("20-percent-seed0", "50-percent-seed0")
        for kind in ("encoder", "supervised-oversample")
    ]
    for run_ in linear:
        found = record(run_)
        assert found["labelled_exams"] == balanced
        assert found["head"] == "max"
        assert found["preprocessing"]["size"] == 32
    start = runs / "20-percent-seed0-supervised-oversample"
    tuned, frozen = (read_tensors(start / kind / "model.safetensors") for kind in ("model", "linear"))
    kernels = [k for k in frozen if k.startswith("encoder.") and frozen[k].ndim == 4]
    assert len(kernels) == 20
    assert all((tuned[k] == frozen[k]).all() for k in kernels), "its encoder is the fine-tuned one, as it was"
    start = runs / "20-percent-seed0-encoder"
    encoder, frozen = (
        read_tensors(start / kind) for kind in ("encoder/encoder.safetensors", "linear/model.safetensors")
    )
    assert (encoder["conv1.weight"] == frozen["encoder.slices.trunk.conv1.weight"]).all()


def test_the_table_holds_what_the_runs_left(trained):
    rows, runs = table(trained), trained / "runs"
    assert len(rows) == 2 * 2 * 2
    aucs = {}
    for (readout, balance, prevalence, arm), row in rows.items():
        name = "20-percent-seed0" if prevalence == "0.2" else "50-percent-seed0"
        kind = "encoder" if (readout, arm) == ("linear", "self-supervised") else f"{arm}-{balance}"
        aucs[readout, balance, prevalence, arm] = found = auc(runs / f"{name}-{kind}", readout)
        assert float(row["auc"]) == pytest.approx(found)
        assert (row["exams"], row["positives"], row["seeds"]) == ("20", "4" if prevalence == "0.2" else "10", "1")
    for (readout, balance, prevalence, arm), row in rows.items():
        if prevalence == "0.5":
            assert row["loss"] == row["less"] == ""
            continue
        losses = {
            a: 1 - aucs[readout, balance, "0.2", a] / aucs[readout, balance, "0.5", a]
            for a in ("self-supervised", "supervised")
        }
        assert float(row["loss"]) == pytest.approx(losses[arm])
        assert float(row["less"]) == pytest.approx(losses["supervised"] - losses["self-supervised"])
    page = (trained / "prevalence.html").read_text()
    assert "Where positives are rare: acl from sagittal slices" in page
    assert "20 training exams at each of 2 prevalences, seeds: 1; pre-trained by byolmed2d" in page
    assert (trained / "prevalence.png").read_bytes().startswith(b"\x89PNG")


def test_a_failed_training_is_named_and_resuming_does_only_what_is_missing(trained, knees, capsys):
    before = {p: p.stat().st_mtime_ns for p in trained.glob("runs/*/*/model.safetensors")}
    rows = table(trained)
    job = trained / "runs" / "20-percent-seed0-supervised-oversample"
    weights = (job / "model" / "model.safetensors").read_bytes()
    (job / "model" / "model.safetensors").write_bytes(b"no weights")
    (job / "result.json").unlink()
    with pytest.raises(UserError, match="already holds a run"):
        run(knees, trained)
    with pytest.raises(UserError, match=r"other settings than now asked for \(exams\)"):
        run(knees, trained, exams=22, resume=True)
    run(knees, trained, resume=True)
    assert "failed" in capsys.readouterr().out
    found = table(trained)
    for readout in ("model", "linear"):
        assert found[readout, "oversample", "0.2", "supervised"]["auc"] == ""
        assert found[readout, "oversample", "0.2", "self-supervised"]["less"] == ""
    assert found["model", "oversample", "0.5", "supervised"] == rows["model", "oversample", "0.5", "supervised"]
    assert "20-percent-seed0-supervised-oversample failed: " in (trained / "prevalence.html").read_text()

    (job / "model" / "model.safetensors").write_bytes(weights)
    run(knees, trained, resume=True)
    assert table(trained) == rows
    after = {p: p.stat().st_mtime_ns for p in trained.glob("runs/*/*/model.safetensors") if p.parent.parent != job}
    assert after.items() <= before.items()

    for name, before, after in (("train", "0000,1", "0000,0"), ("valid", "0101,1", "0101,0")):
        labels = knees / f"{name}-acl.csv"
        text = labels.read_text()
        labels.write_text(text.replace(before, after))
        with pytest.raises(UserError, match=r"labelled exams of .*knees have changed since .*out began"):
            run(knees, trained, resume=True)
        labels.write_text(text)


def pretended(fails):
    """`run_all` without training: every job leaves scores by its name and the exam alone, or fails as told."""

    def run_all(jobs, submit, title):
        for job in jobs:
            job.folder.mkdir(parents=True, exist_ok=True)
            if fails(job.folder.name):
                (job.folder / "failure.txt").write_text("told to")
                continue
            rng = np.random.default_rng([ord(c) for c in job.folder.name])
            rows = [f"{100 + i:04d},acl,{i % 2},{0.2 * (i % 2) + rng.random()},{rng.random()}" for i in range(10)]
            (job.folder / "predictions.csv").write_text("\n".join(["exam,task,label,model,linear", *rows]) + "\n")
            (job.folder / "result.json").write_text("{}")

    return run_all


def test_every_cell_is_put_where_it_belongs_and_failures_leave_gaps(knees, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    gone = {"50-percent-seed1-encoder", "10-percent-seed0-supervised-none", "10-percent-seed1-supervised-none"}
    monkeypatch.setattr("kneessl.experiments.experiment.run_all", pretended(gone.__contains__))
    run_prevalence(knees, "acl", out, prevalences=[0.1, 0.5, 0.2], exams=20, seeds=2)
    rows = table(out)
    assert len(rows) == 2 * 3 * 3 * 2
    found = {}
    for (readout, balance, prevalence, arm), row in rows.items():
        kind = "encoder" if (readout, arm) == ("linear", "self-supervised") else f"{arm}-{balance}"
        folders = [out / "runs" / f"{float(prevalence):.0%}-seed{s}-{kind}".replace("%", "-percent") for s in (0, 1)]
        aucs = [auc(folder, readout) for folder in folders if folder.name not in gone]
        assert [float(v) for v in row["auc_by_seed"].split()] == pytest.approx(aucs)
        found[readout, balance, prevalence, arm] = np.mean(aucs) if aucs else None
    for (readout, balance, prevalence, arm), row in rows.items():
        here, half = (found[readout, balance, p, arm] for p in (prevalence, "0.5"))
        if here is None or prevalence == "0.5":
            assert row["loss"] == ""
        else:
            assert float(row["loss"]) == pytest.approx(1 - here / half)
    assert rows["linear", "none", "0.5", "self-supervised"]["seeds"] == "1"
    assert rows["model", "none", "0.1", "supervised"]["auc"] == rows["model", "none", "0.1", "supervised"]["less"] == ""
    page = (out / "prevalence.html").read_text()
    assert all(f"{name} failed: told to" in page for name in gone)
    assert page.count("failed: told to") == 3
    assert capsys.readouterr().out.count("failed") == 2


def test_where_everything_fails_the_reason_is_told(knees, tmp_path, monkeypatch):
    monkeypatch.setattr("kneessl.experiments.experiment.run_all", pretended(lambda _: True))
    with pytest.raises(UserError, match="every training failed; the first one because: told to"):
        run_prevalence(knees, "acl", tmp_path / "out", prevalences=[0.5, 0.2], exams=20)


def test_the_commands_of_all_trainings(tmp_path):
    exams = TrainingSet(tmp_path, 0.184, 2, "acl", "coronal")
    half = tmp_path / "exams" / "50-percent-seed2"
    pretrain, read, evaluate = PrevalencePretraining(exams, "simclr").commands()
    assert pretrain[:4] == ["pretrain", str(exams.folder), "--method", "simclr"]
    assert exams.folder == tmp_path / "exams" / "18.4-percent-seed2"
    assert read[:2] == ["finetune", str(half)]
    assert "--frozen" in read
    assert evaluate[:2] == ["evaluate", str(tmp_path / "runs" / "18.4-percent-seed2-encoder" / "linear")]
    folders = {PrevalencePretraining(exams, "simclr").folder}
    for balance in BALANCES:
        tune, read, evaluate = PrevalenceFineTuning(exams, "supervised", balance).commands()
        assert tune[tune.index("--balance") + 1] == balance
        assert "--from" not in tune
        assert read[read.index("--weights") + 1] == str(Path(tune[-1]) / "model.safetensors")
        assert read[1] == str(half)
        assert evaluate[evaluate.index("--against") + 1] == read[read.index("--out") + 1]
        with pytest.raises(UserError, match="pre-training that it starts from failed"):
            next(PrevalenceFineTuning(exams, "self-supervised", balance).commands())
        folders |= {PrevalenceFineTuning(exams, arm, balance).folder for arm in ("supervised", "self-supervised")}
        for words in (tune, read):
            assert words[words.index("--seed") + 1] == "2"
            assert words[words.index("--plane") + 1] == "coronal"
            assert "--resume" in words
    assert len(folders) == 7
    for job in (PrevalencePretraining(exams, "simclr"), PrevalenceFineTuning(exams, "supervised", "none")):
        assert pickle.loads(pickle.dumps(job)) == job, "it goes to a process of its own"


def test_chosen_exams_are_nested_exact_and_fixed_by_the_seed():
    labels = {f"{i:04d}": int(i % 3 == 0) for i in range(120)}
    sets = {k: choose_exams(labels, k, 60, 7) for k in (30, 11, 3)}
    for positives, chosen in sets.items():
        assert (len(chosen), sum(chosen.values())) == (60, positives)
        assert all(labels[exam] == label for exam, label in chosen.items())
        assert choose_exams(labels, positives, 60, 7) == chosen
        assert choose_exams(labels, positives, 60, 8) != chosen
    for more, fewer in ((30, 11), (11, 3)):
        shared = sets[more].keys() & sets[fewer].keys()
        assert len(shared) == 60 - (more - fewer), "no more differ than must"
        assert {e for e in sets[fewer] if labels[e]} < {e for e in sets[more] if labels[e]}


def test_counts():
    shares = [0.5, 0.184, 0.05, 0.01]
    assert training_counts(shares, None, 208, 922) == (417, {0.5: 208, 0.184: 77, 0.05: 21, 0.01: 4}), "MRNet"
    assert training_counts(shares, 400, 208, 922) == (400, {0.5: 200, 0.184: 74, 0.05: 20, 0.01: 4})
    assert training_counts([0.5, 0.1], None, 500, 90) == (100, {0.5: 50, 0.1: 10}), "negatives may be what is short"


def test_the_most_exams_are_the_most():
    for positives, negatives in ((40, 75), (33, 81), (90, 41)):
        total, counts = training_counts([0.5, 0.25, 0.1], None, positives, negatives)
        assert max(counts.values()) <= positives
        assert max(total - count for count in counts.values()) <= negatives
        with pytest.raises(UserError, match=f"exams is {total + 1}; .* allow 1 to {total}"):
            training_counts([0.5, 0.25, 0.1], total + 1, positives, negatives)


@pytest.mark.parametrize(
    ("prevalences", "exams", "message"),
    [
        ([0.2, 0.1], None, "prevalences is 0.2, 0.1; they must .* 0.5 one of them"),
        ([0.5, 0.0], None, "above 0 and below 1"),
        ([0.5, 1.0], None, "above 0 and below 1"),
        ([0.5, float("nan")], None, "above 0 and below 1"),
        ([0.5, -0.1], None, "above 0 and below 1"),
        ([0.5, 0.5], None, "leave out what is there twice"),
        ([0.5, 0.1, 0.101], 100, "0.5, 0.1, 0.101 of 100 exams are 50, 10, 10 positive"),
        ([0.5, 0.01], 100, "prevalence 0.01 of 100 exams is 1 positive; training needs 2 of each class"),
        ([0.5, 0.99], 50, "prevalence 0.99 of 50 exams is 50 positive; training needs 2 of each class"),
        ([0.5, 0.2], 161, "exams is 161; with 80 positive and 120 negative .* allow 1 to 150"),
        ([0.5, 0.2], 0, "exams is 0"),
    ],
)
def test_counts_that_cannot_be(prevalences, exams, message):
    with pytest.raises(UserError, match=message):
        training_counts(prevalences, exams, 80, 120)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prevalences": [0.5, 0.05], "exams": 18}, "prevalence 0.05 of 18 exams is 1 positive"),
        ({"exams": 40}, "exams is 40; with 12 positive and 18 negative labelled training exams"),
        ({"pretrain": {"epoch": 3}}, "pretrain: .*epoch"),
        ({"pretrain": {"settings": {"tauu": 1}}}, "byolmed2d has no setting tauu"),
        ({"pretrain": {"probe": "acl"}}, "pretrain: probe is not to be set here"),
        ({"pretrain": {"weights": "w.pth"}}, "pretrain: weights is not to be set here"),
        ({"finetune": {"epochs": "many"}}, "finetune: .*epochs"),
        ({"finetune": {"balance": "none"}}, "finetune: balance is not to be set here"),
        ({"finetune": {"network": "mrnet_alexnet"}}, "finetune: network is not to be set here"),
        ({"finetune": {"lr": -1.0}}, "lr is -1.0"),
        ({"method": "sslm"}, "method sslm trains a network that cannot start from random weights"),
        ({"seeds": 0}, "seeds is 0"),
        ({"jobs": 0}, "jobs is 0"),
        ({"plane": "axial"}, "holds no series"),
    ],
)
def test_wrong_settings_end_before_anything_is_written(knees, tmp_path, changes, message):
    with pytest.raises(UserError, match=message) as error:
        run(knees, tmp_path / "out", **changes)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_too_few_valid_exams_of_a_class_end_it(knees, tmp_path):
    (knees / "valid-other.csv").write_text("0100,0\n0101,1\n0102,0\n")
    (knees / "train-other.csv").write_text((knees / "train-acl.csv").read_text())
    with pytest.raises(UserError, match="too few valid sagittal exams labelled for other"):
        run_prevalence(knees, "other", tmp_path / "out")


def test_on_the_command_line():
    parser, _, switches = cli.make_parser("prevalence")
    words = [
        "knees",
        "--task",
        "acl",
        "--out",
        "o",
        "--prevalences",
        "[0.5,0.05]",
        "--pretrain.epochs",
        "2",
        "--resume",
    ]
    values = parser.parse_args(cli.normalise(words, switches))
    assert (values.prevalences, values.pretrain, values.resume) == ([0.5, 0.05], {"epochs": 2}, True)
