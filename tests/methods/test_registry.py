"""Every method by its name: trained by the same loop into the same run folder, its settings checked."""

import csv
import json
import math
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file

from kneessl.errors import UserError
from kneessl.methods import METHODS, MethodName, make_method
from kneessl.training.pretrain import pretrain

SMALL = {
    "byolmed2d": {"hidden": 16, "dim": 8},
    "byol": {"hidden": 16, "dim": 8},
    "byol_vc": {"hidden": 16, "dim": 8},
    "barlow_twins": {"hidden": 16},
    "jigsaw": {"hidden": 16, "permutations": 20},
    "sslm": {"hidden": 16, "permutations": 20, "width": 2},
    "manna2022": {"hidden": 16, "permutations": 20},
    "simsiam": {"hidden": 16, "dim": 16},
    "vicreg": {"hidden": 16},
    "dino": {"hidden": 16, "bottleneck": 8, "prototypes": 16, "local": 1},
    "spark": {"width": 32},
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_by_the_same_loop_into_the_same_run_folder(knees, tmp_path, name):
    pool = "max" if "max" in METHODS[name].pools else None
    pretrain(
        knees, tmp_path / "run", method=name, pool=pool, slices=2, size=64, epochs=2, batch=6, warmup_epochs=0,
        precision="float32", settings=SMALL.get(name),
    )  # fmt: skip
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert all(math.isfinite(float(row[column])) for row in rows for column in ("loss", "feature_std", "uniformity"))
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["network"] == METHODS[name].network
    assert record["settings"] == METHODS[name].settings() | SMALL.get(name, {}) | (
        {"queue": record["settings"]["queue"]} if "queue" in record["settings"] else {}
    )
    torch.manual_seed(0)
    start = make_method(name, None, SMALL.get(name, {})).encoder.trunk.state_dict()
    end = load_file(tmp_path / "run" / "encoder.safetensors")
    assert end.keys() == start.keys()
    weights = [k for k, v in end.items() if v.ndim == 4]
    assert all(not torch.equal(start[k], end[k]) for k in weights), "every convolution has moved"
    assert (tmp_path / "run" / "report.html").is_file()


def test_the_names_are_the_tables():
    assert set(get_args(MethodName)) == set(METHODS)


def test_byolmed2d_is_byol_plus_a_setting():
    assert METHODS["byolmed2d"].build is METHODS["byol"].build
    assert METHODS["byolmed2d"].settings() == METHODS["byol"].settings()
    assert (METHODS["byolmed2d"].pools[0], METHODS["byol"].pools[0]) == ("max", "none")


def test_moco_v1_and_v2_are_the_published_ones():
    v1, v2 = METHODS["moco_v1"].settings(), METHODS["moco_v2"].settings()
    assert {k for k in v1 if v1[k] != v2[k]} == {"temperature", "mlp"}
    assert (v1["temperature"], v2["temperature"], v1["mlp"], v2["mlp"]) == (0.07, 0.2, False, True)


@pytest.mark.parametrize(
    ("name", "pool", "given", "message"),
    [
        ("simclr", None, {"tau": 0.9}, "method simclr has no setting tau; it has hidden, dim, temperature"),
        ("rotation", None, {"tau": 0.9}, "method rotation has no setting tau; it has none"),
        ("simclr", None, {"temperature": -1}, "settings.temperature is -1"),
        ("simclr", None, {"temperature": float("nan")}, "settings.temperature is nan"),
        ("sslm", None, {"width": 0}, "settings.width is 0"),
        ("sslm", None, {"width": 1.5}, "settings.width is 1.5"),
        ("jigsaw", "mean", {}, "method jigsaw works on single slices; leave out --pool mean"),
    ],
)
def test_wrong_settings_are_refused_by_name(name, pool, given, message):
    with pytest.raises(UserError, match=message):
        make_method(name, pool, given)


def test_weights_from_a_file_reach_the_encoder_and_its_target(tmp_path, capsys):
    torch.manual_seed(1)
    donor = make_method("byol", None, SMALL["byol"]).encoder.trunk
    torch.save(donor.state_dict(), tmp_path / "donor.pth")
    torch.manual_seed(2)
    method = make_method("byol", None, SMALL["byol"], tmp_path / "donor.pth")
    assert torch.equal(method.encoder.trunk.conv1.weight, donor.conv1.weight)
    assert torch.equal(method.target[0].trunk.conv1.weight, donor.conv1.weight)
    assert "donor.pth" in capsys.readouterr().out
