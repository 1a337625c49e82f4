import csv
import gc
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from kneessl.errors import UserError
from kneessl.methods.byol import BYOL
from kneessl.nets.encoder import ClipEncoder
from kneessl.training.callbacks import StopAsked, StopBetweenBatches
from kneessl.training.machine import lightning_precision
from kneessl.training.optimizers import Optimization
from kneessl.training.pretrain import pretrain
from kneessl.training.pretraining import Pretraining
from kneessl.views.augment import T_PRIME, T
from kneessl.views.clips import EpochSampler, ignore_interrupt
from kneessl.views.inputs import ViewMaker
from kneessl.views.preprocess import Preprocessing
from kneessl.views.store import ResidentSlices

TINY = {"slices": 2, "size": 32, "batch": 4, "epochs": 3, "warmup_epochs": 1}
HEADS = {"hidden": 16, "dim": 8}
"""Small enough for seconds; float32, so that equality does not depend on the processor."""


def tiny(knees: Path, out: Path, **changes) -> None:
    pretrain(knees, out, **(TINY | {"precision": "float32", "settings": HEADS} | changes))


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def command(knees: Path, out: Path) -> list[str]:
    words = [f"--{k}={v}" for k, v in TINY.items()] + [f"--settings.{k}={v}" for k, v in HEADS.items()]
    code = "from kneessl.cli import main; main()"
    return [sys.executable, "-c", code, "pretrain", str(knees), "--out", str(out), "--precision=float32", *words]


