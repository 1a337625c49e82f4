import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import psutil
import pytest

from kneessl.errors import UserError
from kneessl.evaluation import auc_interval
from kneessl.exams.folder import write_labels, write_series
from kneessl.experiments.compare import ComparisonRun, ComparisonSettings, collect_arm, compare, epochs_within

PRETRAIN = {"size": 32, "slices": 2, "batch": 4, "epochs": 2, "warmup_epochs": 0, "precision": "float32"}
FINETUNE = {"size": 32, "slices": 2, "batch": 4, "epochs": 2, "precision": "float32"}
ARMS = {"byolmed2d": {"pretrain": {"settings": {"hidden": 16, "dim": 8}}}}
METHODS = ["byolmed2d", "spark", "supervised", "mrnet_resnet18"]


@pytest.fixture(scope="module")
def knees(tmp_path_factory):
    root = tmp_path_factory.mktemp("exams") / "knees"
    rng = np.random.default_rng(0)
    for split, names in (("train", range(24)), ("valid", range(24, 36))):
        labels = {f"{i:04d}": i % 2 for i in names}
        for exam, label in labels.items():
            volume = rng.integers(0, 60, (4, 256, 256))
            volume[1, 96:160, 96:160] += 150 * label
            write_series(root, split, "sagittal", exam, volume.astype(np.uint8))
        write_labels(root, split, "acl", labels)
    return root


def run(knees: Path, out: Path, **changes) -> None:
    settings = {"methods": METHODS, "seeds": 1, "pretrain": PRETRAIN, "finetune": FINETUNE, "arms": ARMS, "jobs": 2}
    compare(knees, "acl", out, **(settings | changes))


@pytest.fixture(scope="module")
def compared(knees, tmp_path_factory):
    out = tmp_path_factory.mktemp("compare") / "out"
    run(knees, out)
    return out


