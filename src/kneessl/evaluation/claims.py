"""How probable it is that a claimed ranking of two models is false: that the better one here is not the better one.

Source: E. Christodoulou et al., "False promises in medical imaging AI? Assessing validity of outperformance claims",
arXiv 2505.04720, 2025 ("Claims Reloaded", DKFZ). For accuracy they define it as P(p_A <= p_B | the test set), p being
the probability that a model is right on an exam. With x1 of n exams on which A alone is right and x2 on which B alone
is, and a uniform prior over the four joint outcomes, the posterior of (A alone, B alone, other) is Dirichlet(x1 + 1,
x2 + 1, n - x1 - x2 + 2). We read the definition as a published summary of the paper quotes it (themoonlight.io), not in
the paper's own pages. They estimate x1 and x2 from a model of congruence where a paper does not report them; here they
are counted. For means of segmentation scores they take the posterior of a paired t test.

For the AUC the paper, as far as we know it, defines nothing. `AucDifference.p_false` is our reading by the same idea: a
flat prior on the difference and DeLong's normal likelihood, by which it is half of the two-sided p. Both take exams as
independent and drawn as those to come will be, the trainings as they are, and one claim at a time: neither knows
whether a claim was picked as the best of many.
"""

import scipy
from numpy.typing import ArrayLike

from kneessl.evaluation.auc import checked_labels, checked_trainings
from kneessl.evaluation.metrics import THRESHOLD


def false_accuracy_claim(
    labels: ArrayLike, scores_a: ArrayLike, scores_b: ArrayLike, threshold: float = THRESHOLD
) -> float:
    """Return the posterior probability that the model of the higher accuracy here has not the higher one.

    Of the Dirichlet's first two shares, the first over their sum is Beta(x1 + 1, x2 + 1), so the probability is that
    distribution's below 1 / 2, in closed form: the exams on which both are right or both wrong do not enter. With
    several trainings, x1 and x2 are means over all pairs of one training of each model (our reading).

    Args:
        labels: (n,) the reference standard, 0 or 1, with at least two exams of each.
        scores_a: (n,) or (trainings, n) scores of model a.
        scores_b: (n,) or (trainings, n) of model b for the same exams in the same order.
        threshold: an exam scored at or above it is called positive.

    Returns:
        From 0 to 0.5; 0.5 where both have the same accuracy.

    Raises:
        UserError: the arguments are not as described above.
    """
    positive = checked_labels(labels)
    a, b = (
        ((checked_trainings(scores, positive) >= threshold) == positive).mean(axis=0) for scores in (scores_a, scores_b)
    )
    alone = sorted((float((a * (1 - b)).sum()), float((b * (1 - a)).sum())))
    return float(scipy.special.betainc(alone[1] + 1, alone[0] + 1, 0.5))
