import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score

from kneessl.errors import UserError
from kneessl.evaluation import Proportion
from kneessl.evaluation.calibration import EPSILON, LEAST_SLOPE, Recalibration, calibration, reliability

Z = 1.959963984540054


def random_case(seed, n=150, slope=1.0, intercept=0.0, spread=1.5, prevalence_logit=0.0):
    """Labels, and probabilities whose recalibration model has the given slope and intercept."""
    rng = np.random.default_rng(seed)
    logits = prevalence_logit + spread * rng.normal(size=n)
    return (rng.random(n) < expit(intercept + slope * logits)).astype(int), expit(logits)


def logistic(columns, targets, offset=0.0):
    """Maximum likelihood and the inverse of a numeric Hessian: an independent reference."""

    def loss(b):
        mean = np.clip(1 / (1 + np.exp(-(offset + columns @ b))), 1e-300, 1 - 1e-16)
        return -np.sum(targets * np.log(mean) + (1 - targets) * np.log(1 - mean))

    size = columns.shape[1]
    found = minimize(loss, np.zeros(size), method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-14}).x
    h, hessian = 1e-3, np.empty((size, size))
    for i in range(size):
        for j in range(size):
            a, b = h * np.eye(size)[i], h * np.eye(size)[j]
            hessian[i, j] = loss(found + a + b) - loss(found + a - b) - loss(found - a + b) + loss(found - a - b)
    return found, np.linalg.inv(hessian / (4 * h * h))


def ones_and(values):
    return np.stack((np.ones(len(values)), values), axis=1)


@pytest.mark.parametrize("slope", [0.5, 1.0, 2.0, -0.7])
@pytest.mark.parametrize("seed", range(3))
def test_slope_and_intercept_maximise_the_likelihood(seed, slope):
    labels, probabilities = random_case(seed, slope=slope, intercept=0.4)
    result = calibration(labels, probabilities)
    found, covariance = logistic(ones_and(logit(probabilities)), labels)
    error = math.sqrt(covariance[1, 1])
    assert result.slope.value == pytest.approx(found[1], abs=1e-6)
    assert result.slope.standard_error == pytest.approx(error, rel=1e-4)
    assert result.slope.low == pytest.approx(found[1] - Z * error, abs=1e-4)
    assert result.slope.high == pytest.approx(found[1] + Z * error, abs=1e-4)
    found, covariance = logistic(np.ones((len(labels), 1)), labels, logit(probabilities))
    assert result.intercept.value == pytest.approx(found[0], abs=1e-6)
    assert result.intercept.standard_error == pytest.approx(math.sqrt(covariance[0, 0]), rel=1e-4)
    assert result.no_slope is None


def test_slope_equals_scikit_learns_unpenalised_regression():
    labels, probabilities = random_case(7, slope=0.8, prevalence_logit=-2)
    model = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000)
    model.fit(logit(probabilities)[:, None], labels)
    assert calibration(labels, probabilities).slope.value == pytest.approx(model.coef_[0, 0], rel=1e-5)


def test_the_intercept_makes_the_sums_agree():
    labels, probabilities = random_case(3, intercept=-1.2)
    result = calibration(labels, probabilities)
    assert expit(result.intercept.value + logit(probabilities)).sum() == pytest.approx(labels.sum(), rel=1e-10)
    assert result.intercept.high < 0  # the probabilities are too high
    assert result.expected_observed == pytest.approx(probabilities.sum() / labels.sum())
    assert result.expected_observed > 1


def test_brier_by_hand():
    result = calibration([1, 1, 0, 0], [0.9, 0.4, 0.2, 0.5])
    squares = [0.01, 0.36, 0.04, 0.25]
    error = np.std(squares, ddof=1) / 2
    assert result.brier.value == pytest.approx(0.165)
    assert result.brier.standard_error == pytest.approx(error)
    assert result.brier.low == max(0, result.brier.low)
    assert result.brier.high == pytest.approx(0.165 + Z * error)
    assert result.scaled_brier == pytest.approx(1 - 0.165 / 0.25)
    assert (result.n, result.positives, result.expected_observed) == (4, 2, pytest.approx(1.0))


def test_brier_is_clipped_to_its_range():
    assert calibration([1, 1, 0, 0], [0.9, 1, 0, 0]).brier.low == 0.0
    assert calibration([1, 1, 0, 0], [0.1, 0, 1, 1]).brier.high == 1.0


