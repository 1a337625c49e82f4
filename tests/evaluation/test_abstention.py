import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from kneessl.errors import UserError
from kneessl.evaluation import Proportion
from kneessl.evaluation.abstention import COVERAGES, risk_coverage


@st.composite
def cases(draw):
    """Labels with two of each, and probabilities on a coarse grid with both ends, so that ties are common."""
    n = draw(st.integers(4, 30))
    labels = draw(st.permutations([1, 1, 0, 0, *draw(st.lists(st.integers(0, 1), min_size=n - 4, max_size=n - 4))]))
    grid = draw(st.lists(st.integers(0, 10), min_size=n, max_size=n))
    return np.array(labels), np.array(grid) / 10


def risks(wrong):
    """The risk among the first 1, 2 ... n answers, straight from Geifman & El-Yaniv 2017."""
    return [np.mean(wrong[:k]) for k in range(1, len(wrong) + 1)]


def test_by_hand():
    # From sure to unsure: 0.95 right, 0.1 wrong, 0.8 right, 0.6 wrong.
    result = risk_coverage([1, 1, 1, 0, 0], [0.8, 0.1, 0.95, 0.6, 0.45])
    np.testing.assert_allclose(result.coverage, [0.2, 0.4, 0.6, 0.8, 1])
    np.testing.assert_allclose(result.risk, [0, 1 / 2, 1 / 3, 2 / 4, 2 / 5])
    assert result.aurc == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4 + 2 / 5) / 5)
    assert result.excess == pytest.approx(result.aurc - (1 / 4 + 2 / 5) / 5)
    assert [kept.coverage for kept in result.at] == list(COVERAGES)
    assert [kept.risk for kept in result.at] == [
        Proportion.of(2, 5), Proportion.of(2, 5), Proportion.of(2, 4), Proportion.of(1, 3),
    ]  # fmt: skip


@pytest.mark.parametrize("threshold", [0.5, 0.2])
@pytest.mark.parametrize("seed", range(3))
def test_area_equals_the_definition(seed, threshold):
    rng = np.random.default_rng(seed)
    labels, logits = np.r_[1, 1, 0, 0, rng.integers(0, 2, 96)], rng.normal(size=100)
    probabilities = expit(logits + labels)
    result = risk_coverage(labels, probabilities, threshold)
    order = np.argsort(-np.abs(np.log(probabilities / (1 - probabilities)) - math.log(threshold / (1 - threshold))))
    wrong = ((probabilities >= threshold) != labels)[order]
    np.testing.assert_allclose(result.risk, risks(wrong))
    assert result.aurc == pytest.approx(np.mean(risks(wrong)))
    assert result.excess == pytest.approx(result.aurc - np.mean(risks(np.sort(wrong))))
    assert result.risk[-1] == wrong.mean()


def test_the_best_area_nears_geifmans_limit():
    # Errors are the least sure: excess 0, area r + (1 - r) ln(1 - r).
    n, r = 20_000, 0.25
    confidence = np.linspace(0.99, 0.51, n)
    labels = np.arange(n) < n * (1 - r)
    result = risk_coverage(labels, confidence)
    assert result.excess == pytest.approx(0, abs=1e-12)
    assert result.aurc == pytest.approx(r + (1 - r) * math.log(1 - r), abs=1e-4)
    # Errors are the surest: risk 1 up to a coverage of r, then r / coverage, so the area is r - r ln r.
    worst = risk_coverage(labels[::-1], confidence)
    assert worst.aurc == pytest.approx(r - r * math.log(r), abs=1e-4)
    assert worst.excess == pytest.approx(worst.aurc - result.aurc)


