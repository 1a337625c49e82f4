"""Probes: how much of a finding can be read off frozen features, by a line or by the nearest neighbours."""

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from kneessl.errors import UserError

Features = NDArray[np.float32]
Labels = NDArray[np.int64]
STRENGTHS = tuple(np.logspace(-5, 0, 6).tolist())
"""Inverse regularisation that the linear probe chooses from, by cross-validation on its training exams."""
FOLDS = 5
NEIGHBOURS = 20
TEMPERATURE = 0.07


def require_probe_labels(labels: Labels) -> None:
    """Raise a user error unless there are enough exams of both labels to cross-validate."""
    rarer = int(np.bincount(labels, minlength=2).min())
    if rarer < 2 * FOLDS:
        raise UserError(
            f"a probe needs at least {2 * FOLDS} labelled training exams of each class, and there are {rarer} of the "
            "rarer; label more, or probe another task"
        )


def linear_weights(features: Features, labels: Labels) -> tuple[NDArray[np.float64], float]:
    """Logistic regression on standardised features; its L2 strength is chosen by 5-fold AUC on these exams.

    Args:
        features: `(n, dim)`.
        labels: `(n,)`, 0 or 1, at least five of each.

    Returns:
        Weights `(dim,)` and bias of the log odds, for features as they are: the standardisation is folded in.
    """
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    regression = LogisticRegressionCV(
        Cs=STRENGTHS, cv=folds, scoring="roc_auc", max_iter=2000, l1_ratios=(0,), use_legacy_attributes=False
    )
    scaler = StandardScaler()
    regression.fit(scaler.fit_transform(features.astype(np.float64)), labels)
    weights = regression.coef_[0] / scaler.scale_
    return weights, float(regression.intercept_[0] - weights @ scaler.mean_)


def linear_probe(features: Features, labels: Labels, new: Features) -> NDArray[np.float64]:
    """Log odds `(m,)` of `new` `(m, dim)` under `linear_weights` of the training exams."""
    weights, bias = linear_weights(features, labels)
    return new.astype(np.float64) @ weights + bias


def knn_probe(features: Features, labels: Labels, new: Features) -> NDArray[np.float64]:
    """Weighted vote of the 20 nearest training exams by cosine, weight exp(cos / 0.07) (Wu et al. 2018, section 3.4).

    Features are standardised first: behind a ReLU all of them point the same way.

    Args:
        features: `(n, dim)` of the training exams.
        labels: `(n,)`, 0 or 1.
        new: `(m, dim)` of the exams to score.

    Returns:
        Share of the vote for 1, `(m,)`.
    """
    scaler = StandardScaler().fit(features)
    a, b = (_unit(scaler.transform(x)) for x in (features, new))
    cosine = b @ a.T
    nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :NEIGHBOURS]
    weight = np.exp((np.take_along_axis(cosine, nearest, axis=1) - 1) / TEMPERATURE)
    return (weight * labels[nearest]).sum(1) / weight.sum(1)


def _unit(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def out_of_fold(features: Features, labels: Labels) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of both probes for each exam, from the other four fifths of the exams: linear `(n,)` and kNN `(n,)`.

    Linear scores are ranked within their fold, since folds differ in scale; shares of a vote do not.
    """
    linear, knn = np.empty(len(labels)), np.empty(len(labels))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    for train, held in folds.split(features, labels):
        scores = linear_probe(features[train], labels[train], features[held])
        linear[held] = (scores.argsort().argsort() + 0.5) / len(held)
        knn[held] = knn_probe(features[train], labels[train], features[held])
    return linear, knn
