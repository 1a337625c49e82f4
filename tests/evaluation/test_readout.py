import numpy as np
import pytest

from kneessl.evaluation.metrics import Proportion
from kneessl.evaluation.readout import Readout


def test_every_share_is_counted_by_hand():
    truth = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2])
    predicted = np.array([0, 0, 0, 1, 1, 0, 0, 2, 2])
    found = Readout.of(truth, predicted, ["a", "b", "c"], [50, 10, 20])
    assert found.confusion == [[3, 1, 0], [1, 1, 0], [1, 0, 2]]
    assert found.accuracy == Proportion.of(6, 9)
    assert {name: p.value for name, p in found.per_class.items()} == pytest.approx({"a": 3 / 4, "b": 1 / 2, "c": 2 / 3})
    assert found.groups == {"many": Proportion.of(3, 4), "medium": Proportion.of(2, 3), "few": Proportion.of(1, 2)}
