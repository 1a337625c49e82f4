"""Suspected label errors: by hand, and found where labels were turned on purpose."""

import numpy as np
import pytest

from kneessl.errors import UserError
from kneessl.evaluation.label_errors import suspected_errors


def test_by_hand():
    labels = [1, 1, 1, 0, 0, 0, 0]
    probabilities = [0.9, 0.8, 0.05, 0.1, 0.2, 0.95, 0.6]
    # Thresholds: of 1, (.9 + .8 + .05) / 3 = .583; of 0, (.9 + .8 + .05 + .4) / 4 = .538.
    found = suspected_errors(labels, probabilities)
    assert [(s.index, s.label) for s in found] == [(2, 1), (5, 0), (6, 0)]
    assert [s.margin for s in found] == pytest.approx([0.9, 0.9, 0.2])


def confident_joint(labels, probabilities):
    """The exams off the diagonal of the confident joint, exam by exam as the paper's equation 1 has it."""
    both = np.stack([1 - probabilities, probabilities], 1)
    thresholds = [both[labels == j, j].mean() for j in (0, 1)]
    found = set()
    for i, label in enumerate(labels):
        reached = [j for j in (0, 1) if both[i, j] >= thresholds[j]]
        if reached and max(reached, key=lambda j: both[i, j]) != label:
            found.add(i)
    return found


def test_labels_that_were_turned_are_found():
    rng = np.random.default_rng(0)
    truth = rng.random(600) < 0.4
    turned = rng.random(600) < 0.08
    probabilities = 1 / (1 + np.exp(-3.0 * (2 * truth - 1) - 1.5 * rng.normal(size=600)))
    labels = (truth ^ turned).astype(int)
    found = {s.index for s in suspected_errors(labels, probabilities)}
    assert found == confident_joint(labels, probabilities)
    hits = len(found & set(np.flatnonzero(turned)))
    # A threshold is a mean, so what lies below it is passed over: few false alarms, and not all that was turned.
    assert hits / len(found) > 0.9
    assert hits / turned.sum() > 0.5


def test_labels_that_are_right_are_not_suspected_of_a_good_model():
    labels = np.repeat([0, 1], 30)
    assert suspected_errors(labels, np.where(labels, 0.9, 0.1)) == []


def test_probabilities_are_wanted():
    with pytest.raises(UserError, match="probabilities between 0 and 1"):
        suspected_errors([0, 0, 1, 1], [0.1, 2.0, 0.5, 0.5])
