import copy
import math

import pytest
import torch

from kneessl.errors import UserError
from kneessl.methods.dino import DINO
from kneessl.views.augment import T_PRIME, T, View
from kneessl.views.inputs import ViewMaker
from kneessl.views.preprocess import Preprocessing

TINY = {"hidden": 16, "bottleneck": 6, "prototypes": 12}


@pytest.fixture
def method(encoder) -> DINO:
    return DINO(encoder, **TINY)


def local(n: int = 6, count: int = 2) -> list[torch.Tensor]:
    return list(torch.randn(count, n, 2, 6, 6, generator=torch.Generator().manual_seed(5)))


def test_the_loss_is_the_mean_over_pairs_of_a_teacher_view_and_another_student_view(method, views):
    method.eval()  # so that batches of one size may be taken apart
    with torch.no_grad():
        method.centre.uniform_(-0.1, 0.1)
        for p in method.teacher.parameters():
            p.add_(0.1)
    centre = method.centre.clone()
    crops = [*views(), *local()]
    students = [method.prototypes(method.projector(method.encoder(v))) for v in crops]
    teachers = [((method.teacher(v) - centre) / 0.04).softmax(1) for v in crops[:2]]
    terms = [
        -(t * (s / 0.1).log_softmax(1)).sum(1).mean().item()
        for i, t in enumerate(teachers)
        for j, s in enumerate(students)
        if i != j
    ]
    assert len(terms) == 6
    loss, y1, y2 = method(*crops)
    assert loss.item() == pytest.approx(sum(terms) / 6, rel=1e-5)
    for y, view in zip((y1, y2), views(), strict=True):
        torch.testing.assert_close(y, method.projector(method.encoder(view)).detach())
    assert method(*views()).loss.isfinite(), "without small crops"


def test_crops_of_one_size_are_one_batch(method, views):
    method(*views(), *local())
    assert method.encoder.trunk[1].num_batches_tracked == 2, "global ones, and small ones"
    assert method.teacher[0].trunk[1].num_batches_tracked == 1, "the teacher sees the global ones only"


def test_a_gradient_reaches_every_student_parameter_and_no_teacher_parameter(method, views):
    method.after_step(0.5)  # past the freezing
    method(*views(), *local()).loss.backward()
    student = [*method.encoder.parameters(), *method.projector.parameters(), method.prototypes.weight]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in student)
    assert {id(p) for p in student} == {id(p) for p in method.parameters() if p.requires_grad}
    assert all(p.grad is None for p in method.teacher.parameters())


def test_the_last_layer_is_frozen_at_first(encoder, views):
    method = DINO(encoder, **TINY, freeze=0.1)

    def gradient() -> float:
        method.zero_grad()
        method(*views()).loss.backward()
        assert method.projector[0].weight.grad.abs().sum() > 0
        return method.prototypes.weight.grad.abs().sum().item()

    assert gradient() == 0
    method.after_step(0.05)
    assert gradient() == 0
    method.after_step(0.1)
    assert gradient() > 0
    assert not DINO(encoder, **TINY, freeze=0).prototypes.frozen


def test_the_centre_follows_the_teachers_mean(encoder, views):
    method = DINO(encoder, **TINY, centre_momentum=0.8)
    twin = copy.deepcopy(method)
    mean = twin.teacher(torch.cat(views())).mean(0)
    method(*views())
    torch.testing.assert_close(method.centre, 0.2 * mean)
    before = method.centre.clone()
    mean = twin.teacher(torch.cat(views(2))).mean(0)
    method(*views(2))
    torch.testing.assert_close(method.centre, 0.8 * before + 0.2 * mean)
    assert not method.centre.requires_grad


def test_the_teachers_temperature_rises_and_its_decay_too(encoder):
    method = DINO(encoder, **TINY, first_temperature=0.04, teacher_temperature=0.08, warmup=0.2, tau=0.9)
    assert method.temperature.item() == pytest.approx(0.04)
    for progress, expected in ((0.05, 0.05), (0.1, 0.06), (0.2, 0.08), (0.9, 0.08)):
        method.after_step(progress)
        assert method.temperature.item() == pytest.approx(expected)
    assert DINO(encoder, **TINY, warmup=0).temperature.item() == pytest.approx(0.07)
    with torch.no_grad():
        method.prototypes.weight.add_(1)
    before = method.teacher[2].weight.clone()
    method.after_step(0.5)
    tau = 1 - 0.1 * (math.cos(math.pi / 2) + 1) / 2
    torch.testing.assert_close(method.teacher[2].weight, tau * before + (1 - tau) * method.prototypes.weight.detach())


def test_what_changes_during_training_is_saved(method, encoder, views):
    method.after_step(0.2)
    method(*views())
    again = DINO(encoder, **TINY)
    again.load_state_dict(method.state_dict())
    assert torch.equal(again.temperature, method.temperature)
    assert torch.equal(again.centre, method.centre)
    assert again.prototypes.frozen == method.prototypes.frozen


@pytest.mark.parametrize(("size", "small"), [(224, 96), (48, 32)])
def test_two_global_views_and_small_crops_of_small_parts(encoder, size, small):
    clips = torch.randint(0, 256, (3, 2, 64, 64), dtype=torch.uint8)
    make = ViewMaker(Preprocessing(size), T, T_PRIME)
    crops = DINO(encoder, **TINY, local=3).inputs(clips, make, torch.Generator().manual_seed(0))
    assert [tuple(c.shape) for c in crops] == [(3, 2, size, size)] * 2 + [(3, 2, small, small)] * 3
    assert not torch.equal(crops[2], crops[3])
    again = DINO(encoder, **TINY, local=3).inputs(clips, make, torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(crops, again, strict=True))
    plain = DINO(encoder, **TINY, local=0).inputs(clips, make, torch.Generator().manual_seed(0))
    assert len(plain) == 2


def test_small_crops_show_at_most_two_fifths(encoder):
    """Of a ramp from left to right, a crop shows a range no wider than the largest one allowed."""
    clips = torch.arange(256, dtype=torch.uint8).expand(40, 1, 256, 256)
    calm = View(jitter=0.0, blur=0.0, flip=0.0)
    make = ViewMaker(Preprocessing(64, mean=0, std=1), calm, T_PRIME)
    crops = DINO(encoder, **TINY, local=1).inputs(clips, make, torch.Generator().manual_seed(0))
    width = crops[2].amax((1, 2, 3)) - crops[2].amin((1, 2, 3))
    assert width.max() < math.sqrt(0.4 * 4 / 3) + 0.02
    assert width.min() > math.sqrt(0.05 * 3 / 4) - 0.03
    assert width.min() < math.sqrt(0.2 * 4 / 3)


@pytest.mark.parametrize(
    "setting",
    [{"prototypes": 0}, {"local": -1}, {"tau": 2}, {"first_temperature": 0}, {"warmup": 3}, {"student_temperature": 0}],
)
def test_nonsense_settings_are_refused_by_name(encoder, setting):
    with pytest.raises(UserError, match=f"settings.{next(iter(setting))} is {next(iter(setting.values()))};"):
        DINO(encoder, **setting)
