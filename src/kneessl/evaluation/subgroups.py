"""One model's figures in each subgroup of the exams, where the mean over all would hide that some are served badly.

Subgroups are small and many, so their intervals are wide, and some will look bad by chance alone: nothing here is
corrected for their number.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kneessl.errors import UserError
from kneessl.evaluation.auc import AucInterval, auc_interval, checked_labels, checked_scores
from kneessl.evaluation.metrics import Proportion


@dataclass(frozen=True)
class Subgroup:
    """Exams with one value of one variable; all intervals at 95 %."""

    variable: str
    value: str
    n: int
    positives: int
    auc: AucInterval | None
    """None where there are fewer than two positives or two negatives; `no_auc` says so."""
    no_auc: str | None
    sensitivity: Proportion | None
    """None where there are no positives."""
    specificity: Proportion | None
    """None where there are no negatives."""


def subgroups(
    labels: ArrayLike, scores: ArrayLike, membership: Mapping[str, ArrayLike], threshold: float
) -> list[Subgroup]:
    """Return the figures of each value of each variable: AUC (DeLong), sensitivity and specificity (Wilson).

    Args:
        labels: (n,) the reference standard, 0 or 1, with at least two exams of each.
        scores: (n,) any numbers where a higher one speaks for 1.
        membership: for each variable, say "sex" or "scanner", (n,) its value for each exam, as a text.
        threshold: an exam scored at or above it is called positive.

    Returns:
        Variables in the order of `membership`, the values of each in alphabetical order, whatever the order of exams.

    Raises:
        UserError: the arguments are not as described above.
    """
    positive = checked_labels(labels)
    values = checked_scores(scores, positive)
    if np.isnan(threshold):
        raise UserError("a threshold must be a number, not NaN")
    results = []
    for variable, column in membership.items():
        names = np.asarray(column)
        if names.shape != positive.shape:
            raise UserError(
                f"variable {variable} must have one value for each of {len(positive)} exams, "
                f"not be of shape {names.shape}"
            )
        if names.dtype.kind != "U":
            raise UserError(f"variable {variable} must have texts as values, not {names.dtype}")
        for name in np.unique(names):
            results.append(_subgroup(variable, str(name), positive, values, names == name, threshold))
    return results


def _subgroup(
    variable: str,
    value: str,
    positive: NDArray[np.bool_],
    scores: NDArray[np.float64],
    inside: NDArray[np.bool_],
    threshold: float,
) -> Subgroup:
    truth, called = positive[inside], scores[inside] >= threshold
    n, positives = len(truth), int(truth.sum())
    negatives = n - positives
    enough = min(positives, negatives) >= 2
    return Subgroup(
        variable=variable,
        value=value,
        n=n,
        positives=positives,
        auc=auc_interval(truth, scores[inside], scale="logit") if enough else None,
        no_auc=None if enough else f"an AUC needs 2 of each, but {positives} are positive and {negatives} negative",
        sensitivity=Proportion.of(int((called & truth).sum()), positives) if positives else None,
        specificity=Proportion.of(int((~called & ~truth).sum()), negatives) if negatives else None,
    )
