import csv
import json
import shutil
from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from kneessl.errors import UserError
from kneessl.evaluation.familiarity import Gaussian
from kneessl.exams.folder import ExamFolder, Provenance, write_provenance
from kneessl.explain.explain import explain
from kneessl.finetuning import finetune as module_of_finetune
from kneessl.finetuning import mrnet
from kneessl.finetuning.finetune import finetune, fit_familiarity
from kneessl.finetuning.mrnet import WholeSeries
from kneessl.finetuning.recipes import RECIPES, adapt, inverse_frequency
from kneessl.finetuning.tuning import BinaryLoss, FineTuning
from kneessl.model.crossfit import OutOfFold
from kneessl.model.labels import label_subset
from kneessl.model.model import load_model, load_plane
from kneessl.model.predict import forward_pass, plane_logits, series_logits
from kneessl.nets.alexnet import AlexNet
from kneessl.nets.encoder import ClipEncoder, save_weights
from kneessl.nets.sslm import SSLMEncoder
from kneessl.training.callbacks import StopAsked, StopBetweenBatches
from kneessl.training.fit import seeded
from kneessl.training.runs import write_record
from kneessl.views.augment import View
from kneessl.views.preprocess import Preprocessing

SIZES = {"resnet18": 32, "mrnet_alexnet": 64, "mrnet_resnet18": 32, "sslm": 32, "sslm_linear": 32}
SLICES = {"resnet18": 2, "mrnet_alexnet": None, "mrnet_resnet18": None, "sslm": 2, "sslm_linear": 2}


def pretrained(folder, encoder, network):
    torch.manual_seed(3)
    save_weights(encoder().trunk, folder / "encoder.safetensors")
    write_record(folder, Preprocessing(32), rows=[], kind="pretrain", network=network, plane="sagittal")
    return folder


@pytest.fixture(scope="module")
def sslm_run(tmp_path_factory):
    return pretrained(tmp_path_factory.mktemp("sslm"), lambda: SSLMEncoder(width=3), "sslm")


@pytest.fixture(scope="module")
def train(knees, sslm_run):
    """Fine-tune a network briefly; returns its run folder."""

    def train(network, out, **settings):
        start = {"from_run": sslm_run} if network.startswith("sslm") else {}
        common = {"size": SIZES[network], "slices": SLICES[network], "labels": 4, "epochs": 2, "precision": "float32"}
        finetune(knees, "acl", out, network=network, **{**start, **common, **settings})
        return out

    return train


