import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kneessl.errors import UserError
from kneessl.evaluation import Proportion
from kneessl.evaluation.predictive import likelihood_ratios, predictive_values, sample_predictive_values

LIVER = {"tp": 231, "fn": 27, "fp": 32, "tn": 54}
"""Liver scans of 344 patients against pathology: Altman & Bland, BMJ 308 (1994) 1552 and 309 (1994) 102."""

SIGNATURE = {"tp": 31, "fn": 3, "fp": 12, "tn": 32}
"""A 70-gene signature and metastasis within 5 years, an example of Mercaldo 2007: 31 of 34 cases, 32 of 44 controls."""

counts = st.integers(1, 500)


def limits(interval):
    return interval.value, interval.low, interval.high


def test_liver_scans_of_altman_and_bland():
    # BMJ 309 (1994) 102: PPV 231/263 = 0.88 in the sample; 0.45 and 0.95 where the prevalence is 0.25. (The note prints
    # 54/81 = 0.59 for the NPV in the sample, a slip: it is 0.67.)
    sample = sample_predictive_values(**LIVER)
    assert (sample.ppv.successes, sample.ppv.n, round(sample.ppv.value, 2)) == (231, 263, 0.88)
    assert (sample.npv.successes, sample.npv.n, round(sample.npv.value, 2)) == (54, 81, 0.67)
    elsewhere = predictive_values(**LIVER, prevalence=0.25)
    assert elsewhere.ppv.value == pytest.approx(0.45, abs=0.006)  # the note starts from rounded 0.90 and 0.63
    assert elsewhere.npv.value == pytest.approx(0.95, abs=0.005)
    assert not elsewhere.adjusted


def test_standard_logit_interval_of_mercaldo():
    # Printed by the R package CIfinder 2.0 (README, method "zhou", at a prevalence of 7 %) for `SIGNATURE`.
    result = predictive_values(**SIGNATURE, prevalence=0.07)
    assert limits(result.ppv) == pytest.approx((0.2010444, 0.1331384, 0.2919216), abs=5e-8)
    assert limits(result.npv) == pytest.approx((0.9909508, 0.9734141, 0.9969560), abs=5e-8)
    assert (result.prevalence, result.adjusted) == (0.07, False)


def test_adjusted_logit_interval_of_mercaldo():
    # As above, with `continuity.correction = TRUE`, and no false positives.
    result = predictive_values(tp=31, fn=3, fp=0, tn=44, prevalence=0.07)
    assert limits(result.ppv) == pytest.approx((0.6199169, 0.2886800, 0.8676335), abs=5e-8)
    assert limits(result.npv) == pytest.approx((0.9899059, 0.9772354, 0.9955563), abs=5e-8)
    assert result.adjusted


def test_likelihood_ratio_of_simel():
    # Printed by the R package epiR (epi.tests, example 1: Scott et al. 2008, table 1; Simel's formulae).
    result = likelihood_ratios(tp=670, fn=74, fp=202, tn=640)
    assert limits(result.positive) == pytest.approx((3.75, 3.32, 4.24), abs=0.005)
    assert not result.adjusted


def test_negative_likelihood_ratio_by_its_formula():
    # Simel 1991: exp(ln(ratio) -+ z sqrt(1/fn - 1/positives + 1/tn - 1/negatives)).
    result = likelihood_ratios(**LIVER)
    ratio = (27 / 258) / (54 / 86)
    half = 1.959963984540054 * math.sqrt(1 / 27 - 1 / 258 + 1 / 54 - 1 / 86)
    expected = (ratio, math.exp(math.log(ratio) - half), math.exp(math.log(ratio) + half))
    assert limits(result.negative) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_intervals_of_newcombe(successes, n, low, high):
    # R. G. Newcombe, Statistics in Medicine 17 (1998) 857, table I, method 3 (score, no continuity correction).
    proportion = Proportion.of(successes, n)
    assert (proportion.low, proportion.high) == pytest.approx((low, high), abs=5e-5)


@settings(max_examples=100, deadline=None)
@given(counts, counts, counts, counts)
def test_at_the_samples_prevalence_bayes_gives_the_samples_shares(tp, fn, fp, tn):
    prevalence = (tp + fn) / (tp + fn + fp + tn)
    result = predictive_values(tp=tp, fn=fn, fp=fp, tn=tn, prevalence=prevalence)
    assert result.ppv.value == pytest.approx(tp / (tp + fp), rel=1e-9)
    assert result.npv.value == pytest.approx(tn / (tn + fn), rel=1e-9)


