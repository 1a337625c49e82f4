from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from kneessl.errors import UserError
from kneessl.evaluation import ComparedArm, Proportion, auc_interval, compare_arms, compare_auc, holm, ranked
from kneessl.evaluation.comparison import mean_accuracy

N = 50
LABELS = np.repeat([1, 0], (20, 30))


def an_arm(name, seed=0, quality=1.0, **changes):
    rng = np.random.default_rng(seed)
    logits = quality * (LABELS - 0.5) + rng.normal(size=(3, N))
    arm = ComparedArm(
        name=name,
        kind="self-supervised",
        exams=[f"{i:04d}" for i in range(N)],
        labels=LABELS,
        fine_tuned=1 / (1 + np.exp(-logits)),
        frozen=logits[:2] + rng.normal(size=(2, N)),
        parameters=11_000_000,
        seconds=[10.0, 12.0, 11.0],
        memory_bytes=[2**30] * 3,
        collapsed=0,
        failures=[],
        published=None,
    )
    return replace(arm, **changes)


def failed(name):
    return an_arm(name, fine_tuned=None, frozen=None, seconds=[], failures=["out of memory"] * 3)


ARMS = [
    an_arm("byol", seed=1, quality=0.2),
    an_arm("byolmed2d", seed=2, quality=1.5),
    an_arm("mrnet", seed=3, quality=1.4, frozen=None, kind="supervised"),
    an_arm("random", seed=4, quality=0.0, fine_tuned=None, kind="no training"),
    an_arm("simclr", seed=5, quality=1.0),
]


def test_holm_by_hand():
    # Sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1, the last no less than the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.3]) == [0.3]
    assert holm([]) == []


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.01, 0.05, 1.0]), min_size=1, max_size=6))
def test_holm_is_the_closed_bonferroni_test(p):
    # An independent definition: a hypothesis falls when Bonferroni rejects every set of hypotheses that holds it.
    sets = [chosen for size in range(1, len(p) + 1) for chosen in combinations(range(len(p)), size)]
    closed = [min(1, max(len(s) * min(p[j] for j in s) for s in sets if i in s)) for i in range(len(p))]
    assert holm(p) == pytest.approx(closed)


@pytest.mark.parametrize("p", [[0.1, float("nan")], [-0.1], [1.1, 0.2]])
def test_holm_takes_probabilities_only(p):
    with pytest.raises(ValueError, match="p values lie between 0 and 1"):
        holm(p)


def test_accuracy_of_one_seed_is_wilsons():
    probabilities = np.linspace(0, 1, N)[None]
    accuracy = mean_accuracy(LABELS, probabilities)
    right = int(((probabilities >= 0.5) == LABELS).sum())
    wilson = Proportion.of(right, N)
    assert (accuracy.value, accuracy.low, accuracy.high) == pytest.approx((wilson.value, wilson.low, wilson.high))
    assert accuracy.by_seed == (wilson.value,)


def test_the_same_answers_over_and_over_tell_nothing_more():
    probabilities = np.linspace(0, 1, N)[None]
    once, often = mean_accuracy(LABELS, probabilities), mean_accuracy(LABELS, np.tile(probabilities, (5, 1)))
    assert (often.value, often.low, often.high) == pytest.approx((once.value, once.low, once.high))


def test_accuracy_of_seeds_that_disagree_by_hand():
    # Each exam is right in one of two seeds: the mean never varies, so 2 x 50 answers count as 100 exams at most.
    first = np.where(np.arange(N) % 2, LABELS, 1 - LABELS)
    accuracy = mean_accuracy(LABELS, np.array([first, 1 - first], dtype=float))
    hundred = Proportion.of(50, 100)
    assert (accuracy.value, accuracy.low, accuracy.high) == pytest.approx((0.5, hundred.low, hundred.high))
    assert accuracy.by_seed == (0.5, 0.5)


@pytest.mark.parametrize("right", [0, 1])
def test_seeds_that_are_never_wrong_count_as_n_exams(right):
    answers = np.tile(LABELS if right else 1 - LABELS, (3, 1)).astype(float)
    expected = Proportion.of(N * right, N)
    accuracy = mean_accuracy(LABELS, answers)
    assert (accuracy.value, accuracy.low, accuracy.high) == pytest.approx((right, expected.low, expected.high))


def test_a_probability_at_the_threshold_is_positive():
    assert mean_accuracy([1, 0], np.full((1, 2), 0.5)).value == 0.5
    assert mean_accuracy([1, 1], np.full((1, 2), 0.5)).value == 1.0


@pytest.mark.parametrize("shared", [0.0, 0.5, 1.0])
def test_accuracy_interval_covers_the_truth_as_often_as_it_says(shared):
    rng = np.random.default_rng(6)
    labels, covered, draws = np.ones(100, int), 0, 1000
    for _ in range(draws):
        noise = np.sqrt(shared) * rng.normal(size=100) + np.sqrt(1 - shared) * rng.normal(size=(3, 100))
        accuracy = mean_accuracy(labels, (noise < norm.ppf(0.8)).astype(float))
        covered += accuracy.low <= 0.8 <= accuracy.high
    assert 0.92 < covered / draws < 0.98


