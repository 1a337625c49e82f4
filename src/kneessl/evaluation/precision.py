"""Area under the precision-recall curve, beside what chance would get.

Sources: T. Saito, M. Rehmsmeier, "The precision-recall plot is more informative than the ROC plot when evaluating
binary classifiers on imbalanced datasets", PLoS ONE 10, 2015 (chance is the prevalence); K. Boyd, K. Eng, C. D. Page,
"Area under the precision-recall curve: point estimates and confidence intervals", ECML PKDD 2013 (average precision as
its estimate, interval on the logit scale); B. Efron, R. J. Tibshirani 1993 (jackknife, see `bootstrap`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kneessl.evaluation.auc import checked_labels, checked_scores, logit_limits
from kneessl.evaluation.bootstrap import checked_patients, jackknife


@dataclass(frozen=True)
class AuprcInterval:
    """Average precision in [0, 1] and its interval, to be read against `chance`.

    Where the scores separate the classes perfectly, the interval has no width; that does not mean that the AUPRC is
    known exactly (as in `AucInterval`).
    """

    auprc: float
    low: float
    high: float
    standard_error: float
    chance: float
    """The prevalence among these exams: what scores that know nothing get with ever more exams."""


def auprc_interval(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike | None = None) -> AuprcInterval:
    """Return the average precision with a jackknife interval on the logit scale.

    The standard error is that of a jackknife that leaves out one exam, or one patient, at a time, within the strata of
    `bootstrap_interval`; the interval is logit(AP) -+ quantile x error / (AP (1 - AP)), brought back. Boyd 2013 takes
    sqrt(AP (1 - AP) / positives) for the error, as if AP were a proportion, which covers too often; the jackknife is
    our choice. Measured by `benchmarks/coverage.py` on 5,000 simulated sets of 120 exams, 48 of them positive, it
    covers 94.0 and 94.8 % at a true AUC of 0.80 and 0.90 (one standard error is 0.3 %).

    The AUPRC belongs to the prevalence among these exams: it can't be compared with one at another prevalence.

    Args:
        labels: (n,) the reference standard, 0 or 1, with at least two exams of each.
        scores: (n,) any numbers where a higher one speaks for 1; only their order counts.
        groups: (n,) the patient of each exam, as in `bootstrap_interval`.

    Raises:
        UserError: the arguments are not as described above.
    """
    positive = checked_labels(labels)
    values = checked_scores(scores, positive)
    truth = positive.astype(np.int64)
    value = average_precision(truth, values)
    parts = jackknife(lambda kept: average_precision(truth[kept], values[kept]), checked_patients(positive, groups))
    error = float(np.sqrt(sum((part**2).sum() * len(part) / (len(part) - 1) for part in parts)))
    low, high = logit_limits(value, error)
    return AuprcInterval(value, low, high, error, float(positive.mean()))


def average_precision(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> float:
    """Return the sum over thresholds of precision x rise in recall: scikit-learn's, fast enough for many replicates.

    Args:
        labels: (n,) 0 or 1, at least one 1.
        scores: (n,) no NaN among them; equal ones are called together.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    called = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) + 1
    hits = np.cumsum(labels[order])[called - 1]
    return float((np.diff(hits, prepend=0) * hits / called).sum() / hits[-1])
