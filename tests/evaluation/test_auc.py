import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

from kneessl.errors import UserError
from kneessl.evaluation import auc_interval, compare_auc, mean_roc
from kneessl.evaluation.auc import LEVEL, QUANTILE


def structural_components(labels, scores):
    """V10 and V01 of DeLong 1988, (5) and (6), pair by pair: an independent reference."""
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=float)
    kernel = [[1.0 if x > y else 0.5 if x == y else 0.0 for y in scores[labels == 0]] for x in scores[labels == 1]]
    return np.mean(kernel, axis=1), np.mean(kernel, axis=0)


def delong_covariance(labels, *models):
    """AUCs and their covariance matrix S10 / m + S01 / n, straight from the paper."""
    v10, v01 = zip(*(structural_components(labels, scores) for scores in models), strict=True)
    covariance = np.atleast_2d(np.cov(v10)) / len(v10[0]) + np.atleast_2d(np.cov(v01)) / len(v01[0])
    return np.mean(v10, axis=1), covariance


def random_case(seed, n=60, ties=False):
    rng = np.random.default_rng(seed)
    labels = np.r_[1, 1, 0, 0, rng.integers(0, 2, n - 4)]
    scores = [rng.normal(labels * shift) for shift in (1.0, 0.6)]
    if ties:
        scores = [np.round(values, 0) for values in scores]
    return labels, *scores


def trainings(seed, ties, n=60):
    """Labels, and scores of two models trained three and two times: each training its own noise on what exams share."""
    rng = np.random.default_rng(seed)
    labels = np.r_[1, 1, 0, 0, rng.integers(0, 2, n - 4)]
    shared = rng.normal(labels)
    a, b = shared + 0.6 * rng.normal(size=(3, n)), 0.5 * shared + rng.normal(size=(2, n))
    return (labels, np.round(a), np.round(b)) if ties else (labels, a, b)


def mean_components(labels, rows):
    """V10 and V01 of each training, averaged over trainings."""
    v10, v01 = zip(*(structural_components(labels, row) for row in rows), strict=True)
    return np.mean(v10, axis=0), np.mean(v01, axis=0)


@st.composite
def cases(draw):
    """Labels with two of each, and two score lists on a coarse grid, so that ties are common."""
    n = draw(st.integers(4, 30))
    labels = draw(st.permutations([1, 1, 0, 0, *draw(st.lists(st.integers(0, 1), min_size=n - 4, max_size=n - 4))]))
    grid = st.lists(st.integers(-8, 8).map(float), min_size=n, max_size=n)
    return np.array(labels), np.array(draw(grid)), np.array(draw(grid))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_interval_equals_delong_1988(seed, ties):
    labels, scores, _ = random_case(seed, ties=ties)
    (auc,), covariance = delong_covariance(labels, scores)
    error = math.sqrt(covariance[0, 0])
    result = auc_interval(labels, scores)
    assert result.auc == pytest.approx(auc, abs=1e-12)
    assert result.standard_error == pytest.approx(error, abs=1e-12)
    assert result.low == pytest.approx(max(auc - 1.959963984540054 * error, 0), abs=1e-12)
    assert result.high == pytest.approx(min(auc + 1.959963984540054 * error, 1), abs=1e-12)
    assert error > 0.01