def test_saying_the_prevalence_scores_nothing():
    result = calibration([1, 1, 0, 0, 0, 0, 0, 0], [0.25] * 8)
    assert result.scaled_brier == pytest.approx(0, abs=1e-12)
    assert result.intercept.value == pytest.approx(0, abs=1e-12)
    assert result.slope is None
    assert "alike" in result.no_slope


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_recalibrating_probabilities_divides_the_slope(seed):
    labels, probabilities = random_case(seed, n=60)
    before, logits = calibration(labels, probabilities), logit(probabilities)
    after = calibration(labels, expit(2 * logits + 0.3))
    assert after.slope.value == pytest.approx(before.slope.value / 2, rel=1e-6)
    assert after.slope.standard_error == pytest.approx(before.slope.standard_error / 2, rel=1e-6)
    shifted = calibration(labels, expit(logits + 0.3))
    assert shifted.intercept.value == pytest.approx(before.intercept.value - 0.3, abs=1e-8)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_the_other_class_and_another_order_change_nothing(seed):
    labels, probabilities = random_case(seed, n=60)
    result, swapped = calibration(labels, probabilities), calibration(1 - labels, 1 - probabilities)
    assert swapped.slope.value == pytest.approx(result.slope.value, rel=1e-8)
    assert swapped.intercept.value == pytest.approx(-result.intercept.value, abs=1e-8)
    assert swapped.brier.value == pytest.approx(result.brier.value, rel=1e-12)
    order = np.random.default_rng(seed).permutation(60)
    moved = calibration(labels[order], probabilities[order])
    assert moved.slope.low == pytest.approx(result.slope.low, rel=1e-8)
    assert moved.intercept.high == pytest.approx(result.intercept.high, rel=1e-8, abs=1e-10)


@pytest.mark.parametrize("probabilities", [[0.6, 0.9, 0.1, 0.2], [0.4, 0.9, 0.4, 0.2], [0.1, 0.2, 0.8, 0.9]])
def test_separated_classes_have_no_slope(probabilities):
    result = calibration([1, 1, 0, 0], probabilities)
    assert result.slope is None
    assert "separate the classes" in result.no_slope
    assert math.isfinite(result.intercept.low)
    json.dumps(asdict(result), allow_nan=False)


def test_all_but_separated_classes_do_not_crash():
    labels = np.repeat([1, 0], 50)
    probabilities = np.where(labels, 1.0, 0.0)
    probabilities[[0, 99]] = 0.5 - 1e-9, 0.5 + 1e-9
    result = calibration(labels, probabilities)
    assert (result.slope is None) == (result.no_slope is not None)
    assert result.slope is None or result.slope.standard_error > 1000


def test_certain_probabilities_are_moved_by_epsilon():
    labels, probabilities = random_case(5)
    probabilities[:4] = 0, 1, 1, 0
    labels[:4] = 1, 0, 1, 0
    moved = np.clip(probabilities, EPSILON, 1 - EPSILON)
    result, reference = calibration(labels, probabilities), calibration(labels, moved)
    assert (result.slope, result.intercept) == (reference.slope, reference.intercept)
    assert result.brier.value == pytest.approx(brier_score_loss(labels, probabilities))  # of those given
    found, _ = logistic(ones_and(logit(moved)), labels)
    assert result.slope.value == pytest.approx(found[1], abs=1e-6)


def test_everybody_certain_and_wrong():
    result = calibration([1] * 5 + [0] * 5, [0.0] * 5 + [1.0] * 5)
    assert result.brier.value == 1
    assert result.intercept.value == pytest.approx(0, abs=1e-6)
    wrong = calibration([1] * 5 + [0] * 5, [0.0] * 10)
    assert wrong.intercept.value == pytest.approx(-logit(EPSILON), rel=1e-9)
    assert wrong.expected_observed == 0


@pytest.mark.parametrize("prevalence_logit", [0.0, -1.8])
def test_intervals_cover_the_truth_as_often_as_they_say(prevalence_logit):
    rng = np.random.default_rng(0)
    many = expit(prevalence_logit + 1.5 * rng.normal(size=1_000_000))
    truth = np.mean(many * (1 - many))  # the Brier score to expect of calibrated probabilities
    covered = []
    for _ in range(2000):
        probabilities = expit(prevalence_logit + 1.5 * rng.normal(size=120))
        result = calibration(rng.random(120) < probabilities, probabilities)
        pairs = ((result.slope, 1), (result.intercept, 0), (result.brier, truth))
        covered.append([estimate.low <= right <= estimate.high for estimate, right in pairs])
    assert np.all(np.abs(np.mean(covered, axis=0) - 0.95) < 0.02)  # 4 standard errors of 2,000 draws