@settings(max_examples=100, deadline=None)
@given(cases(), st.integers(0, 1000))
def test_ties_count_as_their_random_orders_do_on_average(case, seed):
    labels, probabilities = case
    result = risk_coverage(labels, probabilities)
    order = np.random.default_rng(seed).permutation(len(labels))
    moved = risk_coverage(labels[order], probabilities[order])
    assert moved.aurc == pytest.approx(result.aurc, abs=1e-12)
    np.testing.assert_array_equal(moved.risk, result.risk)
    assert moved.at == result.at
    # Every answer's place in a group is any of the group's: sum over places of the expected number of errors so far.
    wrong = (probabilities >= 0.5) != labels
    distance = np.abs(np.round(probabilities * 10) - 5)
    expected, seen, errors = [], 0, 0.0
    for value in sorted(set(distance), reverse=True):
        group = wrong[distance == value]
        expected += [(errors + k * group.mean()) / (seen + k) for k in range(1, len(group) + 1)]
        seen, errors = seen + len(group), errors + group.sum()
    assert result.aurc == pytest.approx(np.mean(expected), abs=1e-12)
    assert len(result.coverage) == len(set(distance))


@settings(max_examples=100, deadline=None)
@given(cases())
def test_bounds(case):
    result = risk_coverage(*case)
    assert 0 <= result.excess <= result.aurc <= 1
    assert result.coverage[-1] == 1
    assert np.all(np.diff(result.coverage) > 0)
    for kept in result.at:
        assert kept.risk.n >= kept.coverage * len(case[0]) - 1e-9
        assert kept.risk.n / len(case[0]) in result.coverage


@settings(max_examples=100, deadline=None)
@given(cases(), st.floats(0.5, 2))
def test_only_the_order_of_confidences_counts(case, slope):
    labels, probabilities = case
    sharper = expit(slope * logit(probabilities))
    result, again = risk_coverage(labels, probabilities), risk_coverage(labels, sharper)
    np.testing.assert_array_equal(again.risk, result.risk)
    assert (again.aurc, again.at) == (result.aurc, result.at)


def test_equally_far_from_the_threshold_is_equally_sure():
    result = risk_coverage([1, 0, 1, 0], [0.7, 0.7, 0.3, 0.3])
    np.testing.assert_array_equal(result.coverage, [1])
    np.testing.assert_array_equal(result.risk, [0.5])
    assert [kept.risk.n for kept in result.at] == [4] * 4


def test_certain_answers_are_surest():
    result = risk_coverage([1, 0, 1, 0], [1.0, 0.0, 0.001, 0.4])
    np.testing.assert_allclose(result.coverage, [0.5, 0.75, 1])
    np.testing.assert_allclose(result.risk, [0, 1 / 3, 1 / 4])


def test_knowing_when_it_is_wrong_pays():
    rng = np.random.default_rng(0)
    probabilities = expit(2 * rng.normal(size=3000))
    labels = rng.random(3000) < probabilities
    result = risk_coverage(labels, probabilities)
    assert [kept.risk.value for kept in result.at] == sorted((k.risk.value for k in result.at), reverse=True)
    # Confidence that is drawn by lot leaves the risk as it is.
    lots = 0.5 + np.where(probabilities >= 0.5, 1, -1) * rng.uniform(0.01, 0.49, 3000)
    blind = risk_coverage(labels, lots)
    assert blind.risk[-1] == result.risk[-1]
    assert blind.aurc == pytest.approx(blind.risk[-1], abs=0.02)
    assert result.excess < blind.excess / 2


@pytest.mark.parametrize("threshold", [0, 1, -0.1, math.nan])
def test_wrong_threshold(threshold):
    with pytest.raises(UserError, match="threshold"):
        risk_coverage([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4], threshold)


@pytest.mark.parametrize(
    ("labels", "scores", "sentence"),
    [
        ([1, 1, 1], [0.1, 0.2, 0.3], "3 positive and 0 negative"),
        ([0, 0, 1, 1], [0.1, 0.2, 0.3], "there are 4 and 3"),
        ([0, 0, 1, 1], [0.1, math.nan, 0.3, 0.4], "1 of 4 scores are NaN"),
        ([0, 0, 1, 1], [-2.0, 0.2, 0.3, 0.4], "probabilities between 0 and 1"),
    ],
)
def test_wrong_arguments(labels, scores, sentence):
    with pytest.raises(UserError, match=sentence):
        risk_coverage(labels, scores)