@pytest.fixture(scope="module")
def runs(train, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return {network: train(network, root / network) for network in RECIPES}


@pytest.mark.parametrize("network", RECIPES)
def test_a_trained_network_comes_back_and_predicts_all_slices_without_chance(runs, knees, network):
    folder, model = ExamFolder(knees), load_plane(runs[network])
    exams = folder.exams("valid", "sagittal")[:3]
    first = plane_logits(model, folder, "valid", exams, "first")
    torch.manual_seed(9)
    again = plane_logits(load_plane(runs[network]), folder, "valid", exams[::-1], "again")
    assert np.array_equal(again, first[::-1])
    series = np.array(folder.series("valid", "sagittal", exams[0]))
    with torch.no_grad():
        clip = Preprocessing(SIZES[network])(torch.from_numpy(series)[None])
        expected = deepcopy(model.classifier).double()(clip.double(), torch.linspace(0, 1, 12).double()[None])
    assert first[0, 0] == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("network", RECIPES)
def test_the_record_says_what_was_trained_on_what(runs, network):
    record = json.loads((runs[network] / "run.json").read_text())
    recipe = RECIPES[network]
    assert (record["network"], record["lr"], record["epochs"]) == (network, recipe.lr, 2)
    assert (record["exams"], record["positives"], len(record["labelled_exams"])) == (4, [2], 4)
    state = load_file(runs[network] / "model.safetensors")
    assert record["parameters"] == sum(v.numel() for k, v in state.items() if "running_" not in k and "num_" not in k)
    config = yaml.safe_load((runs[network] / "config.yaml").read_text())
    assert (config["network"], config["lr"], config["batch"]) == (network, recipe.lr, 1)
    with (runs[network] / "metrics.csv").open(newline="") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    assert record["seconds"] == pytest.approx(sum(seconds), rel=1e-4)


@pytest.mark.parametrize("network", RECIPES)
def test_every_network_says_what_it_is_familiar_with(runs, knees, network, monkeypatch):
    folder, model = ExamFolder(knees), load_plane(runs[network])
    exams = folder.exams("train", "sagittal")
    features = {exam: forward_pass(model, folder.series("train", "sagittal", exam)).features for exam in exams}
    new = np.random.default_rng(0).lognormal(size=len(features[exams[0]]))
    found = fit_familiarity(folder, runs[network], exams, seed=3)
    assert found.distances(new) == pytest.approx(Gaussian.fit(list(features.values())).distances(new))
    assert found.distances(new) > found.distances(list(features.values())).max()
    monkeypatch.setattr(module_of_finetune, "MOST_LOOKED_AT", 5)
    few = [fit_familiarity(folder, runs[network], exams, seed).mean for seed in (3, 3, 4)]
    assert np.array_equal(few[0], few[1])
    assert not np.allclose(few[0], few[2])


def test_without_folds_a_model_has_no_familiarity_and_its_hash_follows_its_weights(runs, tmp_path):
    models = {network: load_model(run) for network, run in runs.items()}
    assert all(next(iter(model.planes.values())).familiarity is None for model in models.values())
    assert len({model.sha256 for model in models.values()}) == len(RECIPES)
    shutil.copytree(runs["resnet18"], tmp_path / "copy")
    assert load_model(tmp_path / "copy").sha256 == models["resnet18"].sha256
    assert len(models["resnet18"].sha256) == 64


def test_a_model_says_whether_it_was_trained_on_a_phantom(runs, knees, tmp_path):
    assert load_model(runs["mrnet_alexnet"]).synthetic is False
    assert "phantom" not in (runs["mrnet_alexnet"] / "MODEL_CARD.md").read_text().split("## Figures")[0]
    shutil.copytree(knees, tmp_path / "knees")
    line = Provenance("train", "0000", "sagittal", "p0", "", 1.0, 1.0, 3.0, "", "by hand", synthetic=True)
    write_provenance(tmp_path / "knees", [line])
    common = {"network": "mrnet_alexnet", "size": 64, "labels": 4, "epochs": 1, "precision": "float32"}
    finetune(tmp_path / "knees", "acl", tmp_path / "m", **common)
    assert load_model(tmp_path / "m").synthetic is True
    assert load_plane(tmp_path / "m").synthetic is True
    card = " ".join((tmp_path / "m" / "MODEL_CARD.md").read_text().split())
    assert "Those knees are a synthetic phantom: what this model says of a patient's knee means nothing." in card


def test_folds_leave_out_one_site_after_the_other(knees, tmp_path, capsys):
    shutil.copytree(knees, tmp_path / "knees")
    sites = "".join(f"train,{i:04d},{'AB'[i // 6]}\n" for i in range(12))
    (tmp_path / "knees" / "about.csv").write_text(f"split,exam,site\n{sites}")
    common = {"size": 32, "slices": 2, "epochs": 1, "batch": 4, "precision": "float32"}
    finetune(tmp_path / "knees", "acl", tmp_path / "m", folds="by:site", **common)
    told = capsys.readouterr().out
    assert "folds: one fold left out for each site (A; B)\n" in told
    assert "acl, left out A: 6 exams, 3 positive; AUC " in told
    seen = OutOfFold.read(tmp_path / "m" / "out_of_fold.csv")
    assert seen.fold.tolist() == [0] * 6 + [1] * 6
    assert load_model(tmp_path / "m").decisions.set_on.endswith("one fold left out for each site (A; B)")


@pytest.mark.parametrize(
    ("folds", "reason"),
    [("by:", "folds is by:"), ("site", "folds is site"), ("by:scanner", "scanner is not known of any exam of train")],
)
def test_folds_by_what_is_not_known_are_refused(knees, tmp_path, folds, reason):
    with pytest.raises(UserError, match=reason):
        finetune(knees, "acl", tmp_path / "m", folds=folds)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("network", ["mrnet_alexnet", "mrnet_resnet18", "sslm"])  # resnet18: test_resume
def test_training_resumes_to_the_same_model(train, tmp_path, monkeypatch, network):
    # Never better than before, and no patience: the plateau cuts the rate after every epoch.
    eager = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, threshold=1e9)
    monkeypatch.setattr(
        mrnet, "ReduceLROnPlateau", lambda optimizer, factor, patience: eager(optimizer, "min", factor, 0)
    )
    whole = train(network, tmp_path / "whole")

    def stop_in_second_epoch(self, trainer, *_):
        if trainer.current_epoch == 1:
            self.asked = True
            raise StopAsked

    with monkeypatch.context() as patch:
        patch.setattr(StopBetweenBatches, "on_train_batch_start", stop_in_second_epoch)
        with pytest.raises(KeyboardInterrupt):
            train(network, tmp_path / "broken")
    broken = train(network, tmp_path / "broken", resume=True)
    a, b = (load_file(run / "model.safetensors") for run in (whole, broken))
    assert all(torch.equal(a[name], b[name]) for name in a)
    rates = []
    for run in (whole, broken):
        with (run / "metrics.csv").open(newline="") as file:
            rates.append([float(row["lr"]) for row in csv.DictReader(file)])
    assert rates[0] == rates[1]
    assert rates[0] == pytest.approx([1e-5, 1e-5 if network == "sslm" else 3e-6])


