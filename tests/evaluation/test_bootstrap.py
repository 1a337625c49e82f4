import math

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from kneessl.errors import UserError
from kneessl.evaluation import auc_interval, compare_auc
from kneessl.evaluation.auc import checked_labels
from kneessl.evaluation.bootstrap import (
    bootstrap_difference,
    bootstrap_interval,
    checked_patients,
    jackknife,
    resample,
    roc_area,
)

LABELS = np.repeat([1, 0], [30, 50])
SCORES = np.random.default_rng(0).normal(LABELS * 1.2)
OTHERS = SCORES + np.random.default_rng(1).normal(size=80)


def mean_score(labels, scores):
    return float(scores.mean())


def test_the_seed_decides():
    first = bootstrap_interval(roc_area, LABELS, SCORES, replicates=200, seed=3)
    assert bootstrap_interval(roc_area, LABELS, SCORES, replicates=200, seed=3) == first
    assert bootstrap_interval(roc_area, LABELS, SCORES, replicates=200, seed=4) != first
    assert (first.value, first.level, first.replicates) == (roc_area(LABELS, SCORES), 0.95, 200)


@pytest.mark.parametrize("ties", [False, True])
def test_roc_area_is_scikit_learns(ties):
    scores = np.round(SCORES) if ties else SCORES
    assert roc_area(LABELS, scores) == pytest.approx(roc_auc_score(LABELS, scores), abs=1e-12)


def test_each_replicate_keeps_the_numbers_of_both_labels():
    drawn = []
    units = checked_patients(checked_labels(LABELS), None)
    resample(lambda chosen: drawn.append(chosen) or 0.0, units, 50, seed=0)
    assert {(len(chosen), LABELS[chosen].sum()) for chosen in drawn} == {(80, 30)}
    assert len({tuple(chosen) for chosen in drawn}) == 50
    counts = np.bincount(np.concatenate(drawn), minlength=80) / 50
    assert counts.min() > 0.3  # every exam is drawn, about once a replicate
    assert counts.max() < 2


def test_whole_patients_are_drawn_within_their_stratum():
    patients = np.arange(80) // 4  # patient 7 has exams of either label
    with_positive, drawn = set(range(8)), []
    units = checked_patients(checked_labels(LABELS), patients)
    resample(lambda chosen: drawn.append(np.bincount(chosen, minlength=80)) or 0.0, units, 50, seed=0)
    for times in drawn:
        by_patient = times.reshape(20, 4)
        assert (by_patient == by_patient[:, :1]).all()
        assert by_patient[:8, 0].sum() == 8
        assert by_patient[8:, 0].sum() == 12
    assert {i for times in drawn for i in np.flatnonzero(times.reshape(20, 4)[:, 0]) if i < 8} == with_positive


def test_a_second_copy_of_each_exam_adds_nothing_if_patients_are_named():
    once = bootstrap_interval(roc_area, LABELS, SCORES, replicates=300)
    names = [f"patient {i:02d}" for i in range(80)]
    twice = bootstrap_interval(roc_area, np.tile(LABELS, 2), np.tile(SCORES, 2), names * 2, replicates=300)
    assert (twice.value, twice.low, twice.high) == pytest.approx((once.value, once.low, once.high), abs=1e-12)
    as_if_independent = bootstrap_interval(roc_area, np.tile(LABELS, 2), np.tile(SCORES, 2), replicates=300)
    assert as_if_independent.high - as_if_independent.low < 0.8 * (once.high - once.low)


def test_groups_of_one_exam_are_no_groups():
    patients = np.arange(80)
    assert bootstrap_interval(roc_area, LABELS, SCORES, patients, replicates=200) == bootstrap_interval(
        roc_area, LABELS, SCORES, replicates=200
    )


def test_interval_is_near_delongs():
    delong, bootstrap = auc_interval(LABELS, SCORES), bootstrap_interval(roc_area, LABELS, SCORES)
    assert bootstrap.high - bootstrap.low == pytest.approx(delong.high - delong.low, rel=0.1)
    paired, difference = compare_auc(LABELS, SCORES, OTHERS), bootstrap_difference(roc_area, LABELS, SCORES, OTHERS)
    assert difference.value == pytest.approx(paired.difference, abs=1e-12)
    assert (difference.low, difference.high) == pytest.approx((paired.low, paired.high), abs=0.02)


def test_a_difference_takes_the_same_resamples():
    same = bootstrap_difference(roc_area, LABELS, SCORES, SCORES, replicates=100)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    # A constant added to all scores of one model moves a mean by it in every replicate.
    shifted = bootstrap_difference(mean_score, LABELS, SCORES + 2, SCORES, replicates=100)
    assert (shifted.low, shifted.high) == pytest.approx((2, 2), abs=1e-12)


