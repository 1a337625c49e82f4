from dataclasses import replace

import numpy as np
import pytest
import torch

from kneessl.classifier.classifier import build_classifier
from kneessl.classifier.heads import HEADS
from kneessl.explain.analysis import analyse_series
from kneessl.explain.explain import explain
from kneessl.model.model import PlaneModel
from kneessl.model.predict import SHIFTS, series_logits, whole_clip
from kneessl.nets.sslm import SSLMEncoder
from kneessl.views.preprocess import Preprocessing

TASKS = ("acl", "meniscus")
CHANNELS = {"resnet18": 512, "mrnet_alexnet": 256, "mrnet_resnet18": 512, "sslm": 48, "sslm_linear": 48}


def made(network="resnet18", head=None, tta=False):
    torch.manual_seed(0)
    tensors = SSLMEncoder(3).state_dict() if network.startswith("sslm") else {}
    classifier = build_classifier(network, head, 2, tensors).eval()
    return PlaneModel(classifier, TASKS, "sagittal", Preprocessing(64, 0.7, 0.6), tta)


@pytest.fixture(scope="module")
def series():
    return np.random.default_rng(0).integers(0, 256, (9, 256, 256), dtype=np.uint8)


@pytest.fixture
def passes(monkeypatch):
    """An item each time that an encoder is asked: whether it keeps gradients."""
    counted = []
    maps = PlaneModel.maps

    def counting(self, clips):
        counted.append(torch.is_grad_enabled())
        return maps(self, clips)

    monkeypatch.setattr(PlaneModel, "maps", counting)
    return counted


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize(
    ("network", "head"), [*(("resnet18", head) for head in HEADS), *((name, None) for name in CHANNELS)]
)
def test_one_pass_says_the_same_as_each_way_of_asking(series, passes, network, head, tta):
    model = made(network, head, tta)
    found = analyse_series(model, series)
    assert passes == [False] * (len(SHIFTS) if tta else 1), "no gradient through the encoder, no pass too many"
    logits = series_logits(model, series)
    assert found.logits.dtype == np.float64
    assert np.array_equal(found.logits, logits)
    assert tuple(found.explanations) == TASKS
    for task in TASKS:
        alone = explain(model, series, task)
        assert np.array_equal(found.explanations[task].maps, alone.maps)
        assert (found.explanations[task].logit, found.explanations[task].exact) == (alone.logit, alone.exact)
    plain = series_logits(replace(model, tta=False), series)
    assert [found.explanations[task].logit for task in TASKS] == pytest.approx(plain.tolist(), abs=1e-5)
    assert np.array_equal(logits, plain) != tta


@pytest.mark.parametrize("network", CHANNELS)
def test_features_are_the_mean_of_the_kept_slices_maps_and_do_not_shift(series, network):
    model = made(network)
    features = analyse_series(model, series).features
    assert (features.shape, features.dtype) == ((CHANNELS[network],), np.float64)
    clip, _ = whole_clip(model, series)
    assert clip.shape[1] == 5
    with torch.no_grad():
        maps = model.classifier.encoder.maps(clip[0, :, None]).double().numpy()
    np.testing.assert_allclose(features, maps.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
    assert np.ptp(features) > 0
    assert np.array_equal(analyse_series(replace(model, tta=True), series).features, features)


def test_reading_leaves_no_gradients_behind(series):
    model = made(head="transformer")
    first, again = analyse_series(model, series), analyse_series(model, series)
    assert np.array_equal(first.logits, again.logits)
    assert all(p.grad is None for p in model.classifier.parameters())
