import pytest
import torch

from kneessl.evaluation.collapse import collapse_warning, effective_rank, feature_std


def test_features_spread_over_the_sphere():
    features = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0))
    assert feature_std(features) == pytest.approx(1, abs=0.02)
    assert 55 < effective_rank(features) <= 64
    assert collapse_warning(feature_std(features), effective_rank(features)) is None


def test_features_that_look_alike():
    features = torch.ones(100, 64) + 0.001 * torch.randn(100, 64, generator=torch.Generator().manual_seed(0))
    assert feature_std(features) < 0.01
    assert effective_rank(features) == pytest.approx(1, abs=0.2)
    warning = collapse_warning(feature_std(features), effective_rank(features))
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
    assert collapse_warning(feature_std(line), effective_rank(line))
