"""Methods side by side on the same exams, each trained from several seeds: the rows of the thesis's table 5.2.

Sources: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6,
1979; E. L. Korn, B. I. Graubard, "Confidence intervals for proportions with small expected number of positive counts
estimated from survey data", Survey Methodology 24, 1998 (effective sample size); E. B. Wilson 1927 (see `metrics`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kneessl.errors import UserError
from kneessl.evaluation.auc import AucDifference, AucInterval, auc_interval, compare_auc
from kneessl.evaluation.claims import false_accuracy_claim
from kneessl.evaluation.metrics import THRESHOLD, wilson

Kind = Literal["self-supervised", "supervised", "no training"]
Key = TypeVar("Key")
"""Of a cell of a table: an arm, or an arm and a number of labels."""


@dataclass(frozen=True, eq=False)
class ComparedArm:
    """One method, trained from several seeds, as scored on the exams of the comparison.

    Raises:
        ValueError: scores are not (seeds, n) numbers, one for each exam, `fine_tuned` are no probabilities, there are
            neither scores nor failures, or more seeds have collapsed than there are.
    """

    name: str
    kind: Kind
    exams: Sequence[str]
    """Not read where the arm has no scores."""
    labels: NDArray[np.int64]
    """(n,) the reference standard, 0 or 1."""
    fine_tuned: NDArray[np.float64] | None
    """(seeds, n) probabilities of 1 after fine-tuning, in [0, 1]; None where there are none."""
    frozen: NDArray[np.float64] | None
    """(seeds, n) scores of a linear probe on frozen features, higher speaking for 1; None where there are none."""
    parameters: int | None
    seconds: Sequence[float]
    """Training time, one a seed."""
    memory_bytes: Sequence[int]
    """Peak memory, one a seed."""
    collapsed: int
    """How many of the seeds collapsed, scored or not."""
    failures: Sequence[str]
    """Why a seed failed, one reason for each that did."""
    published: tuple[float, float, str] | None
    """AUC and accuracy, in [0, 1], that the source reports on exams of its own, and the source."""

    def __post_init__(self) -> None:
        for what, scores in (("fine_tuned", self.fine_tuned), ("frozen", self.frozen)):
            if scores is None:
                continue
            if not len(self.exams) == len(self.labels) or scores.ndim != 2 or scores.shape[1] != len(self.labels):
                raise ValueError(f"{self.name}: exams, labels and {what} {scores.shape} differ in length")
            if len(scores) == 0 or np.isnan(scores).any():
                raise ValueError(f"{self.name}: {what} has no seeds, or NaN among them")
        if self.fine_tuned is not None and (self.fine_tuned.min() < 0 or self.fine_tuned.max() > 1):
            raise ValueError(f"{self.name}: fine_tuned must be probabilities between 0 and 1")
        if not self.scored and not self.failures:
            raise ValueError(f"{self.name}: neither scores nor a reason why there are none")
        if not 0 <= self.collapsed <= self.seeds:
            raise ValueError(f"{self.name}: {self.collapsed} of {self.seeds} seeds collapsed")

    @property
    def scored(self) -> bool:
        """Whether any seed has scores."""
        return self.fine_tuned is not None or self.frozen is not None

    @property
    def seeds(self) -> int:
        """Seeds that were tried: those with scores, and those that failed."""
        scored = [len(scores) for scores in (self.fine_tuned, self.frozen) if scores is not None]
        return max(scored, default=0) + len(self.failures)


@dataclass(frozen=True)
class MeanAuc:
    """The AUC of an arm's seeds by one readout, and how it differs from the reference arm's."""

    interval: AucInterval
    """Mean over seeds, with DeLong's interval over exams (see `auc_interval`)."""
    by_seed: tuple[float, ...]
    difference: AucDifference | None
    """Less the reference arm's; None for the reference itself, and where the reference has no scores."""
    p_holm: float | None
    """The difference's p, adjusted for all the arms that are compared with the reference by this readout."""


@dataclass(frozen=True)
class MeanAccuracy:
    """The accuracy of an arm's seeds, mean in [0, 1] with its interval over exams (see `mean_accuracy`)."""

    value: float
    low: float
    high: float
    by_seed: tuple[float, ...]


