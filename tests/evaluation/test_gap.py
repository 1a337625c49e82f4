import math
import statistics
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kneessl.evaluation.gap import Cell, OverSeeds, gap_points, relative_gap

SHARES = st.integers(0, 10_000)


@given(st.lists(st.tuples(SHARES, SHARES), min_size=1, max_size=6))
def test_the_gap_is_the_share_of_the_balanced_accuracy_that_is_lost(right):
    balanced, imbalanced = np.array(right).T / 10_000
    for gap, (first, second) in zip(relative_gap(balanced, imbalanced), right, strict=True):
        if first == 0:
            assert math.isnan(gap), "of nothing there is no share"
        else:
            assert gap == pytest.approx(float(Fraction(first - second, first)), abs=1e-12)
            assert gap <= 1
            assert (gap > 0) == (first > second)


def test_gaps_of_liu_et_al():
    assert relative_gap([0.8, 0.8, 0.8, 0.5], [0.6, 0.8, 0.0, 0.75]).tolist() == pytest.approx([0.25, 0, 1, -0.5])
    assert float(relative_gap(0.9302, 0.83)) == pytest.approx(1002 / 9302)


def test_a_training_that_failed_has_no_gap():
    assert np.isnan(relative_gap([math.nan, 0.5], [0.5, math.nan])).all()


@pytest.mark.parametrize(
    ("balanced", "imbalanced", "message"),
    [
        ([0.5, 0.6], [0.5], "must be paired"),
        ([0.5], [93.02], "between 0 and 1"),
        ([-0.1], [0.5], "between 0 and 1"),
    ],
)
def test_what_is_no_accuracy_is_refused(balanced, imbalanced, message):
    with pytest.raises(ValueError, match=message):
        relative_gap(balanced, imbalanced)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8))
def test_mean_spread_and_interval_over_seeds(values):
    own = OverSeeds.of(dict(enumerate(values)))
    assert own.mean == pytest.approx(statistics.fmean(values), abs=1e-12)
    assert own.sd == pytest.approx(statistics.stdev(values), abs=1e-12)
    error = own.sd / math.sqrt(len(values))
    low, high = stats.t.interval(0.95, len(values) - 1, own.mean, error) if error else (own.mean, own.mean)
    assert (own.low, own.high) == pytest.approx((low, high), abs=1e-9)
    assert own.excludes_zero == (own.low < own.high and not own.low <= 0 <= own.high)


def test_one_seed_has_a_figure_and_nothing_else():
    assert OverSeeds.of({3: 0.25}) == OverSeeds({3: 0.25}, 0.25, None, None, None)
    assert not OverSeeds.of({3: 0.25}).excludes_zero


def test_what_is_not_a_number_is_left_out():
    assert OverSeeds.of({0: math.nan, 1: 0.5, 2: math.inf}).by_seed == {1: 0.5}
    assert OverSeeds.of({0: math.nan}) is None
    assert OverSeeds.of({}) is None


def test_equal_seeds_tell_nothing_of_0():
    own = OverSeeds.of({0: 0.5, 1: 0.5})
    assert (own.sd, own.low, own.high) == (0, 0.5, 0.5)
    assert not own.excludes_zero


SEEDED = {
    Cell("simclr", 100, 1.0): {0: 0.60, 1: 0.62, 2: 0.64},
    Cell("simclr", 100, 0.1): {2: 0.63, 0: 0.57, 1: 0.60},
    Cell("supervised", 100, 1.0): {0: 0.70, 1: 0.71, 2: 0.72, 3: 0.70},
    Cell("supervised", 100, 0.1): {0: 0.60, 1: 0.65, 2: 0.61, 3: 0.10},
}


def test_seeds_are_paired_whatever_their_order():
    points = gap_points(SEEDED, "supervised")
    assert list(points) == list(SEEDED)
    own, other = (points[Cell(arm, 100, 0.1)] for arm in ("simclr", "supervised"))
    ours = {
        seed: 1 - SEEDED[Cell("simclr", 100, 0.1)][seed] / a for seed, a in SEEDED[Cell("simclr", 100, 1.0)].items()
    }
    assert {seed: own.gap.by_seed[seed] for seed in range(3)} == pytest.approx(ours)
    theirs = {0: 1 / 7, 1: 6 / 71, 2: 11 / 72, 3: 6 / 7}
    assert other.gap.by_seed == pytest.approx(theirs)
    assert other.less is None
    test = stats.ttest_rel([theirs[seed] for seed in range(3)], [ours[seed] for seed in range(3)])
    interval = test.confidence_interval(0.95)
    assert set(own.less.by_seed) == {0, 1, 2}, "seed 3 has but one arm"
    assert (own.less.low, own.less.high) == pytest.approx((interval.low, interval.high))
    assert own.less.mean == pytest.approx(sum(theirs[s] - ours[s] for s in range(3)) / 3)
    for arm in ("simclr", "supervised"):
        balanced = points[Cell(arm, 100, 1.0)]
        assert (balanced.gap, balanced.less) == (None, None)
        assert balanced.accuracy.by_seed == SEEDED[Cell(arm, 100, 1.0)]


def test_gaps_need_the_balanced_cell_of_the_same_arm_and_number():
    points = gap_points(
        {
            Cell("simclr", 100, 0.1): {0: 0.5},
            Cell("simclr", 200, 1.0): {1: 0.5},
            Cell("simclr", 200, 0.1): {0: 0.4},
            Cell("supervised", 100, 1.0): {0: 0.5},
            Cell("supervised", 100, 0.1): {},
        },
        "supervised",
    )
    assert [point.gap for point in points.values()] == [None] * 5
    assert points[Cell("supervised", 100, 0.1)].accuracy is None
    assert points[Cell("simclr", 200, 0.1)].accuracy.mean == 0.4


def test_an_accuracy_of_0_leaves_its_seed_out():
    points = gap_points({Cell("a", 9, 1.0): {0: 0.0, 1: 0.5}, Cell("a", 9, 0.1): {0: 0.1, 1: 0.4}}, "supervised")
    assert points[Cell("a", 9, 0.1)].gap.by_seed == pytest.approx({1: 0.2})
    assert points[Cell("a", 9, 0.1)].less is None
