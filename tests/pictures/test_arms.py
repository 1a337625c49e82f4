import numpy as np
import pytest
import torch

from kneessl.errors import UserError
from kneessl.methods import METHODS
from kneessl.pictures.arms import CIFAR, CROPPED, SUPERVISED, Training, make_arm, require_arm
from kneessl.pictures.cifar10 import Pictures

TRAIN = Pictures(np.random.default_rng(0).integers(0, 256, (12, 3, 32, 32), dtype=np.uint8), np.arange(12) % 10)
TWO_VIEWS = ["byolmed2d", "byol_vc", "byol", "simclr", "moco_v1", "moco_v2", "barlow_twins", "simsiam", "vicreg"]
SMALL = {"byol": {"hidden": 16, "dim": 8}, "byolmed2d": {"hidden": 16}, "barlow_twins": {"hidden": 16}}
SMALL |= {"byol_vc": {"hidden": 16, "dim": 8}, "simsiam": {"hidden": 16, "dim": 16}, "vicreg": {"hidden": 16}}


def arm(name, settings=None, training=None):
    return make_arm(name, training or Training(epochs=2, warmup_epochs=0), settings or {}, TRAIN, 10, 5, None)


def test_every_arm_starts_from_the_same_encoder(tmp_path):
    start = arm(SUPERVISED).encoder.state_dict()
    for name in ("simclr", "byol", "moco_v2"):
        own = arm(name, SMALL.get(name)).encoder.state_dict()
        assert all(torch.equal(start[k], v) for k, v in own.items()), name
        assert own.keys() == start.keys()


def test_two_view_methods_are_those_that_learn_from_two_views():
    assert [name for name, recipe in METHODS.items() if recipe.two_views] == TWO_VIEWS


@pytest.mark.parametrize("name", TWO_VIEWS)
def test_every_two_view_method_takes_colour_pictures(name, monkeypatch):
    module = arm(name, SMALL.get(name)).module
    monkeypatch.setattr(type(module), "current_epoch", 0)
    clips = torch.from_numpy(TRAIN.pixels)[:, None]
    loss = module.training_step((clips, torch.arange(12), torch.full((12, 1), 0.5)), 0)
    loss.backward()
    assert torch.isfinite(loss)
    assert module.method.encoder.trunk.conv1.weight.grad.abs().sum() > 0


def test_the_supervised_loss_is_cross_entropy_of_the_right_labels(monkeypatch):
    module = arm(SUPERVISED, training=Training(epochs=2, warmup_epochs=0, view1=CROPPED)).module
    monkeypatch.setattr(type(module), "current_epoch", 0)
    chosen = torch.tensor([3, 11, 7, 0])
    clips, where = torch.from_numpy(TRAIN.pixels)[chosen][:, None], torch.full((4, 1), 0.5)
    seen = {}
    module.classifier.register_forward_hook(lambda *a: seen.update(logits=a[2].detach().double(), clips=a[1][0]))
    loss = module.training_step((clips, chosen, where), 0)
    logits = seen["logits"]
    expected = np.mean([(logits[i].logsumexp(0) - logits[i, k]).item() for i, k in enumerate([3, 1, 7, 0])])
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert seen["clips"].shape == (4, 1, 3, 32, 32)


def test_statistics_are_those_of_the_channels_together():
    clips = torch.from_numpy(TRAIN.pixels)[:, None]
    expected = (TRAIN.pixels / 255.0 - CIFAR.mean) / CIFAR.std
    torch.testing.assert_close(CIFAR(clips)[:, 0], torch.from_numpy(expected).float(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch": 0}, "batch is 0"),
        ({"lr": -1.0}, "lr is -1"),
        ({"weight_decay": -1.0}, "weight_decay is -1"),
        ({"epochs": 5, "warmup_epochs": 5}, "warmup_epochs is 5; it must be from 0 to 4"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        Training(**changes)


def test_methods_that_do_not_learn_from_two_views_are_refused():
    for name in ("jigsaw", "spark", "nothing"):
        with pytest.raises(UserError, match=f"method is {name}; pictures are learnt from by .*simclr.*or supervised"):
            require_arm(name)
    with pytest.raises(UserError, match="method simclr has no setting hiden"):
        arm("simclr", {"hiden": 3})
