import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, dirichlet, norm

from kneessl.errors import UserError
from kneessl.evaluation import compare_auc
from kneessl.evaluation.claims import false_accuracy_claim

counts = st.integers(0, 40)


def predictions(a_alone, b_alone, both, neither):
    """Labels, and scores of two models that are right on these exams."""
    n = a_alone + b_alone + both + neither
    labels = np.arange(n) % 2
    a, b = (np.repeat(right, (a_alone, b_alone, both, neither)) for right in ([1, 0, 1, 0], [0, 1, 1, 0]))
    return labels, *(np.where(right == 1, labels, 1 - labels).astype(float) for right in (a, b))


@settings(max_examples=60, deadline=None)
@given(counts, counts, st.integers(2, 40), st.integers(2, 40))
def test_the_posterior_is_a_binomial_tail(a_alone, b_alone, both, neither):
    # Beta(x1 + 1, x2 + 1) below 1/2 is the chance of more than x1 heads in x1 + x2 + 1 throws: a sum of binomials.
    most, least = max(a_alone, b_alone), min(a_alone, b_alone)
    tail = binom.sf(most, most + least + 1, 0.5)
    assert false_accuracy_claim(*predictions(a_alone, b_alone, both, neither)) == pytest.approx(tail, abs=1e-12)


@pytest.mark.parametrize("counted", [(9, 4, 80, 7), (3, 0, 10, 2), (5, 5, 5, 5)])
def test_the_posterior_of_the_definition_drawn(counted):
    a_alone, b_alone, both, neither = counted
    drawn = dirichlet.rvs(
        [a_alone + 1, b_alone + 1, both + neither + 2], size=200_000, random_state=np.random.default_rng(0)
    )
    share = np.mean(drawn[:, 0] <= drawn[:, 1])
    assert false_accuracy_claim(*predictions(*counted)) == pytest.approx(share, abs=0.005)


def test_which_model_is_named_first_does_not_matter():
    labels, a, b = predictions(9, 4, 80, 7)
    assert false_accuracy_claim(labels, a, b) == false_accuracy_claim(labels, b, a)


def test_equal_accuracies_are_a_throw_of_a_coin():
    assert false_accuracy_claim(*predictions(6, 6, 20, 4)) == pytest.approx(0.5)


def test_trainings_that_are_all_alike_count_as_one():
    labels, a, b = predictions(9, 4, 80, 7)
    again = false_accuracy_claim(labels, np.stack((a, a, a)), np.stack((b, b)))
    assert again == pytest.approx(false_accuracy_claim(labels, a, b))


def test_trainings_average_the_exams_on_which_one_model_alone_is_right():
    labels, a, b = predictions(9, 4, 80, 7)
    _, worse, _ = predictions(5, 8, 80, 7)
    # Against b the trainings are alone right on 9 and 5 exams, and b on 4 and on 4 + 4 of the same order.
    pairs = [(np.sum((one == labels) & (b != labels)), np.sum((one != labels) & (b == labels))) for one in (a, worse)]
    first, second = np.mean(pairs, axis=0)
    drawn = np.random.default_rng(0).beta(max(first, second) + 1, min(first, second) + 1, 200_000)
    assert false_accuracy_claim(labels, np.stack((a, worse)), b) == pytest.approx(np.mean(drawn < 0.5), abs=0.005)


def test_of_an_auc_it_is_the_normal_tail_beyond_the_difference():
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], 40)
    shared = rng.normal(labels, size=80)
    found = compare_auc(labels, shared + rng.normal(size=80), shared + 0.5 * rng.normal(size=80))
    assert found.p_false == pytest.approx(norm.cdf(-abs(found.difference) / found.standard_error))


def test_a_flat_prior_is_right_as_often_as_it_says():
    # Truth drawn from a prior that is all but flat beside the error; claims at about 20 % are false in about 20 %.
    rng = np.random.default_rng(2)
    truth = rng.uniform(-1, 1, 200_000)
    seen = truth + 0.02 * rng.standard_normal(len(truth))
    told = norm.cdf(-np.abs(seen) / 0.02)
    near = (told > 0.15) & (told < 0.25)
    assert np.mean(np.sign(truth[near]) != np.sign(seen[near])) == pytest.approx(told[near].mean(), abs=0.02)


def test_scores_that_are_none_are_refused():
    labels, a, _ = predictions(3, 3, 3, 3)
    with pytest.raises(UserError, match="one label and one score"):
        false_accuracy_claim(labels, a, a[:-1])