def test_bca_of_a_difference_of_means_by_its_formula():
    # Efron 1987 (2.3) and (6.6), and Davison & Hinkley 1997 (5.28) for two samples, written down once more.
    skewed = np.exp(SCORES)

    def gap(labels, scores):
        return float(scores[labels == 1].mean() - scores[labels == 0].mean())

    result = bootstrap_interval(gap, LABELS, skewed, replicates=500, seed=9)
    units = checked_patients(checked_labels(LABELS), None)
    replicates = resample(lambda chosen: gap(LABELS[chosen], skewed[chosen]), units, 500, seed=9)
    z0 = norm.ppf((replicates < gap(LABELS, skewed)).mean())
    positives, negatives = skewed[:30], skewed[30:]
    moves = np.concatenate([(positives - positives.mean()) / 30, (negatives.mean() - negatives) / 50])
    a = (moves**3).sum() / (moves**2).sum() ** 1.5 / 6
    at = [norm.cdf(z0 + (z0 + z) / (1 - a * (z0 + z))) for z in norm.ppf([0.025, 0.975])]
    assert (result.low, result.high) == pytest.approx(tuple(np.quantile(replicates, at)), rel=1e-9)
    assert a > 0.01
    assert at[0] > 0.025


def test_jackknife_of_an_auc_by_hand():
    # Positives 3 and 1, negatives 2 and 0. Without each in turn the AUC is 1/2, 1; 1, 1/2: means 3/4, times 1/2.
    labels, scores = np.array([1, 1, 0, 0]), np.array([3.0, 1.0, 2.0, 0.0])
    units = checked_patients(checked_labels(labels), None)
    with_positive, without = jackknife(lambda chosen: roc_area(labels[chosen], scores[chosen]), units)
    assert with_positive == pytest.approx([0.125, -0.125])
    assert without == pytest.approx([-0.125, 0.125])


def test_jackknife_variance_of_an_auc_is_delongs():
    # DeLong 1988, section 3: the structural components are the jackknife's pseudo-values.
    units = checked_patients(checked_labels(LABELS), None)
    parts = jackknife(lambda chosen: roc_area(LABELS[chosen], SCORES[chosen]), units)
    variance = sum((part**2).sum() * len(part) / (len(part) - 1) for part in parts)
    assert math.sqrt(variance) == pytest.approx(auc_interval(LABELS, SCORES).standard_error, rel=1e-9)


def test_perfect_separation_has_no_width():
    result = bootstrap_interval(roc_area, [0, 0, 0, 1, 1], [1, 2, 3, 4, 5], replicates=100)
    assert (result.value, result.low, result.high) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("groups", "sentence"),
    [
        (["a", "a", "b", "b", "c"], r"each of 4 exams, not be of shape \(5,\)"),
        (["a", "b", "", ""], "2 of 4 names are empty"),
        ([0.5, 1.5, 2.5, math.nan], "whole number or a text"),
        ([None, "b", "c", "d"], "whole number or a text"),
        (["a", "a", "b", "c"], "there are 1 and 2"),
        (["a", "b", "a", "c"], "there are 2 and 1"),
        (["a", "b", "b", "a"], "there are 2 and 0"),
    ],
)
def test_wrong_groups(groups, sentence):
    with pytest.raises(UserError, match=sentence):
        bootstrap_interval(roc_area, [1, 1, 0, 0], [4, 3, 2, 1], groups)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"labels": [1, 0, 0]}, "1 positive and 2 negative"),
        ({"scores": [1, 2, math.nan, 4]}, "1 of 4 scores are NaN"),
        ({"scores": [1, 2]}, "there are 4 and 2"),
        ({"replicates": 99}, "at least 100 replicates, not 99"),
        ({"statistic": lambda labels, scores: math.nan}, "the statistic is nan on some resampled exams"),
        ({"statistic": lambda labels, scores: math.inf if scores.max() < 4 else 0.0}, "the statistic is inf"),
    ],
)
def test_wrong_arguments(arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        bootstrap_interval(**{"statistic": roc_area, "labels": [1, 1, 0, 0], "scores": [4, 3, 2, 1], **arguments})


def test_second_scores_are_checked_too():
    with pytest.raises(UserError, match="1 of 4 scores are NaN"):
        bootstrap_difference(roc_area, [0, 0, 1, 1], [1, 2, 3, 4], [1, 2, 3, math.nan])
