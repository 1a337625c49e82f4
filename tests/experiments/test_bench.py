import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kneessl.errors import UserError
from kneessl.exams.folder import write_series
from kneessl.experiments.bench import MATRIX_SIDE, bench, matrix_rate
from kneessl.finetuning.finetune import finetune
from kneessl.training import stopwatch
from kneessl.training.stopwatch import STAGES, Clock, Measured, Stopwatch, Timing

PRETRAIN = {
    "slices": 2, "size": 32, "batch": 4, "epochs": 3, "warmup_epochs": 1, "precision": "float32",
    "settings": {"hidden": 16, "dim": 8},
}  # fmt: skip
FINETUNE = {"slices": 2, "size": 32, "batch": 3, "epochs": 1, "precision": "float32"}


def measure(capsys, *args, **kwargs) -> dict:
    bench(*args, rounds=2, seconds=1e-6, json=True, **kwargs)
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("kwargs", "exams", "views"),
    [
        ({"pretrain": PRETRAIN}, 4, 4 * 2 * 2),
        ({"method": "rotation", "pretrain": PRETRAIN | {"settings": {}}}, 4, 4 * 2 * 4),
        ({"of": "finetune", "finetune": FINETUNE}, 3, 3 * 2),
    ],
)
def test_a_training_is_timed_and_only_json_is_printed(knees, capsys, kwargs, exams, views):
    found = measure(capsys, knees, **kwargs)
    assert found["exams_per_step"] == exams
    assert found["pipeline_views_per_s"] / found["pipeline_exams_per_s"] == pytest.approx(views / exams)
    assert list(found["stages"]) == [*STAGES, "wait"]
    worked = [name for name, seconds in found["stages"].items() if seconds > 0]
    assert set(STAGES[:6]) <= set(worked)
    assert found["ratio_range"][0] <= found["ratio"] <= found["ratio_range"][1]
    assert found["peak_memory_bytes"] > 10**8
    assert (found["rounds"], found["steps_per_round"]) == (2, 1)


def test_a_prediction_is_timed_over_whole_exams(knees, tmp_path, capsys):
    finetune(knees, "acl", tmp_path / "model", **FINETUNE)
    capsys.readouterr()
    found = measure(capsys, knees, of="predict", model=tmp_path / "model")
    assert found["pipeline_views_per_s"] / found["pipeline_exams_per_s"] == pytest.approx(12), "slices of the exam"
    assert found["stages"]["forward"] > 0
    assert found["stages"]["backward"] == 0


def test_without_a_model_random_weights_are_timed_for_every_plane_there_is(tmp_path, capsys):
    for plane in ("sagittal", "axial"):
        write_series(tmp_path, "valid", plane, "0000", np.zeros((3, 256, 256), np.uint8))
    found = measure(capsys, tmp_path, of="predict", finetune={"size": 32})
    assert found["pipeline_views_per_s"] / found["pipeline_exams_per_s"] == pytest.approx(6)


def test_the_table_says_what_was_measured(knees, capsys):
    bench(knees, pretrain=PRETRAIN, rounds=1, seconds=1e-6)
    out = capsys.readouterr().out
    for word in ("| pipeline |", "| ceiling |", "ratio ", "GFLOP", "| augment |"):
        assert word in out


