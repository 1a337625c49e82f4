"""Recalibration on few labels: the curve against a fit of its own, and what it must show where the truth is known."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss as sklearns

from kneessl.evaluation.local_labels import log_loss, recalibration_curve


def elsewhere(n=400, seed=0, slope=0.4, intercept=-1.0):
    """Labels and logits where the probabilities of the logits are too extreme and too high."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=n)
    return (rng.random(n) < expit(intercept + slope * logits)).astype(int), logits


def test_the_log_loss_is_sklearns():
    labels, logits = elsewhere()
    assert log_loss(labels == 1, expit(logits)) == pytest.approx(sklearns(labels, expit(logits)))


def test_more_labels_help_a_model_that_is_out_of_tune():
    labels, logits = elsewhere()
    points = recalibration_curve(labels, logits, expit(logits), [10, 40, 200], seed=0, draws=60)
    assert [point.labels for point in points] == [10, 40, 200]
    losses = [point.log_loss for point in points]
    assert losses == sorted(losses, reverse=True)
    assert points[-1].log_loss < points[-1].locked - 0.05
    assert points[-1].worse == 0
    assert points[-1].expected_observed == pytest.approx(1, abs=0.06)
    # Half of the exams are as many as the fit of all needs: its own log loss, found by another library.
    best = LogisticRegression(C=1e6).fit(logits[:, None], labels).predict_proba(logits[:, None])[:, 1]
    assert points[-1].log_loss == pytest.approx(sklearns(labels, best), abs=0.02)


def test_few_labels_hurt_a_model_that_was_right():
    labels, logits = elsewhere(slope=1.0, intercept=0.0)
    (few,) = recalibration_curve(labels, logits, expit(logits), [10], seed=0, draws=60)
    assert few.log_loss > few.locked
    assert few.worse > 0.5


def test_the_same_seed_draws_the_same_exams_and_what_leaves_none_is_left_out():
    labels, logits = elsewhere(40)
    curve = [recalibration_curve(labels, logits, expit(logits), [10, 39, 40], seed, draws=5) for seed in (1, 1, 2)]
    assert [len(points) for points in curve] == [1, 1, 1]
    assert curve[0] == curve[1] != curve[2]
