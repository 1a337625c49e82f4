import pytest
import torch
from torch.nn import functional as F

from kneessl.errors import UserError
from kneessl.views.preprocess import Preprocessing


def test_values_are_resized_and_standardised():
    slices = torch.randint(0, 256, (2, 3, 256, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    got = Preprocessing(112, mean=0.25, std=0.5)(slices)
    resized = F.interpolate(slices.double() / 255, (112, 112), mode="bicubic", antialias=True).clamp(0, 1)
    torch.testing.assert_close(got.double(), (resized - 0.25) / 0.5, atol=1e-4, rtol=0)


def test_the_fingerprint_changes_with_every_setting():
    prints = {
        p.fingerprint()
        for p in (
            Preprocessing(),
            Preprocessing(96),
            Preprocessing(field=0.5),
            Preprocessing(depth=0.5),
            Preprocessing(mean=0.3),
            Preprocessing(std=1),
        )
    }
    assert len(prints) == 6
    assert Preprocessing().fingerprint() == Preprocessing(224).fingerprint()


def test_too_small_a_size_is_refused():
    with pytest.raises(UserError, match="at least 32"):
        Preprocessing(16)


def test_field_and_depth_keep_the_middle():
    slices = torch.arange(8 * 256 * 256, dtype=torch.int64).remainder(251).byte().view(1, 8, 256, 256)
    cropped = Preprocessing(64, field=0.5).crop(slices)
    assert torch.equal(cropped, slices[..., 64:192, 64:192])
    torch.testing.assert_close(Preprocessing(64, field=0.5)(slices), Preprocessing(64)(cropped.contiguous()))
    assert Preprocessing(depth=0.5).middle(8) == slice(2, 6)
    assert Preprocessing(depth=0.25).middle(3) == slice(1, 2), "at least one"
    assert Preprocessing().middle(8) == slice(0, 8)


@pytest.mark.parametrize("name", ["field", "depth"])
@pytest.mark.parametrize("value", [0.0, 0.05, 1.01, float("nan")])
def test_a_share_out_of_range_is_refused(name, value):
    with pytest.raises(UserError, match=f"{name} is {value}"):
        Preprocessing(**{name: value})
