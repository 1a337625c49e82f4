import numpy as np
import pytest
from sklearn.decomposition import PCA

from kneessl.errors import UserError
from kneessl.evaluation.familiarity import UNFAMILIAR, Familiarity, Gaussian


def exams(seed, n, d, strengths=(8.0, 5.0, 3.0), noise=0.3):
    """Features (n, d) that vary along a few directions of their own, the same for every seed, and a little in all."""
    directions = np.linalg.qr(np.random.default_rng(99).normal(size=(d, len(strengths))))[0]
    rng = np.random.default_rng(seed)
    return 40 + (rng.normal(size=(n, len(strengths))) * strengths) @ directions.T + noise * rng.normal(size=(n, d))


def unit(features):
    return features / np.sqrt((features**2).sum(1))[:, None]


def dense(gaussian):
    """The covariance matrix written out: Tipping & Bishop's W W' + sigma^2 I."""
    w = gaussian.components.T * np.sqrt(gaussian.variances - gaussian.noise)
    return w @ w.T + gaussian.noise * np.eye(len(gaussian.mean))


@pytest.mark.parametrize(("n", "d"), [(200, 40), (30, 100), (51, 50)])
def test_the_gaussian_is_probabilistic_pca_and_the_distance_mahalanobis(n, d):
    features = exams(0, n, d)
    found = Gaussian.fit(features)
    assert len(found.components) == 3
    reference = PCA(3, svd_solver="full").fit(unit(features))
    likelihood = (n - 1) / n  # scikit-learn divides by n - 1
    np.testing.assert_allclose(found.mean, reference.mean_, rtol=1e-12)
    np.testing.assert_allclose(found.variances, reference.explained_variance_ * likelihood, rtol=1e-9)
    if n > d:  # with fewer exams scikit-learn's noise leaves out the directions in which they do not vary at all
        assert found.noise == pytest.approx(reference.noise_variance_ * likelihood)
    covariance = np.cov(unit(features).T, bias=True)
    assert np.trace(dense(found)) == pytest.approx(np.trace(covariance))
    others = exams(1, 7, d) + np.arange(d)
    away = unit(others) - unit(features).mean(0)
    squares = np.einsum("ni,ij,nj->n", away, np.linalg.inv(dense(found)), away)
    np.testing.assert_allclose(found.distances(others), np.sqrt(squares), rtol=1e-9)
    np.testing.assert_allclose(found.distances(others[2]), np.sqrt(squares[2]), rtol=1e-9)
    np.testing.assert_allclose(found.distances(7 * others), np.sqrt(squares), rtol=1e-9)


def test_no_other_noise_or_variance_is_more_likely():
    features = exams(2, 60, 20)
    found = Gaussian.fit(features)
    covariance = np.cov(unit(features).T, bias=True)

    def likelihood(gaussian):
        c = dense(gaussian)
        return -np.linalg.slogdet(c)[1] - np.trace(np.linalg.solve(c, covariance))

    best = likelihood(found)
    for factor in (0.97, 1.03):
        others = [Gaussian(found.mean, found.components, found.variances, found.noise * factor)]
        for i in range(len(found.variances)):
            variances = found.variances.copy()
            variances[i] *= factor
            others.append(Gaussian(found.mean, found.components, variances, found.noise))
        assert all(likelihood(other) < best for other in others)


@pytest.mark.parametrize(("n", "d"), [(12, 512), (6, 256), (100, 100), (1000, 20)])
def test_noise_alone_has_no_components(n, d):
    assert len(Gaussian.fit(np.random.default_rng(5).normal(size=(n, d))).components) == 0


@pytest.mark.parametrize(("n", "d"), [(2, 5), (3, 4096), (6, 512), (5, 2), (2, 2)])
def test_few_exams_are_enough_and_new_ones_lie_beyond_them(n, d):
    rng = np.random.default_rng(1)
    features = rng.lognormal(size=(n, d))
    found = Gaussian.fit(features)
    assert len(found.components) <= max(0, (n - 2) / 2)
    assert np.isfinite(found.distances(features)).all()
    assert found.distances(-features[0]) > found.distances(features).max()


def test_features_that_do_not_vary_do_not_break_it():
    found = Gaussian.fit(np.full((9, 4), 7.0))
    assert found.noise == pytest.approx(1e-12)
    assert found.distances(np.full(4, 7.1)) == 0
    assert found.distances([7.0, 7.0, 7.0, 7.1]) == pytest.approx(0.1 / 14 * np.sqrt(3 / 4) * 1e6, rel=0.01)
    assert Gaussian.fit(np.zeros((9, 4))).distances(np.ones(4)) == pytest.approx(1e6)


