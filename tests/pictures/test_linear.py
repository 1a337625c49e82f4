import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from kneessl.pictures.linear import PENALTIES, SoftmaxRegression, one_in, path

CPU = torch.device("cpu")


def made(n, spread=1.0, dim=20, classes=4, seed=0):
    """Features of overlapping classes, at unlike scales, with one that never varies."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    centres = np.random.default_rng(99).normal(size=(classes, dim))
    features = (centres[labels] + spread * 3 * rng.normal(size=(n, dim))) * np.logspace(-2, 2, dim) + 5
    features[:, 0] = 1.0
    return features.astype(np.float32), labels


def test_each_penalty_gives_what_scikit_learn_converges_to():
    features, labels = made(300)
    x = StandardScaler().fit_transform(features.astype(np.float64))
    for penalty, (weights, biases) in zip(
        PENALTIES[:4], path(torch.from_numpy(x), torch.from_numpy(labels)), strict=False
    ):
        reference = LogisticRegression(C=1 / (penalty * len(x)), tol=1e-10, max_iter=10_000).fit(x, labels)
        ours = torch.softmax(torch.from_numpy(x) @ weights.T + biases, 1).numpy()
        np.testing.assert_allclose(ours, reference.predict_proba(x), atol=2e-3)


def test_the_penalty_is_the_one_that_answers_best_on_a_fifth():
    features, labels = made(400)
    fitted = SoftmaxRegression(CPU).fit(features, labels)
    held = one_in(labels, 5)
    x = (features - features.mean(0)) / np.where(features.std(0) == 0, 1, features.std(0))
    accuracies = []
    for penalty in PENALTIES:
        own = LogisticRegression(C=1 / (penalty * (~held).sum()), max_iter=10_000).fit(x[~held], labels[~held])
        accuracies.append(own.score(x[held], labels[held]))
    assert accuracies[PENALTIES.index(fitted.penalty)] >= max(accuracies) - 2 / held.sum()
    assert accuracies[0] < max(accuracies), "the case must be one where the strongest penalty is not the best"


def test_new_features_are_standardised_by_the_training_ones():
    features, labels = made(500, spread=0.3)
    new, truth = made(200, spread=0.3, seed=1)
    fitted = SoftmaxRegression(CPU).fit(features, labels)
    answers = fitted.predict(new)
    assert (answers == truth).mean() > 0.8
    assert np.array_equal(fitted.predict(new[:7]), answers[:7])
    assert np.array_equal(SoftmaxRegression(CPU).fit(features, labels).predict(new), answers)


def test_features_of_another_unit_give_the_same_answers():
    features, labels = made(500, spread=0.3)
    new, _ = made(200, spread=0.3, seed=1)
    scaled = SoftmaxRegression(CPU).fit(features * 64, labels).predict(new * 64)
    assert (scaled == SoftmaxRegression(CPU).fit(features, labels).predict(new)).mean() > 0.99


@pytest.mark.parametrize("counts", [[50, 20, 4], [5, 5, 5], [9, 1, 1]])
def test_a_fifth_of_each_class_is_held_out_rounded_down(counts):
    labels = np.repeat(np.arange(3), counts)
    held = one_in(labels, 5)
    assert [int(held[labels == k].sum()) for k in range(3)] == [count // 5 for count in counts]
    assert np.array_equal(held, one_in(labels, 5))


def test_classes_too_small_to_hold_any_out_are_fitted_with_the_strongest_penalty():
    features, labels = made(8, classes=4)
    labels[:4] = np.arange(4)
    assert SoftmaxRegression(CPU).fit(features, labels).penalty == PENALTIES[0]
