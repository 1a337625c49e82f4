"""Which labels may be wrong: confident learning on out-of-fold probabilities.

Source: C. Northcutt, L. Jiang, I. Chuang, "Confident learning: estimating uncertainty in dataset labels", Journal of
Artificial Intelligence Research 70, 2021, section 3 (confident joint, equation 1; ranking by normalised margin). The
authors' library is under the AGPL, which does not go with this project's licence; for two classes it is a page.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from kneessl.evaluation.auc import checked_labels
from kneessl.evaluation.calibration import checked_probabilities


@dataclass(frozen=True)
class Suspect:
    """An exam whose label may be wrong."""

    index: int
    """Of the exam."""
    label: int
    """As given, 0 or 1."""
    probability: float
    """Of 1, out of fold."""
    margin: float
    """Probability of the other label less that of the given one, above -1; the larger, the more suspect."""


def suspected_errors(labels: ArrayLike, probabilities: ArrayLike) -> list[Suspect]:
    """Return the exams that confidently belong to the other class than their label says, most suspect first.

    A class's threshold is the mean probability of that class among the exams labelled so. An exam is suspect where its
    probability of the other class reaches that one's threshold, and is above its own label's probability: the paper's
    off-diagonal of the confident joint, where an exam that reaches both thresholds counts for the likelier class.

    Args:
        labels: (n,) as given, 0 or 1, with at least two exams of each.
        probabilities: (n,) of 1, in [0, 1], by models that have not seen the exam: on exams that they were trained on,
            a network has learned the wrong labels too.

    Raises:
        UserError: the arguments are not as described above.
    """
    positive = checked_labels(labels)
    of_one = checked_probabilities(probabilities, positive)
    given = np.where(positive, of_one, 1 - of_one)
    other = 1 - given
    needed = np.where(positive, (1 - of_one[~positive]).mean(), of_one[positive].mean())
    suspect = np.flatnonzero((other >= needed) & (other > given))
    order = suspect[np.argsort(given[suspect] - other[suspect], kind="stable")]
    return [Suspect(int(i), int(positive[i]), float(of_one[i]), float(other[i] - given[i])) for i in order]
