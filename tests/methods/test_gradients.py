import pytest
from helpers.gradients import assert_every_parameter_learns

from kneessl.methods.barlow_twins import BarlowTwins
from kneessl.methods.simclr import SimCLR
from kneessl.methods.simsiam import SimSiam
from kneessl.methods.vicreg import VICReg


@pytest.mark.parametrize(
    ("method", "settings"),
    [(BarlowTwins, {"hidden": 16}), (SimCLR, {}), (SimSiam, {"dim": 16, "hidden": 4}), (VICReg, {"hidden": 16})],
)
def test_a_gradient_reaches_every_parameter(method, settings, encoder, views):
    built = method(encoder, **settings)
    built(*views()).loss.backward()
    assert_every_parameter_learns(built)
