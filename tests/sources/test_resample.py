import numpy as np
import pytest

from kneessl.errors import UserError
from kneessl.sources.resample import pictures


def knee(slices=5):
    return np.random.default_rng(0).normal(500, 100, (slices, 64, 64))


def test_one_slice_of_another_scale_does_not_blind_the_others_unsaid():
    voxels = knee()
    voxels[2] -= 1e9
    with pytest.raises(UserError, match="most of its slices would be of one grey"):
        pictures(voxels, 1, 1)


def test_empty_slices_at_the_ends_are_nothing_to_complain_of():
    voxels = knee()
    voxels[[0, 4]] = 0
    shown, _ = pictures(voxels, 1, 1)
    assert [np.ptp(picture) > 0 for picture in shown] == [False, True, True, True, False]