def test_a_run_from_before_networks_had_names_is_a_resnet18(runs, tmp_path):
    record = json.loads((runs["resnet18"] / "run.json").read_text())
    del record["network"], record["head"]
    (tmp_path / "run.json").write_text(json.dumps(record))
    (tmp_path / "model.safetensors").write_bytes((runs["resnet18"] / "model.safetensors").read_bytes())
    assert type(load_plane(tmp_path).classifier.head) is type(load_plane(runs["resnet18"]).classifier.head)


@pytest.mark.parametrize("change", [{"network": "resnet50"}, {"network": "mrnet_alexnet"}, {"network": "sslm"}])
def test_a_record_of_another_network_is_refused(runs, tmp_path, change):
    record = json.loads((runs["resnet18"] / "run.json").read_text()) | change
    (tmp_path / "run.json").write_text(json.dumps(record))
    (tmp_path / "model.safetensors").write_bytes((runs["resnet18"] / "model.safetensors").read_bytes())
    with pytest.raises(UserError):
        load_plane(tmp_path)


def test_sslm_is_what_an_sslm_run_is_for_and_its_encoder_stays_as_it_was(knees, sslm_run, tmp_path):
    finetune(knees, "acl", tmp_path / "m", from_run=sslm_run, size=32, slices=2, labels=4, epochs=2, lr=1e-3)
    before, after = load_file(sslm_run / "encoder.safetensors"), load_file(tmp_path / "m" / "model.safetensors")
    assert json.loads((tmp_path / "m" / "run.json").read_text())["network"] == "sslm"
    assert all(torch.equal(v, after[f"encoder.{k}"]) for k, v in before.items()), "statistics and weights alike"
    assert len(after["encoder.branches.0.0.0.weight"]) == 3


@pytest.mark.parametrize("network", ["mrnet_alexnet", "sslm"])
def test_slices_outside_the_depth_count_neither_in_training_nor_in_prediction(train, knees, tmp_path, network):
    folder, model = ExamFolder(knees), load_plane(train(network, tmp_path / "m", epochs=1, depth=0.5))
    series = np.array(folder.series("valid", "sagittal", "0012"))
    other = series.copy()
    other[[0, 1, 2, 9, 10, 11]] = 0
    assert series_logits(model, series) == series_logits(model, other)
    other[5] = 0
    assert series_logits(model, series) != series_logits(model, other)
    parts = explain(model, series, "acl").slice_scores
    assert not parts[[0, 1, 2, 9, 10, 11]].any()
    assert parts.any() or network == "sslm", "Grad-CAM may find nothing that speaks for a finding"
    kept = WholeSeries(folder, "valid", "sagittal", ["0012"], 0, model.preprocessing)[0, 0, 0][0]
    assert torch.equal(kept, torch.from_numpy(series[3:9]))


def batch_of(count):
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (count, 3, 256, 256), dtype=np.uint8)), torch.arange(count)


