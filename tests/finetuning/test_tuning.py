import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from kneessl.classifier.classifier import build_classifier
from kneessl.errors import UserError
from kneessl.finetuning.recipes import RECIPES, cosine, oversample
from kneessl.finetuning.tuning import BinaryLoss, FineTuning, binary_loss, layer_groups
from kneessl.model.labels import UNKNOWN
from kneessl.views.preprocess import Preprocessing


@pytest.mark.parametrize("focal", [0.0, 1.0, 2.0, 0.5])
def test_the_loss_is_the_focal_losss_equation_over_what_is_labelled(focal):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(7, 3)) * 3, rng.integers(-1, 2, (7, 3))
    weights = rng.uniform(0.2, 3, (3, 2))
    terms = []
    for i in range(7):
        for k in range(3):
            if labels[i, k] >= 0:
                p = 1 / (1 + np.exp(-logits[i, k]))
                p = p if labels[i, k] else 1 - p
                terms.append(-weights[k, labels[i, k]] * (1 - p) ** focal * np.log(p))
    ours = binary_loss(torch.tensor(logits), torch.tensor(labels), torch.tensor(weights), focal)
    assert ours.item() == pytest.approx(np.mean(terms), rel=1e-6)


def test_the_loss_has_right_gradients_even_where_the_model_is_sure():
    logits = torch.tensor([[40.0, -40.0], [0.3, -2.0]], dtype=torch.float64, requires_grad=True)
    labels, weights = torch.tensor([[1, 0], [0, 1]]), torch.ones(2, 2, dtype=torch.float64)
    binary_loss(logits, labels, weights, 2.0).backward()
    assert torch.isfinite(logits.grad).all()
    assert torch.autograd.gradcheck(
        lambda x: binary_loss(x, labels, weights, 2.0), torch.randn(2, 2).double().requires_grad_()
    )


def test_what_is_not_labelled_gives_no_gradient_and_an_unlabelled_batch_a_loss_of_0():
    logits = torch.randn(3, 2, requires_grad=True)
    labels = torch.tensor([[1, UNKNOWN], [UNKNOWN, 0], [UNKNOWN, UNKNOWN]])
    binary_loss(logits, labels, torch.ones(2, 2), 0.0).backward()
    assert ((logits.grad != 0) == (labels != UNKNOWN)).all()
    assert binary_loss(logits, torch.full((3, 2), UNKNOWN), torch.ones(2, 2), 2.0).item() == 0


def test_each_stage_learns_more_slowly_than_the_one_behind_it_and_nothing_is_left_out():
    classifier = build_classifier("resnet18", "attention", 2, {})
    groups = layer_groups(classifier, 0.1, 0.5)
    assert [g["lr"] for g in groups] == pytest.approx([0.1 * 0.5**k for k in range(6)])
    named = {id(p): name for name, p in classifier.named_parameters()}
    names = [{named[id(p)].removeprefix("encoder.slices.trunk.").split(".")[0] for p in g["params"]} for g in groups]
    assert names == [{"head"}, {"layer4"}, {"layer3"}, {"layer2"}, {"layer1"}, {"conv1", "bn1"}]
    assert sum(len(g["params"]) for g in groups) == len(named)
    whole = layer_groups(classifier, 0.1, 1.0)
    assert len(whole) == 1
    assert len(whole[0]["params"]) == len(named)
    with pytest.raises(UserError, match="stages of a ResNet"):
        layer_groups(build_classifier("mrnet_alexnet", None, 1, {}), 0.1, 0.5)


def module(labels, classifier=None, **changes):
    recipe = replace(RECIPES["resnet18"], **changes)
    torch.manual_seed(0)
    classifier = classifier or build_classifier("resnet18", None, labels.shape[1], {})
    return FineTuning(classifier, labels, BinaryLoss(labels, recipe), Preprocessing(32), recipe, None, seed=5)


def test_weights_are_those_of_each_task_alone():
    labels = np.array([[0, 1], [0, UNKNOWN], [1, 0], [0, 0]])
    tuning = module(labels, balance="weights")
    torch.testing.assert_close(tuning.objective.weights, torch.tensor([[4 / 6, 4 / 2], [3 / 4, 3 / 2]]))
    assert module(labels, balance="none").objective.weights.eq(1).all()


def test_balance_oversample_draws_the_rarer_class_more_often_and_others_draw_each_exam_once():
    labels = np.array([[0], [0], [1], [0]])
    assert module(labels, balance="oversample").recipe.draws(labels).tolist() == oversample(labels[:, 0]).tolist()
    for balance in ("none", "weights"):
        assert module(labels, balance=balance).recipe.draws(labels).tolist() == [0, 1, 2, 3]


def test_frozen_batch_norm_keeps_its_statistics_and_others_move():
    clips = torch.randint(0, 256, (2, 2, 256, 256), dtype=torch.uint8)
    batch = (clips, torch.tensor([0, 1]), torch.zeros(2, 2))
    labels = np.array([[0], [1]])
    for freeze in (True, False):
        tuning = module(labels, freeze_bn=freeze)
        tuning._fabric, tuning._trainer = None, SimpleNamespace(current_epoch=0)
        before = copy.deepcopy(tuning.classifier.state_dict())
        tuning.train()
        tuning.on_train_epoch_start()
        tuning.training_step(batch, 0).backward()
        after = tuning.classifier.state_dict()
        same = [torch.equal(before[k], after[k]) for k in before if "running_" in k]
        assert all(same) if freeze else not any(same)
        trained = [m for m in tuning.classifier.modules() if isinstance(m, nn.BatchNorm2d)]
        assert all(m.weight.grad is not None for m in trained), "its scale and shift are trained either way"


def test_the_average_of_the_weights_follows_its_formula_and_is_the_result():
    trunk = nn.ModuleDict({"conv1": nn.Conv2d(1, 3, 3), "bn1": nn.BatchNorm2d(3)})
    small = nn.ModuleDict({"encoder": nn.ModuleDict({"trunk": trunk}), "head": nn.Linear(3, 1)})
    tuning = module(np.array([[0], [1]]), small, ema=0.75)
    expected = {k: v.clone() for k, v in tuning.classifier.named_parameters()}
    for step in range(1, 60):
        tuning._trainer = SimpleNamespace(global_step=step)
        with torch.no_grad():
            for p in tuning.classifier.parameters():
                p.add_(0.01 * step)
            tuning.classifier.encoder.trunk.bn1.running_mean.fill_(step)
        tuning.on_train_batch_end(None, None, 0)
        keep = min(0.75, step / (step + 9))
        for k, v in tuning.classifier.named_parameters():
            expected[k] = keep * expected[k] + (1 - keep) * v.detach()
    assert tuning.result is tuning.averaged
    for k, v in tuning.result.named_parameters():
        torch.testing.assert_close(v, expected[k], rtol=1e-4, atol=1e-4)
    assert tuning.result.encoder.trunk.bn1.running_mean.eq(59).all()
    assert module(np.array([[0], [1]])).averaged is None


def test_the_cosine_rises_to_1_falls_to_0_and_never_rises_again():
    for steps in (1, 2, 7, 100):
        factors = [cosine(k, steps) for k in range(steps)]
        top = int(np.argmax(factors))
        assert factors[top] == pytest.approx(1)
        assert factors[: top + 1] == sorted(factors[: top + 1])
        assert factors[top:] == sorted(factors[top:], reverse=True)
        assert min(factors) > 0
    assert cosine(99, 100) < 0.001
