"""Probes: how much of a finding can be read off frozen features, by a line or by the nearest neighbours."""

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from kneessl.errors import UserError

if TYPE_CHECKING:  # its import takes a third of a second, which pre-training without labels need not wait for
    from sklearn.pipeline import Pipeline

Features = NDArray[np.float32]
Labels = NDArray[np.int64]
STRENGTHS = tuple(np.logspace(-5, 0, 6).tolist())
"""Inverse regularisation that the linear probe chooses from, by cross-validation on its training exams."""
FOLDS = 5
REPEATED = 200
"""Cross-validation is repeated on other folds until about so many exams were scored: of 40, one split is a lottery."""
SCORED = 2 * FOLDS
"""Exams of each label for scores out of fold: two in every fold."""
NEIGHBOURS = 20
TEMPERATURE = 0.07


def require_probe_labels(labels: Labels, least: int = 2) -> None:
    """Raise a user error unless there are so many exams of both labels: a linear probe chooses its strength from 2 on.

    Args:
        labels: int `(n,)`, 0 or 1.
        least: `SCORED` where the exams are scored out of fold as well.
    """
    rarer = int(np.bincount(labels, minlength=2).min())
    if rarer < least:
        raise UserError(
            f"a probe needs at least {least} labelled training exams of each class, and there are {rarer} of the "
            "rarer; label more, or probe another task"
        )


def linear_readout(labels: Labels, scoring: Literal["roc_auc", "accuracy"]) -> "Pipeline":
    """Standardisation, then logistic regression whose L2 strength cross-validation chooses, the strongest of equals.

    Args:
        labels: int `(n,)`, those that it will be fitted to, each at least twice.
        scoring: What the strength is chosen by.
    """
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    n, folds = len(labels), min(FOLDS, int(np.bincount(labels).min()))
    splits = [
        split
        for repeat in range(max(1, REPEATED // n))
        for split in StratifiedKFold(folds, shuffle=True, random_state=repeat).split(np.zeros(n), labels)
    ]
    regression = LogisticRegressionCV(
        Cs=STRENGTHS, cv=splits, scoring=scoring, max_iter=2000, l1_ratios=(0,), use_legacy_attributes=False
    )
    return make_pipeline(StandardScaler(), regression)


def neighbour_readout(n: int) -> "Pipeline":
    """Weighted vote of the 20 nearest by cosine, weight exp(cos / 0.07) (Wu et al. 2018, section 3.4).

    Features are standardised first, which is ours: behind a ReLU all of them point the same way.

    Args:
        n: How many it will be fitted to.
    """
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    vote = KNeighborsClassifier(min(NEIGHBOURS, n), weights=_weight, metric="cosine", algorithm="brute")
    return make_pipeline(StandardScaler(), vote)


def _weight(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of neighbours at cosine distances 1 - cos; a factor common to all does not count."""
    return np.exp(-distances / TEMPERATURE)


def linear_weights(features: Features, labels: Labels) -> tuple[NDArray[np.float64], float]:
    """Fit `linear_readout` by AUC, and fold the standardisation into it.

    Args:
        features: `(n, dim)`.
        labels: `(n,)`, 0 or 1.

    Returns:
        Weights `(dim,)` and bias of the log odds, for features as they are.
    """
    scaler, regression = linear_readout(labels, "roc_auc").fit(features.astype(np.float64), labels)
    weights = regression.coef_[0] / scaler.scale_
    return weights, float(regression.intercept_[0] - weights @ scaler.mean_)


def linear_probe(features: Features, labels: Labels, new: Features) -> NDArray[np.float64]:
    """Log odds `(m,)` of `new` `(m, dim)` under `linear_weights` of the training exams."""
    weights, bias = linear_weights(features, labels)
    return new.astype(np.float64) @ weights + bias


def knn_probe(features: Features, labels: Labels, new: Features) -> NDArray[np.float64]:
    """Share of the vote for 1, `(m,)`, of `new` `(m, dim)` under `neighbour_readout` of the training exams."""
    fitted = neighbour_readout(len(labels)).fit(features.astype(np.float64), labels)
    return fitted.predict_proba(new.astype(np.float64))[:, 1]


def out_of_fold(features: Features, labels: Labels) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of both probes for each exam, from the other four fifths of the exams: linear `(n,)` and kNN `(n,)`.

    Linear scores are ranked within their fold, since folds differ in scale; shares of a vote do not.
    """
    from sklearn.model_selection import StratifiedKFold

    linear, knn = np.empty(len(labels)), np.empty(len(labels))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    for train, held in folds.split(features, labels):
        scores = linear_probe(features[train], labels[train], features[held])
        linear[held] = (scores.argsort().argsort() + 0.5) / len(held)
        knn[held] = knn_probe(features[train], labels[train], features[held])
    return linear, knn
