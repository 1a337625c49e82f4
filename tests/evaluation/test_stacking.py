import json
import math
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kneessl.errors import UserError
from kneessl.evaluation.stacking import Fusion, Stack

PLANES = ("axial", "coronal", "sagittal")
KEYS = ["+".join(planes) for size in (1, 2, 3) for planes in combinations(PLANES, size)]


def random_case(seed, n=120, shifts=(1.0, 0.7, 1.5), missing=0.0):
    """Labels and three planes' logits, of different scale and centre, with a share of exams lacking a plane."""
    rng = np.random.default_rng(seed)
    labels = np.r_[1, 1, 0, 0, rng.integers(0, 2, n - 4)]
    logits = {
        plane: scale * (shift * labels + rng.normal(size=n)) + centre
        for plane, shift, scale, centre in zip(PLANES, shifts, (1, 5, 0.2), (0, -3, 40), strict=True)
    }
    for values in logits.values():
        values[rng.random(n) < missing] = np.nan
    return logits, labels


def table(logits, planes):
    return np.stack([logits[plane] for plane in planes], axis=1)


@pytest.mark.parametrize("seed", range(3))
def test_weights_equal_scikit_learns(seed):
    logits, labels = random_case(seed, missing=0.2)
    stack = Stack.fit(logits, labels)
    assert list(stack.fusions) == ["axial", "coronal", "sagittal", "axial+coronal", "axial+sagittal",
                                   "coronal+sagittal", "axial+coronal+sagittal"]  # fmt: skip
    for key, fusion in stack.fusions.items():
        x = table(logits, key.split("+"))
        complete = ~np.isnan(x).any(axis=1)
        model = make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cholesky", tol=1e-10))
        model.fit(x[complete], labels[complete])
        assert min(model[-1].coef_[0]) > 0
        assert (fusion.positives, fusion.negatives) == (labels[complete].sum(), (1 - labels[complete]).sum())
        fused = stack.apply({plane: logits[plane][complete] for plane in key.split("+")})
        np.testing.assert_allclose(fused, model.decision_function(x[complete]), atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_weights_minimise_the_penalised_loss_without_any_below_zero(seed):
    logits, labels = random_case(seed, shifts=(1.0, -0.8, 0.5))
    fusion = Stack.fit(logits, labels).fusions["axial+coronal+sagittal"]
    x = table(logits, PLANES)
    standard = (x - x.mean(axis=0)) / x.std(axis=0)

    def loss(b):
        odds = b[0] + standard @ b[1:]
        return np.sum(np.logaddexp(0, odds) - labels * odds) + b[1:] @ b[1:] / 2

    best = minimize(loss, np.zeros(4), bounds=[(None, None)] + [(0, None)] * 3, tol=1e-14).x
    np.testing.assert_allclose(np.array(list(fusion.weights.values())) * x.std(axis=0), best[1:], atol=1e-4)
    assert fusion.weights["coronal"] == 0.0
    assert fusion.weights["axial"] > 0


def test_a_plane_against_the_truth_is_not_asked():
    logits, labels = random_case(4, shifts=(1.0, -1.0, 1.0))
    stack = Stack.fit(logits, labels)
    others = {plane: logits[plane] for plane in ("axial", "sagittal")}
    np.testing.assert_allclose(stack.apply(logits), stack.apply(others), atol=1e-6)
    alone = stack.apply({"coronal": logits["coronal"]})
    np.testing.assert_allclose(alone, math.log(labels.sum() / (1 - labels).sum()))  # the prevalence for everyone


def test_noise_gets_little_weight():
    logits, labels = random_case(0, n=2000, shifts=(1.5, 0.0, 1.5))
    weights = Stack.fit(logits, labels).fusions["axial+coronal+sagittal"].weights
    spread = {plane: weights[plane] * logits[plane].std() for plane in PLANES}
    assert spread["coronal"] < 0.1 * min(spread["axial"], spread["sagittal"])


def test_fusion_beats_its_planes_on_new_exams():
    stack = Stack.fit(*random_case(0, n=400))
    logits, labels = random_case(1, n=2000)
    assert roc_auc_score(labels, stack.apply(logits)) > max(roc_auc_score(labels, logits[p]) for p in PLANES) + 0.02


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_one_plane_keeps_its_order(seed):
    logits, labels = random_case(seed, n=30)
    stack = Stack.fit(logits, labels)
    for plane in PLANES:
        fused = stack.apply({plane: logits[plane]})
        if roc_auc_score(labels, logits[plane]) > 0.6:
            assert roc_auc_score(labels, fused) == roc_auc_score(labels, logits[plane])
            assert np.array_equal(np.argsort(fused), np.argsort(logits[plane]))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_the_order_of_exams_and_planes_does_not_count(seed):
    logits, labels = random_case(seed, n=60, missing=0.2)
    stack = Stack.fit(logits, labels)
    order = np.random.default_rng(seed).permutation(60)
    moved = Stack.fit({plane: logits[plane][order] for plane in reversed(PLANES)}, labels[order])
    assert list(moved.fusions) == list(stack.fusions)
    for key, fusion in stack.fusions.items():
        assert list(moved.fusions[key].weights.values()) == pytest.approx(list(fusion.weights.values()), abs=1e-6)
    assert Stack.fit(dict(reversed(logits.items())), labels) == stack


def test_scale_and_centre_of_a_plane_do_not_count():
    logits, labels = random_case(2)
    other = {plane: 7 * values - 3 for plane, values in logits.items()}
    np.testing.assert_allclose(
        Stack.fit(other, labels).apply(other), Stack.fit(logits, labels).apply(logits), atol=1e-6
    )


def test_every_exam_is_answered_by_the_planes_it_has():
    logits, labels = random_case(0)
    stack = Stack.fit(logits, labels)
    patterns = [pattern for pattern in product([True, False], repeat=3) if any(pattern)]
    mixed = {plane: np.array([logits[plane][i] if p[k] else np.nan for i, p in enumerate(patterns)])
             for k, plane in enumerate(PLANES)}  # fmt: skip
    fused = stack.apply(mixed)
    for i, pattern in enumerate(patterns):
        own = {plane: float(logits[plane][i]) for plane, has in zip(PLANES, pattern, strict=True) if has}
        alone = stack.apply(own)
        fusion = stack.fusions["+".join(own)]
        by_hand = fusion.intercept + sum(fusion.weights[plane] * value for plane, value in own.items())
        assert alone.shape == ()
        assert float(alone) == pytest.approx(by_hand, rel=1e-12)
        assert fused[i] == pytest.approx(by_hand, rel=1e-12)
        assert float(stack.apply(own | {"unheard of": math.nan})) == float(alone)


def test_shapes_stay():
    logits, labels = random_case(0)
    stack = Stack.fit(logits, labels)
    square = {plane: values.reshape(10, 12) for plane, values in logits.items()}
    np.testing.assert_array_equal(stack.apply(square), stack.apply(logits).reshape(10, 12))
    assert stack.apply({plane: [] for plane in PLANES}).shape == (0,)


def test_a_plane_that_says_nothing_gets_nothing():
    logits, labels = random_case(0)
    logits["coronal"] = np.full(120, 0.1)
    stack = Stack.fit(logits, labels)
    assert stack.fusions["axial+coronal"].weights["coronal"] == 0
    assert stack.fusions["coronal"].intercept == pytest.approx(math.log(labels.sum() / (1 - labels).sum()), abs=1e-6)


def test_sets_with_too_few_exams_are_left_out():
    logits, labels = random_case(0)
    logits["coronal"][np.flatnonzero(labels)[1:]] = np.nan  # one positive has a coronal series
    stack = Stack.fit(logits, labels)
    assert list(stack.fusions) == ["axial", "sagittal", "axial+sagittal"]
    with pytest.raises(UserError, match=r"no weights for axial\+coronal, only for axial, sagittal, axial\+sagittal"):
        stack.apply({"coronal": 0.5, "axial": 0.1})
    logits["coronal"][np.flatnonzero(labels)[:2]] = 1.0
    assert list(Stack.fit(logits, labels).fusions) == KEYS


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.0, 0.3, 0.8]))
def test_json_brings_back_the_same(seed, missing):
    logits, labels = random_case(seed, n=40, missing=missing)
    known = [labels[~np.isnan(values)].sum() for values in logits.values()]
    assume(
        any(
            2 <= positives <= (~np.isnan(values)).sum() - 2
            for positives, values in zip(known, logits.values(), strict=True)
        )
    )
    stack = Stack.fit(logits, labels)
    restored = Stack.from_dict(json.loads(json.dumps(stack.to_dict(), allow_nan=False)))
    assert restored == stack
    assert list(restored.fusions) == list(stack.fusions)


