import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from kneessl.errors import UserError
from kneessl.evaluation.rare_positives import ARMS, prevalence_rows

PREVALENCES = [0.5, 0.2, 0.01]
N = 60
LABELS = np.arange(N) % 3 == 0


def scored(seeds=3, ours=(2.0, 1.9, 1.6), theirs=(2.1, 1.2, 0.2)):
    """Scores of both arms, worse with the prevalence, on the same difficulties of the exams."""
    rng = np.random.default_rng(5)
    exams = rng.normal(size=N)
    return {
        arm: [{seed: gain * LABELS + exams + 0.5 * rng.normal(size=N) for seed in range(seeds)} for gain in gains]
        for arm, gains in zip(ARMS, (ours, theirs), strict=True)
    }


def mean_auc(cell, exams=slice(None), seeds=None):
    drawn = list(cell) if seeds is None else [seed for seed in seeds if seed in cell]
    return np.mean([roc_auc_score(LABELS[exams], cell[seed][exams]) for seed in drawn])


def test_losses_are_shares_of_the_auc_at_half():
    arms = scored()
    rows = prevalence_rows(LABELS, PREVALENCES, arms)
    assert [row.prevalence for row in rows] == PREVALENCES
    for k, row in enumerate(rows):
        losses = []
        for arm in ARMS:
            at, balanced, here = row.arms[arm], mean_auc(arms[arm][0]), mean_auc(arms[arm][k])
            assert at.auc.value == pytest.approx(here)
            assert at.by_seed == pytest.approx([roc_auc_score(LABELS, s) for s in arms[arm][k].values()])
            assert at.auc.low < at.auc.value < at.auc.high
            losses.append((balanced - here) / balanced)
            assert (at.loss is None) == (k == 0)
            if at.loss:
                assert at.loss.value == pytest.approx(losses[-1])
        assert (row.less is None) == (k == 0)
        if row.less:
            assert row.less.value == pytest.approx(losses[1] - losses[0]), "above 0: self-supervised loses less"
    assert rows[2].less.low > 0


def test_the_place_of_the_balanced_one_does_not_matter():
    arms = scored()
    turned = {arm: cells[::-1] for arm, cells in arms.items()}
    rows = prevalence_rows(LABELS, PREVALENCES, arms)
    assert prevalence_rows(LABELS, PREVALENCES[::-1], turned) == rows[::-1]


def test_intervals_against_a_bootstrap_of_its_own():
    """The same resampling by repeating exams and seeds, with sklearn's AUC and a loop."""
    arms, replicates = scored(), 60
    rows = prevalence_rows(LABELS, PREVALENCES, arms, replicates)
    rng = np.random.default_rng(0)
    up, down = np.flatnonzero(LABELS), np.flatnonzero(~LABELS)
    draws = [rng.multinomial(len(own), np.full(len(own), 1 / len(own)), size=replicates) for own in (up, down)]
    times = rng.multinomial(3, np.full(3, 1 / 3), size=replicates)
    aucs = np.empty((replicates, 2, len(PREVALENCES)))
    for r in range(replicates):
        exams = np.concatenate((up.repeat(draws[0][r]), down.repeat(draws[1][r])))
        seeds = np.arange(3).repeat(times[r])
        aucs[r] = [[mean_auc(cell, exams, seeds) for cell in arms[arm]] for arm in ARMS]
    losses = (aucs[:, :, :1] - aucs) / aucs[:, :, :1]
    for k in (1, 2):
        for a, arm in enumerate(ARMS):
            for found, values in ((rows[k].arms[arm].auc, aucs), (rows[k].arms[arm].loss, losses)):
                assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values[:, a, k], [0.025, 0.975])))
                assert (found.level, found.replicates) == (0.95, replicates)
        less = np.quantile(losses[:, 1, k] - losses[:, 0, k], [0.025, 0.975])
        assert (rows[k].less.low, rows[k].less.high) == pytest.approx(tuple(less))


def test_what_both_arms_share_does_not_widen_the_difference():
    """Paired: two arms with the same scores differ by nothing, in every resample."""
    cells = scored()["supervised"]
    for row in prevalence_rows(LABELS, PREVALENCES, dict.fromkeys(ARMS, cells))[1:]:
        assert (row.less.value, row.less.low, row.less.high) == (0, 0, 0)
        assert row.arms["supervised"].loss.low < row.arms["supervised"].loss.high


def test_failed_trainings_leave_gaps():
    arms = scored()
    arms["supervised"][2] = {}
    del arms["supervised"][1][0], arms["self-supervised"][0][2]
    rows = prevalence_rows(LABELS, PREVALENCES, arms)
    assert list(rows[2].arms) == ["self-supervised"]
    assert rows[2].less is None
    assert rows[2].arms["self-supervised"].loss is not None
    assert len(rows[1].arms["supervised"].by_seed) == 2
    balanced, here = mean_auc(arms["supervised"][0]), mean_auc(arms["supervised"][1])
    assert rows[1].arms["supervised"].loss.value == pytest.approx(1 - here / balanced)
    assert rows[1].less.replicates < 2000, "resamples without any seed are left out"
    arms["supervised"][0] = {}
    rows = prevalence_rows(LABELS, PREVALENCES, arms)
    assert rows[1].arms["supervised"].loss is rows[1].less is None
    assert rows[1].arms["self-supervised"].loss is not None
    nothing = prevalence_rows(LABELS, PREVALENCES, {arm: [{}, {}, {}] for arm in ARMS})
    assert [(row.arms, row.less) for row in nothing] == [({}, None)] * 3


def test_an_auc_of_0_has_nothing_to_lose():
    wrong = {0: 1.0 - LABELS}
    rows = prevalence_rows(LABELS, PREVALENCES, {arm: [wrong, {0: LABELS + 0.0}, wrong] for arm in ARMS})
    assert rows[1].arms["supervised"].loss is rows[1].less is None
    assert (rows[1].arms["supervised"].auc.value, rows[0].arms["supervised"].auc.value) == (1, 0)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="for each of the prevalences"):
        prevalence_rows(LABELS, PREVALENCES[:2], scored())
    with pytest.raises(UserError, match="at least 2 positive"):
        prevalence_rows(np.arange(N) == 0, PREVALENCES, scored())
