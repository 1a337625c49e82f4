import csv
import json
import re
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers.cifar import CLASSES, write_cifar, write_greys
from helpers.trainings import in_this_process, type_words
from PIL import Image

from kneessl import cli
from kneessl.errors import UserError
from kneessl.evaluation.gap import Cell
from kneessl.evaluation.imbalance import counts_of
from kneessl.evaluation.readout import Readout
from kneessl.pictures.imbalance_grid import imbalance_grid

TESTED = 30
"""Test images of each class in a made result."""


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    return write_cifar(tmp_path_factory.mktemp("data") / "cifar-10-batches-bin", 40)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return write_greys(tmp_path_factory.mktemp("data") / "digits")


def right_of_each(arm: str, images: int, ratio: float, seed: int) -> list[int]:
    """How many of a class's test images a made cell gets right, the commonest first; both arms alike at ratio 1."""
    lost = {"supervised": 0.8}.get(arm, 0.3) * -np.log10(ratio)
    return [round(20 - k * lost) + (seed + k) % 3 + images // 100 for k in range(10)]


def made_readout(right: list[int], counts: list[int]) -> dict:
    truth = np.repeat(np.arange(10), TESTED)
    guessed = np.concatenate([np.where(np.arange(TESTED) < n, k, (k + 1) % 10) for k, n in enumerate(right)])
    return asdict(Readout.of(truth, guessed, CLASSES, counts))


@cache  # it takes a quarter of a second
def imbalance_parser():
    parser, _, switches = cli.make_parser("imbalance")
    return parser, switches


def write_cell(words: list[str]) -> None:
    """What `kneessl imbalance` leaves for these words, which it has to understand, without a training."""
    parser, switches = imbalance_parser()
    asked = parser.parse_args(cli.normalise(words[1:], switches))
    if asked.method == "simclr" and asked.seed == 1 and asked.labels == 13:
        raise UserError("no luck")
    counts = counts_of(asked.images, 40, 10, asked.ratio)
    right = right_of_each(asked.method, asked.images, asked.ratio, asked.seed)
    trained = {"trained": made_readout([n - 2 for n in right], counts)} if asked.method == "supervised" else {}
    elsewhere = made_readout([n + 3 for n in right], counts)["accuracy"]
    result = {
        "method": asked.method, "supervised": bool(trained), "ratio": asked.ratio, "images": sum(counts),
        "seed": asked.seed, "classes": CLASSES, "counts": counts, "test_images": 10 * TESTED,
        "tested_on": "test images",
        "readouts": {
            **trained,
            "linear_balanced": made_readout(right, counts),
            "linear": made_readout([n - 1 for n in right], counts),
        },
        "ood": {"classes": 3, "train_images": 24, "linear": elsewhere} if asked.ood else None,
    }  # fmt: skip
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "result.json").write_text(json.dumps(result))


class Runner:
    """`run_all` in this process, by `cell`; remembers what it ran."""

    def __init__(self, cell=write_cell):
        self.cell, self.ran = cell, []

    def __call__(self, jobs, submit, title) -> None:
        for job in jobs:
            in_this_process([job], submit, title, lambda words, name=job.folder.name: self.type(name, words))

    def type(self, name, words) -> None:
        self.ran.append(name)
        self.cell(words)


def run(cifar: Path, out: Path, cell=write_cell, **changes) -> list[str]:
    """Run a grid, and name the cells that ran."""
    settings = {"images": [80, 100], "ratios": [0.1, 0.5], "seeds": 3}
    runner = Runner(cell)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kneessl.experiments.experiment.run_all", runner)
        imbalance_grid(cifar, out, **(settings | changes))
    return runner.ran


@pytest.fixture(scope="module")
def grid(cifar, digits, tmp_path_factory):
    out = tmp_path_factory.mktemp("grid") / "out"
    run(cifar, out, ood=digits, pretrain={"epochs": 20}, supervised={"epochs": 30}, settings={"temperature": 0.3})
    return out


def table(out: Path) -> dict[Cell, dict[str, str]]:
    with (out / "grid.csv").open(newline="") as file:
        return {Cell(row["arm"], int(row["images"]), float(row["ratio"])): row for row in csv.DictReader(file)}


def share(right: list[int]) -> float:
    return sum(right) / (10 * TESTED)


def test_whole_seeds_come_first(cifar, tmp_path):
    ran = run(cifar, tmp_path / "out", seeds=2)
    assert ran[:6] == [
        "simclr-n80-r1-seed0", "supervised-n80-r1-seed0", "simclr-n80-r0.5-seed0", "supervised-n80-r0.5-seed0",
        "simclr-n80-r0.1-seed0", "supervised-n80-r0.1-seed0",
    ]  # fmt: skip
    assert [name[-1] for name in ran] == ["0"] * 12 + ["1"] * 12
    assert len(set(ran)) == 24