def test_json_may_come_in_another_order():
    logits, labels = random_case(0)
    stack = Stack.fit(logits, labels)
    record = stack.to_dict()
    for fusion in record.values():
        fusion["weights"] = dict(reversed(fusion["weights"].items()))
    np.testing.assert_array_equal(Stack.from_dict(record).apply(logits), stack.apply(logits))


PAIR = {"weights": {"axial": 0.5, "sagittal": 1.0}, "intercept": -1.0, "positives": 5, "negatives": 7}


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (None, "JSON object, not NoneType"),
        ({}, "at least one set of planes"),
        ({"axial+sagittal": None}, r"weights of axial\+sagittal must be a JSON object"),
        ({"axial": PAIR}, "unknown sagittal"),
        ({"axial+coronal": PAIR}, "lack coronal and have unknown sagittal"),
        ({"sagittal+axial": PAIR}, "are of the planes axial, sagittal"),
        ({"axial+sagittal": PAIR | {"extra": 1}}, "unknown extra"),
        ({"axial+sagittal": {k: v for k, v in PAIR.items() if k != "intercept"}}, "lack intercept"),
        ({"axial+sagittal": PAIR | {"weights": {"axial": -0.1, "sagittal": 1.0}}}, "axial plane must be 0 or more"),
        ({"axial+sagittal": PAIR | {"weights": {"axial": math.nan, "sagittal": 1.0}}}, "axial plane must be a finite"),
        ({"axial+sagittal": PAIR | {"weights": {"axial": math.inf, "sagittal": 1.0}}}, "axial plane must be a finite"),
        ({"axial+sagittal": PAIR | {"weights": {"axial": "1", "sagittal": 1.0}}}, "axial plane must be a finite"),
        ({"axial+sagittal": PAIR | {"weights": {"axial": True, "sagittal": 1.0}}}, "axial plane must be a finite"),
        ({"axial+sagittal": PAIR | {"intercept": math.nan}}, "intercept of .* finite"),
        ({"axial+sagittal": PAIR | {"positives": 1}}, "at least 2 exams of either class"),
        ({"axial+sagittal": PAIR | {"negatives": -3}}, "whole number"),
        ({"axial+sagittal": PAIR | {"negatives": 7.0}}, "whole number"),
    ],
)
def test_a_record_that_was_changed(record, sentence):
    with pytest.raises(UserError, match=sentence):
        Stack.from_dict(record)


