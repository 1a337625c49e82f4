import json
import shutil

import numpy as np
import pytest
import torch

from kneessl.diagnosis.classifier import Classifier, load_model
from kneessl.diagnosis.recipes import oversample, step_decay
from kneessl.errors import UserError
from kneessl.nets.encoder import save_weights
from kneessl.training import write_record
from kneessl.views.preprocess import Preprocessing


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    save_weights(Classifier(), folder / "model.safetensors")
    write_record(folder, Preprocessing(64), rows=[], kind="finetune", task="acl", plane="sagittal")
    return folder


def test_slice_contributions_are_exact():
    torch.manual_seed(0)
    classifier = Classifier().eval()
    clip = torch.randn(1, 6, 64, 64)
    logit, parts = classifier.slice_contributions(clip)
    with torch.no_grad():
        assert logit == pytest.approx(classifier(clip).item(), abs=1e-4)
    assert parts.shape == (6,)
    assert parts.sum().item() + classifier.head.bias.item() == pytest.approx(logit, abs=1e-4)


def test_a_slice_that_never_attains_the_maximum_contributes_nothing():
    torch.manual_seed(0)
    classifier = Classifier().eval()
    clip = torch.randn(1, 3, 64, 64)
    doubled = torch.cat([clip, clip[:, :1]], 1)
    logit, parts = classifier.slice_contributions(clip)
    same, with_copy = classifier.slice_contributions(doubled)
    assert same == pytest.approx(logit, abs=1e-4)
    assert (with_copy[:3] - parts).abs().max() + with_copy[3].abs() < 1e-3, "on a tie the first slice counts"


def test_a_model_comes_back_ready_to_predict(run):
    model = load_model(run)
    assert (model.task, model.plane, model.preprocessing) == ("acl", "sagittal", Preprocessing(64))
    assert not model.classifier.training


def test_another_preprocessing_is_refused(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    record = json.loads((copy / "run.json").read_text())
    record["preprocessing"]["mean"] = 0.5
    (copy / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="was trained under preprocessing"):
        load_model(copy)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("run.json", "{", "not readable JSON"),
        ("run.json", "[]", "not a JSON object"),
        ("run.json", '{"kind": "pretrain"}', "not a fine-tuned model"),
        ("run.json", '{"kind": "finetune"}', "is damaged"),
        ("run.json", None, "not a run folder"),
        ("model.safetensors", "x", "is damaged"),
        ("model.safetensors", None, "is missing"),
    ],
)
def test_damaged_folders_are_refused_in_a_sentence(run, tmp_path, file, content, message):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / file).unlink()
    if content is not None:
        (copy / file).write_text(content)
    with pytest.raises(UserError, match=message):
        load_model(copy)


@pytest.mark.parametrize("labels", [[1, 0, 0, 0, 0], [1, 1, 1, 0], [0, 1], [0, 0, 1, 1, 1, 1, 1]])
def test_oversampling_evens_the_classes_and_keeps_every_exam(labels):
    labels = np.array(labels)
    chosen = oversample(labels)
    assert (labels[chosen] == 0).sum() == (labels[chosen] == 1).sum() == max(np.bincount(labels))
    times = np.bincount(chosen, minlength=len(labels))
    assert times.min() >= 1
    for value in (0, 1):
        assert np.ptp(times[labels == value]) <= 1


def test_the_learning_rate_falls_at_18_and_24_of_30_epochs_and_alike_at_any_length():
    steps = [step_decay(epoch, 30) for epoch in range(30)]
    assert steps == [1.0] * 18 + [0.1] * 6 + [pytest.approx(0.01)] * 6
    for total in (5, 7, 50):
        assert [step_decay(k, total) for k in (0, total - 1)] == [1.0, pytest.approx(0.01)]
