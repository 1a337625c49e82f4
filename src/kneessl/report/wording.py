"""Numbers and the sentences around them, as the report prints them."""

import math
from collections.abc import Mapping, Sequence

from kneessl.evaluation import AucDifference, AucInterval, Proportion, Summary

_FEW_EXAMS = 0.03
"""An AUC known only to within this much or worse is called out as coming from few exams."""

COLUMN_NOTES: Mapping[str, str] = {
    "loss": "what training makes small",
    "feature_std": "spread of the features; near 0 the encoder has collapsed",
    "effective_rank": "directions that the features use; near 1 the encoder has collapsed",
    "lr": "learning rate",
    "tau": "momentum of the target network",
    "probe_auc": "AUC of a linear probe on frozen features",
}
"""What a well-known column of `metrics.csv` means."""


def auc_text(interval: AucInterval) -> tuple[str, str]:
    """Return the AUC and its interval: `("0.891", "0.832 to 0.950")`."""
    return f"{interval.auc:.3f}", f"{interval.low:.3f} to {interval.high:.3f}"


def proportion_text(proportion: Proportion) -> tuple[str, str, str]:
    """Return a proportion in per cent, its interval and its counts: `("83.3 %", "75.6 to 89.0", "100/120")`."""
    return (
        f"{100 * proportion.value:.1f} %",
        f"{100 * proportion.low:.1f} to {100 * proportion.high:.1f}",
        f"{proportion.successes}/{proportion.n}",
    )


def difference_text(difference: AucDifference) -> tuple[str, str]:
    """Return a signed difference and its interval: `("−0.021", "−0.060 to +0.018")`."""
    return _signed(difference.difference), f"{_signed(difference.low)} to {_signed(difference.high)}"


def p_text(p: float) -> str:
    """Return a p value with three decimals, or `< 0.001`."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def precision_text(summaries: Sequence[Summary]) -> str:
    """Say how well these exams determine an AUC, judged by the widest interval of the models on them."""
    exams = f"{summaries[0].n:,} exams, {summaries[0].positives:,} of them positive"
    reach = max(max(s.auc.auc - s.auc.low, s.auc.high - s.auc.auc) for s in summaries)
    if reach == 0:
        known = f"With {exams}, the AUC is not known any better than its interval can tell."
    elif reach < _FEW_EXAMS:
        known = f"With {exams}, an AUC is known here to within about ±{reach:.3f}."
    else:
        known = (
            f"Few exams: with {exams}, an AUC is known here only to within about ±{reach:.2f}. "
            "Models closer than that may be equally good."
        )
    if all(s.auc.standard_error > 0 for s in summaries):
        return known
    return (
        f"{known} Where scores separate the classes perfectly, DeLong's interval has no width; "
        "this shows the limit of the method, not that the AUC is known exactly."
    )


def column_note(column: str) -> str:
    """Return what a metrics column means, or nothing where it is not a well-known one."""
    return COLUMN_NOTES.get(column, "")


def cell_text(value: object) -> str:
    """Return a table cell: as `value_text`, with the thousands of integers grouped."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return value_text(value)


def value_text(value: object) -> str:
    """Return a setting: floats short, nothing as a dash, lists and mappings in words."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else "–"
    if isinstance(value, list | tuple):
        return ", ".join(value_text(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {value_text(item)}" for key, item in value.items())
    return str(value)


def _signed(value: float) -> str:
    rounded = round(value, 3)
    if rounded == 0:
        return "0.000"
    return f"{'+' if rounded > 0 else '−'}{abs(rounded):.3f}"