class Linear(torch.nn.Module):
    """A classifier of one weight: the logit is the mean of what it sees."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, clips, where):
        return (self.weight * clips.mean((1, 2, 3)))[:, None]


def module(network, labels, view=None):
    truth, recipe = np.array(labels)[:, None], RECIPES[network]
    built = FineTuning(Linear(), truth, BinaryLoss(truth, recipe), Preprocessing(32), recipe, view, seed=5)
    built._fabric = built._trainer = None
    return built


@pytest.mark.parametrize(
    ("network", "weights"),
    [("resnet18", (1, 1)), ("mrnet_resnet18", (0.25, 0.75)), ("sslm", (4 / 6, 4 / 2))],
)
def test_the_loss_weighs_the_classes(monkeypatch, network, weights):
    labels = [0, 0, 1, 0]
    tuning = module(network, labels)
    monkeypatch.setattr(FineTuning, "current_epoch", 0)
    clips, index = batch_of(4)
    logits = tuning.inputs(clips, seeded(5, 0, 0)).double().mean((1, 2, 3))
    p = logits.sigmoid()
    expected = [-weights[1] * p[i].log() if label else -weights[0] * (1 - p[i]).log() for i, label in enumerate(labels)]
    assert tuning.training_step((clips, index, torch.zeros(4, 3)), 0).item() == pytest.approx(
        torch.stack(expected).mean().item(), rel=1e-5
    )


def test_inverse_frequency_weighs_both_classes_alike_in_all():
    labels = np.array([0] * 922 + [1] * 208)
    negative, positive = inverse_frequency(labels)
    assert negative * 922 == pytest.approx(positive * 208)
    assert (922 * negative + 208 * positive) / 1130 == pytest.approx(1)


def test_random_changes_are_mrnets_alone_unless_a_view_is_given():
    clips, _ = batch_of(2)
    plain = Preprocessing(32)(clips)
    for network in ("resnet18", "sslm"):
        assert torch.equal(module(network, [0, 1]).inputs(clips, seeded(1)), plain)
    mrnets = module("mrnet_alexnet", [0, 1])
    assert (mrnets.inputs(clips, seeded(1)) - plain).abs().max() > 0.1
    assert torch.equal(mrnets.inputs(clips, seeded(1)), mrnets.inputs(clips, seeded(1)))
    still = View(crop_area=(1, 1), crop_ratio=(1, 1), flip=0, jitter=0, blur=0)
    torch.testing.assert_close(module("mrnet_alexnet", [0, 1], still).inputs(clips, seeded(1)), plain)


def test_each_network_brings_its_published_settings_and_explicit_ones_win():
    nothing = {"slices": None, "epochs": None, "batch": None, "lr": None}
    brought = {name: adapt(name, nothing, 224, 1) for name in RECIPES}
    values = {name: (r.lr, r.epochs, r.batch, r.slices) for name, r in brought.items()}
    assert values == {
        "resnet18": (1e-4, 30, 1, 16),
        "mrnet_alexnet": (1e-5, 50, 1, None),
        "mrnet_resnet18": (1e-5, 50, 1, None),
        "sslm": (1e-5, 50, 1, 16),
        "sslm_linear": (1e-4, 30, 1, 16),
    }
    given = {"slices": 8, "epochs": 3, "batch": 2, "lr": 0.5}
    for name in RECIPES:
        recipe = adapt(name, given, 224, 1)
        assert {k: getattr(recipe, k) for k in given} == given


@pytest.mark.parametrize(
    ("network", "given", "size", "message"),
    [
        ("mrnet_alexnet", {"batch": 2}, 224, "all slices of an exam"),
        ("mrnet_alexnet", {}, 62, "at least 63 pixels"),
        ("resnet18", {"slices": 1}, 224, "slices is 1"),
        ("resnet18", {"slices": 0}, 224, "slices is 0"),
        ("sslm", {"lr": float("nan")}, 224, "lr is nan"),
        ("mrnet_resnet18", {"epochs": -1}, 224, "epochs is -1"),
    ],
)
def test_settings_out_of_range_are_refused(network, given, size, message):
    with pytest.raises(UserError, match=message):
        adapt(network, given, size, 1)


def test_an_mrnet_starts_from_a_run_or_a_file_with_torchvisions_names(knees, tmp_path, capsys):
    run = pretrained(tmp_path / "run", ClipEncoder, "resnet18")
    torch.manual_seed(4)
    file = AlexNet()
    save_file({f"module.{k}": v for k, v in file.state_dict().items()}, tmp_path / "alexnet.safetensors")
    common = {"labels": 4, "epochs": 1, "precision": "float32", "lr": 1e-12, "size": 64}
    finetune(knees, "acl", tmp_path / "a", network="mrnet_resnet18", from_run=run, **common)
    finetune(knees, "acl", tmp_path / "b", network="mrnet_alexnet", weights=tmp_path / "alexnet.safetensors", **common)
    assert "10 of 10 tensors taken" in capsys.readouterr().out
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    start = load_file(run / "encoder.safetensors")
    torch.testing.assert_close(a["encoder.trunk.conv1.weight"], start["conv1.weight"], rtol=0, atol=1e-8)
    for name, tensor in file.state_dict().items():
        torch.testing.assert_close(b[f"encoder.{name}"], tensor, rtol=0, atol=1e-8)
    assert json.loads((tmp_path / "b" / "run.json").read_text())["start"] == str(tmp_path / "alexnet.safetensors")


def test_starts_that_do_not_fit_are_refused_before_a_run_begins(knees, sslm_run, tmp_path):
    resnet = pretrained(tmp_path / "resnet", ClipEncoder, "resnet18")
    odd = pretrained(tmp_path / "odd", ClipEncoder, "vit")
    for settings, message in (
        ({"from_run": resnet, "weights": resnet / "encoder.safetensors"}, "give one of them"),
        ({"from_run": resnet, "network": "mrnet_alexnet"}, "does not hold exactly the weights"),
        ({"from_run": resnet, "network": "sslm"}, "no SSLM encoder"),
        ({"network": "sslm"}, "no SSLM encoder"),
        ({"network": "sslm", "weights": sslm_run / "encoder.safetensors"}, "no SSLM encoder"),
        ({"from_run": sslm_run, "network": "resnet18"}, "does not hold exactly the weights"),
        ({"from_run": odd}, "network vit"),
        ({"weights": sslm_run / "encoder.safetensors"}, "has no weights for this network"),
        ({"labels": 3}, "labels is 3"),
        ({"labels": 13}, "labels is 13, of 12 labelled exams with 6 positive"),
        ({"labels": 4, "labels_seed": -1}, "labels_seed is -1"),
        ({"field": 0.0}, "field is 0.0"),
    ):
        with pytest.raises(UserError, match=message):
            finetune(knees, "acl", tmp_path / "out", size=64, **settings)
        assert not (tmp_path / "out").exists(), settings


@pytest.mark.parametrize("positives", [2, 20, 50, 98])
def test_label_subsets_are_stratified_and_nested(positives):
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1], [100 - positives, positives]))
    smaller: set[int] = set()
    for count in range(4, 101):
        chosen = label_subset(labels, count, seed=7)
        assert len(set(chosen)) == len(chosen) == count
        assert list(chosen) == sorted(chosen)
        assert smaller <= set(chosen)
        smaller = set(chosen)
        found = labels[chosen].sum()
        assert 2 <= found <= count - 2
        assert abs(found - count * positives / 100) <= 0.5 or found in {2, count - 2}
    assert smaller == set(range(100))


def test_another_seed_chooses_other_labels_and_the_same_seed_the_same():
    labels = np.repeat([0, 1], [80, 20])
    first, again, other = (set(label_subset(labels, 30, seed)) for seed in (0, 0, 1))
    assert first == again
    assert len(first & other) < 25


def test_a_class_of_one_cannot_be_subdivided():
    with pytest.raises(UserError, match="2 exams of each class"):
        label_subset(np.array([0, 0, 0, 0, 0, 1]), 4, 0)


def test_linear_first_begins_as_the_frozen_model_and_moves_all_of_it_from_there(train, knees, tmp_path):
    folder = ExamFolder(knees)
    exams = folder.exams("valid", "sagittal")
    frozen, still, moved = (
        plane_logits(load_plane(train("resnet18", tmp_path / name, **settings)), folder, "valid", exams, name)
        for name, settings in {
            "frozen": {"frozen": True},
            "still": {"linear_first": True, "lr": 1e-12, "epochs": 1},
            "moved": {"linear_first": True, "lr": 1e-2, "epochs": 1},
        }.items()
    )
    assert still == pytest.approx(frozen, abs=1e-4)
    assert moved != pytest.approx(frozen, abs=1e-2)
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("frozen", "still", "moved")]
    for name, value in weights[0].items():
        if name.endswith("running_mean"):
            assert all(torch.equal(other[name], value) for other in weights[1:]), "statistics of batch norm are kept"
        if name.endswith("conv1.weight"):
            assert not torch.equal(weights[2][name], value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frozen": True}, "linear_first trains everything after the head, and frozen nothing"),
        ({"head": "attention"}, "resnet18 with head attention has none"),
        ({"network": "mrnet_alexnet", "size": 64}, "mrnet_alexnet with head slice_max has none"),
    ],
)
def test_linear_first_needs_a_line_to_begin_with(knees, tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        finetune(knees, "acl", tmp_path / "run", linear_first=True, **settings)
    assert not (tmp_path / "run").exists()


def test_the_labels_follow_the_seed_unless_they_have_their_own(train, tmp_path):
    def exams(name, **settings):
        run = train("mrnet_alexnet", tmp_path / name, epochs=1, **settings)
        return json.loads((run / "run.json").read_text())["labelled_exams"]

    assert exams("a", seed=1) == exams("b", seed=2, labels_seed=1)
    assert exams("c", seed=1, labels_seed=2) != exams("d", seed=1)