def test_bins_by_hand():
    bins = reliability([0, 1, 0, 1, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.8, 0.9], bins=3)
    assert [b.n for b in bins] == [2, 2, 2]
    assert [b.probability for b in bins] == pytest.approx([0.15, 0.35, 0.85])
    assert [b.observed for b in bins] == [Proportion.of(1, 2), Proportion.of(1, 2), Proportion.of(2, 2)]


def test_ties_stay_in_one_bin():
    bins = reliability([0, 0, 1, 1, 0, 1, 1, 0], [0.1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.9], bins=4)
    assert [b.n for b in bins] == [1, 6, 1]
    assert bins[1].observed == Proportion.of(4, 6)
    assert [b.n for b in reliability([0, 0, 1, 1], [0.3] * 4)] == [4]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 20)), max_size=60), st.integers(1, 12), st.randoms())
def test_bins_divide_the_exams(pairs, bins, random):
    pairs = [(1, 3), (1, 7), (0, 5), (0, 2), *pairs]
    labels, grid = (np.array(values) for values in zip(*pairs, strict=True))
    found = reliability(labels, grid / 20, bins)
    assert len(found) <= bins
    assert sum(b.n for b in found) == len(pairs)
    assert sum(b.observed.successes for b in found) == labels.sum()
    assert sum(b.n * b.probability for b in found) == pytest.approx((grid / 20).sum())
    assert [b.probability for b in found] == sorted({b.probability for b in found})
    if len(set(grid)) == len(grid):
        assert max(b.n for b in found) - min(b.n for b in found) <= 1 or len(found) < bins
    random.shuffle(pairs)
    labels, grid = (np.array(values) for values in zip(*pairs, strict=True))
    again = reliability(labels, grid / 20, bins)
    assert [(b.n, b.observed) for b in again] == [(b.n, b.observed) for b in found]


def test_bins_are_equal_without_ties():
    labels, probabilities = random_case(0, n=120)
    assert [b.n for b in reliability(labels, probabilities)] == [12] * 10
    assert sorted(b.n for b in reliability(labels[:114], probabilities[:114])) == [11] * 6 + [12] * 4


@pytest.mark.parametrize("bins", [0, -3])
def test_wrong_bins(bins):
    with pytest.raises(UserError, match="at least 1 bin"):
        reliability([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4], bins)


@pytest.mark.parametrize("seed", range(4))
def test_recalibration_maximises_platts_likelihood(seed):
    labels, probabilities = random_case(seed, slope=0.6, intercept=-0.5)
    logits = 3 * logit(probabilities) + 5
    positives, negatives = labels.sum(), (1 - labels).sum()
    targets = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    found, _ = logistic(ones_and(logits), targets)
    fitted = Recalibration.fit(labels, logits)
    assert (fitted.intercept, fitted.slope) == (pytest.approx(found[0], abs=1e-6), pytest.approx(found[1], abs=1e-6))


def test_recalibration_calibrates():
    labels, probabilities = random_case(11, n=4000, slope=0.4, intercept=-1)
    logits = logit(probabilities)
    half = np.arange(4000) % 2 == 0
    fitted = Recalibration.fit(labels[half], logits[half])
    before, after = (calibration(labels[~half], p) for p in (probabilities[~half], fitted.apply(logits[~half])))
    assert before.slope.high < 0.6
    assert before.intercept.high < 0
    assert after.slope.low < 1 < after.slope.high
    assert after.intercept.low < 0 < after.intercept.high
    assert after.brier.value < before.brier.value


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(-3, 3))
def test_recalibration_keeps_the_order(seed, slope):
    rng = np.random.default_rng(seed)
    labels = np.r_[1, 1, 0, 0, rng.integers(0, 2, 20)]
    logits = slope * labels + rng.normal(size=24)  # better or worse than chance
    fitted = Recalibration.fit(labels, logits)
    probabilities = fitted.apply(logits)
    assert roc_auc_score(labels, probabilities) == roc_auc_score(labels, logits)
    assert np.array_equal(np.argsort(probabilities), np.argsort(logits))
    scaled = Recalibration.fit(labels, 10 * logits - 4)
    np.testing.assert_allclose(scaled.apply(10 * logits - 4), probabilities, rtol=1e-7)


def test_separated_logits_stay_finite():
    fitted = Recalibration.fit([1, 1, 1, 0, 0], [5, 5, 5, -5, -5])
    # Two values of the logit: the fit meets Platt's targets, 4/5 and 1/4, exactly.
    np.testing.assert_allclose(fitted.apply([5, -5]), [4 / 5, 1 / 4], rtol=1e-9)