def test_fusions_and_their_keys_agree():
    with pytest.raises(UserError, match="are of the planes axial"):
        Stack({"sagittal": Fusion({"axial": 1.0}, 0.0, 5, 5)})
    with pytest.raises(UserError, match=r"\(none\)"):
        Stack({"": Fusion({}, 0.0, 5, 5)})


@pytest.mark.parametrize(
    ("logits", "labels", "sentence"),
    [
        ({}, [0, 0, 1, 1], "no plane to stack"),
        ({"axial": [1, 2, 3]}, [0, 0, 1, 1], r"axial plane, but there are 4 labels and logits of shape \(3,\)"),
        ({"axial": [[1, 2, 3, 4]]}, [0, 0, 1, 1], r"shape \(1, 4\)"),
        ({"axial": [1, 2, 3, math.inf]}, [0, 0, 1, 1], "axial plane must be finite"),
        ({"axial": ["a", "b", "c", "d"]}, [0, 0, 1, 1], "axial plane must be numbers"),
        ({"axial": [1, 2, 3, 4]}, [0, 0, 0, 1], "1 positive and 3 negative"),
        ({"axial": [1, 2, 3, 4]}, [0, 0, 1, 3], "labels must be 0 or 1"),
        ({"axial": [1, math.nan, 3, 4]}, [0, 0, 1, 1], "nothing to stack"),
        ({"axial+coronal": [1, 2, 3, 4]}, [0, 0, 1, 1], r"must not contain \+"),
    ],
)
def test_wrong_arguments_to_fit(logits, labels, sentence):
    with pytest.raises(UserError, match=sentence):
        Stack.fit(logits, labels)


@pytest.mark.parametrize(
    ("logits", "sentence"),
    [
        ({}, "at least one"),
        ({"axial": math.nan}, "without any plane"),
        ({"axial": [1.0, math.nan], "coronal": [1.0, math.nan]}, "without any plane"),
        ({"axial": [1.0, 2.0], "coronal": 1.0}, "as many logits in each"),
        ({"axial": [1.0, 2.0], "coronal": [1.0]}, "as many logits in each"),
        ({"oblique": 1.0}, "no weights for oblique, only for axial"),
        ({"axial": -math.inf}, "must be finite"),
        ({"axial": "much"}, "must be numbers"),
    ],
)
def test_wrong_arguments_to_apply(logits, sentence):
    with pytest.raises(UserError, match=sentence):
        Stack.fit(*random_case(0)).apply(logits)
