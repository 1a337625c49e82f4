"""Agreement of readers, against scikit-learn, a published example and resampling."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from kneessl.errors import UserError
from kneessl.evaluation import auc_interval
from kneessl.evaluation.readers import against_readers, kappas


def two_readers(n=200, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.4
    return {
        name: np.where(rng.random(n) < miss, ~truth, truth).astype(float) for name, miss in (("a", 0.1), ("b", 0.2))
    }


def test_kappa_is_scikit_learns():
    readers = two_readers()
    (found,) = kappas(readers)
    assert found.kappa == pytest.approx(cohen_kappa_score(readers["a"], readers["b"]))
    assert found.agreement == pytest.approx(np.mean(readers["a"] == readers["b"]))
    assert (found.first, found.second, found.n) == ("a", "b", 200)


def test_kappas_interval_is_that_of_resampled_exams():
    readers = two_readers()
    (found,) = kappas(readers)
    rng = np.random.default_rng(1)
    drawn = []
    for _ in range(1500):
        chosen = rng.integers(200, size=200)
        drawn.append(cohen_kappa_score(readers["a"][chosen], readers["b"][chosen]))
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(np.std(drawn), rel=0.07)


def test_kappa_by_hand():
    # 20 both yes, 15 both no, 5 only the first, 10 only the second: agreement .7, by chance .5 x .6 + .5 x .4 = .5.
    readers = {"a": np.repeat([1, 0, 1, 0], (20, 15, 5, 10)), "b": np.repeat([1, 0, 0, 1], (20, 15, 5, 10))}
    (found,) = kappas(readers)
    assert found.kappa == pytest.approx(0.4)


def test_only_exams_that_both_have_read_count():
    readers = {"a": [1, 0, 1, 0, np.nan, 1], "b": [1, 0, 0, 0, 1, np.nan], "c": [1, 1, 1, 1, 1, 1]}
    first, second, _ = kappas(readers)
    assert first.n == 4
    assert first.kappa == pytest.approx(cohen_kappa_score([1, 0, 1, 0], [1, 0, 0, 0]))
    assert second.n == 5
    (same,) = kappas({"a": [1, 1, 1], "b": [1, 1, 1]})
    assert (same.agreement, same.kappa) == (1, None)


def test_a_model_against_each_reader_and_most_of_them():
    scores = [0.9, 0.8, 0.3, 0.2, 0.6, 0.4]
    readers = {"a": [1, 1, 0, 0, 1, 0], "b": [1, 1, 0, 0, 0, np.nan], "c": [1, 0, 1, 0, np.nan, 0]}
    a, b, c, most = against_readers(scores, readers)
    assert (b.n, b.positives, c.n) == (5, 2, 5)
    assert a.auc == auc_interval(readers["a"], scores, scale="logit")
    # Most say 1, 1, 0, 0, and no; the fifth exam is one against one.
    assert (most.reader, most.n, most.positives) == ("majority", 5, 2)
    assert most.auc == auc_interval([1, 1, 0, 0, 0], [0.9, 0.8, 0.3, 0.2, 0.4], scale="logit")


def test_labels_that_are_none_are_refused():
    with pytest.raises(UserError, match="reader b's labels must be 0 or 1"):
        kappas({"a": [1, 0], "b": [1, 2]})
    with pytest.raises(UserError, match="reader b has another number"):
        kappas({"a": [1, 0], "b": [1]})