def test_every_cell_is_a_run_folder_with_its_own_settings(grid, digits):
    folders = sorted(path.name for path in (grid / "runs").iterdir())
    assert len(folders) == 2 * 2 * 3 * 3
    for folder in folders:
        assert (grid / "runs" / folder / "run" / "result.json").is_file()
        result = json.loads((grid / "runs" / folder / "result.json").read_text())
        arm, n, ratio, seed = re.fullmatch(r"(\w+)-n(\d+)-r([\d.]+)-seed(\d)", folder).groups()
        assert (result["method"], result["ratio"], result["seed"]) == (arm, float(ratio), int(seed))
        assert int(n) - 10 < result["images"] <= int(n)
    common = {"held_out": 0, "ood": str(digits), "precision": "auto"}
    told = {arm: yaml.safe_load((grid / f"{arm}.yaml").read_text()) for arm in ("simclr", "supervised")}
    assert told["simclr"] == common | {"pretrain": {"epochs": 20}, "settings": {"temperature": 0.3}}
    assert told["supervised"] == common | {"supervised": {"epochs": 30}}


def test_the_table_holds_what_the_cells_left(grid):
    rows = table(grid)
    assert [*rows][:4] == [("simclr", 80, 1), ("supervised", 80, 1), ("simclr", 80, 0.5), ("supervised", 80, 0.5)]
    for cell, row in rows.items():
        balanced = [right_of_each(cell.arm, cell.images, 1.0, seed) for seed in range(3)]
        own = [right_of_each(*cell, seed) for seed in range(3)]
        accuracies = [share(right) for right in own]
        assert row["seeds"] == "0 1 2"
        assert [float(x) for x in row["accuracy_by_seed"].split()] == pytest.approx(accuracies)
        assert float(row["accuracy_mean"]) == pytest.approx(np.mean(accuracies))
        assert float(row["accuracy_sd"]) == pytest.approx(np.std(accuracies, ddof=1))
        assert [int(x) for x in row["counts"].split()] == counts_of(cell.images, 40, 10, cell.ratio)
        assert float(row["linear_accuracy_mean"]) == pytest.approx(np.mean(accuracies) - 1 / TESTED)
        few = [sum(right[7:]) / (3 * TESTED) for right in own]
        assert float(row["linear_balanced_few_mean"]) == pytest.approx(np.mean(few))
        if cell.arm == "supervised":
            assert float(row["trained_accuracy_mean"]) == pytest.approx(np.mean(accuracies) - 2 / TESTED)
        else:
            assert row["trained_accuracy_mean"] == ""
        if cell.ratio == 1:
            assert row["delta_mean"] == row["ood_delta_mean"] == row["less_mean"] == ""
            continue
        for prefix, more in (("", 0), ("ood_", 3)):
            deltas = [
                1 - share([n + more for n in a]) / share([n + more for n in b])
                for a, b in zip(own, balanced, strict=True)
            ]
            assert [float(x) for x in row[f"{prefix}delta_by_seed"].split()] == pytest.approx(deltas)
            assert float(row[f"{prefix}delta_mean"]) == pytest.approx(np.mean(deltas))
        if cell.arm == "simclr":
            other = rows[cell._replace(arm="supervised")]
            assert float(row["less_mean"]) == pytest.approx(float(other["delta_mean"]) - float(row["delta_mean"]))
            assert float(row["less_low"]) < float(row["less_mean"]) < float(row["less_high"])
        else:
            assert row["less_mean"] == ""


def test_figures_and_page_are_there(grid):
    for name in ("figure_3_1.png", "figure_3_2.png"):
        with Image.open(grid / name) as image:
            assert image.size == (1600, 720)
    page = (grid / "grid.html").read_text()
    assert "simclr and supervised" in page
    assert "another data set, of 3 classes" in page
    assert "300 test images" in page


def test_resuming_runs_nothing_again_and_says_the_same(grid, cifar, digits, capsys):
    before = {p: p.read_bytes() for p in grid.rglob("*") if p.is_file()}
    same = {
        "ood": digits, "pretrain": {"epochs": 20}, "supervised": {"epochs": 30}, "settings": {"temperature": 0.3}
    }  # fmt: skip
    with pytest.raises(UserError, match="already holds a run"):
        run(cifar, grid, **same)
    with pytest.raises(UserError, match=r"other settings than now asked for \(seeds\)"):
        run(cifar, grid, **same, seeds=2, resume=True)
    assert run(cifar, grid, **same, resume=True) == []
    assert {p: p.read_bytes() for p in grid.rglob("*") if p.is_file()} == before
    missing = grid / "runs" / "simclr-n80-r0.5-seed1"
    (missing / "result.json").unlink()
    (missing / "run" / "result.json").unlink()
    capsys.readouterr()
    assert run(cifar, grid, **same, resume=True) == [missing.name]
    assert {p: p.read_bytes() for p in grid.rglob("*") if p.is_file()} == before
    told = capsys.readouterr().out
    assert re.search(r"80 +0\.1 +simclr +\d\d\.\d ± \d\.\d +\d+\.\d \(", told)
    assert "In domain, of 4 comparisons: simclr loses less than supervised in 4" in told