def test_nothing_is_left_behind(knees, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    measure(capsys, knees, pretrain=PRETRAIN)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"of": "predict", "finetune": {"sizes": 1}}, "sizes"),
        ({"rounds": 0}, "rounds is 0"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"pretrain": {"out": "x"}}, "out is not to be set here"),
        ({"pretrain": {"slice": 2}}, "slice"),
        ({"of": "finetune", "finetune": {"frozen": True}}, "frozen is not to be set here"),
        ({"of": "finetune", "task": "nope"}, "nope"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_timed(knees, kwargs, said):
    with pytest.raises(UserError, match=said):
        bench(knees, **kwargs)


def test_a_model_whose_planes_no_exam_has_is_refused(knees, tmp_path):
    finetune(knees, "acl", tmp_path / "model", **FINETUNE)
    other = tmp_path / "other"
    write_series(other, "valid", "coronal", "0000", np.zeros((3, 256, 256), np.uint8))
    with pytest.raises(UserError, match="no exam in valid with sagittal"):
        bench(other, of="predict", model=tmp_path / "model")


class Time:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def perf_counter(self) -> float:
        return self.seconds


@pytest.fixture
def time(monkeypatch) -> Time:
    found = Time()
    monkeypatch.setattr(stopwatch, "time", found)
    return found


def test_stages_of_a_lap_add_up_and_laps_are_summarised_by_the_median(time):
    clock = Clock(torch.device("cpu"))
    for seconds in ((1, 2), (5, 5), (2, 3)):
        stage = clock.lap()
        for part in seconds:
            with stage("forward"):
                time.seconds += part
    assert clock.medians() == dict.fromkeys(STAGES, 0.0) | {"forward": 5.0}


class Steps(Stopwatch):
    """Its bare steps take 2 s each, and are noted."""

    def __init__(self, time: Time, rounds: int, seconds: float) -> None:
        super().__init__(rounds, seconds)
        self.time = time

    def warm_up(self, trainer, module, batch) -> None:
        self.steps = 3

    def bare(self, trainer, module, steps) -> float:
        self.time.seconds += 2 * steps
        return 2.0

    def in_stages(self, trainer, module) -> None:
        self.time.seconds += 50


def run(watch: Stopwatch, time: Time, steps: list[list[float]], workers: int) -> None:
    """Epochs of steps, each of so many seconds; the end of an epoch takes 7."""
    loader = SimpleNamespace(num_workers=workers, prefetch_factor=1 if workers else None)
    trainer = SimpleNamespace(train_dataloader=loader, callbacks=[], current_epoch=0, is_last_batch=False)
    module = SimpleNamespace(device=torch.device("cpu"))
    watch.on_train_start(trainer, module)
    for number, epoch in enumerate(steps):
        trainer.current_epoch = number
        watch.on_train_epoch_start(trainer, module)
        for k, seconds in enumerate(epoch):
            time.seconds += seconds
            trainer.is_last_batch = k == len(epoch) - 1
            watch.on_train_batch_end(trainer, module, None, None, k)
        time.seconds += 7


def test_bursts_leave_out_the_first_step_the_bare_ones_and_what_an_epoch_costs_at_its_end(time):
    watch = Steps(time, rounds=2, seconds=1)
    with pytest.raises(Measured):
        run(watch, time, [[99, 3, 3, 6, 1000], [3, 3, 3]], workers=0)
    assert watch.timing.pipeline == [4, 3]
    assert watch.timing.ceiling == [2, 2]
    assert watch.timing.epoch_ends == [7]


def test_steps_on_what_workers_had_read_ahead_are_not_counted(time):
    watch = Steps(time, rounds=2, seconds=1)
    with pytest.raises(Measured):
        run(watch, time, [[99, 0, 0, 3, 4, 5, 0, 0, 7, 7, 7]], workers=2)
    assert watch.timing.pipeline == [4, 7]


def test_operations_and_pictures_are_those_of_the_step():
    timing = Timing(torch.device("cpu"))
    layer, x = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False), torch.randn(5, 2, 3, 16, 16)
    timing.count(5, [x, torch.zeros(5, dtype=torch.int64), torch.zeros(5, 2)], lambda: layer(x.flatten(0, 1)))
    assert timing.views == 5 * 2 * 3
    assert timing.flops == 2 * 10 * 16 * 16 * 8 * 3 * 9


def test_the_matrix_rate_is_the_fastest_product(time, monkeypatch):
    durations = iter([4.0, 2.0, *[3.0] * 8])
    monkeypatch.setattr(torch, "mm", lambda a, b: setattr(time, "seconds", time.seconds + next(durations)))
    monkeypatch.setitem(MATRIX_SIDE, "cpu", 16)
    assert matrix_rate(Clock(torch.device("cpu")), torch.float32) == 2 * 16**3 / 2
