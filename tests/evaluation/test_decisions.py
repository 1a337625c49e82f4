import copy
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from kneessl.errors import UserError
from kneessl.evaluation import Proportion
from kneessl.evaluation.decisions import (
    NEVER,
    OperatingPoints,
    StateCounts,
    apply_points,
    lock,
    net_benefit,
)

LABELS = [1, 1, 1, 1, 0, 0, 0, 0, 0]
PROBABILITIES = [0.9, 0.7, 0.5, 0.2, 0.8, 0.4, 0.3, 0.1, 0.0]


def random_case(seed, n=80, shift=1.5):
    rng = np.random.default_rng(seed)
    labels = np.r_[1, 1, 0, 0, rng.integers(0, 2, n - 4)]
    return labels, expit(shift * labels + rng.normal(size=n))


@st.composite
def cases(draw):
    """Labels with two of each, and probabilities on a coarse grid with both ends, so that ties are common."""
    n = draw(st.integers(4, 40))
    labels = draw(st.permutations([1, 1, 0, 0, *draw(st.lists(st.integers(0, 1), min_size=n - 4, max_size=n - 4))]))
    grid = draw(st.lists(st.integers(0, 12), min_size=n, max_size=n))
    return np.array(labels), np.array(grid) / 12


TARGETS = st.sampled_from([0.01, 0.5, 0.8, 0.9, 0.95, 1.0])


def sensitivity_at(threshold, labels, probabilities):
    return np.mean(probabilities[labels == 1] >= threshold)


def specificity_at(threshold, labels, probabilities):
    return np.mean(probabilities[labels == 0] < threshold)


def test_by_hand():
    points = lock(LABELS, PROBABILITIES, sensitivity=1, specificity=1)
    assert (points.rule_out, points.rule_in) == (0.2, math.nextafter(0.8, 1))
    assert (points.sensitivity, points.specificity) == (Proportion.of(4, 4), Proportion.of(5, 5))
    assert (points.n, points.positives, points.target_sensitivity, points.target_specificity) == (9, 4, 1.0, 1.0)
    assert [points.state(p) for p in (0, 0.19, 0.2, 0.8, 0.81, 1)] == ["no", "no", "doubt", "doubt", "yes", "yes"]
    table = apply_points(LABELS, PROBABILITIES, points)
    assert (table.positive, table.negative) == (StateCounts(1, 3, 0), StateCounts(0, 3, 2))
    assert (table.sensitivity, table.specificity) == (points.sensitivity, points.specificity)
    assert (table.doubt, table.ppv, table.npv) == (Proportion.of(6, 9), Proportion.of(1, 1), Proportion.of(2, 2))


def test_crossing_points_become_one():
    # Three of four positives are at 0.5 or above, four of five negatives at 0.4 or below: any cut between will do.
    points = lock(LABELS, PROBABILITIES, sensitivity=0.75, specificity=0.8)
    assert points.rule_out == points.rule_in == pytest.approx(0.45)
    assert (points.sensitivity, points.specificity) == (Proportion.of(3, 4), Proportion.of(4, 5))
    assert apply_points(LABELS, PROBABILITIES, points).doubt.successes == 0
    assert (points.state(0.44), points.state(0.46)) == ("no", "yes")


@settings(max_examples=200, deadline=None)
@given(cases(), TARGETS, TARGETS)
def test_points_are_the_outermost_that_reach_their_targets(case, sensitivity, specificity):
    labels, probabilities = case
    points = lock(labels, probabilities, sensitivity, specificity)
    assert sensitivity_at(points.rule_out, labels, probabilities) == points.sensitivity.value >= sensitivity
    assert specificity_at(points.rule_in, labels, probabilities) == points.specificity.value >= specificity
    if points.rule_out < points.rule_in:  # no threshold that is better by the least amount reaches the target
        assert sensitivity_at(math.nextafter(points.rule_out, 2), labels, probabilities) < sensitivity
        assert specificity_at(math.nextafter(points.rule_in, -1), labels, probabilities) < specificity
    else:
        assert sensitivity_at(points.rule_in, labels, probabilities) >= sensitivity
        assert specificity_at(points.rule_out, labels, probabilities) >= specificity


