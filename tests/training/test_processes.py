"""Pre-training by two processes, however they are started, gives the weights of one process with the whole batch.

In float64, so that the tolerance says something: in float32, what another order of summation changes grows to percents
within a few steps, the pictures and batches are so small. Run as a script, this file is the command in float64.
"""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kneessl import cli
from kneessl.errors import UserError
from kneessl.exams.folder import ExamFolder
from kneessl.methods import METHODS, make_method
from kneessl.training import pretrain
from kneessl.training.processes import Processes
from kneessl.views.augment import T_PRIME, T
from kneessl.views.clips import Clips, EpochSampler, clip_loader
from kneessl.views.inputs import ViewMaker
from kneessl.views.preprocess import Preprocessing

RANKS = 2
LIMIT = 900
"""Seconds until a run counts as hanging; on a busy machine two processes that wait for each other are slow."""
TOLERANCE = 1e-6
"""Of weights and buffers, relative to the largest of each tensor."""
TINY = {"slices": 2, "size": 32, "batch": 4, "epochs": 2, "warmup_epochs": 0, "precision": "float32", "lr": 0.01}
HEADS = {"byolmed2d": {"hidden": 16, "dim": 8}, "simclr": {"hidden": 16, "dim": 8}, "rotation": {}}


def widen(patch: pytest.MonkeyPatch) -> None:
    """Networks in float64, and views too."""
    standardise, make = Preprocessing.standardise, pretrain.make_method
    patch.setattr(Preprocessing, "standardise", lambda self, views: standardise(self, views.double()))
    patch.setattr(pretrain, "make_method", lambda *args: make(*args).double())


def words(knees: Path, out: Path, method: str) -> list[str]:
    options = TINY | {"method": method, "out": out, "devices": RANKS, "optimizer": "sgd"}
    options |= {f"settings.{k}": v for k, v in HEADS[method].items()}
    return [__file__, "pretrain", str(knees), *(f"--{k}={v}" for k, v in options.items())]


