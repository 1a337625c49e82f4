"""Colour views against plain float64 arithmetic and `colorsys`, and grey views against what they were before colour."""

import colorsys
import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chisquare, kstest
from torch.nn import functional as F

from kneessl.errors import UserError
from kneessl.views.augment import T_PRIME, T, View, ViewParameters, apply, augment, draw
from kneessl.views.colour import (
    NEUTRAL,
    OPERATIONS,
    ColourParameters,
    brighten,
    change_contrast,
    draw_order,
    jitter,
    saturate,
    turn_hue,
)
from kneessl.views.inputs import ViewMaker
from kneessl.views.preprocess import Preprocessing

SIMCLR = View(
    crop_area=(0.2, 1.0), jitter=0.8, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grayscale=0.2, blur=0.0
)
LUMA = np.array([0.2989, 0.587, 0.114])
ORDERS = [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2), (2, 0, 3, 1)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(n: int = 4, s: int = 2, side: int = 8) -> torch.Tensor:
    """float `(n, s, 3, side, side)` from 0 to 1, of which some pixels are grey, black, white or of one pure colour."""
    x = torch.rand(n, s, 3, side, side, generator=generator())
    x[..., :, 0, 0] = 0.0
    x[..., :, 0, 1] = 1.0
    x[..., :, 0, 2] = 0.37
    for i in range(3):
        x[..., :, 1, i] = 0.0
        x[..., i, 1, i] = 1.0
    return x


def coloured(n: int = 4, s: int = 2, side: int = 32) -> torch.Tensor:
    """uint8 `(n, s, 3, side, side)`, smooth and colourful."""
    coarse = torch.rand(n * s, 3, 5, 5, generator=generator(1)) * 255
    smooth = F.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 255)
    return smooth.byte().view(n, s, 3, side, side)


def in_threes(grey: torch.Tensor) -> torch.Tensor:
    """`(n, s, H, W)` -> `(n, s, 3, H, W)` of three equal channels."""
    return grey[:, :, None].repeat(1, 1, 3, 1, 1)


def luma(x: np.ndarray) -> np.ndarray:
    """`(3, H, W)` -> `(H, W)`."""
    return np.tensordot(LUMA, x, 1)


def plain_operation(i: int, x: np.ndarray, amount: float) -> np.ndarray:
    """Operation i on one picture, float64 `(3, H, W)`."""
    if i == 0:
        return np.clip(amount * x, 0, 1)
    if i == 1:
        return np.clip(amount * x + (1 - amount) * luma(x).mean(), 0, 1)
    if i == 2:
        return np.clip(amount * x + (1 - amount) * luma(x), 0, 1)
    turned = np.empty_like(x)
    for row, column in np.ndindex(x.shape[1:]):
        h, s, v = colorsys.rgb_to_hsv(*x[:, row, column])
        turned[:, row, column] = colorsys.hsv_to_rgb((h + amount) % 1, s, v)
    return turned


def plain(i: int, x: torch.Tensor, amount: float) -> torch.Tensor:
    """Operation i on every picture of `(n, s, 3, H, W)`, each by itself, in float64."""
    pictures = x.double().flatten(0, 1).numpy()
    return torch.from_numpy(np.stack([plain_operation(i, p, amount) for p in pictures])).view(x.shape)


def assert_close(found: torch.Tensor, expected: torch.Tensor, atol: float = 2e-6) -> None:
    torch.testing.assert_close(found.double(), expected.double(), atol=atol, rtol=0)


@pytest.mark.parametrize("amount", [0.0, 0.6, 0.93, 1.0, 1.4, 2.0])
@pytest.mark.parametrize(("i", "operation"), list(enumerate([brighten, change_contrast, saturate])))
def test_factors_equal_plain_arithmetic(i, operation, amount):
    assert OPERATIONS[i] is operation
    x = noise()
    assert_close(operation(x, torch.full((4, 1, 1, 1, 1), amount)), plain(i, x, amount))


@pytest.mark.parametrize("shift", [-0.5, -0.31, -0.1, 0.0, 0.05, 1 / 6, 1 / 3, 0.5])
def test_hue_equals_colorsys(shift):
    assert OPERATIONS[3] is turn_hue
    x = noise()
    assert_close(turn_hue(x, torch.full((4, 1, 1, 1, 1), shift)), plain(3, x, shift))


def test_a_third_of_a_turn_makes_red_green():
    red = torch.zeros(1, 1, 3, 2, 2)
    red[:, :, 0] = 0.8
    assert_close(turn_hue(red, torch.full((1, 1, 1, 1, 1), 1 / 3)), red.roll(1, 2))


