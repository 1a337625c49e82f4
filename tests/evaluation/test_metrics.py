import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kneessl.errors import UserError
from kneessl.evaluation import Proportion, auc_interval, summarise

LABELS = [1, 1, 1, 0, 0, 0, 0, 0]
SCORES = [0.9, 0.5, 0.2, 0.6, 0.4, 0.1, 0.3, 0.0]


def wilson(successes, n, z):
    """Wilson 1927 in closed form."""
    share = successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return centre - half, centre + half


def test_by_hand():
    summary = summarise(LABELS, SCORES)
    assert (summary.n, summary.positives, summary.threshold) == (8, 3, 0.5)
    assert (summary.tn, summary.fp, summary.fn, summary.tp) == (4, 1, 1, 2)
    assert (summary.accuracy.successes, summary.accuracy.n, summary.accuracy.value) == (6, 8, 0.75)
    assert (summary.sensitivity.successes, summary.sensitivity.n) == (2, 3)
    assert (summary.specificity.successes, summary.specificity.n) == (4, 5)
    assert summary.majority_accuracy == 5 / 8
    assert summary.brier == pytest.approx((0.01 + 0.25 + 0.64 + 0.36 + 0.16 + 0.01 + 0.09 + 0) / 8)
    assert summary.auc == auc_interval(LABELS, SCORES, scale="logit")


def test_a_score_at_the_threshold_is_positive():
    assert summarise([1, 1, 0, 0], [0.5, 0.5, 0.5, 0.4]).tp == 2
    assert summarise([1, 1, 0, 0], [0.5, 0.5, 0.5, 0.4]).fp == 1


def test_threshold_moves_the_counts():
    summary = summarise(LABELS, SCORES, threshold=0.35)
    assert (summary.tn, summary.fp, summary.fn, summary.tp, summary.threshold) == (3, 2, 1, 2, 0.35)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_in_closed_form(counts):
    successes, n = counts
    proportion = Proportion.of(successes, n)
    low, high = wilson(successes, n, 1.959963984540054)
    assert proportion.low == pytest.approx(low, abs=1e-9)
    assert proportion.high == pytest.approx(high, abs=1e-9)
    assert proportion.value == successes / n


def test_wilson_keeps_a_width_at_the_ends():
    assert Proportion.of(20, 20).low == pytest.approx(1 / (1 + 1.959963984540054**2 / 20))
    assert Proportion.of(0, 20).high == pytest.approx(1 - 1 / (1 + 1.959963984540054**2 / 20))


def test_every_figure_has_its_interval():
    summary = summarise(LABELS, SCORES)
    assert summary.auc == auc_interval(LABELS, SCORES, scale="logit")
    assert summary.accuracy == Proportion.of(6, 8)
    assert summary.sensitivity == Proportion.of(2, 3)
    assert summary.specificity == Proportion.of(4, 5)


def test_dictionary_survives_json():
    summary = summarise(LABELS, SCORES)
    restored = json.loads(json.dumps(summary.to_dict(), allow_nan=False))
    assert restored == summary.to_dict()
    assert restored["auc"]["auc"] == summary.auc.auc
    assert restored["specificity"] == {
        "value": 0.8, "low": summary.specificity.low, "high": summary.specificity.high, "successes": 4, "n": 5,
    }  # fmt: skip
    assert {"brier", "majority_accuracy", "threshold", "tn", "fp", "fn", "tp"} <= restored.keys()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), max_size=30))
def test_counts_agree_with_each_other(pairs):
    pairs = [(1, 0.7), (1, 0.2), (0, 0.6), (0, 0.1), *pairs]
    labels, scores = zip(*pairs, strict=True)
    summary = summarise(labels, scores)
    assert summary.tp + summary.fn == summary.positives == sum(labels)
    assert summary.tn + summary.fp == summary.n - summary.positives
    assert summary.accuracy.successes == sum((s >= 0.5) == bool(y) for y, s in pairs)
    assert summary.majority_accuracy >= 0.5


@pytest.mark.parametrize("scores", [[-0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 1.5], [-4.0, 0.1, 3.0, math.inf]])
def test_logits_are_refused(scores):
    with pytest.raises(UserError, match="probabilities between 0 and 1"):
        summarise([0, 0, 1, 1], scores)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan])
def test_wrong_threshold(threshold):
    with pytest.raises(UserError, match="threshold"):
        summarise(LABELS, SCORES, threshold=threshold)


def test_one_class_is_refused():
    with pytest.raises(UserError, match="3 positive and 0 negative"):
        summarise([1, 1, 1], [0.1, 0.2, 0.3])
