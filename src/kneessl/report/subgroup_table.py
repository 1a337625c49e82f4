"""The index model's figures in parts of the exams, in words, as the page shows them."""

import re
from dataclasses import dataclass

import numpy as np

from kneessl.evaluation import THRESHOLD, AucInterval
from kneessl.evaluation.subgroups import FEW, Interaction, Subgroup, interactions, subgroups
from kneessl.report import wording
from kneessl.report.content import EvaluatedFinding

UNKNOWN = "not known"


@dataclass(frozen=True)
class SubgroupRow:
    """One group; cells (AUROC, sensitivity, specificity) in words."""

    value: str
    n: int
    positives: int
    patients: int
    cells: list[tuple[str, ...]]
    few: str
    """Says plainly that the group is small; empty where it is not."""


@dataclass(frozen=True)
class SubgroupTable:
    """All groups by one characteristic."""

    name: str
    rows: list[SubgroupRow]
    verdict: str
    """Whether its groups differ, and which is the worst."""


def subgroup_tables(finding: EvaluatedFinding) -> list[SubgroupTable]:
    """The index model in each group of each characteristic; numbers in their order, what is not known last."""
    membership = {name: np.array([value or UNKNOWN for value in values]) for name, values in finding.subgroups.items()}
    all_groups = subgroups(finding.labels, finding.arms[0].probabilities, membership, THRESHOLD)
    groups = np.asarray(finding.groups)
    tests = {test.variable: test for test in interactions([g for g in all_groups if g.value != UNKNOWN])}
    tables = []
    for name, values in membership.items():
        rows = sorted((group for group in all_groups if group.variable == name), key=lambda group: _order(group.value))
        tables.append(
            SubgroupTable(
                name,
                [_row(group, len(np.unique(groups[values == group.value]))) for group in rows],
                interaction_text(tests.get(name)),
            )
        )
    return tables


def interaction_text(test: Interaction | None) -> str:
    """Whether the groups of a characteristic differ, and which is the worst, in sentences."""
    if test is None:
        return f"Not tested: fewer than two groups have {FEW} positives and {FEW} negatives."
    value, interval = wording.auc_text(test.worst.auc) if test.worst.auc else ("–", "–")
    left = f" Not tested, too small or in perfect order: {', '.join(test.left_out)}." if test.left_out else ""
    return (
        f"Interaction: p {wording.p_text(test.p)}, adjusted {wording.p_text(test.p_holm)} (Cochran's Q {test.q:.2f}, "
        f"{test.groups} groups). Lowest AUROC: {test.worst.value}, {value} ({interval}).{left}"
    )


def _order(value: str) -> tuple[bool, float, str]:
    number = re.match(r"\d+(\.\d+)?", value)
    return value == UNKNOWN, float(number[0]) if number else 0.0, value


def _row(group: Subgroup, patients: int) -> SubgroupRow:
    negatives = group.n - group.positives
    return SubgroupRow(
        value=group.value,
        n=group.n,
        positives=group.positives,
        patients=patients,
        cells=[
            _auc(group.auc),
            wording.proportion_text(group.sensitivity) if group.sensitivity else ("–", "no positives"),
            wording.proportion_text(group.specificity) if group.specificity else ("–", "no negatives"),
        ],
        few=f"few: {group.positives} positive, {negatives} negative" if min(group.positives, negatives) < FEW else "",
    )


def _auc(interval: AucInterval | None) -> tuple[str, str]:
    """An AUC in words; where few exams are told apart perfectly, DeLong's interval has no width and is left out."""
    if interval is None:
        return "–", "fewer than 2 of each"
    value, words = wording.auc_text(interval)
    return value, words if interval.standard_error > 0 else "no interval: all in order"