def test_hue_leaves_grey_pictures_exactly_as_they_are():
    grey = in_threes(torch.rand(3, 2, 8, 8, generator=generator()))
    assert torch.equal(turn_hue(grey, torch.tensor([0.1, -0.4, 0.5]).view(3, 1, 1, 1, 1)), grey)


AMOUNTS = torch.tensor([[1.4, 0.6, 1.35, 0.1], [0.7, 1.4, 0.6, -0.1], [1.2, 1.3, 1.4, 0.25], [0.65, 1.4, 1.39, -0.08]])


def test_each_clip_has_the_operations_in_its_own_order():
    x = noise()
    found = jitter(x.clone(), AMOUNTS, torch.tensor(ORDERS))
    for row, order in enumerate(ORDERS):
        expected = x[row : row + 1].double()
        for i in order:
            expected = plain(i, expected, float(AMOUNTS[row, i]))
        assert_close(found[row : row + 1], expected, atol=1e-5)
    for row in range(4):
        backwards = jitter(x.clone(), AMOUNTS, torch.tensor(ORDERS).flip(1))
        assert (backwards[row] - found[row]).abs().max() > 0.01, "the order matters"


def test_a_neutral_amount_leaves_its_clip_untouched():
    x = noise()
    assert torch.equal(jitter(x.clone(), NEUTRAL.repeat(4, 1), torch.tensor(ORDERS)), x)
    only_second = torch.where(torch.arange(4)[:, None] == 1, AMOUNTS, NEUTRAL)
    found = jitter(x.clone(), only_second, torch.tensor(ORDERS))
    assert torch.equal(found[[0, 2, 3]], x[[0, 2, 3]])
    assert not torch.equal(found[1], x[1])


@settings(max_examples=60, deadline=None)
@given(
    factors=st.lists(st.floats(0, 2, width=32), min_size=3, max_size=3),
    shift=st.floats(-0.5, 0.5, width=32),
    order=st.permutations(range(4)),
    seed=st.integers(0, 2**31),
)
def test_values_stay_from_0_to_1(factors, shift, order, seed):
    x = torch.rand(1, 1, 3, 6, 6, generator=generator(seed))
    x[..., 0, :] = x[..., 0, :].round()
    found = jitter(x, torch.tensor([[*factors, shift]]), torch.tensor([order]))
    assert found.isfinite().all()
    assert found.min() >= 0
    assert found.max() <= 1


def test_all_orders_are_equally_likely_and_agree_with_brightness_first():
    first = torch.rand(24_000, generator=generator(1)) < 0.5
    order = draw_order(first, generator(2))
    assert torch.equal(order.sort(1).values, torch.arange(4).expand(24_000, 4))
    place = order.argsort(1)
    assert torch.equal(place[:, 0] < place[:, 1], first)
    counts = order.unique(dim=0, return_counts=True)[1]
    assert len(counts) == 24
    assert chisquare(counts.numpy()).pvalue > 1e-6


def test_probabilities_and_ranges_of_simclr():
    n = 20_000
    d = draw(SIMCLR, n, 32, 32, generator(), colour=True)
    jittered = d.brightness != 1
    low, high = binom.interval(1 - 1e-6, n, 0.8)
    assert low <= int(jittered.sum()) <= high
    assert torch.equal(d.colour.saturation != 1, jittered), "one coin for all four"
    assert torch.equal(d.colour.hue != 0, jittered)
    low, high = binom.interval(1 - 1e-6, n, 0.2)
    assert low <= int(d.colour.grayscale.sum()) <= high
    assert kstest(d.colour.saturation[jittered].numpy(), "uniform", (0.6, 0.8)).pvalue > 1e-6
    assert kstest(d.colour.hue[jittered].numpy(), "uniform", (-0.1, 0.2)).pvalue > 1e-6