def finish(*processes: subprocess.Popen) -> str:
    """What they wrote to stderr; they must end well."""
    try:
        errors = [process.communicate(timeout=LIMIT)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(process.returncode == 0 for process in processes), errors
    return "".join(errors)


def start(command: list[str], **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | environment,
    )  # fmt: skip


def by_lightning_with_a_stop(command: list[str], out: Path) -> None:
    """Stopped in its second epoch by a SIGTERM to the first process alone, and resumed."""
    process = start(command)
    deadline = time.monotonic() + LIMIT
    while not (out / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 130, errors
    assert errors.count("--resume") == 1, "the first process alone says so"
    assert "Traceback" not in errors
    finish(start([*command, "--resume"]))


def by_torchrun(command: list[str], out: Path) -> None:
    finish(start(["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}", *command]))


def by_srun(command: list[str], out: Path) -> None:
    """As srun starts them: one for each task, told apart by its variables."""
    common = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NAME": "train", "SLURM_NTASKS": str(RANKS)}
    common |= {"SLURM_NTASKS_PER_NODE": str(RANKS), "SLURM_NODEID": "0", "MASTER_ADDR": "127.0.0.1"}
    ranks = [str(rank) for rank in range(RANKS)]
    finish(*(start(command, SLURM_PROCID=rank, SLURM_LOCALID=rank, **common) for rank in ranks))


def everything(run: Path) -> dict[str, Tensor]:
    """All weights and buffers: encoder, heads, moving averages."""
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def rows(run: Path) -> list[dict[str, float]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("method", "run"), [("byolmed2d", by_lightning_with_a_stop), ("simclr", by_torchrun), ("rotation", by_srun)]
)
def test_two_processes_learn_what_one_learns(knees, tmp_path, monkeypatch, method, run):
    run(words(knees, tmp_path / "two", method), tmp_path / "two")
    widen(monkeypatch)
    pretrain.pretrain(knees, tmp_path / "one", method=method, settings=HEADS[method], optimizer="sgd", **TINY)
    one, two = everything(tmp_path / "one"), everything(tmp_path / "two")
    assert one.keys() == two.keys()
    assert all(v.dtype in {torch.float64, torch.int64} for v in one.values())
    for name, expected in one.items():
        torch.testing.assert_close(
            two[name], expected, rtol=0, atol=TOLERANCE * expected.abs().max().item(), msg=lambda m, n=name: f"{n}: {m}"
        )
    for alone, together in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        clock = {"seconds", "exams_per_s"}
        assert {k: v for k, v in alone.items() if k not in clock} == pytest.approx(
            {k: v for k, v in together.items() if k not in clock}, rel=2e-5
        )
    files = [sorted(p.name for p in (tmp_path / run).rglob("*")) for run in ("one", "two")]
    assert files[0] == files[1], "nothing is written twice, or under another name"


@pytest.fixture
def as_rank(monkeypatch):
    """Be one of two processes, as far as draws can tell."""

    def become(rank: int) -> None:
        monkeypatch.setattr("kneessl.distributed.world_size", lambda: RANKS)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)

    return become


@pytest.mark.parametrize("by_slice", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_the_halves_of_a_batch_become_the_inputs_of_the_whole(as_rank, name, by_slice):
    small = {"permutations": 9, "width": 32}
    method = make_method(name, None, {k: v for k, v in small.items() if k in METHODS[name].settings()})
    view = replace(T, solarize=0.5, per_slice=not by_slice)
    make = ViewMaker(Preprocessing(64), view, T_PRIME)
    clips = torch.randint(0, 256, (4, 2, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    if by_slice:
        clips = clips.flatten(0, 1)[:, None]

    def inputs(part: Tensor) -> list[Tensor]:
        made = method.inputs(part, make, torch.Generator().manual_seed(1))
        return [x.unflatten(0, (4, -1)) if name == "rotation" else x[None] for x in made]  # its four turns apart

    whole, halves = inputs(clips), []
    for rank, part in enumerate(clips.chunk(RANKS)):
        as_rank(rank)
        halves.append(inputs(part))
    for expected, *parts in zip(whole, *halves, strict=True):
        torch.testing.assert_close(torch.cat(parts, dim=1), expected, rtol=0, atol=1e-4)
        assert len({bytes(x.numpy()) for x in parts}) == RANKS or expected.dtype == torch.int64, "drawn for each anew"


@pytest.mark.parametrize("name", METHODS)
def test_every_weight_that_learns_takes_part_in_the_loss(name):
    """DDP waits for the gradient of each of them."""
    small = {"permutations": 9, "width": 32}
    method = make_method(name, None, {k: v for k, v in small.items() if k in METHODS[name].settings()})
    clips = torch.randint(0, 256, (4, 1, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    inputs = method.inputs(clips, ViewMaker(Preprocessing(64), T, T_PRIME), torch.Generator().manual_seed(1))
    method(*inputs).loss.backward()
    assert [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None] == []


def test_the_shares_of_a_batch_are_the_batch(as_rank, knees):
    folder = ExamFolder(knees)
    exams = folder.require("train", "sagittal")
    clips = Clips(folder, "train", "sagittal", exams, 2, 0, Preprocessing(32))
    whole = clip_loader(clips, range(11), 4, drop_last=True)
    batches = [numbers.tolist() for _, numbers, _ in whole]
    shares = clip_loader(clips, range(11), 4, drop_last=True, processes=RANKS)
    assert len(shares) == len(whole) == len(batches) == 2
    dealt = []
    for rank in range(RANKS):
        as_rank(rank)
        dealt.append([numbers.tolist() for _, numbers, _ in shares])
    assert [[*first, *second] for first, second in zip(*dealt, strict=True)] == batches


def test_what_is_over_after_the_last_whole_batch_is_dealt_to_nobody():
    assert len(EpochSampler(range(11), 0)) == len(list(EpochSampler(range(11), 0))) == 11
    assert len(EpochSampler(range(11), 0, 4, 2)) == 4


@pytest.mark.parametrize(
    ("variables", "first"),
    [
        ({}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"LOCAL_RANK": "0", "SLURM_PROCID": "0"}, True),
        ({"RANK": "2", "LOCAL_RANK": "0"}, False),
        ({"RANK": "0", "LOCAL_RANK": "0", "SLURM_PROCID": "1"}, True),
        ({"SLURM_PROCID": "3"}, False),
    ],
)
def test_one_process_is_the_first_however_they_were_started(monkeypatch, variables, first):
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Processes(2, 2).first == first
    assert Processes().first, "whatever runs beside a training of one process, it writes"


def test_more_gpus_than_there_are_and_other_numbers_than_were_started_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    Processes(2).require(batch=4)
    with pytest.raises(UserError, match="devices is 3, and this machine shows 2 GPUs"):
        Processes(3).require(batch=3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="num_nodes is 2; start the command on every machine"):
        Processes(2, 2).require(batch=4)
    with monkeypatch.context() as patch:
        patch.setattr(torch.distributed, "is_torchelastic_launched", lambda: True)
        patch.setenv("WORLD_SIZE", "4")
        Processes(2, 2).require(batch=4)
        with pytest.raises(UserError, match=re.escape("4 processes were started, and --devices 1 times --num-nodes 1")):
            Processes().require(batch=4)
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "2")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    Processes().require(batch=4)  # trainings of one process each may run side by side
    with pytest.raises(UserError, match="4 processes were started"):
        Processes(2).require(batch=4)


if __name__ == "__main__":
    widen(pytest.MonkeyPatch())
    cli.main()
