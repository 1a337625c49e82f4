import math

import numpy as np
import pytest
from scipy.stats import norm

from kneessl.errors import UserError
from kneessl.evaluation import Proportion, auc_interval, compare_auc
from kneessl.evaluation.subgroups import interactions, subgroups

LABELS = np.array([1, 0, 1, 0, 1, 0, 1, 0, 0])
SCORES = np.array([0.9, 0.5, 0.6, 0.1, 0.4, 0.3, 0.8, 0.2, 0.7])
SEX = ["f", "f", "f", "f", "m", "m", "m", "m", "m"]
SCANNER = ["b", "b", "b", "b", "b", "b", "a", "c", "c"]


def test_by_hand():
    found = subgroups(LABELS, SCORES, {"sex": SEX, "scanner": SCANNER}, threshold=0.5)
    assert [(one.variable, one.value, one.n, one.positives) for one in found] == [
        ("sex", "f", 4, 2),
        ("sex", "m", 5, 2),
        ("scanner", "a", 1, 1),
        ("scanner", "b", 6, 3),
        ("scanner", "c", 2, 0),
    ]
    women, men, a, b, c = found
    assert women.auc == auc_interval([1, 0, 1, 0], [0.9, 0.5, 0.6, 0.1], scale="logit")
    assert (women.sensitivity, women.specificity) == (Proportion.of(2, 2), Proportion.of(1, 2))  # 0.5 is called
    assert men.auc == auc_interval(LABELS[4:], SCORES[4:], scale="logit")
    assert (men.sensitivity, men.specificity) == (Proportion.of(1, 2), Proportion.of(2, 3))
    assert b.auc == auc_interval(LABELS[:6], SCORES[:6], scale="logit")
    assert {one.no_auc for one in (women, men, b)} == {None}
    assert (a.auc, a.sensitivity, a.specificity) == (None, Proportion.of(1, 1), None)
    assert a.no_auc == "an AUC needs 2 of each, but 1 are positive and 0 negative"
    assert (c.auc, c.sensitivity, c.specificity) == (None, None, Proportion.of(1, 2))
    assert c.no_auc == "an AUC needs 2 of each, but 0 are positive and 2 negative"


def test_the_order_of_exams_does_not_count():
    found = subgroups(LABELS, SCORES, {"sex": SEX, "scanner": SCANNER}, 0.5)
    order = np.random.default_rng(0).permutation(len(LABELS))
    membership = {"sex": np.array(SEX)[order], "scanner": np.array(SCANNER)[order]}
    assert subgroups(LABELS[order], SCORES[order], membership, 0.5) == found


def test_no_variables_no_subgroups():
    assert subgroups(LABELS, SCORES, {}, 0.5) == []


def test_ct_ratings_of_hanley_and_mcneil():
    # J. A. Hanley, B. J. McNeil, Radiology 143 (1982) 29, table I: ratings 1 to 5 of CT images of 109 patients; area
    # 0.893. DeLong's error as in Stata's manual, [R] roctab, on the same data: 0.0307.
    normal, abnormal = [33, 6, 6, 11, 2], [3, 2, 2, 11, 33]
    ratings = np.repeat([1, 2, 3, 4, 5] * 2, normal + abnormal)
    labels = np.repeat([0, 1], [58, 51])
    (everyone,) = subgroups(labels, ratings, {"image": ["CT"] * 109}, threshold=4)
    assert everyone.auc.auc == pytest.approx(0.8932, abs=5e-5)
    assert everyone.auc.standard_error == pytest.approx(0.0307, abs=5e-5)
    assert (everyone.sensitivity.successes, everyone.specificity.successes) == (44, 45)


def test_ovarian_cancer_data_of_delong():
    # The data of DeLong 1988 as in SAS/STAT's example "Comparing Receiver Operating Characteristic Curves" (43 patients
    # with all three tests: albumin, total protein, K-G score), with the areas, errors and contrasts that it prints.
    data = """
    3.0 5.8 10 0   3.2 6.3 5 1   3.9 6.8 3 1   2.8 4.8 6 0   3.2 5.8 3 1   0.9 4.0 5 0   2.5 5.7 8 0
    1.6 5.6 5 1   3.8 5.7 5 1   3.7 6.7 6 1   3.2 5.4 4 1   3.8 6.6 6 1   4.1 6.6 5 1   3.6 5.7 5 1
    4.3 7.0 4 1   3.6 6.7 4 0   2.3 4.4 6 1   4.2 7.6 4 0   4.0 6.6 6 0   3.5 5.8 6 1   3.8 6.8 7 1
    3.0 4.7 8 0   4.5 7.4 5 1   3.7 7.4 5 1   3.1 6.6 6 1   4.1 8.2 6 1   4.3 7.0 5 1   4.3 6.5 4 1
    3.2 5.1 5 1   2.6 4.7 6 1   3.3 6.8 6 0   1.7 4.0 7 0   3.7 6.1 5 1   3.3 6.3 7 1   4.2 7.7 6 1
    3.5 6.2 5 1   2.9 5.7 9 0   2.1 4.8 7 1   2.8 6.2 8 0   4.0 7.0 7 1   3.3 5.7 6 1   3.7 6.9 5 1
    3.6 6.6 5 1
    """
    albumin, protein, score, labels = np.array(data.split(), dtype=float).reshape(-1, 4).T
    areas = [auc_interval(labels, test) for test in (albumin, protein, 10 - score)]
    assert [area.auc for area in areas] == pytest.approx([0.7366, 0.6478, 0.7258], abs=5e-5)
    assert [area.standard_error for area in areas] == pytest.approx([0.0927, 0.1000, 0.1028], abs=5.1e-5)
    for test, expected in (
        (albumin, (0.0108, 0.0953, -0.1761, 0.1976, 0.9102)),
        (protein, (-0.0780, 0.1046, -0.2830, 0.1271, 0.4561)),
    ):
        found = compare_auc(labels, test, 10 - score)
        got = (found.difference, found.standard_error, found.low, found.high, found.p)
        assert got == pytest.approx(expected, abs=6e-5)


