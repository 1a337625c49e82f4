import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.cifar import CLASSES, write_cifar, write_greys
from helpers.command_line import kneessl
from safetensors.torch import load_file

from kneessl import cli
from kneessl.errors import UserError
from kneessl.nets.encoder import ClipEncoder, load_encoder
from kneessl.nets.features import recalibrate
from kneessl.pictures.arms import CIFAR, CROPPED, Training
from kneessl.pictures.cifar10 import read_cifar10
from kneessl.pictures.imbalance import imbalance
from kneessl.pictures.linear import SoftmaxRegression
from kneessl.training.callbacks import EpochLog

SHORT = Training(epochs=2, batch=32, warmup_epochs=1)


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    return write_cifar(tmp_path_factory.mktemp("data") / "cifar-10-batches-bin", 12)


@pytest.fixture(scope="module")
def greys(tmp_path_factory):
    return write_greys(tmp_path_factory.mktemp("data") / "greys", "patient-{}")


def run(data, out, **changes):
    settings = {"ratio": 0.25, "pretrain": SHORT, "supervised": replace(SHORT, view1=CROPPED), "precision": "float32"}
    imbalance(data, out, **(settings | changes))
    return json.loads((out / "result.json").read_text())


@pytest.fixture(scope="module")
def simclr(cifar, greys, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "simclr"
    return out, run(cifar, out, ood=greys)


def test_a_run_folder_holds_figures_encoder_and_record(simclr, cifar):
    out, result = simclr
    assert {p.name for p in out.iterdir()} == {
        *("config.yaml", "run.json", "metrics.csv", "encoder.safetensors", "result.json", "confusion.png"),
        "checkpoints",
    }
    assert result["classes"] == CLASSES
    assert result["counts"] == [12, 10, 8, 7, 6, 5, 4, 4, 3, 3]
    assert (result["method"], result["supervised"], result["images"], result["test_images"]) == (
        "simclr",
        False,
        62,
        20,
    )
    assert result["tested_on"] == "test images"
    assert set(result["readouts"]) == {"linear_balanced", "linear"}
    for readout in result["readouts"].values():
        assert np.sum(readout["confusion"]) == 20
        assert readout["accuracy"]["successes"] == np.trace(readout["confusion"])
    assert result["ood"]["classes"] == 3
    assert result["ood"]["linear"]["n"] == 6
    record = json.loads((out / "run.json").read_text())
    assert (record["kind"], record["network"], record["images"]) == ("imbalance", "resnet18_cifar", 62)


def test_the_figures_are_those_of_the_saved_encoder(simclr, cifar):
    """The whole readout again, from the files: features in one batch, statistics from the training images."""
    out, result = simclr
    data = read_cifar10(cifar)
    encoder = ClipEncoder("none", "cifar")
    load_encoder(encoder, out / "encoder.safetensors")
    train = np.concatenate(
        [
            np.random.default_rng([0, k]).permutation(np.flatnonzero(data.train.labels == k))[:count]
            for k, count in enumerate(result["counts"])
        ]
    )

    def clips(pictures):
        return CIFAR(torch.from_numpy(pictures.pixels)[:, None])

    recalibrate(encoder, [clips(data.train[train])])
    encoder.eval()
    with torch.no_grad():
        features, test = encoder(clips(data.train)).numpy(), encoder(clips(data.test)).numpy()
    answers = SoftmaxRegression(torch.device("cpu")).fit(features, data.train.labels).predict(test)
    assert (answers == data.test.labels).sum() == result["readouts"]["linear_balanced"]["accuracy"]["successes"]


def test_the_other_data_sets_path_is_in_no_figure(simclr):
    out, _ = simclr
    assert "patient" not in (out / "result.json").read_text()


def test_the_supervised_arm_answers_itself_too(cifar, tmp_path, capsys):
    result = run(cifar, tmp_path / "run", method="supervised", ratio=1)
    assert set(result["readouts"]) == {"trained", "linear_balanced", "linear"}
    assert result["supervised"]
    printed = capsys.readouterr().out
    for text in ("own answers", "linear, balanced labels", "many", "few", "airplane (12)", "95 % Wilson"):
        assert text in printed
    assert result["readouts"]["linear"] == result["readouts"]["linear_balanced"], "balanced, the two are the same"


def test_the_same_seed_gives_the_same_run_and_another_does_not(simclr, cifar, greys, tmp_path):
    out, result = simclr
    assert run(cifar, tmp_path / "again", ood=greys) == result
    again = load_file(tmp_path / "again" / "encoder.safetensors")
    assert all(torch.equal(v, again[k]) for k, v in load_file(out / "encoder.safetensors").items())
    run(cifar, tmp_path / "other", seed=1)
    other = load_file(tmp_path / "other" / "encoder.safetensors")
    assert not torch.equal(other["conv1.weight"], again["conv1.weight"])


def test_an_interrupted_run_resumes_to_the_weights_of_an_unbroken_one(simclr, cifar, greys, tmp_path, monkeypatch):
    """Stopped in the second epoch; the first one's checkpoint is there, since none was written before it."""
    out, result = simclr
    words = ["imbalance", str(cifar), "--out", str(tmp_path / "run"), "--ratio", "0.25", "--ood", str(greys)]
    words += ["--precision", "float32", "--pretrain.epochs", "2", "--pretrain.batch", "32", "--pretrain.warmup_epochs"]
    words += ["1", "--supervised.epochs", "2", "--supervised.batch", "32", "--supervised.warmup_epochs", "1"]
    log = EpochLog.on_train_epoch_start

    def start(self, trainer, module):
        log(self, trainer, module)
        if trainer.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(EpochLog, "on_train_epoch_start", start)
        kneessl(*words, expect=130)
    assert not (tmp_path / "run" / "result.json").exists()
    cli.run("imbalance", [*words[1:], "--resume"])
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == result
    again = load_file(tmp_path / "run" / "encoder.safetensors")
    assert all(torch.equal(v, again[k]) for k, v in load_file(out / "encoder.safetensors").items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "jigsaw"}, "method is jigsaw"),
        ({"seed": -1}, "seed is -1"),
        ({"ratio": 0.01}, "the rarest has none"),
        ({"images": 1000}, "images is 1000"),
        ({"settings": {"tau": 0.5}}, "method simclr has no setting tau"),
        ({"settings": {"temperature": 0}}, "settings.temperature is 0"),
    ],
)
def test_wrong_settings_leave_no_run_behind(cifar, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        run(cifar, tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_a_folder_without_cifar_or_other_pictures_is_named(cifar, tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        run(tmp_path / "nowhere", tmp_path / "run")
    with pytest.raises(UserError, match="nothing"):
        run(cifar, tmp_path / "run", ood=tmp_path / "nothing")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("preset", ["thesis", "best"])
@pytest.mark.parametrize("method", ["simclr", "supervised"])
def test_every_preset_fits_both_arms(preset, method, cifar, tmp_path, monkeypatch):
    taken = {}
    monkeypatch.setattr(
        "kneessl.pictures.imbalance.make_arm", lambda name, training, *rest: taken.update(t=training) or 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        cli.run(
            "imbalance",
            [str(cifar), "--out", str(tmp_path / "r"), "--method", method, "--ratio", "1", "--preset", preset],
        )
    if method == "supervised":
        assert (taken["t"].view1.jitter, taken["t"].view1.blur) == (0, 0)
        assert taken["t"].epochs == 200
    elif preset == "thesis":
        assert (taken["t"].epochs, taken["t"].lr, taken["t"].weight_decay) == (200, 1e-3, 0)
        assert (taken["t"].view1.hue, taken["t"].view1.grayscale) == (0.1, 0.2)