@settings(max_examples=100, deadline=None)
@given(counts, counts, counts, counts, st.floats(0.01, 0.99))
def test_predictive_values_are_bayes_on_likelihood_ratios(tp, fn, fp, tn, prevalence):
    # With a known prevalence, posterior odds = prior odds x ratio, limits and all.
    table = {"tp": tp, "fn": fn, "fp": fp, "tn": tn}
    values, ratios = predictive_values(**table, prevalence=prevalence), likelihood_ratios(**table)
    prior = prevalence / (1 - prevalence)
    for value, ratio in zip(limits(values.ppv), limits(ratios.positive), strict=True):
        assert value == pytest.approx(prior * ratio / (1 + prior * ratio), rel=1e-9)
    npv, low, high = limits(values.npv)
    for value, ratio in zip((npv, high, low), limits(ratios.negative), strict=True):
        assert value == pytest.approx(1 / (1 + prior * ratio), rel=1e-9)


@settings(max_examples=100, deadline=None)
@given(counts, counts, counts, counts, st.floats(0.01, 0.99))
def test_exchanging_the_labels_exchanges_the_figures(tp, fn, fp, tn, prevalence):
    values = predictive_values(tp=tp, fn=fn, fp=fp, tn=tn, prevalence=prevalence)
    swapped = predictive_values(tp=tn, fn=fp, fp=fn, tn=tp, prevalence=1 - prevalence)
    assert limits(swapped.npv) == pytest.approx(limits(values.ppv), rel=1e-9)
    assert limits(swapped.ppv) == pytest.approx(limits(values.npv), rel=1e-9)


@pytest.mark.parametrize("empty", ["tp", "fn", "fp", "tn"])
def test_a_count_of_0_keeps_values_and_limits_inside(empty):
    table = {**SIGNATURE, empty: 0}
    values, ratios = predictive_values(**table, prevalence=0.1), likelihood_ratios(**table)
    assert values.adjusted
    assert ratios.adjusted
    for interval in (values.ppv, values.npv):
        assert 0 < interval.low < interval.value < interval.high < 1
    for interval in (ratios.positive, ratios.negative):
        assert 0 < interval.low < interval.value < interval.high < math.inf


def test_likelihood_ratio_with_a_count_of_0_by_hand():
    # 0.5 added to each: (31.5 / 35) / (0.5 / 45) = 81.
    assert likelihood_ratios(tp=31, fn=3, fp=0, tn=44).positive.value == pytest.approx(81)


def test_two_counts_of_0():
    values = predictive_values(tp=10, fn=0, fp=0, tn=10, prevalence=0.5)
    added = 1.959963984540054**2 / 2
    assert values.ppv.value == pytest.approx((10 + added) / (10 + 2 * added))
    assert limits(values.ppv) == pytest.approx(limits(values.npv))


def test_nobody_called_has_no_predictive_value_in_the_sample():
    assert sample_predictive_values(tp=0, fn=3, fp=0, tn=5).ppv is None
    assert sample_predictive_values(tp=0, fn=3, fp=0, tn=5).npv == Proportion.of(5, 8)
    assert sample_predictive_values(tp=3, fn=0, fp=5, tn=0).npv is None


def test_counts_of_numpy_are_counts():
    table = {name: np.int64(count) for name, count in LIVER.items()}
    assert predictive_values(**table, prevalence=0.25) == predictive_values(**LIVER, prevalence=0.25)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"tp": -1}, "tp must be a count of exams, 0 or more, not -1"),
        ({"fn": 2.0}, "fn must be a count"),
        ({"fp": True}, "fp must be a count"),
        ({"tn": "5"}, "tn must be a count"),
        ({"tp": 0, "fn": 0}, "0 positive and 86 negative"),
        ({"fp": 0, "tn": 0}, "258 positive and 0 negative"),
    ],
)
def test_wrong_arguments(change, sentence):
    with pytest.raises(UserError, match=sentence):
        predictive_values(**{**LIVER, "prevalence": 0.1, **change})
    for function in (sample_predictive_values, likelihood_ratios):
        with pytest.raises(UserError, match=sentence):
            function(**{**LIVER, **change})


@pytest.mark.parametrize("prevalence", [0, 1, -0.1, 25, math.nan])
def test_wrong_prevalence(prevalence):
    with pytest.raises(UserError, match="prevalence"):
        predictive_values(**LIVER, prevalence=prevalence)