def test_a_cell_that_fails_stands_there_with_its_reason(cifar, tmp_path, capsys):
    run(cifar, tmp_path / "out", labels=13)
    row = table(tmp_path / "out")["simclr", 80, 0.1]
    assert row["seeds"] == "0 2"
    assert len(row["delta_by_seed"].split()) == len(row["less_by_seed"].split()) == 2
    assert "simclr-n80-r0.1-seed1 failed: no luck" in (tmp_path / "out" / "grid.html").read_text()
    assert "ood" not in " ".join(row), "out of domain is left out where there is no such data"
    assert "out of domain" not in capsys.readouterr().out.lower()
    run(cifar, tmp_path / "one", labels=13, arms="method", seeds=2)
    assert table(tmp_path / "one")["simclr", 80, 0.1]["delta_sd"] == "", "one seed is left, and has no spread"


def test_a_grid_of_failures_is_an_error(cifar, tmp_path):
    def fail(words):
        raise UserError("out of luck")

    with pytest.raises(UserError, match="every training failed; the first one because: out of luck"):
        run(cifar, tmp_path / "out", cell=fail)


@pytest.mark.parametrize(("arms", "expected"), [("method", {"byol"}), ("supervised", {"supervised"})])
def test_one_arm_alone(cifar, tmp_path, arms, expected):
    run(cifar, tmp_path / "out", method="byol", arms=arms, images=[80], seeds=1)
    rows = table(tmp_path / "out")
    assert {cell.arm for cell in rows} == expected
    assert {row["less_mean"] for row in rows.values()} == {""}
    assert "loses less" not in (tmp_path / "out" / "grid.html").read_text().split("How to read this")[0]


def test_left_out_cells_are_printed_and_on_the_page(cifar, tmp_path, capsys):
    ran = run(cifar, tmp_path / "out", images=[80, 300], seeds=1)
    assert "supervised-n300-r1-seed0" in ran
    assert "supervised-n300-r0.1-seed0" not in ran
    line = "300 images at ratio 0.1 are left out: images is 300;"
    assert line in capsys.readouterr().out
    assert line in (tmp_path / "out" / "grid.html").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ratios": [1.0]}, r"ratios is \[1.0\]; .* at least one of them below 1"),
        ({"ratios": [0.0, 0.1]}, "above 0 and up to 1"),
        ({"ratios": [2.0, 0.1]}, "above 0 and up to 1"),
        ({"ratios": [float("nan"), 0.1]}, "above 0 and up to 1"),
        ({"images": [-5]}, r"images is \[-5\]"),
        ({"seeds": 0}, "seeds is 0"),
        ({"jobs": 0}, "jobs is 0"),
        ({"method": "supervised"}, "method is supervised, which every grid has as its other arm"),
        ({"method": "jigsaw"}, "method is jigsaw; pictures are learnt from by"),
        ({"pretrain": {"epoch": 3}}, "imbalance: .*epoch"),
        ({"pretrain": {"epochs": 0}}, "imbalance: epochs is 0"),
        ({"supervised": {"view1": {"flop": 1}}}, "imbalance: .*flop"),
        ({"labels": 41}, "labels is 41; it is a number of images of each class"),
        ({"test": 3}, "test is 3; it is a number of images of each class"),
        ({"held_out": 40}, "held_out is 40"),
        ({"ood": Path("nowhere")}, "nowhere is not a folder"),
        ({"data": Path("nowhere")}, "nowhere is not a folder"),
    ],
)
def test_wrong_settings_end_before_anything_is_written(cifar, tmp_path, changes, message):
    def never(words):
        raise AssertionError("nothing may run")

    data = changes.pop("data", cifar)
    with pytest.raises(UserError, match=message):
        run(data, tmp_path / "out", cell=never, **changes)
    assert not (tmp_path / "out").exists()


def test_end_to_end_on_a_few_pictures(tmp_path):
    """Real cells: a training of one epoch each, read out and collected."""
    data = write_cifar(tmp_path / "cifar", 4)
    settings = {
        "images": [25], "ratios": [0.5], "seeds": 1, "labels": 2, "arms": "supervised", "precision": "float32",
        "supervised": {"epochs": 1, "warmup_epochs": 0, "batch": 13},
    }  # fmt: skip

    ran = run(data, tmp_path / "out", cell=type_words, **settings)
    assert len(ran) == 2
    rows = table(tmp_path / "out")
    assert list(rows) == [("supervised", 25, 1), ("supervised", 25, 0.5)]
    for row in rows.values():
        for readout in ("accuracy", "linear_accuracy", "trained_accuracy", "linear_few"):
            assert 0 <= float(row[f"{readout}_mean"]) <= 1
    folder = tmp_path / "out" / "runs" / "supervised-n25-r0.5-seed0" / "run"
    assert {"config.yaml", "run.json", "metrics.csv", "encoder.safetensors", "result.json"} <= {
        path.name for path in folder.iterdir()
    }