def test_rows_say_what_the_statistics_say():
    rows = compare_arms(ARMS)
    assert [row.name for row in rows] == [arm.name for arm in ARMS]
    reference = ARMS[1]
    for what in ("fine_tuned", "frozen"):
        others = [arm for arm in ARMS if getattr(arm, what) is not None and arm is not reference]
        differences = [compare_auc(LABELS, getattr(arm, what), getattr(reference, what)) for arm in others]
        adjusted = dict(zip((arm.name for arm in others), holm([d.p for d in differences]), strict=True))
        expected = dict(zip((arm.name for arm in others), differences, strict=True))
        for arm, row in zip(ARMS, rows, strict=True):
            scores, mean = getattr(arm, what), getattr(row, what)
            if scores is None:
                assert mean is None
                continue
            assert mean.interval == auc_interval(LABELS, scores, scale="logit")
            assert mean.by_seed == tuple(auc_interval(LABELS, seed).auc for seed in scores)
            assert mean.difference == expected.get(arm.name)
            assert mean.p_holm == adjusted.get(arm.name)
        assert len(expected) == 3  # each readout adjusts for its own three comparisons
    assert [row.is_reference for row in rows] == [False, True, False, False, False]
    assert {(row.exams, row.positives) for row in rows} == {(N, 20)}
    assert rows[0].accuracy == mean_accuracy(LABELS, ARMS[0].fine_tuned)
    assert rows[3].accuracy is None


def test_arms_are_paired_by_exam_not_by_place():
    order = np.random.default_rng(7).permutation(N)
    arm = ARMS[4]
    shuffled = replace(
        arm,
        exams=[arm.exams[i] for i in order],
        labels=LABELS[order],
        fine_tuned=arm.fine_tuned[:, order],
        frozen=arm.frozen[:, order],
    )
    assert compare_arms([*ARMS[:4], shuffled]) == compare_arms(ARMS)


def test_a_failed_arm_leaves_the_rest_alone():
    rows = compare_arms([failed("jigsaw"), *ARMS])
    assert rows[1:] == compare_arms(ARMS)
    row = rows[0]
    assert (row.scored, row.sound, row.seeds, row.exams) == (False, False, 3, 0)
    assert row.fine_tuned is row.frozen is row.accuracy is None
    assert row.failures == ("out of memory",) * 3


def test_without_scores_of_the_reference_nothing_is_compared():
    rows = compare_arms([failed("byolmed2d"), ARMS[0], ARMS[2]])
    assert rows[1].fine_tuned.interval == auc_interval(LABELS, ARMS[0].fine_tuned, scale="logit")
    assert rows[1].fine_tuned.difference is rows[1].fine_tuned.p_holm is None
    half = compare_arms([replace(ARMS[1], frozen=None), ARMS[0]])
    assert half[1].fine_tuned.difference is not None
    assert half[1].frozen.difference is None


def test_all_may_fail():
    assert [row.scored for row in compare_arms([failed("byolmed2d"), failed("byol")])] == [False, False]


def test_one_arm_stands_alone():
    (row,) = compare_arms([ARMS[1]])
    assert row.fine_tuned.difference is row.fine_tuned.p_holm is None
    assert row.sound


def test_seeds_count_those_that_failed():
    (row,) = compare_arms([an_arm("byolmed2d", failures=["NaN"], collapsed=2)])
    assert (row.seeds, row.collapsed, row.scored, row.sound) == (4, 2, True, False)


def test_ranked():
    collapsed = an_arm("collapsed", seed=8, quality=9.0, collapsed=1)
    rows = compare_arms([failed("failed"), collapsed, *ARMS])
    names = [row.name for row in ranked(rows)]
    assert names[-2:] == ["collapsed", "failed"]  # whatever the AUC
    assert names[4] == "random"  # frozen features only
    aucs = [row.fine_tuned.interval.auc for row in ranked(rows)[:4]]
    assert aucs == sorted(aucs, reverse=True)
    assert names[0] in {"byolmed2d", "mrnet"}


def test_arms_that_cannot_be_compared():
    with pytest.raises(ValueError, match="byolmed2d, with which to compare, is not among the arms byol, simclr"):
        compare_arms([ARMS[0], ARMS[4]])
    with pytest.raises(ValueError, match="arms must differ in name"):
        compare_arms([ARMS[1], ARMS[1]])
    with pytest.raises(UserError, match="simclr and byolmed2d were evaluated on different exams"):
        compare_arms([ARMS[1], replace(ARMS[4], exams=[*ARMS[4].exams[:-1], "9999"])])
    with pytest.raises(UserError, match="different labels"):
        compare_arms([ARMS[1], replace(ARMS[4], labels=1 - LABELS)])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"fine_tuned": np.full((3, N - 1), 0.5)}, "differ in length"),
        ({"fine_tuned": np.full(N, 0.5)}, "differ in length"),
        ({"exams": ["0001"]}, "differ in length"),
        ({"fine_tuned": np.empty((0, N))}, "no seeds"),
        ({"frozen": np.full((1, N), np.nan)}, "frozen has no seeds, or NaN"),
        ({"fine_tuned": np.full((1, N), 1.5)}, "probabilities"),
        ({"fine_tuned": None, "frozen": None}, "neither scores nor a reason"),
        ({"collapsed": 4}, "4 of 3 seeds collapsed"),
    ],
)
def test_an_arm_is_whole(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        an_arm("byol", **changes)