def test_a_view_is_crop_then_jitter_then_grayscale_then_blur_then_solarize():
    """Each later step is undone or done by hand on the same draws, so that only its place can be wrong."""
    clips = coloured()
    every = View(saturation=0.4, hue=0.1, jitter=1.0, grayscale=1.0, blur=1.0, solarize=1.0)
    d = draw(every, 4, 32, 32, generator(3), colour=True)
    off = torch.zeros(4, dtype=torch.bool)
    sharp = replace(d, sigma=torch.zeros(4), solarize=off)
    in_colour = replace(sharp, colour=replace(d.colour, grayscale=off))
    one = torch.ones(4)
    neutral = replace(in_colour.colour, saturation=one, hue=0 * one)
    cropped = replace(in_colour, brightness=one, contrast=one, colour=neutral)
    amounts = torch.stack([d.brightness, d.contrast, d.colour.saturation, d.colour.hue], 1)
    jittered = jitter(apply(clips, cropped, 32), amounts, d.colour.order)
    assert torch.equal(apply(clips, in_colour, 32), jittered)
    grey = (jittered.double() * torch.from_numpy(LUMA).view(3, 1, 1)).sum(2)
    assert_close(apply(clips, sharp, 32), in_threes(grey))
    radius = round(11 * 32 / 224)
    for row in range(4):
        taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / (d.sigma[row].double() * 32 / 224)) ** 2)
        kernel = torch.outer(taps, taps) / taps.sum() ** 2
        padded = F.pad(grey[row][:, None], (radius,) * 4, mode="reflect")
        blurred = F.conv2d(padded, kernel[None, None])[None, :, 0]
        found = apply(clips[row : row + 1], d[row : row + 1], 32)
        expected = in_threes(torch.where(blurred >= 0.5, 1 - blurred, blurred))
        clear = in_threes((blurred - 0.5).abs() > 1e-5)  # at one half, rounding decides
        assert_close(found[clear], expected[clear], atol=1e-5)


def test_grayscale_falls_on_the_drawn_clips_alone_and_gives_three_equal_channels():
    clips = coloured()
    d = draw(SIMCLR, 4, 32, 32, generator(), colour=True)
    d = replace(d, colour=replace(d.colour, grayscale=torch.tensor([True, False, False, True])))
    views = apply(clips, d, 32)
    spans = views.amax(2) - views.amin(2)
    assert spans[[0, 3]].max() == 0
    assert spans[1].max() > 0.05
    assert spans[2].max() > 0.05


@pytest.mark.parametrize("per_slice", [False, True])
def test_geometry_blur_and_solarize_act_on_each_channel_as_on_a_grey_picture(per_slice):
    clips = coloured()
    view = View(jitter=0.0, blur=0.5, solarize=0.5, per_slice=per_slice)
    views = augment(clips, view, 40, generator(5))
    assert views.shape == (4, 2, 3, 40, 40)
    assert views.dtype == torch.float32
    for channel in range(3):
        assert_close(views[:, :, channel], augment(clips[:, :, channel], view, 40, generator(5)), atol=1e-6)


@pytest.mark.parametrize("per_slice", [False, True])
def test_grey_jitter_of_three_equal_channels_is_that_of_one(per_slice):
    """Same generator, same draws, same order; the luma's weights sum to 0.9999, hence the tolerance."""
    grey = coloured(64)[:, :, 0]
    view = View(jitter=1.0, per_slice=per_slice)
    views = augment(in_threes(grey), view, 32, generator(6))
    assert torch.equal(views[:, :, 0], views[:, :, 1])
    assert torch.equal(views[:, :, 0], views[:, :, 2])
    assert_close(views[:, :, 0], augment(grey, view, 32, generator(6)), atol=1e-4)


def test_same_generator_same_views_and_rows_can_be_replayed():
    clips = coloured(8)
    before = clips.clone()
    first = augment(clips, SIMCLR, 32, generator(7))
    assert torch.equal(first, augment(clips, SIMCLR, 32, generator(7)))
    assert not torch.equal(first, augment(clips, SIMCLR, 32, generator(8)))
    assert torch.equal(clips, before)
    d = draw(SIMCLR, 8, 32, 32, generator(7), colour=True)
    for row in range(8):
        rows = slice(row, row + 1)
        torch.testing.assert_close(apply(clips[rows], d[rows], 32), first[rows], atol=1e-6, rtol=0)


def test_slices_of_a_clip_share_colours_unless_drawn_apart():
    clips = coloured(1, 1).expand(1, 5, 3, 32, 32)
    view = replace(SIMCLR, jitter=1.0, hue=0.5)
    together = augment(clips, view, 32, generator())
    for s in range(1, 5):
        assert_close(together[:, s], together[:, 0], atol=1e-6)
    still = replace(view, per_slice=True, crop_area=(1, 1), crop_ratio=(1, 1), flip=0.0)
    apart = augment(clips, still, 32, generator())
    assert all((apart[0, s] - apart[0, 0]).abs().max() > 0.05 for s in range(1, 5))


