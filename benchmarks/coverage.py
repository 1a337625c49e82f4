"""How often the intervals of `kneessl.evaluation` hold the truth, on simulated sets of 120 exams, 48 of them positive.

    python benchmarks/coverage.py [--sets 10000] [--bootstrap-sets 2000]

Scores are binormal: N(0, 1) of a negative exam, N(m, 1) of a positive one. Every interval is a 95 % interval. "Below"
is how often the whole interval lies below the truth, "above" how often above it; each should be 2.5 %. Sensitivity and
specificity are drawn anew for each set, uniform between 0.7 and 0.9, so that the steps of a count average out.
`tests/evaluation/test_coverage.py` runs the same simulations on fewer sets.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.integrate import quad
from scipy.stats import norm

from kneessl.evaluation.auc import auc_interval, checked_labels, compare_auc
from kneessl.evaluation.bootstrap import (
    Statistic,
    bootstrap_difference,
    bootstrap_interval,
    checked_patients,
    resample,
    roc_area,
)
from kneessl.evaluation.metrics import Proportion
from kneessl.evaluation.precision import auprc_interval, average_precision
from kneessl.evaluation.predictive import likelihood_ratios, predictive_values

POSITIVES, NEGATIVES = 48, 72
LABELS = np.repeat([1, 0], [POSITIVES, NEGATIVES])
REPLICATES = 1000
QUANTILE = norm.ppf(0.975)
PREVALENCE = 0.1
"""Stated prevalence of the predictive values."""

Limits = tuple[float, float]


@dataclass(frozen=True)
class Coverage:
    """How one kind of interval did; shares of `sets`."""

    figure: str
    interval: str
    sets: int
    covers: float
    below: float
    above: float
    width: float

    @classmethod
    def of(cls, figure: str, interval: str, found: Iterable[tuple[float, Limits]]) -> "Coverage":
        """Count over pairs of a truth and its interval."""
        truth, low, high = np.array([(truth, *limits) for truth, limits in found]).T
        covers = np.mean((low <= truth) & (truth <= high))
        below, above = np.mean(high < truth), np.mean(low > truth)
        return cls(figure, interval, len(truth), float(covers), float(below), float(above), float(np.mean(high - low)))


def ends(interval: Any) -> Limits:
    return interval.low, interval.high


def shift(auc: float) -> float:
    """Mean m of the positives that gives this AUC."""
    return float(np.sqrt(2) * norm.ppf(auc))


def true_auprc(auc: float) -> float:
    """Mean precision over the positives' scores as thresholds, at these exams' prevalence."""
    mean, share = shift(auc), POSITIVES / len(LABELS)

    def precision(t: float) -> float:
        hits, alarms = share * norm.sf(t - mean), (1 - share) * norm.sf(t)
        return float(norm.pdf(t - mean) * hits / (hits + alarms))

    return float(quad(precision, -9, mean + 9, limit=500)[0])


def drawn(auc: float, sets: int) -> Iterator[np.ndarray]:
    """Scores of as many sets, (120,) each."""
    rng = np.random.default_rng(round(auc * 1000))
    return (rng.normal(LABELS * shift(auc)) for _ in range(sets))


def auc_coverage(auc: float, sets: int) -> list[Coverage]:
    """The AUC's interval: DeLong's as it is, and on the logit scale."""
    figure, scores = f"AUC, true {auc:.2f}", list(drawn(auc, sets))
    return [
        Coverage.of(figure, name, ((auc, ends(auc_interval(LABELS, row, scale=scale))) for row in scores))
        for name, scale in (("DeLong", "linear"), ("DeLong, logit scale", "logit"))
    ]


def correlated(auc_a: float, auc_b: float, sets: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Scores of two models that share half of their noise's variance."""
    rng = np.random.default_rng(7)
    for _ in range(sets):
        shared = rng.normal(size=len(LABELS))
        noise = (shared + rng.normal(size=(2, len(LABELS)))) / np.sqrt(2)
        yield LABELS * shift(auc_a) + noise[0], LABELS * shift(auc_b) + noise[1]


def difference_coverage(auc_a: float, auc_b: float, sets: int) -> Coverage:
    found = (ends(compare_auc(LABELS, a, b)) for a, b in correlated(auc_a, auc_b, sets))
    truth = auc_a - auc_b
    return Coverage.of(
        f"AUC difference, true {auc_a:.2f} - {auc_b:.2f}", "paired DeLong", ((truth, limits) for limits in found)
    )


def counts_coverage(sets: int) -> list[Coverage]:
    """Figures of the four counts."""
    rng = np.random.default_rng(3)
    names = {
        "sensitivity": "Wilson",
        "specificity": "Wilson",
        f"PPV at {PREVALENCE:.0%}": "Mercaldo, logit",
        f"NPV at {PREVALENCE:.0%}": "Mercaldo, logit",
        "LR+": "Simel, log",
        "LR-": "Simel, log",
    }
    found: list[list[tuple[float, Limits]]] = [[] for _ in names]
    for sensitivity, specificity in rng.uniform(0.7, 0.9, size=(sets, 2)):
        tp, tn = int(rng.binomial(POSITIVES, sensitivity)), int(rng.binomial(NEGATIVES, specificity))
        counts = {"tp": tp, "fn": POSITIVES - tp, "fp": NEGATIVES - tn, "tn": tn}
        values, ratios = predictive_values(**counts, prevalence=PREVALENCE), likelihood_ratios(**counts)
        hits, alarms = PREVALENCE * sensitivity, (1 - PREVALENCE) * (1 - specificity)
        rests, misses = (1 - PREVALENCE) * specificity, PREVALENCE * (1 - sensitivity)
        truths = (sensitivity, specificity, hits / (hits + alarms), rests / (rests + misses))
        truths += (sensitivity / (1 - specificity), (1 - sensitivity) / specificity)
        wilson = Proportion.of(tp, POSITIVES), Proportion.of(tn, NEGATIVES)
        intervals = (*wilson, values.ppv, values.npv, ratios.positive, ratios.negative)
        for pairs, truth, interval in zip(found, truths, intervals, strict=True):
            pairs.append((truth, ends(interval)))
    return [Coverage.of(figure, kind, pairs) for (figure, kind), pairs in zip(names.items(), found, strict=True)]


