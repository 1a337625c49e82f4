"""How many exams a study needs, against published figures, other ways to compute them, and simulated studies."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal, norm

from kneessl.errors import UserError
from kneessl.evaluation import Proportion, auc_interval, compare_auc
from kneessl.evaluation.sample_size import (
    Pair,
    Pilot,
    _together,
    binormal_error,
    exams_for_auc,
    exams_for_difference,
    exams_for_share,
    hanley_mcneil_error,
    obuchowski_error,
    simulated_power,
    simulated_width,
)


@pytest.mark.parametrize("h", [-1.2, 0.3, 1.5])
@pytest.mark.parametrize("k", [0.3, 2.2])
@pytest.mark.parametrize("correlation", [0.0, 0.25, 0.5, 0.9])
def test_the_bivariate_normal_against_scipys(h, k, correlation):
    both = multivariate_normal.cdf([h, k], cov=[[1, correlation], [correlation, 1]], abseps=1e-10, releps=1e-10)
    assert _together(h, k, correlation) == pytest.approx(both - norm.cdf(h) * norm.cdf(k), abs=1e-7)


def test_the_bivariate_normal_in_closed_form():
    # At h = k = 0 the probability of the quadrant is 1/4 + arcsin(correlation) / 2 pi (Sheppard 1899).
    for correlation in (0.1, 0.5, 0.99):
        assert _together(0.0, 0.0, correlation) == pytest.approx(np.arcsin(correlation) / (2 * np.pi), rel=1e-12)
    assert _together(0.8, 0.8, 1.0) == pytest.approx(norm.cdf(0.8) * norm.sf(0.8), rel=1e-12)


def test_without_any_difference_of_the_classes_the_error_is_wilcoxons():
    # Mann and Whitney 1947: at an AUC of 1/2 the variance is (m + n + 1) / (12 m n), whatever the distribution.
    for m, n in ((10, 10), (7, 40)):
        assert binormal_error(0.5)(m, n) ** 2 == pytest.approx((m + n + 1) / (12 * m * n), rel=1e-12)
        assert hanley_mcneil_error(0.5)(m, n) ** 2 == pytest.approx((m + n + 1) / (12 * m * n), rel=1e-12)


def test_hanley_and_mcneil_over_their_own_exams():
    # Hanley & McNeil 1982: 51 abnormal and 58 normal CT images, area .893, standard error .032.
    assert hanley_mcneil_error(0.893)(51, 58) == pytest.approx(0.032, abs=0.0006)


# Obuchowski 2004, table 4: controls and cases to find an AUC above 1/2 (one-sided 5 %, power 90 %), by AUC, and by
# controls for each case. As in the tests of R's pROC (test-power.roc.test.R), which mends two entries by one exam.
# Cells of the least number, 10 exams, are left out here.
TABLE_4 = {
    (0.25, 0.6): (84, 334),
    (0.25, 0.7): (20, 80),
    (0.5, 0.7): (25, 49),
    (1, 0.6): (135, 135),
    (1, 0.7): (33, 33),
    (1, 0.8): (14, 14),
    (2, 0.6): (203, 102),
    (2, 0.7): (50, 25),
    (4, 0.6): (340, 85),
    (4, 0.7): (84, 21),
}


@pytest.mark.parametrize(("kappa", "auc"), TABLE_4)
def test_obuchowskis_table(kappa, auc):
    variance = obuchowski_error(auc)(1, kappa) ** 2  # of one case
    null = 0.0792 * (1 + 1 / kappa)
    cases = ((norm.ppf(0.95) * null**0.5 + norm.ppf(0.9) * variance**0.5) / (auc - 0.5)) ** 2
    controls, expected = TABLE_4[kappa, auc]
    assert np.ceil([kappa * cases, cases]).tolist() == [controls, expected]


def test_obuchowskis_power_as_proc_has_it():
    # R's pROC: power.roc.test(ncases=41, ncontrols=72, auc=0.73) has power 0.9897453.
    null = 0.0792 * (1 + 41 / 72)
    error = obuchowski_error(0.73)(41, 72) * 41**0.5
    power = norm.cdf((41**0.5 * 0.23 - norm.ppf(0.975) * null**0.5) / error)
    assert power == pytest.approx(0.9897453, abs=1e-6)


@pytest.mark.parametrize("auc", [0.6, 0.8, 0.9, 0.95])
def test_the_published_approximations_ask_for_more(auc):
    errors = [error(auc)(60, 140) for error in (binormal_error, hanley_mcneil_error, obuchowski_error)]
    assert errors[0] < min(errors[1:]) * 1.005  # Obuchowski's constants are rounded
    assert max(errors) < 1.4 * errors[0]


@pytest.mark.parametrize(("auc", "positives", "negatives"), [(0.75, 8, 30), (0.9, 20, 12)])
def test_the_error_of_an_auc_by_simulation(auc, positives, negatives):
    rng = np.random.default_rng(3)
    x = rng.normal(np.sqrt(2) * norm.ppf(auc), size=(20_000, positives, 1))
    y = rng.normal(size=(20_000, 1, negatives))
    spread = (x > y).mean(axis=(1, 2)).std()
    assert binormal_error(auc)(positives, negatives) == pytest.approx(spread, rel=0.02)


def test_the_error_of_a_difference_by_simulation():
    pair, positives, negatives = Pair(0.9, 0.8, 0.7, 0.3), 12, 25
    rng = np.random.default_rng(4)
    shifts = np.sqrt(2) * norm.ppf((0.9, 0.8))
    covariance = [[[1, r], [r, 1]] for r in (0.7, 0.3)]
    x = rng.multivariate_normal(shifts, covariance[0], size=(20_000, positives))[:, :, None]
    y = rng.multivariate_normal([0, 0], covariance[1], size=(20_000, negatives))[:, None]
    aucs = (x > y).mean(axis=(1, 2))
    assert pair.error(positives, negatives) == pytest.approx((aucs[:, 0] - aucs[:, 1]).std(), rel=0.02)


def test_models_that_have_nothing_in_common_err_apart():
    error = Pair(0.9, 0.8, 0.0, 0.0).error(30, 70)
    assert error**2 == pytest.approx(binormal_error(0.9)(30, 70) ** 2 + binormal_error(0.8)(30, 70) ** 2, rel=1e-12)


def test_delongs_error_has_that_mean():
    # What is planned with is what DeLong's method will find.
    rng = np.random.default_rng(5)
    labels = np.repeat([1, 0], (40, 90))
    pair, found = Pair(0.85, 0.8, 0.6, 0.6), []
    for _ in range(300):
        shared = rng.standard_normal((2, 130))
        a = shared[0] + np.sqrt(2) * norm.ppf(0.85) * labels
        b = 0.6 * shared[0] + 0.8 * shared[1] + np.sqrt(2) * norm.ppf(0.8) * labels
        found.append(compare_auc(labels, a, b).standard_error ** 2)
    assert pair.error(40, 90) ** 2 == pytest.approx(np.mean(found), rel=0.04)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.55, 0.97), st.floats(0.03, 0.3), st.floats(0.05, 0.95))
def test_the_exams_for_an_interval_are_the_fewest(auc, width, prevalence):
    error = binormal_error(auc)

    def wide(n):
        spread = error(n * prevalence, n * (1 - prevalence)) / (auc * (1 - auc)) * norm.ppf(0.975)
        odds = np.log(auc / (1 - auc))
        ends = 1 / (1 + np.exp(-np.array([odds - spread, odds + spread])))
        return ends[1] - ends[0]

    n = exams_for_auc(auc, width, prevalence, binormal_error)
    least = int(np.ceil(2 / min(prevalence, 1 - prevalence)))
    assert wide(n) <= width * (1 + 1e-9)
    assert n <= least + 1 or wide(n - 1) > width * (1 - 1e-9)


def test_the_exams_for_a_difference_are_the_fewest():
    pair = Pair(0.9, 0.85, 0.5, 0.5)
    n = exams_for_difference(pair, 0.8, 0.2)
    power = [norm.cdf(0.05 / pair.error(0.2 * k, 0.8 * k) - norm.ppf(0.975)) for k in (n - 1, n)]
    assert power[0] < 0.8 <= power[1]


def test_correlated_models_take_fewer_exams():
    needed = [exams_for_difference(Pair(0.9, 0.85, r, r), 0.8, 0.2) for r in (0.0, 0.3, 0.6, 0.9)]
    assert sorted(needed, reverse=True) == needed


@pytest.mark.parametrize(("share", "width"), [(0.9, 0.1), (0.95, 0.06), (0.5, 0.2), (1.0, 0.05)])
def test_the_exams_for_a_share_are_the_fewest(share, width):
    n = exams_for_share(share, width)

    def wide(exams):
        z, p = norm.ppf(0.975), share
        return 2 * z * np.sqrt(p * (1 - p) / exams + z**2 / (4 * exams**2)) / (1 + z**2 / exams)

    assert wide(n) <= width < wide(n - 1)
    if (n * share).is_integer():
        whole = Proportion.of(int(n * share), n)
        assert whole.high - whole.low == pytest.approx(wide(n))


def test_simulated_studies_agree_with_the_closed_form():
    pair = Pair(0.9, 0.8, 0.5, 0.5)
    n = exams_for_difference(pair, 0.8, 0.4)
    positives = round(0.4 * n)
    power = simulated_power(pair, positives, n - positives, 600, seed=0)
    assert power.value == pytest.approx(0.8, abs=0.06)
    width = exams_for_auc(0.85, 0.12, 0.4, binormal_error)
    narrow = simulated_width(0.85, 0.12, round(0.4 * width), width - round(0.4 * width), 600, seed=0)
    assert narrow.value == pytest.approx(0.5, abs=0.1)


def test_a_pilot_gives_back_what_it_was_drawn_from():
    rng = np.random.default_rng(6)
    labels = np.repeat([1, 0], (3000, 7000))
    correlation = np.repeat([0.8, 0.4], (3000, 7000))
    shared, own = rng.standard_normal((2, 10_000))
    a = shared + np.sqrt(2) * norm.ppf(0.9) * labels
    b = correlation * shared + np.sqrt(1 - correlation**2) * own + np.sqrt(2) * norm.ppf(0.8) * labels
    pilot = Pilot.of(labels, 1 / (1 + np.exp(-a)), b**3)  # ranks alone count
    assert pilot.prevalence == 0.3
    assert (pilot.pair.positives, pilot.pair.negatives) == pytest.approx((0.8, 0.4), abs=0.03)
    assert (pilot.auc, pilot.pair.auc, pilot.pair.against) == pytest.approx((0.9, 0.9, 0.8), abs=0.015)
    assert pilot.pair.error(3000, 7000) == pytest.approx(compare_auc(labels, a, b).standard_error, rel=0.05)
    assert Pilot.of(labels, a).pair is None
    assert Pilot.of(labels, a).auc == auc_interval(labels, a).auc


def test_a_pilot_of_one_model_twice_is_refused():
    labels, scores = np.repeat([1, 0], 5), np.arange(10.0)
    for other in (scores, np.zeros(10)):
        with pytest.raises(UserError, match="give --correlation instead"):
            Pilot.of(labels, scores, other)


def test_the_impossible_is_refused():
    with pytest.raises(UserError, match="more than 10,000,000 exams"):
        exams_for_auc(0.8, 1e-5, 0.5, binormal_error)
    with pytest.raises(ValueError, match="equally good"):
        exams_for_difference(Pair(0.8, 0.8, 0.5, 0.5), 0.8, 0.5)
