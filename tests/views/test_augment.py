import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, kstest
from torch.nn import functional as F

from kneessl.errors import UserError
from kneessl.views.augment import T_PRIME, T, View, ViewParameters, apply, augment, draw

N = 20_000


def nothing(n: int = 1, height: int = 256, width: int = 256, **changes) -> ViewParameters:
    """Parameters that change nothing, but for `changes`."""
    one = torch.ones(n)
    base = {
        "box": torch.tensor([[0, 0, height, width]]).repeat(n, 1),
        "flip": one < 0,
        "brightness": one,
        "contrast": one,
        "brightness_first": one > 0,
        "sigma": 0 * one,
        "solarize": one < 0,
    }
    return ViewParameters(**(base | changes))


def knees(n: int = 2, s: int = 3, height: int = 256, width: int = 256) -> torch.Tensor:
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (n, s, 12, 12))).float()
    smooth = F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 255)
    return (smooth + torch.from_numpy(rng.normal(0, 4, (n, s, height, width)))).clamp(0, 255).byte()


def share_fits(hits: torch.Tensor, p: float) -> bool:
    """Whether the number of hits lies where a binomial's lies with probability 1 - 1e-6."""
    low, high = binom.interval(1 - 1e-6, len(hits), p)
    return low <= int(hits.sum()) <= high


@pytest.mark.parametrize(("view", "blur", "solarize"), [(T, 1.0, 0.0), (T_PRIME, 0.1, 0.2)])
def test_probabilities_and_ranges_of_the_thesis(view, blur, solarize):
    d = draw(view, N, 256, 256, torch.Generator().manual_seed(0))
    assert share_fits(d.flip, 0.5)
    assert share_fits(d.sigma > 0, blur)
    assert share_fits(d.solarize, solarize)
    jittered = (d.brightness != 1) | (d.contrast != 1)
    assert share_fits(jittered, 0.8)
    assert torch.equal(d.brightness != 1, d.contrast != 1), "one coin for both"
    assert share_fits(d.brightness_first[jittered], 0.5)
    for factor in (d.brightness[jittered], d.contrast[jittered]):
        assert kstest(factor.numpy(), "uniform", (0.6, 0.8)).pvalue > 1e-6
    assert kstest(d.sigma[d.sigma > 0].numpy(), "uniform", (0.1, 1.9)).pvalue > 1e-6


def test_crops_have_the_thesis_areas_and_aspects_and_lie_inside():
    d = draw(T, N, 256, 256, torch.Generator().manual_seed(0))
    top, left, height, width = d.box.unbind(1)
    assert (d.box >= 0).all()
    assert (top + height <= 256).all()
    assert (left + width <= 256).all()
    area = (height * width / 256**2).numpy()
    assert 0.078 < area.min() < 0.085
    assert area.max() <= 1.0
    ratio = (width / height).log().numpy()
    assert abs(ratio).max() < math.log(4 / 3) + 0.02
    small = area < 0.5
    assert kstest(ratio[small], "uniform", (-math.log(4 / 3), 2 * math.log(4 / 3))).pvalue > 1e-6
    low, high = ((area > a) & (area < a + 0.2) for a in (0.1, 0.3))
    assert abs(low.mean() - high.mean()) < 0.02, "areas are uniform where every aspect fits"


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(8, 300),
    width=st.integers(8, 300),
    area=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted),
    ratio=st.tuples(st.floats(0.05, 20), st.floats(0.05, 20)).map(sorted),
    seed=st.integers(0, 2**31),
)
def test_any_crop_lies_inside_any_picture(height, width, area, ratio, seed):
    view = View(crop_area=tuple(area), crop_ratio=tuple(ratio))
    top, left, h, w = draw(view, 50, height, width, torch.Generator().manual_seed(seed)).box.unbind(1)
    assert (h >= 1).all()
    assert (w >= 1).all()
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + h <= height).all()
    assert (left + w <= width).all()