@settings(max_examples=100, deadline=None)
@given(cases(), TARGETS, st.floats(0, 1), st.floats(0, 1))
def test_a_higher_probability_never_says_less(case, target, a, b):
    points = lock(*case, target, target)
    order = ["no", "doubt", "yes"]
    assert order.index(points.state(min(a, b))) <= order.index(points.state(max(a, b)))


@settings(max_examples=100, deadline=None)
@given(cases(), cases(), TARGETS)
def test_the_table_counts_the_states(case, other, target):
    points = lock(*case, target, target)
    labels, probabilities = other
    table = apply_points(labels, probabilities, points)
    states = np.array([points.state(p) for p in probabilities])
    for counts, of in ((table.positive, labels == 1), (table.negative, labels == 0)):
        assert (counts.yes, counts.doubt, counts.no) == tuple((states[of] == s).sum() for s in ("yes", "doubt", "no"))
    assert table.sensitivity == Proportion.of(int((states[labels == 1] != "no").sum()), int(labels.sum()))
    assert table.specificity == Proportion.of(int((states[labels == 0] != "yes").sum()), int((1 - labels).sum()))
    assert table.doubt == Proportion.of(int((states == "doubt").sum()), len(labels))
    for predictive, said, right in ((table.ppv, "yes", 1), (table.npv, "no", 0)):
        called = states == said
        if called.any():
            assert predictive == Proportion.of(int((labels[called] == right).sum()), int(called.sum()))
        else:
            assert predictive is None


def test_a_target_is_reached_in_spite_of_rounding():
    # 0.07 x 100 is 7.000000000000001 in float64, and yet 7 of 100 are 0.07.
    probabilities = np.r_[np.arange(100) / 100, 1.0, 0.0]
    points = lock(np.repeat([1, 0], [100, 2]), probabilities, sensitivity=0.07)
    assert points.rule_out == 0.93
    assert points.sensitivity == Proportion.of(7, 100)


def test_stricter_targets_widen_the_doubt():
    labels, probabilities = random_case(0)
    loose, strict = lock(labels, probabilities, 0.85, 0.85), lock(labels, probabilities, 0.99, 0.99)
    assert strict.rule_out < loose.rule_out <= loose.rule_in < strict.rule_in


def test_a_negative_sure_to_be_positive_leaves_no_yes():
    points = lock([1, 1, 0, 0], [1.0, 0.5, 1.0, 0.1])
    assert points.rule_in == NEVER > 1
    assert points.state(1.0) == "doubt"
    assert OperatingPoints.from_dict(json.loads(json.dumps(points.to_dict()))) == points
    assert apply_points([1, 1, 0, 0], [1.0] * 4, points).ppv is None


def test_all_alike_are_all_in_doubt():
    points = lock([1, 1, 0, 0], [0.3] * 4)
    assert points.state(0.3) == "doubt"
    assert apply_points([1, 1, 0, 0], [0.3] * 4, points).doubt == Proportion.of(4, 4)


def test_points_do_not_move_with_new_data():
    points = lock(*random_case(0))
    before = copy.deepcopy(points)
    apply_points(*random_case(1), points)
    assert points == before
    with pytest.raises(AttributeError):
        points.rule_in = 0.5