@dataclass(frozen=True)
class ComparisonRow:
    """One arm's line of the table; see `ComparedArm` for what it was made of."""

    name: str
    kind: Kind
    is_reference: bool
    exams: int
    """How many exams it was scored on; 0 where it has no scores."""
    positives: int
    seeds: int
    """Seeds that were tried, with those that failed."""
    fine_tuned: MeanAuc | None
    accuracy: MeanAccuracy | None
    """After fine-tuning, at the threshold of 0.5."""
    accuracy_p_false: float | None
    """How probable it is that the ranking of this accuracy and the reference arm's is false (see `claims`); None for
    the reference itself, and where either has no scores."""
    frozen: MeanAuc | None
    parameters: int | None
    seconds: tuple[float, ...]
    memory_bytes: tuple[int, ...]
    collapsed: int
    failures: tuple[str, ...]
    published: tuple[float, float, str] | None

    @property
    def scored(self) -> bool:
        """Whether any seed has scores."""
        return self.fine_tuned is not None or self.frozen is not None

    @property
    def sound(self) -> bool:
        """Whether the figures stand for the method: there are some, and no seed collapsed."""
        return self.scored and self.collapsed == 0


class Labelled(Protocol):
    """Anything scored on named exams."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def exams(self) -> Sequence[str]:
        """The exams' names."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """(n,) the reference standard, 0 or 1."""


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values for being so many: Holm's step-down, which bounds the chance of even one false alarm.

    The smallest of m is multiplied by m, the next by m - 1 and so on; none comes out below a smaller one's, or above 1.
    SciPy has no such function (`false_discovery_control` bounds another thing), and statsmodels is no dependency.

    Args:
        p_values: each in [0, 1], in any order.

    Returns:
        The adjusted p values, in the same order.

    Raises:
        ValueError: a p value is not between 0 and 1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p values lie between 0 and 1, but these are {list(p_values)}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return [float(value) for value in adjusted]


def mean_accuracy(labels: ArrayLike, probabilities: ArrayLike) -> MeanAccuracy:
    """Return the accuracy at the threshold of 0.5, averaged over seeds, with an interval over exams.

    The seeds answer the same exams, so seeds x n answers tell less than as many exams would, and more than n. How
    much they tell follows from how the share of seeds that are right varies between exams: the effective number of
    exams is the one for which a proportion of independent exams would vary as the mean accuracy does (Korn & Graubard
    1998), and the interval is Wilson's for this number (our reading: they put it into Clopper and Pearson's). With one
    seed it is n, and the interval is exactly Wilson's. It is held between n and seeds x n, and at n where all answers
    are right, or all wrong, and nothing varies to judge by. Like `auc_interval`, it takes the trainings as they are.

    Args:
        labels: (n,) the reference standard, 0 or 1; n at least 1.
        probabilities: (seeds, n) in [0, 1]; 0.5 or more is called positive.
    """
    right = (np.asarray(probabilities) >= THRESHOLD) == (np.asarray(labels) == 1)
    seeds, exams = right.shape
    share = float(right.mean())
    variance = float(right.mean(axis=0).var())
    effective = float(exams)
    if 0 < share < 1:
        effective = exams * min(share * (1 - share) / variance, seeds) if variance > 0 else float(exams * seeds)
    low, high = wilson(share, effective)
    return MeanAccuracy(share, low, high, tuple(float(value) for value in right.mean(axis=1)))


def compare_arms(arms: Sequence[ComparedArm], reference: str = "byolmed2d") -> list[ComparisonRow]:
    """Turn arms into the rows of a table, in the same order.

    Each readout is a family of its own: the difference to the reference arm is tested (paired DeLong) for every other
    arm that the readout has scores of, collapsed or not, and the p values are adjusted by Holm's method over these.

    Args:
        arms: Those with scores were scored on the same exams, in any order.
        reference: The arm that the others are compared with. If it has no scores, nothing is compared.

    Raises:
        ValueError: two arms bear one name, or none is called `reference`.
        UserError: arms differ in their exams or labels.
    """
    names = [arm.name for arm in arms]
    if reference not in names:
        raise ValueError(f"{reference}, with which to compare, is not among the arms {', '.join(names) or '(none)'}")
    if len(set(names)) < len(names):
        raise ValueError(f"arms must differ in name, but they are called {', '.join(names)}")
    aligned = _aligned([arm for arm in arms if arm.scored])
    labels = aligned[0].labels if aligned else np.empty(0, np.int64)
    tuned = {a.name: a.fine_tuned for a in aligned if a.fine_tuned is not None}
    fine_tuned = _readout(labels, tuned, reference)
    frozen = _readout(labels, {a.name: a.frozen for a in aligned if a.frozen is not None}, reference)
    accuracy = {name: mean_accuracy(labels, scores) for name, scores in tuned.items()}
    claims = {
        name: false_accuracy_claim(labels, scores, tuned[reference])
        for name, scores in tuned.items()
        if reference in tuned and name != reference
    }
    return [
        ComparisonRow(
            name=arm.name,
            kind=arm.kind,
            is_reference=arm.name == reference,
            exams=len(labels) if arm.scored else 0,
            positives=int(labels.sum()) if arm.scored else 0,
            seeds=arm.seeds,
            fine_tuned=fine_tuned.get(arm.name),
            accuracy=accuracy.get(arm.name),
            accuracy_p_false=claims.get(arm.name),
            frozen=frozen.get(arm.name),
            parameters=arm.parameters,
            seconds=tuple(arm.seconds),
            memory_bytes=tuple(arm.memory_bytes),
            collapsed=arm.collapsed,
            failures=tuple(arm.failures),
            published=arm.published,
        )
        for arm in arms
    ]