def test_a_channel_that_is_dead_in_training_counts_as_noise_does():
    features = exams(3, 80, 30)
    features[:, 4] = 0
    found = Gaussian.fit(features)
    assert found.mean[4] == 0
    alive = found.mean.copy()
    alive[4] = 5 * np.sqrt(found.noise)
    assert found.distances(alive) == pytest.approx(5, rel=0.03)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.ones(4), "of at least 2 exams"),
        (np.ones((1, 4)), "of at least 2 exams"),
        (np.ones((3, 0)), "of at least 2 exams"),
        ([[1.0, 2.0], [np.nan, 1.0]], "finite"),
        ([[1.0, 2.0], [np.inf, 1.0]], "finite"),
        ([["a"], ["b"]], "features must be numbers"),
    ],
)
def test_features_that_cannot_be_fitted_are_refused(features, message):
    with pytest.raises(UserError, match=message):
        Gaussian.fit(features)


def on_a_circle(reference):
    """Distances of two features at length 1 from (1, 0): from 0 to 2."""
    return Familiarity(Gaussian(np.array([1.0, 0.0]), np.zeros((0, 2)), np.zeros(0), 1.0), np.array(reference, float))


def test_the_p_value_by_hand():
    found = on_a_circle([0.5, 1.5, 1.0, np.sqrt(2)])
    for features, p_value in (
        ([3, 0], 1),
        ([1, 0.1], 1),
        ([0.6, 0.8], 4 / 5),
        ([0, 5], 3 / 5),
        ([0, -0.1], 3 / 5),
        ([-0.1, 1], 2 / 5),
        ([-1, 0.1], 1 / 5),
        ([np.nan, 1], 1 / 5),
    ):
        assert found.p_value(features) == p_value, features
    for wrong in (0.5, [1.0], [1.0, 2.0, 3.0], [[1.0, 2.0]]):
        with pytest.raises(UserError, match="2 features"):
            found.p_value(wrong)


@pytest.mark.parametrize(
    ("references", "farther", "flagged"),
    [(1, 0, True), (1, 1, False), (12, 0, True), (12, 1, False), (18, 0, True), (18, 1, False),
     (19, 0, True), (19, 1, False), (39, 1, True), (39, 2, False), (1000, 49, True), (1000, 50, False)],
)  # fmt: skip
def test_what_is_called_unfamiliar(references, farther, flagged):
    found = on_a_circle([1.0] * (references - farther) + [1.9] * farther)
    p_value = found.p_value([0.0, 1.0])
    assert p_value == (1 + farther) / (references + 1)
    assert found.unfamiliar(p_value) == flagged
    assert UNFAMILIAR == 0.05


@pytest.mark.parametrize(("n", "d"), [(150, 256), (400, 30)])
def test_exams_of_the_same_kind_are_flagged_as_often_as_it_says(n, d):
    """Three folds, each with features of its own, turned and stretched, as networks of their own would make them."""
    at_one, at_five, moved = [], [], []
    for seed in range(8):
        features, fold = exams(seed, n, d), np.arange(n) % 3
        distances = np.empty(n)
        for k in range(3):
            turn = (k + 1) * np.linalg.qr(np.random.default_rng(k).normal(size=(d, d)))[0]
            gaussian = Gaussian.fit(features[fold != k] @ turn)
            distances[fold == k] = gaussian.distances(features[fold == k] @ turn)
        found = Familiarity(Gaussian.fit(features), distances)
        p_values = np.array([found.p_value(x) for x in exams(1000 + seed, 400, d)])
        at_one.append(np.mean(p_values <= 0.01))
        at_five.append(np.mean([found.unfamiliar(p) for p in p_values]))
        moved.append(
            np.mean([found.unfamiliar(found.p_value(x)) for x in exams(2000 + seed, 50, d) + np.tile([-1, 1], d // 2)])
        )
    assert np.mean(at_one) < 0.02
    assert 0.015 < np.mean(at_five) < 0.06, "a little below: the fold's Gaussians have seen less than the last one"
    assert np.mean(moved) > 0.95


def test_it_comes_back_from_its_arrays_and_damaged_ones_are_refused():
    found = Familiarity(Gaussian.fit(exams(0, 40, 9)), np.array([3.0, 1.0, 2.0]))
    arrays = found.to_arrays()
    assert set(arrays) == {"mean", "components", "variances", "noise", "reference_distances"}
    back = Familiarity.from_arrays(arrays)
    new = exams(7, 20, 9)
    assert np.array_equal(back.gaussian.distances(new), found.gaussian.distances(new))
    assert [back.p_value(x) for x in new] == [found.p_value(x) for x in new]
    for change, message in (
        ({"mean": np.zeros(8)}, "do not fit together"),
        ({"variances": np.ones(9)}, "do not fit together"),
        ({"components": np.ones(9)}, "do not fit together"),
        ({"reference_distances": np.ones(0)}, "do not fit together"),
        ({"reference_distances": np.ones((3, 1))}, "do not fit together"),
        ({"noise": np.zeros(1)}, "above 0"),
        ({"noise": np.ones(2)}, "consists of"),
        ({"variances": -arrays["variances"]}, "above 0"),
        ({"reference_distances": np.array([1.0, np.nan])}, "finite numbers"),
        ({"more": np.ones(1)}, "consists of"),
    ):
        with pytest.raises(UserError, match=message):
            Familiarity.from_arrays(arrays | change)
    del arrays["noise"]
    with pytest.raises(UserError, match="consists of"):
        Familiarity.from_arrays(arrays)