def test_preprocessing_and_view_maker_take_each_channel_as_a_grey_picture():
    clips = coloured(2, 3, 64)
    preprocessing = Preprocessing(32, field=0.75, mean=0.4, std=0.2)
    found = preprocessing(clips)
    assert found.shape == (2, 3, 3, 32, 32)
    make = ViewMaker(preprocessing, View(jitter=0.0), T_PRIME)
    views = make(clips, make.first, generator())
    assert views.shape == (2, 3, 3, 32, 32)
    assert make(clips, make.second, generator(), 48).shape == (2, 3, 3, 48, 48)
    for channel in range(3):
        assert_close(found[:, :, channel], preprocessing(clips[:, :, channel]), atol=1e-5)
        assert_close(views[:, :, channel], make(clips[:, :, channel], make.first, generator()), atol=1e-5)


def test_grey_pictures_know_no_colour():
    grey = coloured()[:, :, 0]
    colourful = replace(T, saturation=0.8, hue=0.5, grayscale=1.0)
    assert torch.equal(augment(grey, colourful, 32, generator()), augment(grey, T, 32, generator()))
    assert draw(colourful, 4, 32, 32, generator()).colour is None
    assert draw(T, 4, 32, 32, generator())[:2].colour is None


def test_colour_draws_begin_with_the_grey_ones():
    grey, colour = (draw(SIMCLR, 50, 32, 32, generator(), colour=c) for c in (False, True))
    for f in fields(ViewParameters):
        if f.name != "colour":
            assert torch.equal(getattr(grey, f.name), getattr(colour, f.name))
    assert all(len(getattr(colour[3:10].colour, f.name)) == 7 for f in fields(ColourParameters))


# Recorded before there was colour: T, then T', three views each of 256 x 200 pixels, of one generator with seed 11.
RECORDED = [
    {
        "box": [[38, 73, 115, 105], [64, 6, 176, 147], [49, 12, 185, 170]],
        "flip": [False, False, True],
        "brightness": [1.0706974267959595, 1.2401713132858276, 1.0],
        "contrast": [0.7605257034301758, 0.926334023475647, 1.0],
        "brightness_first": [False, False, True],
        "sigma": [1.8590900897979736, 1.9468213319778442, 1.5404545068740845],
        "solarize": [False, False, False],
    },
    {
        "box": [[34, 8, 161, 157], [30, 37, 153, 162], [84, 39, 141, 116]],
        "flip": [True, False, False],
        "brightness": [0.956404983997345, 1.1197080612182617, 0.942070722579956],
        "contrast": [1.0321269035339355, 0.7422710061073303, 0.8379887938499451],
        "brightness_first": [True, False, True],
        "sigma": [0.0, 0.0, 0.0],
        "solarize": [True, True, False],
    },
]


def test_grey_draws_are_those_of_before_there_was_colour():
    g = generator(11)
    for view, recorded in zip((T, T_PRIME), RECORDED, strict=True):
        d = draw(view, 3, 256, 200, g)
        assert {name: getattr(d, name).tolist() for name in recorded} == recorded
    assert torch.randint(2**31, (2,), generator=g).tolist() == [1107060130, 66007383], "and no number more was taken"


@pytest.mark.parametrize(
    ("view", "means"),
    [
        (T, [0.380141258, 0.375164509, 0.645207405, 0.630907834, 0.592445791, 0.586726725, 0.641122162, 0.634182334]),
        (
            View(per_slice=True, solarize=0.5),
            [0.648412645, 0.307546765, 0.55346632, 0.477569729, 0.569161713, 0.358387589, 0.554898024, 0.302877843],
        ),
    ],
)
def test_grey_views_are_those_of_before_there_was_colour(view, means):
    slices = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 2, 64, 64), dtype=np.uint8))
    views = augment(slices, view, 48, generator(7))
    assert views.mean((2, 3)).flatten().tolist() == pytest.approx(means, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "value", "top"),
    [
        ("saturation", 1.1, "1"),
        ("saturation", -0.1, "1"),
        ("hue", 0.51, "0.5"),
        ("hue", -0.1, "0.5"),
        ("hue", math.nan, "0.5"),
        ("grayscale", 2.0, "1"),
        ("grayscale", math.nan, "1"),
    ],
)
def test_impossible_settings_are_named(name, value, top):
    with pytest.raises(UserError, match=rf"a view's {name} is {value}; it must be from 0 to {top}$"):
        View(**{name: value})


def test_draws_must_fit_the_pictures():
    clips = coloured()
    with pytest.raises(ValueError, match="colour"):
        apply(clips, draw(T, 4, 32, 32, generator()), 32)
    with pytest.raises(ValueError, match="colour"):
        apply(clips[:, :, 0], draw(T, 4, 32, 32, generator(), colour=True), 32)
