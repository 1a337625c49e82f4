import itertools

import numpy as np
import pytest
from scipy.stats import binom, ttest_1samp

from kneessl.evaluation import Proportion
from kneessl.evaluation.localisation import (
    Falls,
    Outcome,
    Rate,
    clipped,
    elsewhere,
    harmonic,
    hidden,
    judge,
    lesion_mask,
    middle,
    peak,
    upper_tail,
)

SHAPE = (6, 40, 50)
REGION = (slice(1, 5), slice(4, 36), slice(5, 45))
BOXES = np.array([[2, 10, 14, 20, 23], [3, 9, 12, 19, 30], [3, 30, 39, 1, 7]])


def judged(heat, boxes=BOXES, margin=2, region=REGION):
    return judge(heat, heat.sum((1, 2)), boxes, region, margin)


def test_a_mask_has_first_and_last_pixel_and_stays_in_the_picture():
    mask = lesion_mask(SHAPE, BOXES[:1])
    assert mask.sum() == 5 * 4
    assert mask[2, [10, 14], [20, 23]].all()
    assert not mask[2, [15, 10], [23, 19]].any()
    assert lesion_mask(SHAPE, BOXES[:1], 2).sum() == 9 * 8
    assert lesion_mask(SHAPE, BOXES[2:], 5)[3].sum() == 15 * 13, "cut at the left and at the bottom"
    assert lesion_mask(SHAPE, BOXES[:0]).sum() == 0


def test_clipping_leaves_just_what_lies_in_the_region():
    boxes = np.array([*BOXES, [0, 10, 14, 20, 23], [2, 0, 3, 20, 23], [2, 36, 39, 6, 7], [1, 0, 39, 0, 49]])
    inside = np.zeros(SHAPE, bool)
    inside[REGION] = True
    before = boxes.copy()
    found = clipped(boxes, REGION)
    assert np.array_equal(boxes, before)
    assert len(found) == 4
    assert np.array_equal(lesion_mask(SHAPE, found), lesion_mask(SHAPE, boxes) & inside)


def test_the_peak_is_sought_where_the_model_looks_and_ties_go_to_the_first():
    heat = np.full(SHAPE, -1.0)
    heat[0, 0, 0] = 9
    assert peak(heat, REGION) == (1, 4, 5), "all alike: the first pixel looked at"
    heat[4, 20, 30] = heat[3, 20, 31] = heat[3, 20, 30] = -0.5
    assert peak(heat, REGION) == (3, 20, 30)
    assert middle(REGION) == (3, 20, 25)


def test_an_oracle_is_always_right():
    rng = np.random.default_rng(0)
    outcomes = []
    for _ in range(30):
        top, left, place = rng.integers(4, 26), rng.integers(5, 35), rng.integers(1, 5)
        boxes = np.array([[place, top, top + rng.integers(1, 10), left, left + rng.integers(1, 10)]])
        heat = lesion_mask(SHAPE, boxes) + 0.01 * rng.random(SHAPE)
        outcomes.append(judged(heat, boxes))
    for name in ("in_box", "near_box", "right_slice"):
        rate = Rate.of([getattr(o, name) for o in outcomes])
        assert rate.found == Proportion.of(30, 30)
        assert rate.p_chance < 1e-6
        assert rate.chance < 0.3


def test_a_random_map_is_as_good_as_chance_says():
    rng = np.random.default_rng(1)
    draws = 3000
    counted = np.zeros(3)
    for _ in range(draws):
        outcomes = judged(rng.random(SHAPE))
        counted += [outcomes.in_box.hit, outcomes.near_box.hit, outcomes.right_slice.hit]
    for hits, outcome in zip(counted, (outcomes.in_box, outcomes.near_box, outcomes.right_slice), strict=True):
        deviation = np.sqrt(draws * outcome.chance * (1 - outcome.chance))
        assert abs(hits - draws * outcome.chance) < 4 * deviation
        assert deviation > 5


