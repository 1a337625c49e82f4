from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kneessl.classifier.classifier import build_classifier
from kneessl.finetuning.mrnet import Plateau, class_weights, shift_turn_flip

MRNETS = ("mrnet_alexnet", "mrnet_resnet18")


@pytest.mark.parametrize("name", MRNETS)
def test_forward_equals_slice_by_slice(name):
    torch.manual_seed(0)
    net = build_classifier(name, None, 2, {}).double().eval()
    clips = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        for clip, logits in zip(clips, net(clips, torch.zeros(2, 3)), strict=True):
            features = torch.stack([net.encoder(image[None, None])[0].mean((1, 2)) for image in clip])
            best = features.max(0).values
            for k in range(2):
                torch.testing.assert_close(logits[k], (net.head.weight[k] * best).sum() + net.head.bias[k])
    assert net.head.weight.shape == (2, {"mrnet_alexnet": 256, "mrnet_resnet18": 512}[name])


def test_class_weights_are_the_shares_of_the_other_class():
    negative, positive = class_weights(np.array([0] * 922 + [1] * 208))
    assert (negative, positive) == pytest.approx((208 / 1130, 922 / 1130))


def learning_rates(plateau, losses, optimizer):
    trainer = SimpleNamespace(optimizers=[optimizer])
    plateau.on_train_start(trainer, None)
    rates = []
    for loss in losses:
        for part in (-0.1, 0.1):  # the mean of the batches counts
            plateau.on_train_batch_end(trainer, None, {"loss": torch.tensor(loss + part)}, None, 0)
        plateau.on_train_epoch_end(trainer, None)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def adam():
    return torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=1e-2)


def test_the_rate_falls_to_three_tenths_after_more_than_five_epochs_without_a_smaller_loss():
    losses = [3.0, 2.0, *[2.0] * 5, 2.0, *[2.5] * 5, 2.2, 1.0, *[1.0] * 5]
    rates = learning_rates(Plateau(), losses, adam())
    assert rates == pytest.approx([1e-2] * 7 + [3e-3] * 6 + [9e-4] * 7)


def test_a_resumed_plateau_goes_on_where_it_was():
    losses = [2.0] * 9
    whole = learning_rates(Plateau(), losses, adam())
    optimizer, first = adam(), Plateau()
    rates = learning_rates(first, losses[:4], optimizer)
    second = Plateau()
    second.load_state_dict(first.state_dict())
    assert rates + learning_rates(second, losses[4:], optimizer) == pytest.approx(whole)
    assert whole[-1] < whole[0]


def blobs(size, *where):
    """A picture with a bright blob at each `(row, column)`, smooth enough to be found to a fraction of a pixel."""
    grid = torch.arange(size).float()
    return sum(torch.exp(-((grid[:, None] - r) ** 2 + (grid - c) ** 2) / (2 * (size / 40) ** 2)) for r, c in where)


def centre_of_mass(pictures):
    rows, columns = (torch.arange(side).float() for side in pictures.shape[-2:])
    mass = pictures.sum((-2, -1))
    return (pictures.sum(-1) @ rows) / mass, (pictures.sum(-2) @ columns) / mass


@pytest.mark.parametrize("size", [64, 128])
def test_shifts_are_up_to_25_of_256_pixels_each_way_at_any_size(size):
    middle = (size - 1) / 2
    picture = blobs(size, (middle, middle)).expand(400, 1, -1, -1)
    rows, columns = centre_of_mass(shift_turn_flip(picture, torch.Generator().manual_seed(0))[:, 0])
    most = 25 * size / 256
    for moved in (rows - middle, columns - middle):
        assert moved.abs().max() <= most + 0.1
        assert moved.max() > 0.95 * most
        assert moved.min() < -0.95 * most
        assert abs(moved.mean()) < 0.15 * most


def test_turns_are_up_to_25_degrees_either_way_and_half_are_flipped():
    size, n = 96, 400
    top, bottom, right = (blobs(size, at).expand(n, -1, -1) for at in ((35, 47.5), (60, 47.5), (47.5, 60)))
    moved = shift_turn_flip(torch.stack([top, bottom, right], 1), torch.Generator().manual_seed(1))
    rows, columns = centre_of_mass(moved)
    down = torch.stack([rows[:, 1] - rows[:, 0], columns[:, 1] - columns[:, 0]])
    side = torch.stack([rows[:, 2] - rows[:, 0], columns[:, 2] - columns[:, 0]])
    flipped = down[0] * side[1] - down[1] * side[0] < 0
    assert 0.4 < flipped.float().mean() < 0.6
    angle = torch.atan2(down[1], down[0]).rad2deg()
    assert angle.abs().max() < 25.5
    assert angle.max() > 23
    assert angle.min() < -23
    torch.testing.assert_close(down.norm(dim=0), torch.full((n,), 25.0), rtol=0.02, atol=0)


def test_one_draw_an_exam_is_the_same_for_all_its_slices_and_differs_between_exams():
    torch.manual_seed(0)
    slices = F.avg_pool2d(torch.rand(1, 1, 48, 48), 5, 1, 2).expand(4, 6, -1, -1)
    moved = shift_turn_flip(slices, torch.Generator().manual_seed(0))
    assert torch.equal(moved, moved[:, :1].expand(-1, 6, -1, -1))
    assert all((moved[i] - moved[j]).abs().max() > 0.01 for i in range(4) for j in range(i))
    assert torch.equal(moved, shift_turn_flip(slices, torch.Generator().manual_seed(0)))
