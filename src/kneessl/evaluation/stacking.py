"""Planes fused by logistic stacking, with weights of its own for every set of planes that an exam may have.

Sources: D. H. Wolpert, "Stacked generalization", Neural Networks 5, 1992 (fit on predictions of exams that the models
have not seen); L. Breiman, "Stacked regressions", Machine Learning 24, 1996 (weights not below 0); N. Bien et al.,
"Deep-learning-assisted diagnosis for knee magnetic resonance imaging", PLOS Medicine 15, 2018 (MRNet: logistic
regression over its three planes). The logits must be out of fold. That is the caller's duty and cannot be seen here:
on logits of exams that the models were trained on, the plane that overfits most would get the most weight.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logit

from kneessl.errors import UserError
from kneessl.evaluation.auc import as_numbers, checked_labels
from kneessl.evaluation.decisions import checked_count, checked_fields, checked_number

MINIMUM = 2
"""Exams of either class that it takes to fit the weights of a set of planes."""


@dataclass(frozen=True)
class Fusion:
    """The weights of one set of planes: fused logit = intercept + sum of weight x logit.

    Raises:
        UserError: a weight is below 0, or too few exams.
    """

    weights: Mapping[str, float]
    """By plane, in alphabetical order; 0 or more."""
    intercept: float
    positives: int
    """Exams that it was fitted on, at least `MINIMUM` of either class."""
    negatives: int

    def __post_init__(self) -> None:
        for plane, weight in self.weights.items():
            if not weight >= 0:
                raise UserError(f"the weight of the {plane} plane must be 0 or more, not {weight}")
        if min(self.positives, self.negatives) < MINIMUM:
            raise UserError(
                f"the weights of {planes_key(self.weights)} must come from at least {MINIMUM} exams of either class, "
                f"not from {self.positives} positive and {self.negatives} negative"
            )


@dataclass(frozen=True)
class Stack:
    """One `Fusion` for each set of planes that could be fitted, by its key such as axial+sagittal.

    Raises:
        UserError: there is none, or a key does not name the planes of its weights.
    """

    fusions: Mapping[str, Fusion]

    def __post_init__(self) -> None:
        if not self.fusions:
            raise UserError("a stack of planes must have the weights of at least one set of planes")
        for key, fusion in self.fusions.items():
            if sorted(fusion.weights) != key.split("+"):
                raise UserError(f"the weights under {key!r} are of the planes {', '.join(fusion.weights) or '(none)'}")

    @classmethod
    def fit(cls, logits: Mapping[str, ArrayLike], labels: ArrayLike) -> "Stack":
        """Fit the weights of every set of planes on the exams that have all planes of it.

        Logistic regression with scikit-learn's L2 penalty (C = 1) on standardised logits; mean and standard deviation
        are folded into weights and intercept. No weight is below 0: a higher logit speaks for 1 in every plane, so a
        negative weight is noise or a plane that repeats another. The plane with the most negative one gets 0 and the
        others are fitted again, until no weight is negative (our reading of Breiman 1996). If no plane is of use, all
        weights are 0, and every exam gets the log odds of the prevalence.

        A set of planes that fewer than `MINIMUM` exams of either class have is left out.

        Args:
            logits: by plane, (n,) out of fold, where a higher one speaks for 1; NaN where an exam lacks the plane.
            labels: (n,) the reference standard, 0 or 1, with at least two exams of each.

        Raises:
            UserError: the arguments are not as described above, or no set of planes can be fitted.
        """
        positive = checked_labels(labels)
        if not logits:
            raise UserError("there is no plane to stack; give the logits of at least one")
        planes = sorted(logits)
        if any("+" in plane for plane in planes):
            raise UserError(f"a plane's name must not contain +, but the planes are {', '.join(planes)}")
        columns = {plane: _checked_logits(plane, logits[plane]) for plane in planes}
        for plane, values in columns.items():
            if values.shape != positive.shape:
                raise UserError(
                    f"every exam needs one label and one logit (or NaN) in the {plane} plane, but there are "
                    f"{len(positive)} labels and logits of shape {values.shape}"
                )
        fusions = {}
        for size in range(1, len(planes) + 1):
            for chosen in combinations(planes, size):
                table = np.stack([columns[plane] for plane in chosen], axis=1)
                complete = ~np.isnan(table).any(axis=1)
                positives = int(positive[complete].sum())
                if MINIMUM <= positives <= complete.sum() - MINIMUM:
                    weights, intercept = _fit(table[complete], positive[complete])
                    by_plane = dict(zip(chosen, weights.tolist(), strict=True))
                    fusions[planes_key(chosen)] = Fusion(
                        by_plane, intercept, positives, int(complete.sum()) - positives
                    )
        if not fusions:
            raise UserError(
                f"no set of planes has logits of at least {MINIMUM} exams of either class; nothing to stack"
            )
        return cls(fusions)

    def apply(self, logits: Mapping[str, ArrayLike]) -> NDArray[np.float64]:
        """Return each exam's fused logit by the weights of the very planes that it has.

        Args:
            logits: by plane, finite numbers in arrays of one shape (or plain numbers, for one exam). An exam lacks the
                planes that are not named, and those where it has NaN.

        Returns:
            Fused logits in that shape.

        Raises:
            UserError: an exam has no plane, or a set of planes that there are no weights for; or shapes differ.
        """
        planes = sorted(logits)
        columns = [_checked_logits(plane, logits[plane]) for plane in planes]
        if len({values.shape for values in columns}) != 1:
            raise UserError("the planes to fuse must be at least one, with as many logits in each")
        table = np.stack(columns, axis=-1)
        present = ~np.isnan(table)
        fused = np.empty(table.shape[:-1])
        for pattern in np.unique(present.reshape(-1, len(planes)), axis=0):
            here = (present == pattern).all(axis=-1)
            used = [plane for plane, there in zip(planes, pattern, strict=True) if there]
            fusion = self._fusion(used)
            fused[here] = fusion.intercept + table[here][:, pattern] @ np.array([fusion.weights[p] for p in used])
        return fused

    def to_dict(self) -> dict[str, Any]:
        """Return nested dicts of plain Python numbers, ready for `json.dumps`."""
        return {key: asdict(fusion) for key, fusion in self.fusions.items()}

    @classmethod
    def from_dict(cls, record: Any) -> "Stack":
        """Restore what `to_dict` has made.

        Raises:
            UserError: a field is missing, unknown, of the wrong type, NaN, or out of range.
        """
        if not isinstance(record, Mapping):
            raise UserError(f"a stack of planes must be a JSON object, not {type(record).__name__}")
        return cls({key: _fusion_from(key, value) for key, value in record.items()})

    def _fusion(self, planes: list[str]) -> Fusion:
        if not planes:
            raise UserError("there is an exam without any plane; it has nothing to fuse")
        key = planes_key(planes)
        if key not in self.fusions:
            raise UserError(f"there are no weights for {key}, only for {', '.join(self.fusions)}")
        return self.fusions[key]


def planes_key(planes: Iterable[str]) -> str:
    """Return the name of a set of planes: axial+coronal+sagittal, in alphabetical order."""
    return "+".join(sorted(planes))


def _fit(table: NDArray[np.float64], positive: NDArray[np.bool_]) -> tuple[NDArray[np.float64], float]:
    """Weights (planes,), none below 0, and intercept on logits (n, planes); see `Stack.fit`."""
    from sklearn.linear_model import LogisticRegression  # imported slowly, and not needed to apply a stack
    from sklearn.preprocessing import StandardScaler

    weights = np.zeros(table.shape[1])
    used = np.arange(table.shape[1])
    while len(used):
        scaler = StandardScaler().fit(table[:, used])
        model = LogisticRegression(tol=1e-8, max_iter=1000).fit(scaler.transform(table[:, used]), positive)
        coefficients = model.coef_[0]
        if coefficients.min() >= 0:
            weights[used] = coefficients / scaler.scale_
            return weights, float(model.intercept_[0] - weights[used] @ scaler.mean_)
        used = np.delete(used, coefficients.argmin())
    return weights, float(logit(positive.mean()))


def _checked_logits(plane: str, logits: ArrayLike) -> NDArray[np.float64]:
    values = as_numbers(logits, f"logits of the {plane} plane")
    if np.isinf(values).any():
        raise UserError(f"logits of the {plane} plane must be finite, or NaN where an exam lacks it")
    return values


def _fusion_from(key: str, record: Any) -> Fusion:
    what = f"the weights of {key}"
    fields = checked_fields(record, ("weights", "intercept", "positives", "negatives"), what)
    weights = checked_fields(fields["weights"], key.split("+"), what)
    return Fusion(
        weights={plane: checked_number(weights[plane], f"the weight of the {plane} plane") for plane in weights},
        intercept=checked_number(fields["intercept"], f"the intercept of {key}"),
        positives=checked_count(fields["positives"], f"the positives of {key}"),
        negatives=checked_count(fields["negatives"], f"the negatives of {key}"),
    )