def test_chance_counts_pixels_and_slices_that_are_looked_at():
    outcomes = judged(np.zeros(SHAPE))
    looked_at = 4 * 32 * 40
    assert outcomes.in_box.chance == pytest.approx((5 * 4 + 4 * 12 + 6 * 3) / looked_at)
    assert outcomes.right_slice.chance == 2 / 4
    assert outcomes.near_box.chance == pytest.approx((9 * 8 + 8 * 16 + 8 * 5) / looked_at)


def test_near_a_box_and_the_middle():
    heat = np.zeros(SHAPE)
    for row, near in ((16, True), (17, False)):
        heat[:] = 0
        heat[2, row, 22] = 1
        outcomes = judged(heat)
        assert (outcomes.in_box.hit, outcomes.near_box.hit, outcomes.right_slice.hit) == (False, near, True)
    assert not outcomes.in_box.middle
    assert outcomes.right_slice.middle
    assert judged(heat, np.array([[3, 20, 20, 25, 25]])).in_box.middle
    assert not judged(heat, np.array([[2, 20, 20, 25, 25]])).in_box.middle


def test_a_lesion_out_of_sight_cannot_be_hit():
    heat = np.zeros(SHAPE)
    heat[0] = 1
    outcomes = judged(heat, np.array([[0, 0, 39, 0, 49]]), margin=0)
    assert (outcomes.in_box.hit, outcomes.in_box.chance, outcomes.right_slice.chance) == (False, 0, 0)


def test_the_tail_of_unequal_chances_by_adding_up_every_case():
    chances = np.array([0.1, 0.8, 0.35, 0.5])
    for hits in range(6):
        wanted = sum(
            np.prod(np.where(case, chances, 1 - chances))
            for case in itertools.product((0, 1), repeat=4)
            if sum(case) >= hits
        )
        assert upper_tail(chances, hits) == pytest.approx(wanted, abs=1e-12)
    assert upper_tail(np.full(300, 0.02), 20) == pytest.approx(binom.sf(19, 300, 0.02), rel=1e-9)
    assert 0 < upper_tail(np.full(60, 0.01), 60) < 1e-100


def test_a_rate_by_hand():
    cases = [(True, 0.2, False)] * 5 + [(False, 0.4, True)] + [(True, 0.1, True)] * 2
    rate = Rate.of([Outcome(*case) for case in cases])
    assert rate.found == Proportion.of(7, 8)
    assert rate.middle == Proportion.of(3, 8)
    assert rate.chance == pytest.approx(1.6 / 8)
    assert rate.p_middle == pytest.approx(2 * (1 + 6) / 2**6), "five against one"
    assert Rate.of([Outcome(True, 1, True)]).p_middle == 1


def test_falls_by_hand():
    lesion, control = np.array([1.0, 2.0, 0.5, 0.2]), np.array([0.1, 0.5, 0.6, 0.0])
    falls = Falls.of(lesion, control)
    assert (falls.lesion, falls.control) == (pytest.approx(0.925), pytest.approx(0.3))
    interval = ttest_1samp(lesion - control, 0).confidence_interval(0.95)
    assert (falls.difference, falls.low, falls.high) == pytest.approx((0.625, interval.low, interval.high))
    assert falls.larger == Proportion.of(3, 4)
    single = Falls.of(lesion[:1], control[:1])
    assert (single.low, single.high, single.difference) == (None, None, pytest.approx(0.9))


# Hiding


def test_a_plane_s_slope_comes_through_the_fill():
    rows, columns = np.mgrid[:40, :50]
    slope = 3.0 * rows - 2.0 * columns + 100
    mask = np.zeros((40, 50), bool)
    mask[10:20, 5:30] = mask[15:35, 20:25] = True
    assert np.allclose(harmonic(np.where(mask, -999, slope), mask), slope, atol=1e-8)
    saddle = rows**2.0 - columns**2
    assert np.allclose(harmonic(np.where(mask, 0, saddle), mask), saddle, atol=1e-7), "as is every harmonic function"


