import copy

import numpy as np
import pytest
import torch
from torch import nn

from kneessl.exams.folder import ExamFolder
from kneessl.nets.encoder import ClipEncoder
from kneessl.nets.features import exam_features, recalibrate, whole_exams
from kneessl.views.preprocess import Preprocessing


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return ClipEncoder("max")


SMALL = Preprocessing(32)


def exams(knees, names, preprocessing=SMALL):
    return whole_exams(ExamFolder(knees), "train", "sagittal", names, preprocessing, torch.device("cpu"))


def test_features_are_those_of_all_slices_in_evaluation_mode(knees, encoder):
    recalibrate(encoder, exams(knees, ["0000", "0001"]))
    encoder.train()
    before = copy.deepcopy(encoder.state_dict())
    rows = exam_features(encoder, exams(knees, ["0003", "0002"]), 2)
    assert encoder.training
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]), f"{name}: looking must not change the encoder"
    series = torch.from_numpy(np.array(ExamFolder(knees).series("train", "sagittal", "0002")))
    with torch.no_grad():
        expected = encoder.eval()(Preprocessing(32)(series[None]))[0]
    np.testing.assert_allclose(rows[1], expected, rtol=1e-5, atol=1e-6)


def test_only_the_middle_of_a_series_is_seen_where_preprocessing_says_so(knees):
    whole, kept = (next(exams(knees, ["0000"], p)) for p in (Preprocessing(64), Preprocessing(64, 1.0, 0.5)))
    assert whole.shape == (1, 12, 64, 64)
    torch.testing.assert_close(kept, whole[:, 3:9])


def test_recalibration_is_the_plain_average_over_batches():
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(3, momentum=0.1)
    norm.running_mean.fill_(99)
    batches = [torch.randn(10, 3) + i for i in range(4)]
    recalibrate(norm, batches)
    torch.testing.assert_close(norm.running_mean, torch.stack([b.mean(0) for b in batches]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([b.var(0) for b in batches]).mean(0))
    assert norm.momentum == 0.1
    assert norm.weight.grad is None