def auprc_coverage(auc: float, sets: int) -> Coverage:
    truth = true_auprc(auc)
    found = (ends(auprc_interval(LABELS, scores)) for scores in drawn(auc, sets))
    return Coverage.of(
        f"AUPRC, true {truth:.3f} (AUC {auc:.2f})", "jackknife, logit scale", ((truth, limits) for limits in found)
    )


def bca_coverage(
    figure: str, statistic: Statistic, truth: float, auc: float, sets: int, replicates: int = REPLICATES
) -> Coverage:
    found = (
        (truth, ends(bootstrap_interval(statistic, LABELS, scores, replicates=replicates, seed=seed)))
        for seed, scores in enumerate(drawn(auc, sets))
    )
    return Coverage.of(figure, "bootstrap, BCa", found)


def percentile_coverage(figure: str, statistic: Statistic, truth: float, auc: float, sets: int) -> Coverage:
    """Percentiles of the same replicates, to which BCa was preferred."""
    patients = checked_patients(checked_labels(LABELS), None)
    found = []
    for seed, scores in enumerate(drawn(auc, sets)):
        values = resample(lambda at, scores=scores: statistic(LABELS[at], scores[at]), patients, REPLICATES, seed)
        low, high = np.quantile(values, (0.025, 0.975))
        found.append((truth, (low, high)))
    return Coverage.of(figure, "bootstrap, percentile", found)


def bootstrap_difference_coverage(auc_a: float, auc_b: float, sets: int) -> Coverage:
    truth = auc_a - auc_b
    found = (
        (truth, ends(bootstrap_difference(roc_area, LABELS, a, b, replicates=REPLICATES, seed=seed)))
        for seed, (a, b) in enumerate(correlated(auc_a, auc_b, sets))
    )
    return Coverage.of(f"AUC difference, true {auc_a:.2f} - {auc_b:.2f}", "bootstrap, BCa", found)


def patients_coverage(auc: float, sets: int, replicates: int = REPLICATES) -> list[Coverage]:
    """Two exams of each patient, one label for both, whose scores share 0.8 of their variance."""
    rng = np.random.default_rng(5)
    labels, patients = LABELS, np.arange(len(LABELS)) // 2
    whole, single = [], []
    for seed in range(sets):
        noise = np.sqrt(0.8) * rng.normal(size=len(labels) // 2).repeat(2) + np.sqrt(0.2) * rng.normal(size=len(labels))
        scores = labels * shift(auc) + noise
        for groups, found in ((patients, whole), (None, single)):
            interval = bootstrap_interval(roc_area, labels, scores, groups, replicates, seed)
            found.append((auc, ends(interval)))
    figure = f"AUC, true {auc:.2f}, two exams a patient"
    return [
        Coverage.of(figure, "bootstrap of patients, BCa", whole),
        Coverage.of(figure, "bootstrap of exams, BCa (wrong)", single),
    ]


def everything(sets: int, bootstrap_sets: int) -> Iterator[Coverage]:
    for auc in (0.8, 0.9):
        yield from auc_coverage(auc, sets)
    for pair in ((0.8, 0.8), (0.9, 0.8)):
        yield difference_coverage(*pair, sets)
    yield from counts_coverage(sets)
    for auc in (0.8, 0.9):
        yield auprc_coverage(auc, sets // 2)
    figures: tuple[tuple[str, Statistic, Callable[[float], float]], ...] = (
        ("AUC, true {:.2f}", roc_area, float),
        ("AUPRC, true {:.3f}", average_precision, true_auprc),
    )
    for name, statistic, truth in figures:
        for auc in (0.8, 0.9):
            for covered in (bca_coverage, percentile_coverage):
                yield covered(name.format(truth(auc)), statistic, truth(auc), auc, bootstrap_sets)
    yield bootstrap_difference_coverage(0.9, 0.8, bootstrap_sets)
    yield from patients_coverage(0.8, bootstrap_sets)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--sets", type=int, default=10_000)
    words.add_argument("--bootstrap-sets", type=int, default=2000)
    args = words.parse_args()
    print("| figure | interval | sets | covers | below | above | mean width |")
    print("|---|---|---|---|---|---|---|")
    for row in everything(args.sets, args.bootstrap_sets):
        shares = " | ".join(f"{100 * share:.1f} %" for share in (row.covers, row.below, row.above))
        print(f"| {row.figure} | {row.interval} | {row.sets:,} | {shares} | {row.width:.3f} |", flush=True)


if __name__ == "__main__":
    main()
