import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.isotonic import isotonic_regression
from sklearn.metrics import roc_auc_score

from kneessl.evaluation import auc_interval, compare_auc, holm
from kneessl.evaluation.labels_needed import isotonic, label_curve, labels_for, weighted_aucs

COUNTS = [8, 40, 200]
N = 60
LABELS = np.arange(N) % 3 == 0
AUCS = st.lists(st.floats(0, 1), min_size=1, max_size=7)


def arms(seeds=3, **quality):
    """Arms by name, whose scores separate better with more labels; each on the same difficulties of the exams."""
    rng = np.random.default_rng(5)
    exams = rng.normal(size=N)
    return {
        name: [
            {seed: gain * k * LABELS + exams + 0.5 * rng.normal(size=N) for seed in range(seeds)} for k in range(1, 4)
        ]
        for name, gain in quality.items()
    }


def by_point(points):
    return {(point.arm, point.labels): point for point in points}


@given(AUCS)
def test_isotonic_pools_adjacent_violators(values):
    np.testing.assert_allclose(isotonic(np.array(values)), isotonic_regression(values), atol=1e-12)


@given(AUCS, st.integers(0, 2**32 - 1))
def test_isotonic_takes_columns_alone_and_never_falls(values, seed):
    table = np.random.default_rng(seed).permuted(np.tile(values, (4, 1)).T, axis=0)
    smoothed = isotonic(table)
    assert (np.diff(smoothed, axis=0) >= 0).all()
    for column, alone in zip(table.T, smoothed.T, strict=True):
        np.testing.assert_array_equal(isotonic(column), alone)


def test_labels_for_on_a_line_in_log_labels():
    counts = np.array([10, 100, 1000])
    curve = np.array([0.6, 0.7, 0.9])
    assert labels_for(0.65, counts, curve) == pytest.approx(10**1.5)
    assert labels_for(0.8, counts, curve) == pytest.approx(10**2.5)
    assert list(labels_for([0.6, 0.7, 0.9], counts, curve)) == [10, 100, 1000]
    assert list(labels_for([0.59, 0.91], counts, curve)) == [0, math.inf]
    rounded = [0.6 - 1e-15, 0.7 + 1e-15, 0.9 + 1e-15]
    assert list(labels_for(rounded, counts, curve)) == [10, 100, 1000], "rounding is no difference"


def test_labels_for_takes_the_fewest_on_level_ground():
    counts = np.array([10, 100, 1000, 10000])
    level = np.array([0.6, 0.7, 0.7, 0.8])
    assert labels_for(0.7, counts, level) == 100
    assert labels_for(0.6, counts, np.full(4, 0.6)) == 10
    assert labels_for(0.75, counts, level) == pytest.approx(10**3.5)


@given(st.lists(st.floats(0.3, 1), min_size=2, max_size=6), st.floats(0.2, 1))
def test_labels_for_inverts_the_curve(values, target):
    curve = isotonic(np.array(values))
    assume(np.abs(curve - target).min() > 1e-8)
    counts = 8 * 3 ** np.arange(len(curve))
    found = float(labels_for(target, counts, curve))
    if target < curve[0]:
        assert found == 0
    elif target > curve[-1]:
        assert math.isinf(found)
    else:
        assert np.interp(np.log(found), np.log(counts), curve) == pytest.approx(target, abs=1e-9)
        assert counts[0] <= found <= counts[-1]


def test_weighted_aucs_are_those_of_the_resamples():
    rng = np.random.default_rng(0)
    above, below = rng.integers(0, 6, 7).astype(float), rng.integers(0, 6, 11).astype(float)  # with ties
    up, down = rng.multinomial(7, np.full(7, 1 / 7), 40), rng.multinomial(11, np.full(11, 1 / 11), 40)
    found = weighted_aucs(above, below, up.astype(np.float32), down.astype(np.float32))
    for got, p, q in zip(found, up, down, strict=True):
        scores = np.concatenate((above.repeat(p), below.repeat(q)))
        assert got == pytest.approx(roc_auc_score(np.repeat([1, 0], (7, 11)), scores), abs=1e-12)


def test_a_point_holds_delong_figures_and_holm_over_the_whole_table():
    scored = arms(random=0.4, byol=0.9, simclr=0.5)
    points = by_point(label_curve(LABELS, COUNTS, scored, "random"))
    assert list(points) == [(arm, count) for arm in scored for count in COUNTS]
    ps = {}
    for (arm, count), point in points.items():
        rows = np.stack(list(scored[arm][COUNTS.index(count)].values()))
        assert point.auc.interval == auc_interval(LABELS, rows, scale="logit")
        assert point.auc.by_seed == pytest.approx([roc_auc_score(LABELS, row) for row in rows])
        if arm == "random":
            assert (point.auc.difference, point.auc.p_holm, point.needed) == (None, None, None)
        else:
            other = np.stack(list(scored["random"][COUNTS.index(count)].values()))
            assert point.auc.difference == compare_auc(LABELS, rows, other)
            ps[arm, count] = point.auc.difference.p
    assert len(ps) == 6
    assert [points[key].auc.p_holm for key in ps] == holm(list(ps.values()))


