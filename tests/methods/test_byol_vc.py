import copy

import pytest
import torch

from kneessl import objectives
from kneessl.errors import UserError
from kneessl.evaluation.collapse import effective_rank
from kneessl.methods.byol import BYOL
from kneessl.methods.byol_vc import BYOLVC


@pytest.fixture
def method(encoder) -> BYOLVC:
    return BYOLVC(encoder, hidden=32, dim=16, tau=0.9, variance=2.0, covariance=0.3)


def terms(y: torch.Tensor) -> tuple[float, float]:
    """VICReg's two terms, feature by feature and pair by pair, in float64."""
    y = y.detach().double()
    n, dim = y.shape
    centred = [y[:, j] - y[:, j].mean() for j in range(dim)]
    v = sum(max(0.0, 1 - float((c @ c / (n - 1) + 1e-4).sqrt())) for c in centred) / dim
    c = sum(float(centred[i] @ centred[j] / (n - 1)) ** 2 for i in range(dim) for j in range(dim) if i != j) / dim
    return v, c


def test_the_loss_is_byols_plus_both_terms_of_the_online_projections(method, views):
    twin = copy.deepcopy(method)
    outcome = method(*views())
    v1, v2 = views()
    y1, y2 = twin.projector(twin.encoder(v1)), twin.projector(twin.encoder(v2))
    z1, z2 = twin.target(v1), twin.target(v2)
    byol = objectives.byol(twin.predictor(y1), z2) + objectives.byol(twin.predictor(y2), z1)
    (va, ca), (vb, cb) = terms(y1), terms(y2)
    assert outcome.loss.item() == pytest.approx(byol.item() + 2.0 * (va + vb) / 2 + 0.3 * (ca + cb), rel=1e-5)
    torch.testing.assert_close(outcome.embeddings, y1.detach())
    torch.testing.assert_close(outcome.partners, y2.detach())


def test_it_starts_from_the_weights_of_byol(encoder, views):
    torch.manual_seed(1)
    plain = BYOL(copy.deepcopy(encoder), hidden=32, dim=16)
    torch.manual_seed(1)
    ours = BYOLVC(copy.deepcopy(encoder), hidden=32, dim=16)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), ours.parameters(), strict=True))


def test_the_terms_pull_collapsed_projections_apart(method):
    """Projections that lie on one line, but for noise, fill more and more dimensions as the terms are made small."""
    noise = 0.01 * torch.randn(12, 16, generator=torch.Generator().manual_seed(0))
    y = (torch.outer(torch.linspace(-1, 1, 12), torch.ones(16)) + noise).requires_grad_()
    assert effective_rank(y.detach()) < 2
    descent = torch.optim.Adam([y], 0.01)
    for _ in range(200):
        descent.zero_grad()
        method.regularisation(y, y).backward()
        descent.step()
    assert effective_rank(y.detach()) > 6


@pytest.mark.parametrize("name", ["variance", "covariance"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_is_not_above_0_is_refused_by_name(encoder, name, value):
    with pytest.raises(UserError, match=f"settings.{name} is .*; it must be above 0"):
        BYOLVC(encoder, hidden=32, dim=16, **{name: value})
