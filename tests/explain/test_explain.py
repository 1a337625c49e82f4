import numpy as np
import pytest
import torch
from torch import nn

from kneessl.classifier.classifier import build_classifier
from kneessl.classifier.heads import HEADS
from kneessl.explain.explain import Explanation, cell_size, explain, grad_cam, heat
from kneessl.model.model import PlaneModel
from kneessl.model.predict import series_logits
from kneessl.nets.alexnet import AlexNet
from kneessl.nets.encoder import SliceEncoder
from kneessl.nets.fine_maps import dilated
from kneessl.nets.resnet import ResNet18
from kneessl.nets.sslm import SSLMEncoder
from kneessl.views.preprocess import Preprocessing

TASKS = ("acl", "meniscus")


def made(head, **preprocessing):
    torch.manual_seed(0)
    classifier = build_classifier("resnet18", head, 2, {}).eval()
    return PlaneModel(classifier, TASKS, "sagittal", Preprocessing(**{"size": 64, **preprocessing}))


@pytest.fixture(scope="module")
def series():
    return np.random.default_rng(0).integers(0, 256, (9, 256, 256), dtype=np.uint8)


@pytest.mark.parametrize("head", HEADS)
def test_an_explanation_belongs_to_the_prediction(head, series):
    model = made(head, depth=0.5, field=0.6)
    logits = series_logits(model, series)
    linear = getattr(model.classifier.head, "linear", model.classifier.head)
    for k, task in enumerate(TASKS):
        found = explain(model, series, task)
        assert found.logit == pytest.approx(logits[k], abs=1e-5)
        assert (found.maps.shape, found.maps.dtype) == ((9, 2, 2), np.float32)
        assert found.exact == (head not in {"transformer", "conv_lstm"})
        assert found.fine.shape == (9, 8, 8)
        if head in {"max", "mean"}:  # the others weigh a place by all the others, of which there are more
            assert np.allclose(found.fine[:, ::4, ::4], found.maps, atol=1e-4 * np.abs(found.maps).max())
        kept = model.preprocessing.middle(9)
        assert np.abs(found.maps[: kept.start]).max() == np.abs(found.maps[kept.stop :]).max() == 0
        assert np.abs(found.maps[kept]).max() > 0
        assert np.allclose(found.slice_scores, [m.sum() for m in found.maps])
        if found.exact:
            assert found.maps.sum() + linear.bias[k].item() == pytest.approx(found.logit, abs=1e-4)
        else:
            assert found.maps.min() >= 0


def test_explaining_leaves_no_gradient_and_does_the_same_again(series):
    model = made("transformer")
    first, second = (explain(model, series, "acl").maps for _ in range(2))
    assert np.array_equal(first, second)
    assert all(p.grad is None for p in model.classifier.parameters())


class Curved(nn.Module):
    """Logit t: the sum over slices of a_t,s times the square of each slice's mean of each channel, weighted."""

    def __init__(self):
        super().__init__()
        self.channel = torch.tensor([[1.0, -2.0, 0.5], [0.3, 0.2, -1.0]], dtype=torch.float64)

    def forward(self, maps, where):
        return torch.einsum("bs,tc,bsc->bt", where, self.channel, maps.mean((3, 4)).square())