def test_labels_needed_against_a_bootstrap_of_its_own():
    """The same resampling by repeating exams, with sklearn's AUC and isotonic regression, and a loop."""
    scored = arms(random=0.35, byol=0.6)
    replicates = 60
    points = by_point(label_curve(LABELS, COUNTS, scored, "random", replicates))
    rng = np.random.default_rng(0)
    up, down = np.flatnonzero(LABELS), np.flatnonzero(~LABELS)
    draws = [rng.multinomial(len(own), np.full(len(own), 1 / len(own)), size=replicates) for own in (up, down)]
    seeds = rng.multinomial(3, np.full(3, 1 / 3), size=replicates)
    needed = {count: [] for count in COUNTS}
    for k in range(replicates):
        exams = np.concatenate((up.repeat(draws[0][k]), down.repeat(draws[1][k])))
        drawn = np.arange(3).repeat(seeds[k])
        mean = {
            arm: [np.mean([roc_auc_score(LABELS[exams], cell[s][exams]) for s in drawn]) for cell in cells]
            for arm, cells in scored.items()
        }
        curve = isotonic_regression(mean["random"])
        for count, target in zip(COUNTS, mean["byol"], strict=True):
            needed[count].append(by_hand(target, curve))
    for count in COUNTS:
        found, ordered = points["byol", count].needed, sorted(needed[count])
        assert found.low == pytest.approx(ordered[math.floor(0.025 * (replicates - 1))])
        assert found.high == pytest.approx(ordered[math.ceil(0.975 * (replicates - 1))])
        own = [auc_interval(LABELS, np.stack(list(cell.values()))).auc for cell in scored["random"]]
        assert found.labels == pytest.approx(by_hand(points["byol", count].auc.interval.auc, isotonic_regression(own)))
        assert found.ratio == found.labels / count
        assert (found.used, found.least, found.most) == (count, 8, 200)


def by_hand(target, curve):
    if target < curve[0] - 1e-12:
        return 0.0
    for (low, high), (few, many) in zip(pairwise(curve), pairwise(COUNTS), strict=True):
        if target <= high + 1e-12:
            share = 0.0 if high == low else max(target - low, 0) / (high - low)
            return few * (many / few) ** share
    return math.inf


def test_an_arm_alike_needs_as_many_and_one_far_better_more_than_there_are():
    scored = arms(random=0.4)
    scored |= {"twin": scored["random"], "perfect": [{0: LABELS + 0.0}] * 3, "chance": [{0: 1.0 - LABELS}] * 3}
    points = by_point(label_curve(LABELS, COUNTS, scored, "random"))
    curve = [points["random", count].auc.interval.auc for count in COUNTS]
    assert curve == sorted(set(curve)), "the example rises"
    for count in COUNTS:
        assert points["twin", count].needed.labels == pytest.approx(count)
        assert points["twin", count].auc.difference.difference == 0
        perfect, chance = points["perfect", count].needed, points["chance", count].needed
        assert perfect.labels == perfect.low == perfect.high == perfect.ratio == math.inf
        assert chance.labels == chance.low == chance.high == chance.ratio == 0


def test_seeds_are_paired_and_those_that_failed_are_left_out():
    scored = arms(random=0.4, byol=0.6)
    del scored["random"][1][2]
    scored["byol"][0] = {}
    points = by_point(label_curve(LABELS, COUNTS, scored, "random"))
    assert points["byol", 8].auc is points["byol", 8].needed is None
    assert points["byol", 40].needed is not None
    assert len(points["random", 40].auc.by_seed) == 2
    scored["random"][0] = {}
    needed = by_point(label_curve(LABELS, COUNTS, scored, "random"))["byol", 40].needed
    assert (needed.least, needed.most) == (40, 200)
    scored["random"] = [{}, {}, {}]
    points = by_point(label_curve(LABELS, COUNTS, scored, "random"))
    assert points["byol", 40].needed is points["byol", 40].auc.difference is None


def test_the_interval_covers_seeds_too():
    """Seeds that disagree widen it, though their mean is about the same; exams alone would not."""
    exams = np.random.default_rng(5).normal(size=N)

    def training(gain):
        return gain * LABELS + exams

    rising = [dict.fromkeys(range(3), training(gain)) for gain in (0.0, 1.5, 4.0)]
    calm, wild = (
        by_point(label_curve(LABELS, COUNTS, {"random": rising, "byol": [{}, cell, {}]}, "random"))["byol", 40].needed
        for cell in (dict.fromkeys(range(3), training(1.0)), {k: training(g) for k, g in enumerate((0.4, 1.0, 1.8))})
    )
    assert wild.labels == pytest.approx(calm.labels, rel=0.15)
    assert 8 < wild.low < 0.85 * calm.low
    assert 1.15 * calm.high < wild.high < 200


def test_same_input_same_figures_whatever_the_scale_of_scores():
    scored = arms(random=0.4, byol=0.6)
    points = label_curve(LABELS, COUNTS, scored, "random")
    assert label_curve(LABELS, COUNTS, scored, "random") == points
    warped = {arm: [{s: np.exp(v) for s, v in cell.items()} for cell in cells] for arm, cells in scored.items()}
    assert label_curve(LABELS, COUNTS, warped, "random") == points


def test_wrong_arguments():
    scored = arms(random=0.4)
    with pytest.raises(ValueError, match="nothing, with which to compare, is not among the arms random"):
        label_curve(LABELS, COUNTS, scored, "nothing")
    with pytest.raises(ValueError, match="must rise"):
        label_curve(LABELS, [40, 8, 200], scored, "random")
    with pytest.raises(ValueError, match="needs scores for each"):
        label_curve(LABELS, [8, 40], scored, "random")
