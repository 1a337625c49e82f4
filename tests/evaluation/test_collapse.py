import numpy as np
import pytest
import scipy.linalg
import torch

from kneessl.evaluation.collapse import (
    alpha_req,
    collapse_of,
    collapse_warning,
    effective_rank,
    feature_std,
    lidar,
    watch_warnings,
)


def warning_of(features: torch.Tensor) -> str | None:
    rank = effective_rank(features)
    return collapse_warning(feature_std(features), rank, rank / min(features.shape))


def test_features_spread_over_the_sphere():
    features = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0))
    assert feature_std(features) == pytest.approx(1, abs=0.02)
    assert 55 < effective_rank(features) <= 64
    assert warning_of(features) is None


def test_features_that_look_alike():
    features = torch.ones(100, 64) + 0.001 * torch.randn(100, 64, generator=torch.Generator().manual_seed(0))
    assert feature_std(features) < 0.01
    assert effective_rank(features) == pytest.approx(1, abs=0.2)
    warning = warning_of(features)
    assert "collapsed" in warning
    assert "--lr" in warning


def test_effective_rank_of_known_spectra():
    assert effective_rank(torch.eye(7)) == pytest.approx(7, rel=1e-5)
    two_directions = torch.eye(8)[[0, 1] * 6]
    assert effective_rank(two_directions) == pytest.approx(2, rel=1e-5)
    assert effective_rank(two_directions * 1e4) == pytest.approx(2, rel=1e-5), "scale does not matter"


def test_a_dimensional_collapse_warns_even_where_features_spread():
    line = torch.sign(torch.randn(200, 1, generator=torch.Generator().manual_seed(0))) * torch.ones(200, 16)
    assert feature_std(line) == pytest.approx(1, abs=0.1)
    assert effective_rank(line) == pytest.approx(1, abs=1e-4)
    assert "lie in few dimensions (effective rank 1.0, 6% of what it could be)" in warning_of(line)


@pytest.mark.parametrize(("rank", "share", "warned"), [(5.0, 0.02, True), (12.0, 0.09, False), (1.2, 0.3, True)])
def test_few_dimensions_are_few_of_what_there_could_be(rank, share, warned):
    assert (collapse_warning(1.0, rank, share) is not None) == warned


def test_lidar_is_the_entropy_of_the_generalised_eigenvalues():
    """Against SciPy's solver of B x = lambda W x, which never takes a root of W."""
    rng = np.random.default_rng(0)
    n, q, dim = 20, 5, 7
    views = rng.normal(size=(n, 1, dim)) * np.linspace(0.2, 3, dim) + rng.normal(size=(n, q, dim)) * rng.uniform(
        1, 2, dim
    )
    means = views.mean(1)
    between = sum(np.outer(m - means.mean(0), m - means.mean(0)) for m in means) / (n - 1)
    within = sum(np.outer(v - m, v - m) for m, clip in zip(means, views, strict=True) for v in clip) / (n * (q - 1))
    values = scipy.linalg.eigh(between, within + 1e-4 * np.eye(dim), eigvals_only=True)
    p = values / values.sum()
    assert lidar(torch.from_numpy(views)) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-6)


def test_lidar_counts_the_directions_that_tell_clips_apart():
    generator = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(200, 8, 16, generator=generator)
    clips = torch.zeros(200, 1, 16)
    clips[..., :4] = torch.randn(200, 1, 4, generator=generator)
    assert lidar(noise + clips) == pytest.approx(4, abs=0.6)
    loud = noise.clone()
    loud[..., 8:] *= 1000
    assert lidar(loud + clips) == pytest.approx(4, abs=0.6), "directions in which only views differ do not count"
    assert lidar(1000 * (noise + clips)) == pytest.approx(4, abs=0.6)


def test_lidar_of_more_dimensions_than_clips_is_finite():
    views = torch.randn(6, 3, 64, generator=torch.Generator().manual_seed(0))
    assert 1 <= lidar(views) <= 5 + 1e-6


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_alpha_of_a_spectrum_that_is_a_power(power):
    n, dim = 512, 64
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(n, dim + 1)))[0]
    centred = np.linalg.qr(basis - basis.mean(0))[0][:, :dim]
    features = centred * np.arange(1, dim + 1) ** (-power / 2)
    assert alpha_req(torch.from_numpy(features)) == pytest.approx(power, rel=1e-6)
    assert alpha_req(torch.from_numpy(3 * features + 5)) == pytest.approx(power, rel=1e-4), (
        "neither scale nor place counts"
    )


def test_a_line_of_an_older_version_has_no_share_and_a_probe_is_no_collapse():
    older = {"feature_std": 0.8, "effective_rank": 5.0}
    assert watch_warnings(older) == []
    assert "have collapsed" in collapse_of(older | {"feature_std": 0.01})
    probed = older | {"rank_share": 0.5, "linear_auc": 0.6, "untrained_auc": 0.7}
    assert collapse_of(probed) is None
    assert len(watch_warnings(probed)) == 1