@pytest.mark.parametrize(
    ("membership", "sentence"),
    [
        ({"sex": SEX[:-1]}, r"variable sex must have one value for each of 9 exams, not be of shape \(8,\)"),
        ({"sex": [SEX]}, r"not be of shape \(1, 9\)"),
        ({"age": list(range(9))}, "variable age must have texts as values, not int64"),
        ({"sex": [None, *SEX[1:]]}, "variable sex must have texts"),
    ],
)
def test_wrong_membership(membership, sentence):
    with pytest.raises(UserError, match=sentence):
        subgroups(LABELS, SCORES, membership, 0.5)


def test_wrong_arguments():
    with pytest.raises(UserError, match="1 of 9 scores are NaN"):
        subgroups(LABELS, [math.nan, *SCORES[1:]], {"sex": SEX}, 0.5)
    with pytest.raises(UserError, match="3 positive and 0 negative"):
        subgroups([1, 1, 1], [1, 2, 3], {}, 0.5)
    with pytest.raises(UserError, match="not NaN"):
        subgroups(LABELS, SCORES, {"sex": SEX}, math.nan)


def in_groups(rng, aucs, of_each=60):
    """Labels, scores and a group for each exam, with such an AUC in each group."""
    labels = np.tile(np.repeat([1, 0], of_each), len(aucs))
    group = np.repeat([f"scanner {k}" for k in range(len(aucs))], 2 * of_each)
    shift = np.sqrt(2) * norm.ppf(np.repeat(aucs, 2 * of_each))
    return labels, rng.normal(size=len(labels)) + shift * labels, group


def examined(labels, scores, **membership):
    return interactions(subgroups(labels, scores, membership, 0.5))


def test_the_interaction_is_cochrans_q_of_the_logits():
    labels, scores, group = in_groups(np.random.default_rng(0), [0.9, 0.8, 0.7])
    (test,) = examined(labels, scores, scanner=group)
    logits, weights = [], []
    for name in np.unique(group):
        one = auc_interval(labels[group == name], scores[group == name])
        logits.append(np.log(one.auc / (1 - one.auc)))
        weights.append((one.auc * (1 - one.auc) / one.standard_error) ** 2)
    # The same Q, as a sum over pairs of groups.
    pairs = [(i, j) for i in range(3) for j in range(i)]
    q = sum(weights[i] * weights[j] * (logits[i] - logits[j]) ** 2 for i, j in pairs) / sum(weights)
    assert test.q == pytest.approx(q)
    assert test.p == pytest.approx(np.exp(-q / 2))  # chi-squared of two degrees
    assert (test.groups, test.worst.value, test.left_out) == (3, "scanner 2", ())


def test_the_interaction_is_found_by_chance_as_often_as_it_says():
    rng = np.random.default_rng(1)
    found = []
    for _ in range(300):
        labels, scores, group = in_groups(rng, [0.85] * 3, 40)
        found.append(examined(labels, scores, scanner=group)[0].p)
    assert 0.02 < np.mean(np.array(found) < 0.05) < 0.09


def test_small_groups_and_perfect_ones_are_named_and_left_out():
    labels, scores, group = in_groups(np.random.default_rng(2), [0.8, 0.8, 0.8, 0.8], 20)
    scores[group == "scanner 3"] = labels[group == "scanner 3"]
    few = (group == "scanner 2") & (labels == 1)
    kept = ~few | (np.cumsum(few) <= 9)
    (test,) = examined(labels[kept], scores[kept], scanner=group[kept])
    assert (test.groups, test.left_out) == (2, ("scanner 2", "scanner 3"))
    assert examined(labels, scores, scanner=np.repeat("one", len(labels))) == []


def test_several_characteristics_are_adjusted_together():
    labels, scores, group = in_groups(np.random.default_rng(3), [0.95, 0.7])
    other = np.where(np.arange(len(labels)) % 2, "a", "b")
    by_scanner, by_other = examined(labels, scores, scanner=group, other=other)
    assert by_scanner.p_holm == pytest.approx(min(1, 2 * by_scanner.p))
    assert by_other.p_holm == pytest.approx(max(by_other.p, by_scanner.p_holm))
