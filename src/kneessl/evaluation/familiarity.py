"""Whether a model has ever seen anything like an exam: how far its features lie from those of the training exams.

Sources: M. E. Tipping, C. M. Bishop, "Probabilistic principal component analysis", Journal of the Royal Statistical
Society B 61, 1999 (the Gaussian, and its maximum likelihood in closed form); K. Lee et al., "A simple unified framework
for detecting out-of-distribution samples and adversarial attacks", NeurIPS 2018 (Mahalanobis distance of a network's
features; one Gaussian for all classes is our reading, since several findings make no classes that exclude each other);
M. Mueller, M. Hein, "Mahalanobis++: improving OOD detection via feature normalization", ICML 2025 (features brought to
length 1: their lengths have long tails, which a Gaussian has not; docs/results.md has what it is worth here);
M. Gavish, D. L. Donoho, "The optimal hard threshold for singular values is 4 / sqrt(3)", IEEE Transactions on
Information Theory 60, 2014 (how many components); V. Vovk, "Cross-conformal predictors", Annals of Mathematics and
Artificial Intelligence 74, 2015 (the p-value).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kneessl.errors import UserError
from kneessl.evaluation.auc import as_numbers

UNFAMILIAR = 0.05
"""An exam with a p-value of this or less is one such as the model has not seen. Our choice: of exams of the training
exams' kind it costs one in twenty a yes or no, and .01 let the real knee pass as a phantom (docs/results.md)."""

LEAST_DEVIATION = 1e-6
"""No direction of features of length 1 counts as varying less, or features that are all alike would forbid every other
(our choice)."""


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A normal distribution of features at length 1: varies along a few components, and alike in every other direction.

    Features go in as they are, and are brought to length 1 here.
    """

    mean: NDArray[np.float64]
    """(d,)"""
    components: NDArray[np.float64]
    """(k, d), orthonormal rows."""
    variances: NDArray[np.float64]
    """(k,), along the components."""
    noise: float
    """The variance in every other direction."""

    @classmethod
    def fit(cls, features: ArrayLike) -> "Gaussian":
        """Fit by maximum likelihood: probabilistic principal components (Tipping & Bishop 1999, equations 7 and 8).

        Their number is that of the centred features' singular values above Gavish and Donoho's threshold for noise of
        unknown strength: (0.56 b^3 - 0.95 b^2 + 1.82 b + 1.43) x median, b the matrix's shorter side over its longer.
        That is always fewer than half of what so many exams could tell apart, so there is noise left to estimate.

        Args:
            features: (n, d) of at least 2 exams.

        Raises:
            UserError: the features are not as described above, or not finite.
        """
        values = as_numbers(features, "features")
        if values.ndim != 2 or len(values) < 2 or not values.shape[1]:
            raise UserError(f"features must be one row for each of at least 2 exams, not of shape {values.shape}")
        if not np.isfinite(values).all():
            raise UserError("features must be finite numbers; the model is damaged or its training diverged")
        values = _unit(values)
        mean, (n, d) = values.mean(0), values.shape
        rank = min(n - 1, d)
        _, singular, directions = np.linalg.svd(values - mean, full_matrices=False)
        singular = singular[:rank]
        ratio = rank / max(n - 1, d)
        threshold = (0.56 * ratio**3 - 0.95 * ratio**2 + 1.82 * ratio + 1.43) * np.median(singular)
        variances = singular**2 / n
        kept = int((singular > threshold).sum())
        noise = max(float(variances[kept:].sum() / (d - kept)), LEAST_DEVIATION**2)
        return cls(mean, directions[:kept], np.maximum(variances[:kept], noise), noise)

    def distances(self, features: ArrayLike) -> NDArray[np.float64]:
        """Return the Mahalanobis distance of features (..., d) from the mean, in standard deviations: (...)."""
        away = _unit(as_numbers(features, "features")) - self.mean
        along = away @ self.components.T
        beside = away - along @ self.components
        return np.sqrt((along**2 / self.variances).sum(-1) + (beside**2).sum(-1) / self.noise)


def _unit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bring vectors (..., d) to length 1; one of length 0 stays as it is."""
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    return values / np.where(length == 0, 1, length)


@dataclass(frozen=True, eq=False)
class Familiarity:
    """What the training exams look like to a model, and how far exams lie that a model like it has not seen.

    Raises:
        UserError: shapes do not fit together, a number is not finite, or a variance is not above 0.
    """

    gaussian: Gaussian
    """Of the training exams' features."""
    reference: NDArray[np.float64]
    """(n,) distances of training exams, each under the network and the Gaussian of a fold that it was not part of."""

    def __post_init__(self) -> None:
        g = self.gaussian
        fitting = (
            g.mean.ndim == 1
            and g.components.shape == (len(g.variances), len(g.mean))
            and g.variances.ndim == self.reference.ndim == 1
            and len(self.reference) > 0
        )
        if not fitting:
            raise UserError("the parts of a familiarity do not fit together; fine-tune again with --folds")
        numbers = np.concatenate([g.mean, g.components.ravel(), g.variances, [g.noise], self.reference])
        if not np.isfinite(numbers).all() or min([g.noise, *g.variances]) <= 0:
            raise UserError("a familiarity needs finite numbers and variances above 0; fine-tune again with --folds")

    def p_value(self, features: ArrayLike) -> float:
        """Return the share of unseen training exams that lie at least as far out as this one, itself among them.

        (1 + number of reference distances that are not below its distance) / (n + 1): of exams of the training exams'
        kind, a share a would have a p-value of a or less. That guarantee of conformal prediction is not exact here: the
        reference distances are under networks and Gaussians of the folds, the exam's is under those of all training
        exams (our reading of Vovk 2015, who asks every fold about the exam and averages).

        A high p-value does not say that the answer is right. Features that are not numbers are as far out as can be.

        Args:
            features: (d,) of one exam.

        Raises:
            UserError: not as many features as those of the training exams.
        """
        values = as_numbers(features, "features")
        if values.shape != self.gaussian.mean.shape:
            raise UserError(f"an exam has {len(self.gaussian.mean)} features here, not some of shape {values.shape}")
        farther = (self.reference >= self.gaussian.distances(values)).sum()
        return float((1 + farther) / (len(self.reference) + 1))

    def unfamiliar(self, p_value: float) -> bool:
        """Say whether an exam of this p-value is one such as the model has not seen: at `UNFAMILIAR` or below.

        Fewer than 19 reference distances never give so small a p-value; then an exam that lies farther out than every
        one of them is called unfamiliar, which happens to 1 in n + 1 of the training exams' kind.
        """
        return p_value <= max(UNFAMILIAR, 1 / (len(self.reference) + 1))

    def to_arrays(self) -> dict[str, NDArray[np.float64]]:
        """Return all of it as arrays by name, for a file."""
        g = self.gaussian
        return {
            "mean": g.mean,
            "components": g.components,
            "variances": g.variances,
            "noise": np.array([g.noise]),
            "reference_distances": self.reference,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float64]]) -> "Familiarity":
        """Restore what `to_arrays` returned.

        Raises:
            UserError: something else.
        """
        names = ("mean", "components", "variances", "noise", "reference_distances")
        if set(arrays) != set(names) or arrays["noise"].shape != (1,):
            raise UserError(f"a familiarity consists of {', '.join(names)}; fine-tune again with --folds")
        mean, components, variances, noise, reference = (arrays[name].astype(np.float64) for name in names)
        return cls(Gaussian(mean, components, variances, float(noise[0])), reference)
