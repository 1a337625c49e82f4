import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.metrics import average_precision_score

from kneessl.errors import UserError
from kneessl.evaluation.precision import auprc_interval, average_precision

LABELS = np.repeat([1, 0], [30, 50])
SCORES = np.random.default_rng(0).normal(LABELS * 1.2)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(-6, 6)), max_size=40), st.randoms())
def test_average_precision_is_scikit_learns(pairs, shuffler):
    pairs = [*pairs, (1, 0)]
    shuffler.shuffle(pairs)
    labels, scores = np.array(pairs).T
    expected = average_precision_score(labels, scores)
    assert average_precision(labels, scores.astype(float)) == pytest.approx(expected, abs=1e-12)
    assert average_precision(labels, np.exp(scores / 3)) == pytest.approx(expected, abs=1e-12)


def test_infinite_scores_have_an_order_too():
    assert average_precision(np.array([1, 0, 1, 0]), np.array([math.inf, math.inf, 1, -math.inf])) == pytest.approx(
        0.5 * 1 / 2 + 0.5 * 2 / 3
    )


def test_by_hand():
    # In order 1, 0, 1, 0: precision 1 at the first positive, 2/3 at the second. Without each positive in turn it is
    # 1/2 and 1, without each negative 1 and 5/6. Variance: 1/2 x (1/16 + 1/16) + 1/2 x (1/144 + 1/144) = 5/72.
    result = auprc_interval([1, 0, 1, 0], [4, 3, 2, 1])
    assert (result.auprc, result.chance) == (pytest.approx(5 / 6), 0.5)
    assert result.standard_error == pytest.approx(math.sqrt(5 / 72))
    half = 1.959963984540054 * math.sqrt(5 / 72) / (5 / 36)
    assert (result.low, result.high) == pytest.approx((expit(logit(5 / 6) - half), expit(logit(5 / 6) + half)))


def test_chance_is_the_prevalence():
    rng = np.random.default_rng(2)
    labels = np.repeat([1, 0], [300, 2700])
    result = auprc_interval(labels[::5], rng.normal(size=600))
    assert result.chance == 0.1
    many = [average_precision(labels, rng.normal(size=3000)) for _ in range(200)]
    assert np.mean(many) == pytest.approx(0.1, abs=0.005)
    assert average_precision(labels, np.zeros(3000)) == pytest.approx(0.1)


def test_perfect_separation_has_no_width():
    result = auprc_interval([0, 0, 1, 1], [1, 2, 3, 4])
    assert (result.auprc, result.low, result.high, result.standard_error) == (1.0, 1.0, 1.0, 0.0)


def test_limits_stay_between_0_and_1():
    result = auprc_interval([1, 1, 0, 0, 0, 0], [5, 1, 4, 3, 2, 0])
    assert 0 < result.low < result.auprc < result.high < 1


def test_a_second_copy_of_each_exam_adds_nothing_if_patients_are_named():
    once = auprc_interval(LABELS, SCORES)
    patients = np.tile(np.arange(80), 2)
    twice = auprc_interval(np.tile(LABELS, 2), np.tile(SCORES, 2), patients)
    assert twice.standard_error == pytest.approx(once.standard_error, rel=1e-9)
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high), rel=1e-9)
    assert auprc_interval(np.tile(LABELS, 2), np.tile(SCORES, 2)).standard_error < 0.8 * once.standard_error


@pytest.mark.parametrize(
    ("labels", "scores", "sentence"),
    [
        ([1, 0, 0], [1, 2, 3], "1 positive and 2 negative"),
        ([1, 1, 0, 0], [1, 2, 3, math.nan], "1 of 4 scores are NaN"),
    ],
)
def test_wrong_arguments(labels, scores, sentence):
    with pytest.raises(UserError, match=sentence):
        auprc_interval(labels, scores)