def table(out: Path) -> dict[str, dict[str, str]]:
    with (out / "comparison.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def test_a_method_that_fails_says_why_and_the_rest_go_on(compared):
    rows = table(compared)
    assert {name for name, row in rows.items() if row["status"] == "failed"} == {"spark"}
    assert list(rows) == METHODS
    reason = (compared / "runs" / "spark-seed0" / "failure.txt").read_text()
    assert "needs a multiple of 32 from 64 on" in reason
    page = (compared / "comparison.html").read_text()
    assert "needs a multiple of 32 from 64 on" in page
    assert "Published<br>elsewhere" in page
    assert "thesis 2022" in page


def test_the_table_holds_what_the_runs_left(compared, knees):
    folder = compared / "runs" / "supervised-seed0"
    with (folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    labels = [int(row["label"]) for row in rows]
    row = table(compared)["supervised"]
    for column in ("fine-tuned", "frozen"):
        expected = auc_interval(labels, [float(r[column]) for r in rows], scale="logit")
        name = column.replace("-", "_")
        assert float(row[f"{name}_auc"]) == pytest.approx(expected.auc)
        assert float(row[f"{name}_auc_low"]) == pytest.approx(expected.low)
    record = json.loads((folder / "fine-tuned" / "run.json").read_text())
    assert row["parameters"] == str(record["parameters"])
    assert float(row["seconds_by_seed"]) == pytest.approx(record["seconds"])


def test_every_arm_trains_on_the_same_exams(compared):
    records = [json.loads(p.read_text()) for p in compared.glob("runs/*/fine-tuned/run.json")]
    assert len(records) == 3
    assert len({tuple(r["labelled_exams"]) for r in records}) == 1
    assert len({r["fingerprint"] for r in records}) == 1
    failed = {p.parts[-3] for p in compared.glob("runs/*/*/checkpoints")}
    assert failed <= {"spark-seed0"}, "what is done keeps no checkpoints"


def test_resuming_does_only_what_is_missing(compared, knees):
    before = {p: p.stat().st_mtime_ns for p in compared.glob("runs/*/*/model.safetensors")}
    figures = table(compared)["supervised"]
    (compared / "runs" / "supervised-seed0" / "result.json").unlink()
    (compared / "comparison.csv").unlink()
    with pytest.raises(UserError, match="already holds a run"):
        run(knees, compared)
    with pytest.raises(UserError, match=r"other settings than now asked for \(seeds\)"):
        run(knees, compared, seeds=2, resume=True)
    run(knees, compared, resume=True)
    assert {p: p.stat().st_mtime_ns for p in compared.glob("runs/*/*/model.safetensors")} == before
    assert table(compared)["supervised"] == figures


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": {"bylo": {}}}, "arms names bylo; there are byolmed2d, byol"),
        ({"methods": ["byolmed2d", "simclrr"]}, "methods names simclrr; there are byolmed2d, byol"),
        ({"pretrain": {"epoch": 3}}, "byolmed2d, pretrain: .*epoch"),
        ({"finetune": {"epochs": "many"}}, "byolmed2d, finetune: .*epochs"),
        ({"arms": {"spark": {"pretrain": {"view1": {"flop": 1}}}}}, "spark, pretrain: .*flop"),
        ({"finetune": {"seed": 3}}, "byolmed2d, finetune: seed is not to be set here"),
        ({"seeds": 0}, "seeds is 0"),
        ({"jobs": 0}, "jobs is 0"),
        ({"minutes": -1.0}, "minutes is -1"),
        ({"plane": "axial"}, "holds no series"),
    ],
)
def test_wrong_settings_end_before_anything_is_written(knees, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        run(knees, tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def gone(processes: Iterable[psutil.Process]) -> bool:
    """Whether all of them have ended, or soon do."""
    return not psutil.wait_procs(processes, timeout=120)[1]


@pytest.mark.parametrize("killed", [False, True], ids=["interrupted", "killed"])
def test_an_interrupt_ends_the_arms_too(knees, tmp_path, killed):
    code = "from kneessl.cli import main; main()"
    words = ["compare", knees, "--task", "acl", "--out", tmp_path / "out", "--methods", "[byolmed2d]", "--seeds", "1"]
    words += ["--pretrain.epochs", "5000", "--pretrain.size", "32", "--pretrain.slices", "2"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    checkpoint = tmp_path / "out" / "runs" / "byolmed2d-seed0" / "encoder" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 600
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert checkpoint.exists()
    started = psutil.Process(process.pid).children(recursive=True)
    assert any("byolmed2d-seed0" in child.cmdline() for child in started)
    if killed:
        process.kill()  # the command alone
        process.wait()
    else:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, stderr = process.communicate(timeout=600)
        assert process.returncode == 130
        assert "--resume" in stderr.splitlines()[-1]
        assert "Traceback" not in stderr
    assert gone(started), "no arm is left running"
    assert "Traceback" not in (checkpoint.parents[2] / "log.txt").read_text()


def test_a_budget_in_minutes_becomes_epochs(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"seconds": 12.0}))
    assert epochs_within(1.0, tmp_path) == 5
    assert epochs_within(0.01, tmp_path) == 1, "an epoch at the least"


@pytest.mark.parametrize(("seconds", "epochs", "warmup"), [(30.0, "2", "1"), (60.0, "1", "0"), (3.0, "20", "10")])
def test_the_warm_up_fits_into_a_budget_in_minutes(tmp_path, seconds, epochs, warmup):
    wanted = ComparisonSettings(tmp_path, "acl", tmp_path, minutes=1.0, pretrain={"warmup_epochs": 15})
    run = ComparisonRun(wanted, "simclr", 0)
    (run.folder / "trial").mkdir(parents=True)
    (run.folder / "trial" / "run.json").write_text(json.dumps({"seconds": seconds}))
    trial, pretrain, *_ = run.commands()
    assert trial[trial.index("--epochs") + 1] == "1"
    assert pretrain[pretrain.index("--epochs") + 1 :][:3] == [epochs, "--warmup_epochs", warmup]


def test_an_arm_of_which_every_seed_failed_has_no_scores(tmp_path):
    run = ComparisonRun(ComparisonSettings(tmp_path, "acl", tmp_path), "simclr", 0)
    run.folder.mkdir(parents=True)
    (run.folder / "failure.txt").write_text("no luck")
    arm = collect_arm("simclr", [run])
    assert (arm.failures, arm.fine_tuned, arm.frozen, arm.seconds) == (["no luck"], None, None, [])
