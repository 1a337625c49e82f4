import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kneessl.errors import UserError
from kneessl.evaluation.imbalance import choose, counts_of, long_tail_counts, shot_groups


def test_the_counts_of_cifar10_lt_are_the_published_ones():
    assert long_tail_counts(5000, 10, 0.01) == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert long_tail_counts(5000, 10, 1) == [5000] * 10
    assert long_tail_counts(500, 3, 0.04) == [500, 100, 20]


@given(st.integers(1, 5000), st.integers(1, 100))
def test_the_ends_are_exact_where_the_ratio_is_a_decimal(n_max, percent):
    expected = math.floor(Fraction(n_max * percent, 100))
    if expected:
        counts = long_tail_counts(n_max, 10, percent / 100)
        assert (counts[0], counts[-1]) == (n_max, expected)
        assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize(
    ("n_max", "classes", "ratio", "message"),
    [
        (99, 10, 0.01, "the rarest has none"),
        (100, 1, 0.5, "at least 2"),
        (100, 10, 0.0, "above 0 and up to 1"),
        (100, 10, 1.5, "above 0 and up to 1"),
        (100, 10, float("nan"), "above 0 and up to 1"),
    ],
)
def test_what_is_no_long_tail_is_refused(n_max, classes, ratio, message):
    with pytest.raises(UserError, match=message):
        long_tail_counts(n_max, classes, ratio)


def test_a_total_gives_the_most_that_is_not_more():
    assert counts_of(12406, 5000, 10, 0.01) == long_tail_counts(5000, 10, 0.01)
    assert counts_of(12405, 5000, 10, 0.01) == long_tail_counts(4999, 10, 0.01)
    assert counts_of(12406, 5000, 10, 1) == [1240] * 10
    assert counts_of(50_000, 5000, 10, 1) == [5000] * 10
    with pytest.raises(UserError, match="at most 12406"):
        counts_of(12407, 5000, 10, 0.01)
    with pytest.raises(UserError, match="the rarest has none"):
        counts_of(100, 5000, 10, 0.01)


@given(st.integers(300, 12406), st.sampled_from([1.0, 0.3, 0.1, 0.01]))
def test_no_larger_tail_fits_into_a_total(images, ratio):
    counts = counts_of(images, 5000, 10, ratio)
    assert sum(counts) <= images < sum(long_tail_counts(counts[0] + 1, 10, ratio))
    assert images - sum(counts) < 10


def test_a_choice_has_its_counts_and_is_part_of_every_larger_one():
    labels = np.random.default_rng(0).integers(0, 3, 300)
    small, large = choose(labels, [20, 10, 3], 7), choose(labels, [60, 10, 30], 7)
    assert np.bincount(labels[small]).tolist() == [20, 10, 3]
    assert set(small) <= set(large)
    assert small.tolist() == sorted(set(small.tolist()))
    assert choose(labels, [20, 10, 3], 7).tolist() == small.tolist()
    assert choose(labels, [20, 10, 3], 8).tolist() != small.tolist()
    with pytest.raises(UserError, match="class 1 has"):
        choose(labels, [1, 301, 1], 7)


def test_groups_are_thirds_by_number_of_images():
    assert shot_groups(long_tail_counts(5000, 10, 0.01)) == {
        "many": [0, 1, 2, 3],
        "medium": [4, 5, 6],
        "few": [7, 8, 9],
    }
    assert shot_groups([1, 9, 5]) == {"many": [1], "medium": [2], "few": [0]}
