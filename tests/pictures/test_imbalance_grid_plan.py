from pathlib import Path

import pytest

from kneessl import cli
from kneessl.errors import UserError
from kneessl.evaluation.gap import Cell
from kneessl.evaluation.imbalance import counts_of, long_tail_counts
from kneessl.experiments.jobs import finished
from kneessl.pictures.grid_sets import cross
from kneessl.pictures.imbalance_grid import GridRun, ImbalanceGridSettings


def of_cifar(ratio: float, images: int | None) -> list[int]:
    return long_tail_counts(5000, 10, ratio) if images is None else counts_of(images, 5000, 10, ratio)


def test_cells_of_cifar_by_default():
    plan = cross(None, [0.01, 0.1, 1.0], of_cifar)
    assert list(plan.counts) == [(12406, 1.0), (12406, 0.1), (12406, 0.01)]
    assert plan.counts[12406, 0.01] == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert plan.counts[12406, 1.0] == [1240] * 10
    assert plan.left_out == []


def test_ratio_1_is_always_part_of_it_and_nothing_is_there_twice():
    assert list(cross([500, 200, 500], [0.1, 0.1], of_cifar).counts) == [
        (200, 1.0), (200, 0.1), (500, 1.0), (500, 0.1)
    ]  # fmt: skip


def test_what_cannot_be_is_left_out_and_said():
    plan = cross([12407, 50000], [0.1, 0.01], of_cifar)
    assert list(plan.counts) == [(12407, 1.0), (12407, 0.1), (50000, 1.0)]
    assert len(plan.left_out) == 3
    assert plan.left_out[0].startswith("12,407 images at ratio 0.01 are left out: ")
    assert "at most 12406" in plan.left_out[0]
    with pytest.raises(UserError, match=r"nothing is left of the grid; 50,000 images at ratio 0\.1 are left out"):
        cross([50000], [0.1], of_cifar)


def test_the_command_of_a_cell(tmp_path):
    run = GridRun(ImbalanceGridSettings(Path("cifar"), tmp_path, "byol"), Cell("byol", 120, 0.05), 2)
    words = next(run.commands())
    folder = tmp_path / "runs" / "byol-n120-r0.05-seed2" / "run"
    assert words == [
        "imbalance", "cifar", "--config", str(tmp_path / "byol.yaml"), "--method", "byol", "--images", "120", "--ratio",
        "0.05", "--seed", "2", "--out", str(folder), "--resume",
    ]  # fmt: skip
    assert not finished(words)
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    assert not finished(words), "the encoder is there, its figures are not"
    (folder / "result.json").write_text("{}")
    assert finished(words)


def test_options_on_the_command_line():
    parser, _, switches = cli.make_parser("imbalance-grid")
    words = ["cifar", "--out", "o", "--images", "[12406,2000]", "--ratios", "[.1,.01]", "--pretrain.epochs", "30"]
    values = parser.parse_args(cli.normalise(words, switches))
    assert (values.images, values.ratios, values.pretrain) == ([12406, 2000], [0.1, 0.01], {"epochs": 30})