def test_other_exams_reach_a_little_less_as_order_statistics_say():
    rng = np.random.default_rng(0)
    labels = np.repeat([1, 0], [100, 60])
    reached = []
    for _ in range(300):
        points = lock(labels, expit(0.5 * labels + rng.normal(size=160)))
        table = apply_points(labels, expit(0.5 * labels + rng.normal(size=160)), points)
        reached.append((table.sensitivity.value, table.specificity.value))
    sensitivity, specificity = np.mean(reached, axis=0)
    assert sensitivity == pytest.approx(95 / 101, abs=0.008)  # 4 standard errors of 300 draws
    assert specificity == pytest.approx(57 / 61, abs=0.011)


@settings(max_examples=100, deadline=None)
@given(cases(), TARGETS, TARGETS)
def test_json_brings_back_the_same(case, sensitivity, specificity):
    points = lock(*case, sensitivity, specificity)
    assert OperatingPoints.from_dict(json.loads(json.dumps(points.to_dict(), allow_nan=False))) == points


def test_json_from_elsewhere_may_write_whole_numbers():
    points = replace(lock(LABELS, PROBABILITIES, 1, 1), rule_out=0.0, rule_in=1.0)
    record = points.to_dict() | {"rule_out": 0, "rule_in": 1}
    assert OperatingPoints.from_dict(record) == points


RECORD = lock(LABELS, PROBABILITIES, 1, 1).to_dict()


@pytest.mark.parametrize("name", RECORD)
def test_a_missing_field(name):
    record = {key: value for key, value in RECORD.items() if key != name}
    with pytest.raises(UserError, match=f"lack {name}"):
        OperatingPoints.from_dict(record)


@pytest.mark.parametrize("name", RECORD)
@pytest.mark.parametrize("value", [math.nan, math.inf, -1, None, "0.5", [], True, 10**400], ids=range(8))
def test_no_field_takes_nonsense(name, value):
    with pytest.raises(UserError):
        OperatingPoints.from_dict(RECORD | {name: value})


@pytest.mark.parametrize("name", ["sensitivity", "specificity"])
@pytest.mark.parametrize("field", ["value", "low", "high", "successes", "n"])
@pytest.mark.parametrize("value", [math.nan, -1, 2, 0.5, None, "1", True])
def test_no_proportion_takes_nonsense(name, field, value):
    with pytest.raises(UserError, match=name):
        OperatingPoints.from_dict(RECORD | {name: RECORD[name] | {field: value}})


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (None, "must be a JSON object, not NoneType"),
        ([RECORD], "must be a JSON object, not list"),
        (RECORD | {"extra": 1}, "unknown extra"),
        (RECORD | {"rule_out": 0.9, "rule_in": 0.1}, "rule_out is 0.9 and rule_in 0.1"),
        (RECORD | {"rule_in": 1.1}, "between 0 and 1"),
        (RECORD | {"target_sensitivity": 1.1}, "target sensitivity"),
        (RECORD | {"target_specificity": 0}, "target specificity"),
        (RECORD | {"n": 9.0}, "n must be a whole number"),
        (RECORD | {"n": 10**400, "positives": 10**400}, "n must be a whole number"),
        (RECORD | {"n": 10}, "4 positives of 10 exams"),
        (RECORD | {"positives": 5}, "5 positives of 9 exams"),
        (RECORD | {"sensitivity": RECORD["sensitivity"] | {"n": 0, "successes": 0}}, "cannot be 0 of 0"),
        (RECORD | {"sensitivity": RECORD["sensitivity"] | {"more": 1}}, "sensitivity's fields have unknown more"),
        (RECORD | {"sensitivity": RECORD["sensitivity"] | {"low": 0.9}}, "low of 0.9 is not that of 4 of 4"),
    ],
)
def test_a_record_that_was_changed(record, sentence):
    with pytest.raises(UserError, match=sentence):
        OperatingPoints.from_dict(record)


@pytest.mark.parametrize("probability", [math.nan, -0.1, 1.1, math.inf])
def test_no_state_of_what_is_no_probability(probability):
    with pytest.raises(UserError, match="between 0 and 1"):
        lock(LABELS, PROBABILITIES).state(probability)


