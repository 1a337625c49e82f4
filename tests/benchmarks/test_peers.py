"""What the arms of `benchmarks/peers` have in common, and kneessl's own; the others need packages of their own."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from kneessl.exams.folder import write_series

PEERS = Path(__file__).parents[2] / "benchmarks" / "peers"


@pytest.fixture
def modules(monkeypatch):
    monkeypatch.syspath_prepend(PEERS)
    yield importlib.import_module("workload"), importlib.import_module("with_kneessl")
    for name in ("workload", "with_kneessl"):
        del sys.modules[name]


@pytest.fixture
def workload(modules, tmp_path):
    rng = np.random.default_rng(0)
    for name, slices in (("0000", 5), ("0001", 1), ("0002", 9)):
        volume = rng.integers(0, 255, (slices, 256, 256), dtype=np.uint8)
        write_series(tmp_path / "exams", "train", "sagittal", name, volume)
    return modules[0].Workload(
        data=tmp_path / "exams", scratch=tmp_path / "runs", device=torch.device("cpu"), precision="float32",
        batch=2, slices=3, size=32, steps=2, workers=1,
    )  # fmt: skip


def test_peers_get_the_slices_that_kneessl_takes(workload):
    taken = torch.cat([batch[0] for batch in workload.loader])
    given = [np.load(path)[numbers] for path, numbers in workload.draws()]
    np.testing.assert_array_equal(taken, given)


def test_worker_processes_never_run_out_of_batches(workload):
    for clock in (workload.training_clock(), workload.loading_clock()):
        assert len(workload.loader) >= clock.last + workload.ahead


def test_a_clock_counts_from_the_end_of_its_warm_up(modules, monkeypatch):
    clock = modules[0].Clock(torch.device("cpu"), warmup=2, steps=3)
    monkeypatch.setattr(clock, "now", lambda: [0, 7, 9, 10, 12, 15][clock.ended])
    modules[0].drive(range(100), lambda batch: None, clock)
    assert (clock.ended, clock.step_seconds) == (5, 2.0)


@pytest.mark.parametrize("method", ["byol", "byolmed2d"])
def test_kneessl_trains_and_makes_views_until_the_clock_is_done(modules, workload, method):
    arm = modules[1].kneessl_arm(workload, method)
    for run, clock in ((arm.train, workload.training_clock()), (arm.load, workload.loading_clock())):
        run(clock)
        assert clock.ended == clock.last
        assert clock.step_seconds > 0