def test_the_fill_makes_no_square():
    """Neither brighter nor darker than the rim, without an edge at it, and blind to what it covers."""
    rng = np.random.default_rng(0)
    picture = 100 + 60 * np.sin(np.arange(60) / 15)[:, None] * np.cos(np.arange(60) / 12) + rng.normal(0, 5, (60, 60))
    mask = np.zeros((60, 60), bool)
    mask[20:40, 15:45] = True
    filled = harmonic(picture, mask)
    rim = np.zeros_like(mask)
    rim[19:41, 15:45] = rim[20:40, 14:46] = True
    rim &= ~mask
    assert picture[rim].min() <= filled[mask].min() <= filled[mask].max() <= picture[rim].max()
    assert np.array_equal(filled[~mask], picture[~mask])
    across = np.abs(np.diff(filled, axis=0))
    assert across[[19, 39], 15:45].mean() <= np.abs(np.diff(picture, axis=0))[:, :].mean(), "no step at the rim"
    assert np.array_equal(harmonic(np.where(mask, 255, picture), mask), filled)


def test_each_filled_pixel_is_the_mean_of_its_neighbours_also_at_the_edge():
    rng = np.random.default_rng(0)
    picture, mask = rng.uniform(0, 255, (12, 9)), np.zeros((12, 9), bool)
    mask[:5, :4] = mask[8:, 6:] = True
    filled = harmonic(picture, mask)
    for row, column in np.argwhere(mask):
        near = [
            filled[r, c]
            for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1))
            if 0 <= r < 12 and 0 <= c < 9
        ]
        assert filled[row, column] == pytest.approx(np.mean(near))


def test_hiding_touches_only_what_is_masked_and_leaves_the_series():
    series = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
    series[2, 10:15, 20:24] = 255
    before, mask = series.copy(), lesion_mask(SHAPE, BOXES)
    found = hidden(series, mask)
    assert found.dtype == np.uint8
    assert np.array_equal(series, before)
    assert np.array_equal(found[~mask], series[~mask])
    assert found[2, 10:15, 20:24].max() < 255
    assert np.array_equal(hidden(series, np.zeros(SHAPE, bool)), series)


def test_moved_boxes_are_free_inside_of_the_same_size_and_nearest():
    taken = lesion_mask(SHAPE, BOXES, 2)
    found = elsewhere(BOXES[:2], taken, REGION)
    assert np.array_equal(found[:, 0], BOXES[:2, 0])
    assert np.array_equal(np.diff(found[:, 1:3]), np.diff(BOXES[:2, 1:3]))
    assert np.array_equal(np.diff(found[:, 3:5]), np.diff(BOXES[:2, 3:5]))
    assert not (lesion_mask(SHAPE, found) & taken).any()
    assert len(clipped(found, REGION)) == 2
    assert np.array_equal(clipped(found, REGION), found)
    # By trying every step of the second box.
    place, top, bottom, left, right = BOXES[1]
    lengths = [
        down**2 + across**2
        for down in range(4 - top, 36 - bottom)
        for across in range(5 - left, 45 - right)
        if not taken[place, top + down : bottom + down + 1, left + across : right + across + 1].any()
    ]
    assert ((found[1, [1, 3]] - [top, left]) ** 2).sum() == min(lengths)


def test_boxes_of_one_slice_move_together_and_give_up_together():
    boxes = np.array([[2, 10, 12, 10, 12], [2, 10, 12, 20, 22]])
    found = elsewhere(boxes, lesion_mask(SHAPE, boxes), REGION)
    assert np.array_equal(found[0] - boxes[0], found[1] - boxes[1])
    full = lesion_mask(SHAPE, np.array([[2, 0, 39, 0, 49]]))
    assert elsewhere(boxes, full, REGION) is None
    assert elsewhere(np.array([[1, 4, 8, 5, 9], [2, 4, 8, 5, 9]]), full, REGION) is None
    large = np.array([[2, 4, 35, 5, 44]])
    assert elsewhere(large, lesion_mask(SHAPE, large), REGION) is None
    assert np.array_equal(elsewhere(large, np.zeros(SHAPE, bool), REGION), large)
