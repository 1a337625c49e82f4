"""Several readers of the same exams: how well they agree, and how well a model agrees with each and with most of them.

Sources: J. Cohen, "A coefficient of agreement for nominal scales", Educational and Psychological Measurement 20, 1960;
J. L. Fleiss, J. Cohen, B. S. Everitt, "Large sample standard errors of kappa and weighted kappa", Psychological
Bulletin 72, 1969, equation 13 (standard error).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kneessl.errors import UserError
from kneessl.evaluation.auc import QUANTILE, AucInterval, as_numbers, auc_interval, checked_scores

MAJORITY = "majority"
"""What most of the readers say; exams with as many for as against are left out."""


@dataclass(frozen=True)
class Kappa:
    """Agreement of two readers beyond chance: 1 is perfect, 0 what chance gives."""

    first: str
    second: str
    n: int
    """Exams that both have read."""
    agreement: float
    """Share of exams on which they say the same, in [0, 1]."""
    kappa: float | None
    """None where both say the same of all exams, so that there is no agreement beyond chance to have."""
    low: float | None
    high: float | None
    """95 %, normal."""


@dataclass(frozen=True)
class AgainstReader:
    """A model judged by one reader, or by the majority."""

    reader: str
    n: int
    positives: int
    auc: AucInterval | None
    """None with fewer than two exams of either label."""


def kappas(readers: Mapping[str, ArrayLike]) -> list[Kappa]:
    """Return Cohen's kappa of each two readers, on the exams that both have read.

    Args:
        readers: by name, (n,) 0, 1, or NaN where the reader has not read the exam.

    Raises:
        UserError: a reader has other labels, or readers differ in their number of exams.
    """
    read = _checked(readers)
    return [_kappa(first, second, read[first], read[second]) for first, second in combinations(read, 2)]


def against_readers(scores: ArrayLike, readers: Mapping[str, ArrayLike]) -> list[AgainstReader]:
    """Return a model's AUC (DeLong, on the logit scale) against each reader, and then against most of them.

    Args:
        scores: (n,) any numbers where a higher one speaks for 1.
        readers: as for `kappas`.

    Raises:
        UserError: as `kappas`; or not one score for each exam.
    """
    read = _checked(readers)
    everyone = next(iter(read.values()))
    values = checked_scores(scores, np.zeros(len(everyone), dtype=bool))
    share = _majority(np.stack(list(read.values())))
    return [_against(name, labels, values) for name, labels in (read | {MAJORITY: share}).items()]


def _checked(readers: Mapping[str, ArrayLike]) -> dict[str, NDArray[np.float64]]:
    if not readers:
        raise UserError("there are no readers to compare")
    read = {name: as_numbers(labels, f"reader {name}'s labels") for name, labels in readers.items()}
    for name, labels in read.items():
        if labels.ndim != 1 or len(labels) != len(next(iter(read.values()))):
            raise UserError(f"every reader needs one label for each exam, but reader {name} has another number of them")
        if not (np.isin(labels, (0, 1)) | np.isnan(labels)).all():
            raise UserError(f"reader {name}'s labels must be 0 or 1, or none where the exam was not read")
    return read


def _majority(labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """(readers, n) -> (n,) 0, 1, or NaN where as many say one as the other."""
    lead = np.where(np.isnan(labels), 0, 2 * labels - 1).sum(axis=0)
    return np.where(lead == 0, np.nan, (lead > 0).astype(float))


def _against(name: str, labels: NDArray[np.float64], scores: NDArray[np.float64]) -> AgainstReader:
    known = ~np.isnan(labels)
    n, positives = int(known.sum()), int(labels[known].sum())
    enough = min(positives, n - positives) >= 2
    auc = auc_interval(labels[known], scores[known], scale="logit") if enough else None
    return AgainstReader(name, n, positives, auc)


def _kappa(first: str, second: str, a: NDArray[np.float64], b: NDArray[np.float64]) -> Kappa:
    both = ~np.isnan(a) & ~np.isnan(b)
    n = int(both.sum())
    if n == 0:
        return Kappa(first, second, 0, float("nan"), None, None, None)
    table = np.array([[np.mean((a[both] == i) & (b[both] == j)) for j in (0, 1)] for i in (0, 1)])
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    observed, expected = float(np.trace(table)), float(rows @ columns)
    if expected == 1:
        return Kappa(first, second, n, observed, None, None, None)
    kappa = (observed - expected) / (1 - expected)
    same = sum(table[i, i] * (1 - (rows[i] + columns[i]) * (1 - kappa)) ** 2 for i in (0, 1))
    other = (1 - kappa) ** 2 * sum(table[i, 1 - i] * (columns[i] + rows[1 - i]) ** 2 for i in (0, 1))
    variance = (same + other - (kappa - expected * (1 - kappa)) ** 2) / (n * (1 - expected) ** 2)
    half = QUANTILE * float(np.sqrt(max(variance, 0.0)))
    return Kappa(first, second, n, observed, float(kappa), max(kappa - half, -1.0), min(kappa + half, 1.0))
