"""What a model would gain by leaving the exams it is least sure of to somebody else.

Sources: Y. Geifman, R. El-Yaniv, "Selective classification for deep neural networks", NeurIPS 2017 (selective risk and
coverage); Y. Geifman, G. Uziel, R. El-Yaniv, "Bias-reduced uncertainty estimation for deep neural classifiers",
ICLR 2019 (area under the curve, and its excess over the best order's); E. B. Wilson 1927 (see `metrics`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logit

from kneessl.errors import UserError
from kneessl.evaluation.auc import checked_labels
from kneessl.evaluation.calibration import checked_probabilities
from kneessl.evaluation.metrics import THRESHOLD, Proportion

COVERAGES = (1.0, 0.9, 0.8, 0.5)

DECIMALS = 9
"""Confidences that agree to so many decimals are equal: 0.3 and 0.7 are as far from 0.5, whatever rounding does.

It does little: 1e-10 where the probability is 1e-6 from 1."""


@dataclass(frozen=True)
class KeptRisk:
    """The errors among the surest exams."""

    coverage: float
    """The share of exams to answer, of which as few were kept as reach it without splitting equally sure ones."""
    risk: Proportion
    """Share of the kept that were answered wrongly, with its Wilson interval at 95 %; `risk.n` exams were kept."""


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """The risk-coverage curve of one model on one set of exams."""

    coverage: NDArray[np.float64]
    """(k,) rising to 1: the share of exams kept, at each of the k different confidences."""
    risk: NDArray[np.float64]
    """(k,) the share of errors among the kept, in [0, 1]."""
    aurc: float
    """Area under the curve: mean over 1, 2 ... n kept exams of the risk, in [0, 1]."""
    excess: float
    """`aurc` less that of the best order, all errors last; 0 or more, and 0 if no right answer was less sure than a
    wrong one (E-AURC)."""
    threshold: float
    at: tuple[KeptRisk, ...]
    """At `COVERAGES`."""


def risk_coverage(labels: ArrayLike, probabilities: ArrayLike, threshold: float = THRESHOLD) -> RiskCoverage:
    """Order exams by confidence, |logit(probability) - logit(threshold)|, and see how errors fall with coverage.

    Equally sure exams are kept or left together. Inside such a group the area takes the risk that is expected if they
    came in random order, so neither the area nor anything else depends on the order of the exams (our reading: the
    sources have no ties). The best order's area is the exact sum, whose limit in Geifman 2019 is r + (1 - r) ln(1 - r).
    Which exams are kept does not depend on the labels, so a Wilson interval holds at each coverage.

    Args:
        labels: (n,) the reference standard, 0 or 1, with at least two exams of each.
        probabilities: (n,) of 1, in [0, 1]; at or above `threshold` is called positive. 0 and 1 are surest.
        threshold: above 0 and below 1.

    Raises:
        UserError: the arguments are not as described above.
    """
    positive = checked_labels(labels)
    probability = checked_probabilities(probabilities, positive)
    if not 0 < threshold < 1:
        raise UserError(f"confidence is measured from a threshold above 0 and below 1, not from {threshold}")
    n = len(positive)
    wrong = (probability >= threshold) != positive
    confidence = np.round(np.abs(logit(probability) - logit(threshold)), DECIMALS)
    _, group = np.unique(-confidence, return_inverse=True)  # 0 for the surest
    size, errors = np.bincount(group), np.bincount(group, weights=wrong)
    kept, kept_wrong = size.cumsum(), errors.cumsum()
    # Among 1, 2 ... n kept, the errors to be expected rise evenly from the end of one group to that of the next.
    steps = np.arange(1, n + 1)
    aurc = float(np.mean(np.interp(steps, np.r_[0, kept], np.r_[0, kept_wrong]) / steps))
    best = float(np.mean(np.maximum(steps - (n - wrong.sum()), 0) / steps))
    at = [int(np.searchsorted(kept, round(coverage * n, 9))) for coverage in COVERAGES]
    return RiskCoverage(
        coverage=kept / n,
        risk=kept_wrong / kept,
        aurc=aurc,
        excess=max(aurc - best, 0.0),
        threshold=float(threshold),
        at=tuple(
            KeptRisk(coverage, Proportion.of(int(kept_wrong[k]), int(kept[k])))
            for coverage, k in zip(COVERAGES, at, strict=True)
        ),
    )
