"""One model's figures in each subgroup of the exams, where the mean over all would hide that some are served badly.

Subgroups are small and many, so their intervals are wide, and some will look bad by chance alone: no interval is
corrected for their number. What is tested is whether the groups of a characteristic differ at all, more than by chance.

Source of the test: W. G. Cochran, "The combination of estimates from different experiments", Biometrics 10, 1954 (Q).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from kneessl.errors import UserError
from kneessl.evaluation.auc import AucInterval, auc_interval, checked_labels, checked_scores
from kneessl.evaluation.comparison import holm
from kneessl.evaluation.metrics import Proportion

FEW = 10
"""Fewer positives or negatives than this are called few, and not tested: DeLong's error is then too rough."""


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


@dataclass(frozen=True)
class Interaction:
    """Whether the AUC differs between the groups of a characteristic: Cochran's Q of their logits."""

    variable: str
    groups: int
    """That are tested; at least two."""
    q: float
    """Chi-squared with groups - 1 degrees of freedom where all have one AUC."""
    p: float
    p_holm: float
    """Adjusted for all characteristics that are tested on these exams."""
    worst: Subgroup
    """Of the lowest AUC among those tested; as the lowest of several it looks worse than it is."""
    left_out: tuple[str, ...]
    """Groups that are too small to be tested, or in perfect order."""


def interactions(groups: Sequence[Subgroup]) -> list[Interaction]:
    """Test, for each characteristic, whether the AUC is the same in all of its groups.

    Groups hold different exams, so their AUCs are independent. Q is the sum of squared distances of their logits from
    the mean weighted by 1 / error^2, each over its error^2 (DeLong's, by the delta method). A characteristic of which
    fewer than two groups have `FEW` of each label is not tested.

    Args:
        groups: of `subgroups`, without those whose value is not known.

    Returns:
        In the order of characteristics.
    """
    found = []
    for variable in dict.fromkeys(group.variable for group in groups):
        of_it = [group for group in groups if group.variable == variable]
        tested = [group for group in of_it if _testable(group)]
        if len(tested) < 2:
            continue
        aucs = np.array([group.auc.auc for group in tested if group.auc])
        errors = np.array([group.auc.standard_error for group in tested if group.auc]) / (aucs * (1 - aucs))
        logits, weights = scipy.special.logit(aucs), errors**-2
        q = float((weights * (logits - np.average(logits, weights=weights)) ** 2).sum())
        p = float(scipy.stats.chi2.sf(q, len(tested) - 1))
        worst = tested[int(aucs.argmin())]
        found.append(
            Interaction(variable, len(tested), q, p, p, worst, tuple(g.value for g in of_it if not _testable(g)))
        )
    adjusted = holm([interaction.p for interaction in found])
    return [replace(interaction, p_holm=p) for interaction, p in zip(found, adjusted, strict=True)]


def _testable(group: Subgroup) -> bool:
    enough = min(group.positives, group.n - group.positives) >= FEW
    return enough and group.auc is not None and group.auc.standard_error > 0


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