@pytest.mark.parametrize("size", [48, 96, 224, 300])
@pytest.mark.parametrize("box", [(0, 0, 256, 256), (10, 33, 90, 120), (200, 3, 17, 253)])
def test_crop_and_resize_equal_torchs_antialiased_bicubic(box, size):
    slices = knees()
    top, left, height, width = box
    got = apply(slices, nothing(2, box=torch.tensor([box, box])), size)
    crop = slices[:, :, top : top + height, left : left + width].double() / 255
    expected = F.interpolate(crop, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
    torch.testing.assert_close(got.double(), expected, atol=2e-5, rtol=0)


def test_flip_is_left_right():
    slices = knees()
    params = nothing(2, flip=torch.tensor([False, True]))
    plain, flipped = apply(slices, nothing(2), 96), apply(slices, params, 96)
    assert torch.equal(flipped[0], plain[0])
    torch.testing.assert_close(flipped[1], plain[1].flip(-1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [96, 224])
def test_blur_equals_a_gaussian_convolution_with_mirrored_edges(size):
    slices = knees()
    sigma = 1.7
    got = apply(slices, nothing(2, sigma=torch.tensor([sigma, 0.0])), size)
    plain = apply(slices, nothing(2), size)
    radius = round(11 * size / 224)
    taps = torch.arange(-radius, radius + 1).double()
    kernel = torch.exp(-0.5 * (taps / (sigma * size / 224)) ** 2)
    kernel /= kernel.sum()
    padded = F.pad(plain[0].double()[:, None], (radius,) * 4, mode="reflect")
    expected = F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[:, 0]
    torch.testing.assert_close(got[0].double(), expected, atol=1e-5, rtol=0)
    assert torch.equal(got[1], plain[1]), "only the drawn view is blurred"


@pytest.mark.parametrize("first", [True, False])
def test_brightness_and_contrast_in_either_order_with_clamping(first):
    slices = knees()
    params = nothing(
        2, brightness=torch.full((2,), 1.4), contrast=torch.full((2,), 0.7), brightness_first=torch.tensor([first] * 2)
    )
    x = apply(slices, nothing(2), 96).double()

    def brighten(x):
        return (1.4 * x).clamp(0, 1)

    def contrast(x):
        mean = x.mean((2, 3), keepdim=True)
        return (0.7 * x + 0.3 * mean).clamp(0, 1)

    expected = contrast(brighten(x)) if first else brighten(contrast(x))
    torch.testing.assert_close(apply(slices, params, 96).double(), expected, atol=1e-5, rtol=0)


def test_solarize_inverts_the_bright_half():
    slices = torch.tensor([0, 100, 127, 128, 200, 255], dtype=torch.uint8).view(1, 6, 1, 1).expand(1, 6, 64, 64)
    got = apply(slices, nothing(1, 64, 64, solarize=torch.tensor([True])), 64)[0, :, 30, 30] * 255
    torch.testing.assert_close(got, torch.tensor([0, 100, 127, 127, 55, 0.0]), atol=0.01, rtol=0)


def test_one_draw_a_clip_by_default_and_one_a_slice_on_demand():
    clip = knees(1, 1).expand(1, 4, 256, 256)
    together = augment(clip, T, 64, torch.Generator().manual_seed(3))
    for s in range(1, 4):
        torch.testing.assert_close(together[0, s], together[0, 0])
    apart = augment(clip, replace(T, per_slice=True), 64, torch.Generator().manual_seed(3))
    assert (apart[0, 1] - apart[0, 0]).abs().max() > 0.01


def test_a_draw_can_be_replayed_and_leaves_its_input_alone():
    slices = knees()
    before = slices.clone()
    params = draw(T_PRIME, 2, 256, 256, torch.Generator().manual_seed(5))
    first = apply(slices, params, 96)
    assert torch.equal(first, apply(slices, params, 96))
    assert torch.equal(slices, before)
    torch.testing.assert_close(first[1:], apply(slices[1:], params[1:], 96))
    assert first.min() >= 0
    assert first.max() <= 1


@pytest.mark.parametrize(
    ("settings", "name"),
    [({"flip": 1.5}, "flip"), ({"crop_area": (0.0, 1.0)}, "crop_area"), ({"blur_sigma": (2.0, 1.0)}, "blur_sigma")],
)
def test_impossible_settings_are_named(settings, name):
    with pytest.raises(UserError, match=name):
        View(**settings)
