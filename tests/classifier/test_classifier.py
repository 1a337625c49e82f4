import json
import shutil

import numpy as np
import pytest
import torch

from kneessl.classifier.classifier import build_classifier
from kneessl.errors import UserError
from kneessl.finetuning.recipes import oversample, step_decay
from kneessl.model.model import load_model
from kneessl.nets.encoder import save_weights
from kneessl.training.runs import write_record
from kneessl.views.preprocess import Preprocessing


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    save_weights(build_classifier("resnet18", None, 2, {}), folder / "model.safetensors")
    write_record(folder, Preprocessing(64), rows=[], kind="finetune", tasks=["acl", "meniscus"], plane="sagittal")
    return folder


def test_a_model_comes_back_ready_to_predict(run):
    model = load_model(run)
    only = model.planes["sagittal"]
    assert (model.tasks, list(model.planes), only.preprocessing) == (
        ("acl", "meniscus"),
        ["sagittal"],
        Preprocessing(64),
    )
    assert not only.classifier.training


def test_a_model_of_version_0_1_has_one_task_and_the_thesiss_head(tmp_path):
    torch.manual_seed(0)
    classifier = build_classifier("resnet18", "max", 1, {})
    save_weights(classifier, tmp_path / "model.safetensors")
    write_record(tmp_path, Preprocessing(64), rows=[], kind="finetune", task="acl", plane="sagittal")
    model = load_model(tmp_path)
    assert model.tasks == ("acl",)
    clip, where = torch.randn(1, 3, 64, 64), torch.zeros(1, 3)
    with torch.no_grad():
        assert torch.equal(model.planes["sagittal"].classifier(clip, where), classifier.eval()(clip, where))


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