def test_logits_worse_than_chance_are_all_but_ignored():
    labels, probabilities = random_case(2, slope=-1.0)
    logits = 7 * logit(probabilities)
    fitted = Recalibration.fit(labels, logits)
    assert fitted.slope == pytest.approx(LEAST_SLOPE / logits.std())
    positives, negatives = labels.sum(), (1 - labels).sum()
    mean = (positives * (positives + 1) / (positives + 2) + negatives / (negatives + 2)) / len(labels)
    assert fitted.apply(logits).mean() == pytest.approx(mean, rel=1e-9)  # the best intercept for this slope
    assert np.ptp(fitted.apply(logits)) < 0.02


def test_logits_that_hardly_differ_are_not_blown_up():
    # Such are the intercepts of five folds of a plane without weight: the more positives held out, the lower.
    logits = np.where([1, 1, 1, 0, 0, 0], -1e-4, 1e-4)
    assert Recalibration.fit([1, 1, 1, 0, 0, 0], logits).slope == pytest.approx(1)


def test_logits_all_alike_give_the_prevalence():
    fitted = Recalibration.fit([1, 1, 0, 0, 0, 0], [0.1] * 6)
    assert fitted.slope == 1
    np.testing.assert_allclose(fitted.apply([0.1]), (2 * 3 / 4 + 4 * 1 / 6) / 6, rtol=1e-12)


def test_apply_keeps_the_shape_and_the_ends():
    fitted = Recalibration(2.0, 1.0)
    assert fitted.apply(0.5).shape == ()
    np.testing.assert_allclose(fitted.apply([[0.5, -0.5]]), [[1 / (1 + math.exp(-2)), 0.5]])
    np.testing.assert_array_equal(fitted.apply([math.inf, -math.inf, 1e300]), [1, 0, 1])
    for wrong in ([1.0, math.nan], ["a"]):
        with pytest.raises(UserError, match="logits"):
            fitted.apply(wrong)


def test_recalibration_survives_json():
    fitted = Recalibration.fit(*random_case(1))
    assert Recalibration(**json.loads(json.dumps(asdict(fitted), allow_nan=False))) == fitted


def platt_targets(labels):
    positives, negatives = np.sum(labels), np.sum(1 - np.asarray(labels))
    return np.where(np.asarray(labels) == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))


@pytest.mark.parametrize("seed", range(3))
def test_the_covariance_is_that_of_an_independent_fit(seed):
    labels, probabilities = random_case(seed, slope=0.6, intercept=-0.5)
    logits = 2 * logit(probabilities) + 1
    fitted = Recalibration.fit(labels, logits)
    (intercept, slope), covariance = logistic(ones_and(logits), platt_targets(labels))
    np.testing.assert_allclose(fitted.covariance, covariance, rtol=2e-4, atol=1e-7)
    for value in (-3.0, 0.4, 5.0):
        variance = covariance[0, 0] + 2 * value * covariance[0, 1] + value**2 * covariance[1, 1]
        ends = expit(intercept + slope * value + Z * math.sqrt(variance) * np.array([-1, 1]))
        assert fitted.interval(value) == pytest.approx(ends.tolist(), abs=1e-4)
        assert ends[0] < fitted.apply(value) < ends[1]
    assert Recalibration(fitted.slope, fitted.intercept).interval(0.4) is None


def test_the_interval_is_narrowest_where_the_exams_are_and_follows_the_logits_scale():
    labels, probabilities = random_case(4, n=400)
    logits = logit(probabilities)
    fitted, scaled = Recalibration.fit(labels, logits), Recalibration.fit(labels, 10 * logits - 4)

    def width(value):
        low, high = fitted.interval(value)
        return logit(high) - logit(low)

    assert width(0.0) < width(2.0) < width(4.0)
    for value in (-2.0, 0.0, 3.0):
        assert scaled.interval(10 * value - 4) == pytest.approx(fitted.interval(value), abs=1e-9)


def test_where_the_slope_is_held_only_the_intercept_varies():
    labels, probabilities = random_case(2, slope=-1.0)
    logits = 7 * logit(probabilities)
    fitted = Recalibration.fit(labels, logits)
    assert fitted.slope == pytest.approx(LEAST_SLOPE / logits.std())
    _, covariance = logistic(np.ones((len(labels), 1)), platt_targets(labels), fitted.slope * logits)
    np.testing.assert_allclose(fitted.covariance, [[covariance[0, 0], 0], [0, 0]], rtol=1e-4)
    low, high = fitted.interval(0.3)
    assert logit(high) - logit(low) == pytest.approx(2 * Z * math.sqrt(covariance[0, 0]), rel=1e-4)
    alike = Recalibration.fit([1, 1, 0, 0, 0, 0], [0.1] * 6)
    mean = (2 * 3 / 4 + 4 * 1 / 6) / 6
    np.testing.assert_allclose(alike.covariance, [[1 / (6 * mean * (1 - mean)), 0], [0, 0]], rtol=1e-12)