@pytest.mark.parametrize("target", [0, -1, 1.01, 95, math.nan])
def test_wrong_targets(target):
    with pytest.raises(UserError, match="target sensitivity"):
        lock(LABELS, PROBABILITIES, sensitivity=target)
    with pytest.raises(UserError, match="target specificity"):
        lock(LABELS, PROBABILITIES, specificity=target)


def test_net_benefit_by_hand():
    curve = net_benefit([1, 1, 0, 0], [0.9, 0.3, 0.6, 0.1], [0.0, 0.2, 0.5, 0.95])
    # At 0.2: two true, one false, worth 1/4. At 0.5: one true, one false, worth 1. At 0.95 nobody is called.
    np.testing.assert_allclose(curve.model, [0.5, (2 - 1 / 4) / 4, 0, 0])
    np.testing.assert_allclose(curve.treat_all, [0.5, (2 - 2 / 4) / 4, 0, (2 - 2 * 19) / 4])
    np.testing.assert_array_equal(curve.treat_none, 0)
    error = np.std([1, 1, -1 / 4, 0], ddof=1) / 2
    assert curve.standard_error[1] == pytest.approx(error)
    assert curve.low[1] == pytest.approx(curve.model[1] - 1.959963984540054 * error)
    assert curve.high[1] == pytest.approx(curve.model[1] + 1.959963984540054 * error)
    assert (curve.low[3], curve.high[3], curve.standard_error[3]) == (0, 0, 0)


@settings(max_examples=100, deadline=None)
@given(cases(), st.lists(st.floats(0, 0.99), max_size=5))
def test_net_benefit_equals_vickers_and_elkin(case, thresholds):
    labels, probabilities = case
    curve = net_benefit(labels, probabilities, thresholds)
    n = len(labels)
    for k, t in enumerate(thresholds):
        called = probabilities >= t
        tp, fp = (called & (labels == 1)).sum(), (called & (labels == 0)).sum()
        assert curve.model[k] == pytest.approx(tp / n - fp / n * t / (1 - t), abs=1e-12)
        prevalence = labels.mean()
        assert curve.treat_all[k] == pytest.approx(prevalence - (1 - prevalence) * t / (1 - t), abs=1e-12)
        assert curve.model[k] <= prevalence + 1e-12


def test_calling_everybody_is_treating_all():
    labels, _ = random_case(0)
    curve = net_benefit(labels, np.ones(len(labels)), [0.1, 0.5, 0.9])
    np.testing.assert_allclose(curve.model, curve.treat_all)
    np.testing.assert_array_equal(net_benefit(labels, np.zeros(len(labels)), [0.1, 0.5]).model, 0)


def test_the_band_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    thresholds = [0.1, 0.3, 0.5]
    large = rng.normal(size=1_000_000)
    truth = [np.mean((p := expit(large))[p >= t] - (1 - p[p >= t]) * t / (1 - t)) * np.mean(p >= t) for t in thresholds]
    covered = []
    for _ in range(1500):
        probabilities = expit(rng.normal(size=120))
        curve = net_benefit(rng.random(120) < probabilities, probabilities, thresholds)
        covered.append((curve.low <= truth) & (truth <= curve.high))
    assert np.all(np.abs(np.mean(covered, axis=0) - 0.95) < 0.0225)  # 4 standard errors of 1,500 draws


@pytest.mark.parametrize("thresholds", [[0.5, 1.0], [-0.1], [math.nan], 0.5, [[0.5]], ["a"]])
def test_wrong_thresholds(thresholds):
    with pytest.raises(UserError, match="thresholds"):
        net_benefit(LABELS, PROBABILITIES, thresholds)


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
    points = lock(LABELS, PROBABILITIES)
    for function, more in ((lock, ()), (apply_points, (points,)), (net_benefit, ([0.5],))):
        with pytest.raises(UserError, match=sentence):
            function(labels, scores, *more)
