import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from kneessl.errors import UserError
from kneessl.evaluation.feature_probe import (
    NEIGHBOURS,
    TEMPERATURE,
    knn_probe,
    linear_probe,
    linear_weights,
    out_of_fold,
    require_probe_labels,
)


def separable(n=120, dim=12, shift=1.5, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    features = rng.normal(size=(n, dim))
    features[:, 0] += shift * labels
    scale = 10.0 ** rng.integers(-2, 3, dim)  # columns of very different size, as encoders give them
    return (features * scale + 5 * scale).astype(np.float32), labels


def test_folded_weights_equal_the_regression_on_standardised_features():
    x, y = separable()
    weights, bias = linear_weights(x, y)
    z = (x - x.mean(0, dtype=np.float64)) / x.std(0, dtype=np.float64)
    scores = x.astype(np.float64) @ weights + bias
    candidates = [LogisticRegression(C=c, max_iter=2000).fit(z, y).decision_function(z) for c in np.logspace(-5, 0, 6)]
    assert min(np.abs(scores - c).max() for c in candidates) < 1e-3


def test_a_probe_finds_what_is_there_and_nothing_where_nothing_is():
    x, y = separable(n=600, shift=2.0)
    nothing = np.random.default_rng(2).normal(size=x.shape).astype(np.float32)
    for probe, least in ((linear_probe, 0.85), (knn_probe, 0.75)):
        assert roc_auc_score(y[400:], probe(x[:400], y[:400], x[400:])) > least
        assert abs(roc_auc_score(y[400:], probe(nothing[:400], y[:400], nothing[400:])) - 0.5) < 0.15


def test_neighbours_vote_as_the_paper_says():
    x, y = separable(n=60)
    new = x[:5] + 0.1
    mean, std = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
    a, b = (x - mean) / std, (new - mean) / std
    for i, score in enumerate(knn_probe(x, y, new)):
        cosine = [float(b[i] @ row / np.linalg.norm(b[i]) / np.linalg.norm(row)) for row in a]
        nearest = sorted(range(60), key=lambda j: -cosine[j])[:NEIGHBOURS]
        votes = [np.exp(cosine[j] / TEMPERATURE) for j in nearest]
        for_one = sum(v for v, j in zip(votes, nearest, strict=True) if y[j])
        assert score == pytest.approx(for_one / sum(votes), rel=1e-5)


def test_out_of_fold_scores_never_come_from_a_probe_that_saw_the_exam():
    """Labels that features do not know: a probe scored on its own exams would look good, out of fold it cannot."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 200)).astype(np.float32), np.arange(100) % 2
    assert roc_auc_score(y, linear_probe(x, y, x)) > 0.9
    for scores in out_of_fold(x, y):
        assert abs(roc_auc_score(y, scores) - 0.5) < 0.2


def test_constant_features_score_at_chance_without_a_warning():
    y = np.arange(40) % 2
    linear, knn = out_of_fold(np.ones((40, 8), np.float32), y)
    assert abs(roc_auc_score(y, linear) - 0.5) < 0.3
    assert np.isfinite(knn).all()


@pytest.mark.parametrize(("labels", "least"), [([0] * 50 + [1] * 9, 10), ([0] * 50, 2), ([1, 0], 2)])
def test_too_few_labels_are_said(labels, least):
    with pytest.raises(UserError, match=f"at least {least} labelled training exams of each class"):
        require_probe_labels(np.array(labels), least)


@pytest.mark.parametrize("ones", [2, 3])
def test_two_exams_of_each_class_are_enough_for_a_line(ones):
    rng, y = np.random.default_rng(0), np.repeat([0, 1], [10, ones])
    x = rng.normal(size=(len(y), 5)).astype(np.float32)
    x[:, 0] += 20 * y
    assert roc_auc_score(y, linear_probe(x, y, x)) == 1
