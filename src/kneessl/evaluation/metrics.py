"""What a clinical reader asks of one model on one set of exams, every proportion with its interval.

Source of the interval: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
Journal of the American Statistical Association 22, 1927.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike

from kneessl.errors import UserError
from kneessl.evaluation.auc import LEVEL, QUANTILE, AucInterval, auc_interval, checked_labels, checked_scores

THRESHOLD = 0.5
"""The decision threshold, fixed before any test set is read: a probability at or above it is positive."""


@dataclass(frozen=True)
class Proportion:
    """`successes` of `n` as a value in [0, 1], with its Wilson interval."""

    value: float
    low: float
    high: float
    successes: int
    n: int

    @classmethod
    def of(cls, successes: int, n: int) -> "Proportion":
        """Return `successes` / `n` with Wilson's score interval; `n` is at least 1."""
        interval = scipy.stats.binomtest(successes, n).proportion_ci(confidence_level=LEVEL, method="wilson")
        return cls(successes / n, float(interval.low), float(interval.high), successes, n)


@dataclass(frozen=True)
class Summary:
    """One model on one set of exams."""

    n: int
    positives: int
    auc: AucInterval
    accuracy: Proportion
    sensitivity: Proportion
    specificity: Proportion
    threshold: float
    tn: int
    fp: int
    fn: int
    tp: int
    brier: float
    """Mean squared distance of probability and label: 0 is perfect, 0.25 what always saying 0.5 gets."""
    majority_accuracy: float
    """Accuracy of always saying the commoner answer: what an accuracy has to be read against."""

    def to_dict(self) -> dict[str, Any]:
        """Return nested dicts of plain Python numbers, ready for `json.dumps`."""
        return asdict(self)


def summarise(labels: ArrayLike, scores: ArrayLike, threshold: float = THRESHOLD) -> Summary:
    """Summarise a model's probabilities against the reference standard.

    Args:
        labels: (n,) the reference standard, 0 or 1, with at least two exams of each.
        scores: (n,) probabilities of 1, in [0, 1].
        threshold: in [0, 1]; an exam scored at or above it is called positive.

    Raises:
        UserError: the arguments are not as described above.
    """
    auc = auc_interval(labels, scores, scale="logit")
    positive = checked_labels(labels)
    probability = checked_scores(scores, positive)
    if probability.min() < 0 or probability.max() > 1:
        raise UserError(
            f"scores must be probabilities between 0 and 1, "
            f"but they reach from {probability.min():.3g} to {probability.max():.3g}"
        )
    if not 0 <= threshold <= 1:
        raise UserError(f"a threshold on probabilities lies between 0 and 1, not at {threshold}")
    called = probability >= threshold
    tp, fn = int((called & positive).sum()), int((~called & positive).sum())
    fp, tn = int((called & ~positive).sum()), int((~called & ~positive).sum())
    n = len(positive)
    return Summary(
        n=n,
        positives=tp + fn,
        auc=auc,
        accuracy=Proportion.of(tp + tn, n),
        sensitivity=Proportion.of(tp, tp + fn),
        specificity=Proportion.of(tn, tn + fp),
        threshold=float(threshold),
        tn=tn,
        fp=fp,
        fn=fn,
        tp=tp,
        brier=float(np.mean((probability - positive) ** 2)),
        majority_accuracy=max(tp + fn, tn + fp) / n,
    )


def wilson(share: float, n: float) -> tuple[float, float]:
    """Return Wilson's interval of a share in [0, 1] among n exams, where neither n nor their count need be whole."""
    z = QUANTILE
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * float(np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)))
    return max(centre - half, 0.0), min(centre + half, 1.0)