@pytest.fixture(scope="module")
def unbroken(knees, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    tiny(knees, out)
    return out


def assert_equal_weights(a: Path, b: Path) -> None:
    first, second = load_file(a / "encoder.safetensors"), load_file(b / "encoder.safetensors")
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def test_a_run_folder_holds_what_the_readme_says(unbroken, knees):
    assert len(rows(unbroken)) == 3
    watch = {"feature_std", "effective_rank", "rank_share", "alignment", "uniformity"}
    watch |= {"encoder_std", "encoder_rank", "encoder_alpha", "encoder_lidar"}
    assert {"epoch", "loss", "lr", "exams_per_s", "seconds"} | watch == set(rows(unbroken)[0])
    record = json.loads((unbroken / "run.json").read_text())
    assert record["exams"] == 12
    assert record["fingerprint"] == Preprocessing(32).fingerprint()
    assert yaml.safe_load((unbroken / "config.yaml").read_text())["settings"]["hidden"] == 16
    html = (unbroken / "report.html").read_text()
    assert "view T" in html
    assert not list(unbroken.rglob("*.partial"))
    torch.load(unbroken / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.mark.usefixtures("no_reports")
def test_the_same_seed_gives_the_same_weights_and_another_does_not(unbroken, knees, tmp_path):
    tiny(knees, tmp_path / "again")
    assert_equal_weights(unbroken, tmp_path / "again")
    tiny(knees, tmp_path / "other", seed=1)
    with pytest.raises(AssertionError):
        assert_equal_weights(unbroken, tmp_path / "other")


@pytest.mark.usefixtures("no_reports")
def test_series_held_on_the_device_give_the_weights_that_files_give(unbroken, knees, tmp_path, monkeypatch):
    """As on a GPU with room for them; here the device is the CPU, and the lines that run are the same."""
    gathered = []
    gather = ResidentSlices.gather
    monkeypatch.setattr(ResidentSlices, "gather", lambda *args: gathered.append(args) or gather(*args))
    monkeypatch.setattr("kneessl.views.store.gpu_memory", lambda: (torch.device("cpu"), 10**9))
    tiny(knees, tmp_path / "held")
    assert len(gathered) == 9, "3 epochs of 3 batches"
    assert_equal_weights(unbroken, tmp_path / "held")


@pytest.mark.usefixtures("no_reports")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_killed_run_resumes_to_the_weights_of_an_unbroken_one(unbroken, knees, tmp_path, how):
    out = tmp_path / "killed"
    process = subprocess.Popen(
        command(knees, out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell may have had it ignored
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (out / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(how)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == (-9 if how == signal.SIGKILL else 130), "stopped before its end"
    assert "Traceback" not in stderr
    assert ("--resume" in stderr) == (how != signal.SIGKILL)
    tiny(knees, out, resume=True)
    assert_equal_weights(unbroken, out)
    assert [(r["epoch"], r["loss"]) for r in rows(out)] == [(r["epoch"], r["loss"]) for r in rows(unbroken)]


@pytest.mark.usefixtures("no_reports")
def test_a_run_with_worker_processes_resumes_to_the_same_weights(unbroken, knees, tmp_path, monkeypatch):
    """As on a GPU, where workers read ahead before Lightning tells the sampler its epoch."""

    def with_worker(clips, indices, batch, drop_last=False, processes=1):
        return torch.utils.data.DataLoader(
            clips, batch, sampler=EpochSampler(indices, clips.seed), drop_last=drop_last, num_workers=1,
            worker_init_fn=ignore_interrupt,
        )  # fmt: skip

    def stop_in_second_epoch(self, trainer, *_):
        if trainer.current_epoch == 1:
            self.asked = True
            raise StopAsked

    monkeypatch.setattr("kneessl.training.pretrain.clip_loader", with_worker)
    with monkeypatch.context() as patch:
        patch.setattr(StopBetweenBatches, "on_train_batch_start", stop_in_second_epoch)
        with pytest.raises(KeyboardInterrupt, match="--resume"):
            tiny(knees, tmp_path / "run")
    assert len(rows(tmp_path / "run")) == 1
    tiny(knees, tmp_path / "run", resume=True)
    assert_equal_weights(unbroken, tmp_path / "run")


@pytest.mark.usefixtures("no_reports")
def test_after_training_signals_and_memory_are_given_back(knees, tmp_path):
    handled = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def alive():
        gc.collect()
        return sum(type(o) is Pretraining for o in gc.get_objects())

    before = alive()
    tiny(knees, tmp_path / "run")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handled
    assert alive() == before


@pytest.mark.usefixtures("no_reports")
def test_a_run_does_not_resume_on_other_data(knees, tmp_path):
    shutil.copytree(knees, tmp_path / "knees")
    tiny(tmp_path / "knees", tmp_path / "run", epochs=2)
    (tmp_path / "knees" / "train" / "sagittal" / "0003.npy").unlink()
    with pytest.raises(UserError, match="data has changed"):
        tiny(tmp_path / "knees", tmp_path / "run", epochs=2, resume=True)


def test_a_finished_run_resumes_to_itself(unbroken, knees, tmp_path):
    before = load_file(unbroken / "encoder.safetensors")
    tiny(knees, unbroken, resume=True)
    after = load_file(unbroken / "encoder.safetensors")
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert len(rows(unbroken)) == 3


@pytest.mark.usefixtures("no_reports")
def test_a_run_in_the_way_or_with_other_settings_is_refused(unbroken, knees, tmp_path):
    with pytest.raises(UserError, match="already holds a run; add --resume"):
        tiny(knees, unbroken)
    with pytest.raises(UserError, match=r"other settings than now asked for \(lr, seed\)"):
        tiny(knees, unbroken, seed=5, lr=0.5, resume=True)
    (tmp_path / "mine.txt").write_text("do not touch")
    with pytest.raises(UserError, match="not empty"):
        tiny(knees, tmp_path)
    damaged = tmp_path / "damaged"
    tiny(knees, damaged, epochs=2)
    (damaged / "checkpoints" / "last.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=r"last\.ckpt cannot be read"):
        tiny(knees, damaged, epochs=2, resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 1}, "at least 2 exams a batch"),
        ({"batch": 13}, "12 sagittal training exams"),
        ({"slices": 0}, "slices is 0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"warmup_epochs": 3}, "warmup_epochs is 3"),
        ({"plane": "axial"}, "holds no series"),
        ({"size": 8}, "size is 8"),
        ({"lr": -1.0}, "lr is -1"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"settings": {"tau": 1.5}}, "settings.tau is 1.5"),
        ({"settings": {"temperature": 0.1}}, "byolmed2d has no setting temperature; it has hidden, dim, tau"),
        ({"method": "rotation", "settings": {}, "pool": "max"}, "rotation works on single slices"),
        ({"method": "moco_v2", "settings": {"queue": 24}}, "settings.queue is 24; it must stay below the 24 samples"),
        ({"field": 0.0}, "field is 0"),
        ({"depth": 1.5}, "depth is 1.5"),
        ({"probes": 0}, "probes is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"settings": {"hidden": 0}}, "settings.hidden is 0"),
        ({"settings": {"dim": 0}}, "settings.dim is 0"),
        ({"weight_decay": -1.0}, "weight_decay is -1"),
        ({"devices": 0}, "devices is 0"),
        ({"num_nodes": 0}, "num_nodes is 0"),
        ({"devices": 3}, "batch is 4, and is shared by 3 processes"),
        ({"devices": 2, "method": "moco_v2", "settings": {"split_bn": 2}}, "settings.split_bn"),
    ],
)
def test_wrong_settings_leave_no_run_behind(knees, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        tiny(knees, tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_divergence_is_said_in_a_sentence(knees, tmp_path):
    with pytest.raises(UserError, match="training diverged"):
        tiny(knees, tmp_path / "run", lr=1e30, warmup_epochs=0)


def module(tmp_path: Path, accumulate: int = 1) -> tuple[Pretraining, L.Trainer]:
    torch.manual_seed(0)
    method = BYOL(ClipEncoder("max"), hidden=16, dim=8, tau=0.9)
    make_view = ViewMaker(Preprocessing(32), T, T_PRIME)
    pretraining = Pretraining(method, make_view, False, Optimization(1, "lars", 0.1, 1e-6, 0), 0, tmp_path)
    trainer = L.Trainer(
        max_epochs=1, accumulate_grad_batches=accumulate, logger=False, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    return pretraining, trainer


def test_the_target_moves_after_optimiser_steps_only(tmp_path):
    pretraining, trainer = module(tmp_path, accumulate=2)
    progress = []
    pretraining.method.after_step = progress.append
    clips = torch.randint(0, 255, (16, 2, 256, 256), dtype=torch.uint8)
    dataset = torch.utils.data.TensorDataset(clips, torch.arange(16), torch.zeros(16, 2))
    trainer.fit(pretraining, torch.utils.data.DataLoader(dataset, batch_size=2))
    assert progress == [0, 0.25, 0.5, 0.75], "8 micro-batches are 4 steps, k / K for k from 0"


def test_a_collapsed_run_says_so_and_what_to_change(knees, tmp_path, capsys, monkeypatch):
    def collapsed(self, view1, view2):
        outcome = forward(self, view1, view2)
        return outcome._replace(embeddings=torch.ones_like(outcome.embeddings))

    forward = BYOL.forward
    monkeypatch.setattr(BYOL, "forward", collapsed)
    tiny(knees, tmp_path / "run", epochs=2)
    printed = capsys.readouterr()
    assert "epoch 1: the projected features have collapsed" in printed.err
    assert "--lr" in printed.out
    assert float(rows(tmp_path / "run")[-1]["feature_std"]) == 0
    assert "have collapsed" in (tmp_path / "run" / "report.html").read_text()


def test_projections_in_few_dimensions_are_said_and_what_forbids_it(knees, tmp_path, capsys, monkeypatch):
    def narrow(self, view1, view2):
        outcome = forward(self, view1, view2)
        line = torch.sign(torch.randn(len(outcome.embeddings), 1)) * torch.ones(1, 32)
        return outcome._replace(embeddings=line + 0.001 * torch.randn(len(line), 32), partners=None)

    forward = BYOL.forward
    monkeypatch.setattr(BYOL, "forward", narrow)
    tiny(knees, tmp_path / "run", epochs=1, warmup_epochs=0, batch=12)
    printed = capsys.readouterr().out
    assert "the projected features lie in few dimensions" in printed
    assert "--method simclr, vicreg or byol_vc" in printed


def test_two_draws_show_each_view_its_own_slices(knees, tmp_path, monkeypatch):
    taken = []

    def pair(self, first, second, generator):
        taken.append((first, second))
        return make(self, first, second, generator)

    make = ViewMaker.pair
    monkeypatch.setattr(ViewMaker, "pair", pair)
    tiny(knees, tmp_path / "run", epochs=1, warmup_epochs=0, draws=2)
    assert all(first.shape == second.shape == (4, 2, 256, 256) for first, second in taken)
    assert any(not torch.equal(first, second) for first, second in taken)
    tiny(knees, tmp_path / "one", epochs=1, warmup_epochs=0)
    assert torch.equal(*taken[-1]), "by default both views are of the same slices"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"draws": 3}, "draws is 3; it must be 1"),
        ({"draws": 2, "method": "jigsaw", "settings": None}, "method jigsaw does not learn from two views"),
        ({"draws": 2, "slices": 12}, "exam 0000 has 12 sagittal slices to draw 12 from"),
    ],
)
def test_draws_that_cannot_be_are_refused_before_anything_runs(knees, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        tiny(knees, tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_precision_auto_takes_what_the_processor_has():
    assert lightning_precision("float32") == "32-true"
    assert lightning_precision("bf16") == "bf16-mixed"
    assert lightning_precision("auto") in {"32-true", "bf16-mixed"}


@pytest.mark.usefixtures("no_reports")
def test_bf16_trains_to_nearly_the_same_loss(unbroken, knees, tmp_path):
    tiny(knees, tmp_path / "bf16", precision="bf16")
    # Of all epochs: one alone is three steps, and wanders by 0.4 on processors that only emulate bf16.
    plain, bf16 = (np.mean([float(row["loss"]) for row in rows(run)]) for run in (unbroken, tmp_path / "bf16"))
    assert bf16 == pytest.approx(plain, abs=0.3)


@pytest.mark.usefixtures("no_reports")
def test_a_queue_is_made_to_fit_the_data(knees, tmp_path):
    tiny(knees, tmp_path / "run", method="moco_v2", settings={"dim": 8}, epochs=2)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["settings"]["queue"] == 12, "half of 12 exams x 2"
