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
        p.fingerprint() for p in (Preprocessing(), Preprocessing(96), Preprocessing(mean=0.3), Preprocessing(std=1))
    }
    assert len(prints) == 4
    assert Preprocessing().fingerprint() == Preprocessing(224).fingerprint()


def test_too_small_a_size_is_refused():
    with pytest.raises(UserError, match="at least 32"):
        Preprocessing(16)
