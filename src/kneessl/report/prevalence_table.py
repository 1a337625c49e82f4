"""AUC and losses against prevalence as text for the terminal, and as CSV."""

from collections.abc import Mapping, Sequence
from itertools import chain, islice
from pathlib import Path

from kneessl.evaluation.bootstrap import Interval
from kneessl.evaluation.rare_positives import ARMS, Panel, PrevalenceRow
from kneessl.report import wording
from kneessl.report.table import aligned, joined, with_note, write_table

READOUTS = {"model": "the model's own output", "linear": "linear classifier on frozen features, from balanced labels"}
BALANCES = {
    "oversample": "the rarer class oversampled",
    "weights": "the rarer class weighted in the loss",
    "none": "classes as they are",
}
Panels = Mapping[Panel, Sequence[PrevalenceRow]]


def share_text(prevalence: float) -> str:
    """Return a prevalence in per cent: `"18.4 %"`, `"5 %"`."""
    return f"{100 * prevalence:g} %"


def loss_text(loss: Interval) -> tuple[str, str]:
    """Return a loss, or a difference of losses, in per cent, and its interval: `("−0.4", "−3.1 to 2.2")`."""
    return wording.number_text(100 * loss.value, 1), wording.interval_text(100 * loss.low, 100 * loss.high, 1)


def prevalence_table(panels: Panels, positives: Mapping[float, int]) -> str:
    """Return the table as aligned text, a block for each panel; below it what the columns mean.

    Args:
        panels: For each, the rows of `kneessl.evaluation.rare_positives.prevalence_rows`.
        positives: How many training exams are positive at each prevalence.
    """
    head = ["positive", *(text for arm in ARMS for text in (f"{arm}, AUC", "loses %")), "less by"]
    blocks = [[_cells(row, positives[row.prevalence]) for row in rows] for rows in panels.values()]
    first, *others = aligned([head, *chain.from_iterable(blocks)])
    lines, rest = [first], iter(others)
    for panel, block in zip(panels, blocks, strict=True):
        lines += ["", f"{READOUTS[panel.readout]}; {BALANCES[panel.balance]}", *islice(rest, len(block))]
    note = (
        "AUC: mean over seeds; loses %: the share of its AUC at 50 % that the arm loses, below 0 a gain; less by: the "
        "loss of supervised less that of self-supervised, above 0 where self-supervised loses less; in brackets 95 % "
        "intervals by bootstrap over exams and seeds, paired, not adjusted for how many there are"
    )
    return with_note(lines, note)


def _cells(row: PrevalenceRow, positives: int) -> list[str]:
    cells = [f"{positives:,} ({share_text(row.prevalence)})"]
    for arm in ARMS:
        arm_at = row.arms.get(arm)
        cells.append(f"{arm_at.auc.value:.3f} ({arm_at.auc.low:.2f}–{arm_at.auc.high:.2f})" if arm_at else "failed")
        cells.append(_in_brackets(arm_at.loss if arm_at else None))
    return [*cells, _in_brackets(row.less)]


def _in_brackets(loss: Interval | None) -> str:
    return "{} ({})".format(*loss_text(loss)) if loss else ""


def write_prevalence_csv(path: Path, panels: Panels, positives: Mapping[float, int], exams: int) -> None:
    """Write one line for each panel, prevalence and arm: unrounded numbers, empty where there are none.

    Losses are shares of the arm's AUC at 50 %; `less` is the loss of supervised less that of self-supervised, the same
    in both arms' lines. Several figures in one cell (`auc_by_seed`) are separated by spaces.

    Args:
        path: The CSV file.
        panels: As for `prevalence_table`.
        positives: As for `prevalence_table`.
        exams: How many training exams there are at every prevalence.
    """
    table = [
        {
            "readout": panel.readout,
            "balance": panel.balance,
            "prevalence": row.prevalence,
            "exams": exams,
            "positives": positives[row.prevalence],
            "arm": arm,
            **_figures(row, arm),
        }
        for panel, rows in panels.items()
        for row in rows
        for arm in ARMS
    ]
    write_table(path, table)


def _figures(row: PrevalenceRow, arm: str) -> dict[str, object]:
    arm_at = row.arms.get(arm)
    columns: dict[str, object] = {"seeds": len(arm_at.by_seed) if arm_at else 0}
    for name, interval in (("auc", arm_at and arm_at.auc), ("loss", arm_at and arm_at.loss), ("less", row.less)):
        columns |= {
            name: interval and interval.value,
            f"{name}_low": interval and interval.low,
            f"{name}_high": interval and interval.high,
        }
    return columns | {"auc_by_seed": joined(arm_at.by_seed) if arm_at else None}
