"""What the gaps of an imbalance grid say of two arms, in words, and no more than their intervals bear."""

from collections.abc import Sequence
from dataclasses import dataclass

from kneessl.evaluation.gap import OverSeeds
from kneessl.report import wording
from kneessl.report.grid_content import GridRow, ratio_text
from kneessl.report.grid_table import interval_text

_DIGITS = 2
"""Of a difference in points: with one, an interval that excludes 0 might seem to end there."""


@dataclass(frozen=True)
class Verdict:
    """One arm beside the reference, in one domain."""

    domain: str
    arm: str
    summary: str
    cells: list[str]
    """A sentence for each n and r that both have."""


def verdicts(rows: Sequence[GridRow], reference: str) -> list[Verdict]:
    """Say for every arm but the reference which of the two loses less, cell by cell; nothing where none is compared."""
    others = {row.cell: row for row in rows if row.cell.arm == reference}
    compared_arms = []
    for domain in rows[0].domains:
        for arm in dict.fromkeys(row.cell.arm for row in rows if row.cell.arm != reference):
            compared = [row for row in rows if row.cell.arm == arm and row.domains[domain].less]
            if compared:
                sentences = [
                    _sentence(row, others[row.cell._replace(arm=reference)], domain, reference) for row in compared
                ]
                differences = [less for row in compared if (less := row.domains[domain].less)]
                compared_arms.append(Verdict(domain, arm, _summary(differences, domain, arm, reference), sentences))
    return compared_arms


def _summary(differences: Sequence[OverSeeds], domain: str, arm: str, reference: str) -> str:
    fewer = sum(less.excludes_zero and less.mean > 0 for less in differences)
    more = sum(less.excludes_zero and less.mean < 0 for less in differences)
    total, untold = len(differences), len(differences) - fewer - more
    if total == 1:
        text = f"{arm} loses less than {reference}" if fewer else f"{reference} loses less than {arm}"
        if untold:
            text = f"these seeds do not tell whether {arm} or {reference} loses less"
        return f"{domain.capitalize()}, {text}."
    return (
        f"{domain.capitalize()}, of {total} comparisons: {arm} loses less than {reference} in {fewer or 'none'}, "
        f"{reference} less than {arm} in {more or 'none'}, not told apart by these seeds in {untold or 'none'}."
    )


def _sentence(row: GridRow, other: GridRow, domain: str, reference: str) -> str:
    """One comparison: both gaps, their difference with its interval, and what follows."""
    gap, reference_gap, less = row.domains[domain].gap, other.domains[domain].gap, row.domains[domain].less
    if gap is None or reference_gap is None or less is None:
        raise ValueError(f"{row.cell} has no gap to compare")
    return (
        f"{row.cell.images:,} images, r = {ratio_text(row.cell.ratio)}: Δ is {_percent(gap.mean)} for {row.cell.arm} "
        f"and {_percent(reference_gap.mean)} for {reference}; the difference, {reference} less {row.cell.arm}, is "
        f"{wording.number_text(100 * less.mean, _DIGITS)} points{_judged(less, row.cell.arm, reference)}."
    )


def _judged(less: OverSeeds, arm: str, reference: str) -> str:
    if less.low is None:
        return ", of one seed, so without an interval"
    interval = f" (95 % interval {interval_text(less, _DIGITS)}, {len(less.by_seed)} seeds)"
    if less.sd == 0:
        return f"{interval}, the same with every seed, so the interval has no width and tells nothing"
    if not less.excludes_zero:
        return f"{interval}; the interval holds 0, so which loses less is not told"
    return f"{interval}; the interval excludes 0: {arm if less.mean > 0 else reference} loses less"


def _percent(share: float) -> str:
    return f"{wording.number_text(100 * share, 1)} %"