def ranked(rows: Sequence[ComparisonRow]) -> list[ComparisonRow]:
    """Sort by AUC after fine-tuning, best first; then those with frozen features alone, by theirs.

    Arms with a collapsed seed come after all that are sound, whatever their AUC, and arms without scores come last.
    """

    def place(row: ComparisonRow) -> tuple[bool, bool, bool, float]:
        auc = row.fine_tuned or row.frozen
        return not row.scored, not row.sound, row.fine_tuned is None, -auc.interval.auc if auc else 0.0

    return sorted(rows, key=place)


def order_like(first: Labelled, other: Labelled) -> NDArray[np.intp]:
    """Return (n,) where `other` has each exam of `first`: a paired comparison needs the same exams.

    Raises:
        UserError: they are not on the same exams with the same labels, or `other` has an exam twice.
    """
    place = {exam: index for index, exam in enumerate(other.exams)}
    if len(place) != len(other.exams):
        raise UserError(f"{other.name} has two scores for one exam; a report needs one score an exam")
    if place.keys() != set(first.exams):
        raise UserError(
            f"{other.name} and {first.name} were evaluated on different exams; evaluate both on the same ones"
        )
    order = np.array([place[exam] for exam in first.exams], dtype=np.intp)
    if not np.array_equal(np.asarray(other.labels)[order], first.labels):
        raise UserError(f"{other.name} and {first.name} were evaluated against different labels for the same exams")
    return order


def _aligned(arms: Sequence[ComparedArm]) -> list[ComparedArm]:
    """Bring every arm's exams into the order of the first one's."""
    aligned = []
    for arm in arms:
        order = order_like(arms[0], arm)
        aligned.append(
            replace(
                arm,
                exams=arms[0].exams,
                labels=arm.labels[order],
                fine_tuned=None if arm.fine_tuned is None else arm.fine_tuned[:, order],
                frozen=None if arm.frozen is None else arm.frozen[:, order],
            )
        )
    return aligned


def _readout(labels: ArrayLike, scores: Mapping[str, NDArray[np.float64]], reference: str) -> dict[str, MeanAuc]:
    """Summarise one readout of the arms that have it, from name to (seeds, n) scores."""
    if reference not in scores:
        return mean_aucs(labels, scores, {})
    return mean_aucs(labels, scores, dict.fromkeys(scores.keys() - {reference}, scores[reference]))


def mean_aucs(
    labels: ArrayLike,
    scores: Mapping[Key, NDArray[np.float64]],
    references: Mapping[Key, NDArray[np.float64]],
) -> dict[Key, MeanAuc]:
    """Summarise the trainings of every cell of a table, and compare each with its reference; Holm over all of these.

    Args:
        labels: (n,) the reference standard.
        scores: For each cell, (seeds, n).
        references: The same of what a cell is compared with; one that is not named is not compared.
    """
    differences = {key: compare_auc(labels, rows, references[key]) for key, rows in scores.items() if key in references}
    adjusted = dict(zip(differences, holm([d.p for d in differences.values()]), strict=True))
    return {
        key: MeanAuc(
            interval=auc_interval(labels, rows, scale="logit"),
            by_seed=tuple(auc_interval(labels, row).auc for row in rows),
            difference=differences.get(key),
            p_holm=adjusted.get(key),
        )
        for key, rows in scores.items()
    }