@pytest.mark.parametrize("prevalence_logit", [0.0, -1.5])
def test_the_interval_holds_the_true_probability_as_often_as_it_says(prevalence_logit):
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(1000):
        logits = prevalence_logit + 1.5 * rng.normal(size=200)
        fitted = Recalibration.fit(rng.random(200) < expit(0.5 + 0.8 * logits), logits)
        found = [(fitted.interval(x), expit(0.5 + 0.8 * x)) for x in prevalence_logit + np.array([-2.0, 0.0, 2.0])]
        covered.append([low <= truth <= high for (low, high), truth in found])
    assert np.all(np.abs(np.mean(covered, axis=0) - 0.95) < 0.025), np.mean(covered, axis=0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_interval_needs_a_finite_logit(value):
    with pytest.raises(UserError, match="finite logit"):
        Recalibration(1.0, 0.0, ((1.0, 0.0), (0.0, 1.0))).interval(value)


def test_an_older_recalibration_has_no_interval_and_one_of_no_error_no_width():
    assert Recalibration(**json.loads('{"slope": 1.5, "intercept": -0.5}')).interval(0.3) is None
    low, high = Recalibration(1.5, -0.5, ((0.0, 0.0), (0.0, 0.0))).interval(0.3)
    assert low == high == pytest.approx(expit(-0.05))


@pytest.mark.parametrize(
    ("covariance", "sentence"),
    [
        (3.0, "two rows of two numbers"),
        ([1.0, 2.0], "two rows of two numbers"),
        ([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], "two rows of two numbers"),
        ([[1.0, "a"], ["a", 1.0]], "covariance .* finite"),
        ([[1.0, 0.0], [0.0, math.nan]], "covariance .* finite"),
        ([[1.0, 0.1], [0.2, 1.0]], "symmetric"),
        ([[-1.0, 0.0], [0.0, 1.0]], "not negative"),
        ([[1.0, 2.0], [2.0, 1.0]], "not negative"),
    ],
)
def test_wrong_covariance(covariance, sentence):
    with pytest.raises(UserError, match=sentence):
        Recalibration(1.0, 0.0, covariance)


@pytest.mark.parametrize(
    ("slope", "intercept", "sentence"),
    [
        (0.0, 0.0, "above 0"),
        (-1.0, 0.0, "above 0"),
        (math.nan, 0.0, "slope .* finite"),
        (1.0, math.inf, "intercept .* finite"),
        ("1", 0.0, "slope .* finite"),
        (True, 0.0, "slope .* finite"),
        (1.0, None, "intercept .* finite"),
    ],
)
def test_wrong_recalibration(slope, intercept, sentence):
    with pytest.raises(UserError, match=sentence):
        Recalibration(slope, intercept)


@pytest.mark.parametrize(
    ("labels", "scores", "sentence"),
    [
        ([1, 1, 1], [0.1, 0.2, 0.3], "3 positive and 0 negative"),
        ([0, 0, 1, 1], [0.1, 0.2, 0.3], "there are 4 and 3"),
        ([0, 0, 1, 1], [0.1, math.nan, 0.3, 0.4], "1 of 4 scores are NaN"),
        ([0, 0, 1, 2], [0.1, 0.2, 0.3, 0.4], "labels must be 0 or 1"),
        ([0, 0, 1, 1], ["a", "b", "c", "d"], "scores must be numbers"),
    ],
)
def test_wrong_arguments(labels, scores, sentence):
    for function in (calibration, reliability, Recalibration.fit):
        with pytest.raises(UserError, match=sentence):
            function(labels, scores)


@pytest.mark.parametrize("scores", [[-0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 1.5], [-4.0, 0.1, 3.0, math.inf]])
def test_logits_are_no_probabilities(scores):
    for function in (calibration, reliability):
        with pytest.raises(UserError, match="probabilities between 0 and 1"):
            function([0, 0, 1, 1], scores)


def test_infinite_logits_are_refused():
    with pytest.raises(UserError, match="finite logits"):
        Recalibration.fit([0, 0, 1, 1], [0, 1, 2, math.inf])