def test_the_quantile_belongs_to_the_level():
    assert norm.ppf(0.5 + LEVEL / 2) == QUANTILE


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_paired_comparison_equals_delong_1988(seed, ties):
    labels, a, b = random_case(seed, ties=ties)
    (auc_a, auc_b), covariance = delong_covariance(labels, a, b)
    error = math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    result = compare_auc(labels, a, b)
    assert result.difference == pytest.approx(auc_a - auc_b, abs=1e-12)
    assert result.standard_error == pytest.approx(error, abs=1e-12)
    assert result.p == pytest.approx(2 * norm.sf(abs(auc_a - auc_b) / error), rel=1e-9)
    assert result.low == pytest.approx(auc_a - auc_b - 1.959963984540054 * error, abs=1e-12)
    assert result.high == pytest.approx(auc_a - auc_b + 1.959963984540054 * error, abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_mean_over_trainings_equals_averaged_kernels(seed, ties):
    labels, a, b = trainings(seed, ties)
    (v10, v01), (w10, w01) = mean_components(labels, a), mean_components(labels, b)
    error = math.sqrt(np.var(v10, ddof=1) / len(v10) + np.var(v01, ddof=1) / len(v01))
    mean = auc_interval(labels, a)
    assert mean.auc == pytest.approx(np.mean([roc_auc_score(labels, row) for row in a]), abs=1e-12)
    assert mean.standard_error == pytest.approx(error, abs=1e-12)
    assert mean.low == pytest.approx(mean.auc - 1.959963984540054 * error, abs=1e-12)
    paired = math.sqrt(np.var(v10 - w10, ddof=1) / len(v10) + np.var(v01 - w01, ddof=1) / len(v01))
    difference = compare_auc(labels, a, b)
    assert difference.difference == pytest.approx(v10.mean() - w10.mean(), abs=1e-12)
    assert difference.standard_error == pytest.approx(paired, abs=1e-12)
    assert difference.p == pytest.approx(2 * norm.sf(abs(v10.mean() - w10.mean()) / paired), rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_one_training_is_the_same_as_a_plain_list(seed):
    labels, a, b = random_case(seed)
    assert auc_interval(labels, a[None]) == auc_interval(labels, a)
    assert compare_auc(labels, a[None], b) == compare_auc(labels, a, b)


def test_the_same_training_over_and_over_tells_nothing_more():
    labels, a, _ = trainings(0, ties=True)
    often = auc_interval(labels, np.tile(a, (3, 1)))
    assert (often.auc, often.standard_error) == pytest.approx(
        (auc_interval(labels, a).auc, auc_interval(labels, a).standard_error), rel=1e-12
    )
    none = compare_auc(labels, np.tile(a, (7, 1)), a)
    assert (none.difference, none.standard_error, none.p) == (0.0, 0.0, 1.0)  # exactly, though thirds are averaged


def test_trainings_may_differ_in_scale():
    labels, a, b = trainings(1, ties=False)
    scaled = a * [[1], [1000], [0.001]] + [[0], [5], [-7]]
    assert auc_interval(labels, scaled) == auc_interval(labels, a)
    assert compare_auc(labels, scaled, b) == compare_auc(labels, a, b)


def test_interval_of_a_mean_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(3)
    truth = norm.cdf(1 / math.sqrt(2))
    labels = np.repeat([1, 0], 60)
    draws = [labels + rng.normal(size=120) * 0.8 + rng.normal(size=(3, 120)) * 0.6 for _ in range(1000)]
    intervals = [auc_interval(labels, scores) for scores in draws]
    covered = np.mean([interval.low <= truth <= interval.high for interval in intervals])
    assert 0.92 < covered < 0.97  # 4 standard errors of 1,000 draws are 0.028
    # Taking the trainings for three times as many exams, the tempting mistake, would cover far too rarely.
    pooled = [auc_interval(np.tile(labels, 3), scores.ravel()) for scores in draws]
    assert np.mean([interval.low <= truth <= interval.high for interval in pooled]) < 0.9


def test_p_is_uniform_where_two_methods_are_equally_good():
    rng = np.random.default_rng(4)
    labels = np.repeat([1, 0], 60)
    p = []
    for _ in range(1000):
        shared = labels + 0.8 * rng.normal(size=120)
        p.append(compare_auc(labels, *(shared + 0.6 * rng.normal(size=(seeds, 120)) for seeds in (3, 2))).p)
    assert 0.022 < np.mean(np.array(p) < 0.05) < 0.078
    assert 0.46 < np.mean(p) < 0.54


@pytest.mark.parametrize("ties", [False, True])
def test_the_area_below_the_mean_curve_is_the_mean_auc(ties):
    labels, a, _ = trainings(2, ties)
    x, y = mean_roc(labels, a)
    assert len(x) == len(y) == 2 * (labels == 0).sum() + 2
    assert (x[0], y[0], x[-1], y[-1]) == (0, pytest.approx(0, abs=0.2), 1, 1)
    assert np.all(np.diff(x) >= 0)
    assert np.all(np.diff(y) >= -1e-12)
    assert np.trapezoid(y, x) == pytest.approx(auc_interval(labels, a).auc, abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_the_curve_of_one_training_is_scikit_learns(case):
    labels, scores, _ = case
    _, y = mean_roc(labels, scores)
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    negatives = (labels == 0).sum()
    for k in range(negatives + 1):
        here = np.isclose(fpr, k / negatives)
        if here.any():
            assert (y[2 * k], y[2 * k + 1]) == pytest.approx((tpr[here].min(), tpr[here].max()))
        else:
            assert y[2 * k] == y[2 * k + 1] == pytest.approx(np.interp(k / negatives, fpr, tpr))


def test_a_mean_curve_by_hand():
    # First training: positives 3 and 1, negatives 2 and 0; second: all tied, so its curve is the diagonal.
    x, y = mean_roc([1, 1, 0, 0], [[3, 1, 2, 0], [5, 5, 5, 5]])
    np.testing.assert_allclose(x, [0, 0, 0.5, 0.5, 1, 1])
    np.testing.assert_allclose(y, [0, 0.25, 0.5, 0.75, 1, 1])


def test_by_hand():
    # Positives 3 and 1, negatives 2 and 0: three of four pairs in order. V10 = 1, 1/2 and V01 = 1/2, 1,
    # each with variance 1/8, so the variance of the AUC is 1/8/2 + 1/8/2 = 1/8.
    result = auc_interval([1, 1, 0, 0], [3, 1, 2, 0])
    assert result.auc == 0.75
    assert result.standard_error == pytest.approx(math.sqrt(1 / 8))
    assert (result.low, result.high, result.level) == (pytest.approx(0.75 - 1.96 * 0.35355, abs=1e-4), 1.0, 0.95)


def test_all_tied_is_a_coin():
    result = auc_interval([1, 0, 1, 0], [0.3] * 4)
    assert (result.auc, result.standard_error) == (0.5, 0.0)


def test_ties_count_half():
    assert auc_interval([1, 1, 0, 0], [2, 1, 1, 0]).auc == 3.5 / 4


def test_perfect_separation_has_no_width():
    result = auc_interval([0, 0, 0, 1, 1], [1, 2, 3, 4, 5])
    assert (result.auc, result.low, result.high, result.standard_error) == (1.0, 1.0, 1.0, 0.0)


def test_comparison_without_variance():
    labels, perfect = [0, 0, 1, 1], [1, 2, 3, 4]
    same = compare_auc(labels, perfect, [10, 20, 30, 40])
    assert (same.difference, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    opposite = compare_auc(labels, perfect, [4, 3, 2, 1])
    assert (opposite.difference, opposite.low, opposite.high, opposite.p) == (1.0, 1.0, 1.0, 0.0)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_auc_equals_scikit_learn(case):
    labels, scores, _ = case
    assert auc_interval(labels, scores).auc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_complement(case):
    labels, scores, _ = case
    result, swapped = auc_interval(labels, scores), auc_interval(1 - labels, scores)
    assert swapped.auc == pytest.approx(1 - result.auc, abs=1e-12)
    assert swapped.standard_error == pytest.approx(result.standard_error, abs=1e-12)
    assert swapped.low == pytest.approx(1 - result.high, abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_only_the_order_of_scores_counts(case):
    labels, a, b = case
    assert auc_interval(labels, np.exp(a / 3)) == auc_interval(labels, a)
    assert compare_auc(labels, a**3 - 7, np.arctan(b)) == compare_auc(labels, a, b)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_comparison_is_antisymmetric(case):
    labels, a, b = case
    forth, back = compare_auc(labels, a, b), compare_auc(labels, b, a)
    assert forth.difference == -back.difference
    assert (forth.low, forth.high) == (-back.high, -back.low)
    assert (forth.p, forth.standard_error) == (back.p, back.standard_error)
    assert 0 <= forth.p <= 1


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    truth = norm.cdf(1 / math.sqrt(2))  # N(1, 1) against N(0, 1)
    labels = np.repeat([1, 0], 60)
    intervals = [auc_interval(labels, rng.normal(labels)) for _ in range(1500)]
    covered = np.mean([interval.low <= truth <= interval.high for interval in intervals])
    assert 0.925 < covered < 0.965  # 0.95, less a little at n = 120; 4 standard errors of 1,500 draws are 0.022


def test_p_is_uniform_where_two_models_are_equally_good():
    rng = np.random.default_rng(2)
    labels = np.repeat([1, 0], 60)
    p = [compare_auc(labels, rng.normal(labels), rng.normal(labels)).p for _ in range(1500)]
    assert 0.03 < np.mean(np.array(p) < 0.05) < 0.07
    assert 0.46 < np.mean(p) < 0.54


@pytest.mark.parametrize(
    ("labels", "scores", "sentence"),
    [
        ([1, 1, 1], [1, 2, 3], "3 positive and 0 negative"),
        ([0, 0], [1, 2], "0 positive and 2 negative"),
        ([1, 0, 0], [1, 2, 3], "1 positive and 2 negative"),
        ([], [], "0 positive and 0 negative"),
        ([0, 0, 1, 1], [1, 2, 3], "there are 4 and 3"),
        ([0, 0, 1, 1], [1, math.nan, 3, math.nan], "2 of 4 scores are NaN"),
        ([0, 0, 1, 2], [1, 2, 3, 4], "labels must be 0 or 1"),
        ([0, 0, 1, math.nan], [1, 2, 3, 4], "labels must be 0 or 1"),
        (["no", "no", "yes", "yes"], [1, 2, 3, 4], "labels must be numbers"),
        ([0, 0, 1, 1], ["a", "b", "c", "d"], "scores must be numbers"),
        ([0, 0, 1, 1], [[1, 2], [3, 4]], "there are 4 and 2"),
        ([0, 0, 1, 1], [[1, 2, 3, 4], [1, 2, 3]], "scores must be numbers"),
        ([0, 0, 1, 1], [[[1, 2, 3, 4]]], r"shape \(1, 1, 4\)"),
        ([0, 0, 1, 1], np.empty((0, 4)), "at least one training"),
        ([0, 0, 1, 1], [[1, 2, 3, 4], [1, math.nan, 3, 4]], "1 of 8 scores are NaN"),
        ([[0, 0, 1, 1]], [1, 2, 3, 4], r"labels must be a list .* shape \(1, 4\)"),
    ],
)
def test_wrong_arguments(labels, scores, sentence):
    with pytest.raises(UserError, match=sentence):
        auc_interval(labels, scores)
    with pytest.raises(UserError, match=sentence):
        compare_auc(labels, scores, scores)


def test_second_scores_are_checked_too():
    with pytest.raises(UserError, match="1 of 4 scores are NaN"):
        compare_auc([0, 0, 1, 1], [1, 2, 3, 4], [1, 2, 3, math.nan])


def test_boolean_labels():
    labels, scores, _ = random_case(3)
    assert auc_interval(labels == 1, scores) == auc_interval(labels, scores)


def test_the_logit_scale_is_symmetric_there_and_stays_inside():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [30, 12])
    scores = rng.normal(labels * 2.5)
    plain, inside = auc_interval(labels, scores), auc_interval(labels, scores, scale="logit")
    assert (inside.auc, inside.standard_error) == (plain.auc, plain.standard_error)
    below, at, above = (np.log(x / (1 - x)) for x in (inside.low, inside.auc, inside.high))
    assert at - below == pytest.approx(above - at)
    assert above - at == pytest.approx(1.959964 * plain.standard_error / (plain.auc * (1 - plain.auc)), rel=1e-6)
    assert 0 < inside.low < inside.high < 1
    perfect = auc_interval([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4], scale="logit")
    assert (perfect.low, perfect.high) == (1, 1)