def test_grad_cam_by_hand():
    maps = torch.randn(1, 4, 3, 2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    where, head = torch.tensor([[0.1, 0.4, 0.7, 1.0]], dtype=torch.float64), Curved()
    logits, cams = grad_cam(head, maps, where, [1, 0])
    assert torch.equal(logits, head(maps, where)[0, [1, 0]])
    for task in range(2):
        wanted = np.zeros((4, 2, 5))
        for s in range(4):
            for c in range(3):
                mean = maps[0, s, c].mean().item()
                # d(logit) / d(map at a position) = where * weight * 2 * mean / positions, the same at every position.
                wanted[s] += (where[0, s] * head.channel[task, c] * 2 * mean / 10).item() * maps[0, s, c].numpy()
        assert np.allclose(cams[1 - task].numpy(), wanted.clip(0), rtol=0, atol=1e-12)
        assert (wanted < -1e-3).any(), "or the test would not see the ReLU"


def test_grad_cam_works_where_gradients_are_off():
    with torch.no_grad():
        _, cam = grad_cam(Curved(), torch.ones(1, 2, 3, 2, 2, dtype=torch.float64), torch.ones(1, 2).double(), [1])
    assert not cam.requires_grad


def level(maps):
    """An explanation whose maps are fine enough as they are."""
    return Explanation(0.0, maps, True, maps)


def hot(model, row, column, cells=7):
    maps = np.zeros((3, cells, cells), np.float32)
    maps[1, row, column] = 2
    return heat(level(maps), model)


@pytest.mark.parametrize(("field", "first", "count"), [(1.0, 0, 256), (0.45, 70, 115)])
@pytest.mark.parametrize(("row", "column"), [(3, 2), (5, 1)])
def test_one_hot_cell_lands_on_its_pixels(field, first, count, row, column):
    found = hot(made("max", size=224, field=field), row, column)
    assert (found.shape, found.dtype) == ((3, 256, 256), np.float32)
    assert found[[0, 2]].max() == 0
    # Pixel k of the 224 that a network sees is centred on (k + 0.5) * count / 224; a ResNet's cell i on its pixel 32 i.
    scale = count / 224
    centres = [first + (32 * i + 0.5) * scale - 0.5 for i in (row, column)]
    peak = np.unravel_index(found[1].argmax(), (256, 256))
    assert np.abs(np.subtract(peak, centres)).max() <= 0.5 + 1e-9
    assert 2 * (1 - 1 / (32 * scale)) ** 2 <= found[1].max() <= 2
    rows, columns = np.nonzero(found[1])
    for seen, centre in ((rows, centres[0]), (columns, centres[1])):
        assert abs(seen.min() - (centre - 32 * scale)) <= 1
        assert abs(seen.max() - (centre + 32 * scale)) <= 1
    half = round(centres[0]), round(centres[1] + 16 * scale)
    assert found[1][half] == pytest.approx(1, abs=2 / (16 * scale)), "linear from centre to centre"


@pytest.mark.parametrize(("field", "first", "count"), [(1.0, 0, 256), (0.45, 70, 115)])
def test_a_level_map_fills_the_field_and_nothing_else(field, first, count):
    model = made("max", size=224, field=field)
    found = heat(level(np.full((2, 7, 7), 3, np.float32)), model)
    inside = np.zeros((256, 256), bool)
    inside[first : first + count, first : first + count] = True
    assert np.allclose(found[:, inside], 3)
    assert (found[:, ~inside] == 0).all()
    assert cell_size(model) == pytest.approx(32 * count / 224)


def test_heat_at_another_side_is_the_same_picture():
    model = made("max", size=224, field=0.5)
    large, small = (heat(level(np.eye(7, dtype=np.float32)[None]), model, side)[0] for side in (256, 64))
    assert np.abs(large.reshape(64, 4, 64, 4).mean((1, 3)) - small).max() < 0.15


@pytest.mark.parametrize(
    ("encoder", "side"),
    [(SliceEncoder, 512), (AlexNet, 512), (lambda: SSLMEncoder(4), 256)],
    ids=["resnet", "alexnet", "sslm"],
)
def test_the_grid_is_where_the_network_looks(encoder, side):
    """The centre of mass of the squared gradient of a middle cell, over random pictures and random weights."""
    torch.manual_seed(0)
    network = encoder().eval()
    grid, seen = network.grid, []
    for _ in range(2):
        picture = torch.rand(1, 1, side, side, requires_grad=True)
        maps = network.maps(picture)
        middle = maps.shape[-1] // 2
        mixed = maps[0, :, middle, middle] @ torch.randn(maps.shape[1])
        weight = torch.autograd.grad(mixed, picture)[0][0, 0].square()
        for axis in (0, 1):
            along = weight.sum(1 - axis)
            seen.append(((along * torch.arange(side)).sum() / along.sum()).item())
    assert np.mean(seen) == pytest.approx(grid.first + grid.step * middle, abs=grid.step / 4)


def test_a_bright_spot_is_found_where_it_is():
    """End to end: what a spot changes in the evidence, put back onto the slice, has its centre at the spot."""
    model = made("mean", size=224, field=0.6)
    dark = np.full((2, 256, 256), 60, np.uint8)
    for row, column in ((90, 150), (160, 110)):
        spot = dark.copy()
        spot[1, row - 4 : row + 5, column - 4 : column + 5] = 255
        changes = [explain(model, spot, task).maps - explain(model, dark, task).maps for task in TASKS]
        seen = heat(level(np.square(changes).sum(0)), model)
        assert seen[0].max() == 0
        centre = [(seen[1].sum(1 - axis) * np.arange(256)).sum() / seen[1].sum() for axis in (0, 1)]
        assert np.abs(np.subtract(centre, (row, column))).max() <= cell_size(model) / 2


@pytest.mark.parametrize("side", [96, 128])
def test_a_fine_map_points_where_a_coarse_one_cannot(side):
    """What a spot changes in the evidence is strongest near the spot, at random weights too."""
    model = made("mean", size=side)
    dark = np.full((1, 256, 256), 60, np.uint8)
    without = [explain(model, dark, task) for task in TASKS]
    miss = []
    for row, column in ((128, 128), (90, 150), (160, 110), (70, 80), (180, 190)):
        spot = dark.copy()
        spot[0, row - 4 : row + 5, column - 4 : column + 5] = 255
        pairs = [(explain(model, spot, task), before) for task, before in zip(TASKS, without, strict=True)]
        fine = level(sum(np.square(after.fine - before.fine) for after, before in pairs))
        coarse = sum(np.square(after.maps - before.maps) for after, before in pairs)
        peaks = (
            np.argwhere(heat(fine, model)[0] == heat(fine, model)[0].max())[0],
            np.argwhere(coarse[0] == coarse.max())[0] * cell_size(model),
        )
        miss.append([np.abs(peak - (row, column)).max() for peak in peaks])
    fine, coarse = np.mean(miss, axis=0)
    assert fine < coarse / 2


@pytest.mark.parametrize(("side", "times"), [(64, 4), (96, 4), (112, 2), (192, 2), (224, 1), (256, 1)])
def test_a_map_is_made_fine_enough_to_point_and_no_finer(side, times):
    assert made("max", size=side).finer == times


@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("side", [64, 80, 96])
def test_a_dilated_network_gives_the_strided_ones_maps_at_its_cells(stages, side):
    torch.manual_seed(0)
    trunk = ResNet18().eval()
    for norm in (m for m in trunk.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.5, 1.5)
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    slices = torch.randn(2, 1, side, side)
    with torch.no_grad():
        coarse, fine = trunk(slices), dilated(trunk, stages)(slices)
    step = 2**stages
    torch.testing.assert_close(fine[..., ::step, ::step], coarse, rtol=1e-4, atol=1e-4)
    assert fine.shape[-1] == -(-side // (32 // step))
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())
    assert trunk.layer4[0].conv1.stride == (2, 2)
