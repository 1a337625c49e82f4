"""Numbers and the sentences around them, as the report prints them."""

import math
from collections.abc import Iterable, Mapping, Sequence

from kneessl.evaluation import AucDifference, AucInterval, ComparisonRow, MeanAccuracy, MeanAuc, Proportion
from kneessl.evaluation.calibration import Estimate

_FEW_EXAMS = 0.03
"""An AUC known only to within this much or worse is called out as coming from few exams."""
_SIGNIFICANT = 0.05
"""An adjusted p below this is called a difference."""

FALSE_CLAIMS = (
    "P(false) is the posterior probability that the ranking seen here is false: that the model with the higher figure "
    "is not the better one. “Claims Reloaded” (Christodoulou et al. 2025) calls it high above 5 %. For accuracy it is "
    "their definition, with a uniform prior over which of the two models is right on an exam, and these counted. For "
    "the AUC it is our reading of the same idea: a flat prior and DeLong's normal error, which makes it half of the "
    "two-sided p, unadjusted. Both take exams as independent and one claim at a time: a claim picked as the best of "
    "many is more often false than this says."
)
"""What stands below every table with such a probability."""

FALSE_COLUMN = (
    "how probable it is that the ranking of the two AUCs is false (flat prior, DeLong's error: half of the unadjusted "
    "p); above 5 % is high (Claims Reloaded, 2025)"
)
"""The same in short, for a terminal."""

COLUMN_NOTES: Mapping[str, str] = {
    "loss": "what training makes small",
    "lr": "learning rate",
    "tau": "momentum of the target network",
    "feature_std": "spread of the projected features; near 0 the encoder has collapsed",
    "effective_rank": "directions that the projected features use; near 1 the encoder has collapsed",
    "rank_share": "that rank as a share of what it could be, the number of clips or of dimensions",
    "alignment": "mean squared distance of two views of the same clip; small is good (Wang & Isola 2020)",
    "uniformity": "log of the mean of exp(−2 d²) over pairs of clips; lower is more uniform (Wang & Isola 2020)",
    "encoder_std": "spread of the encoder's own features; near 0 the encoder has collapsed",
    "encoder_rank": "directions that the encoder's own features use; near 1 the encoder has collapsed",
    "encoder_alpha": "power by which the spectrum of the encoder's features falls; near 1 is best (alpha-ReQ)",
    "encoder_lidar": "directions that tell clips apart more than views of one clip (LiDAR, Thilak et al. 2024)",
    "untrained_auc": "AUC of the linear probe on the untrained encoder's features",
    "linear_auc": "AUC of a linear probe on frozen features, out of fold, on labels that training never sees",
    "knn_auc": "AUC of a kNN probe on frozen features, out of fold, on labels that training never sees",
    "exams_per_s": "exams trained on in a second",
    "seconds": "time that the epoch took",
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
    return signed_text(difference.difference), f"{signed_text(difference.low)} to {signed_text(difference.high)}"


def estimate_text(estimate: Estimate, digits: int = 2) -> tuple[str, str]:
    """Return an estimate and its interval: `("−0.12", "−0.40 to 0.16")`."""
    return number_text(estimate.value, digits), interval_text(estimate.low, estimate.high, digits)


def interval_text(low: float, high: float, digits: int) -> str:
    """Return an interval: `"−0.40 to 0.16"`."""
    return f"{number_text(low, digits)} to {number_text(high, digits)}"


def number_text(value: float, digits: int) -> str:
    """Return a number with a proper minus sign, which 0 does not get."""
    text = f"{abs(value):.{digits}f}"
    return f"−{text}" if value < 0 and float(text) else text


def ratio_text(ratio: float) -> str:
    """Return a ratio above 0 with three significant digits, but at most three decimals: `"12.3"`, `"0.085"`."""
    return f"{ratio:.{min(max(2 - math.floor(math.log10(ratio)), 0), 3)}f}"


def p_text(p: float) -> str:
    """Return a p value with three decimals, or `< 0.001`."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def p_false_text(probability: float) -> str:
    """Return the probability that a claim is false, in per cent, none of them called 0: `"12 %"`, `"<1 %"`."""
    return "<1 %" if probability < 0.005 else f"{100 * probability:.0f} %"


def precision_text(exams: int, positives: int, aucs: Sequence[AucInterval]) -> str:
    """Say how well these exams determine an AUC, judged by the widest interval of the models on them."""
    counted = f"{exams:,} exams, {positives:,} of them positive"
    reach = max(max(auc.auc - auc.low, auc.high - auc.auc) for auc in aucs)
    if reach == 0:
        known = f"With {counted}, the AUC is not known any better than its interval can tell."
    elif reach < _FEW_EXAMS:
        known = f"With {counted}, an AUC is known here to within about ±{reach:.3f}."
    else:
        known = (
            f"Few exams: with {counted}, an AUC is known here only to within about ±{reach:.2f}. "
            "Models closer than that may be equally good, unless a paired test tells them apart."
        )
    if all(auc.standard_error > 0 for auc in aucs):
        return known
    return (
        f"{known} Where scores separate the classes perfectly, DeLong's interval has no width; "
        "this shows the limit of the method, not that the AUC is known exactly."
    )


def percent_text(share: float) -> str:
    """Return a share in per cent: `"83.3 %"`."""
    return f"{100 * share:.1f} %"


def probability_text(probability: float) -> str:
    """Return one exam's probability in per cent; none is called 0 or 100 %: `"83.3 %"`, `"< 0.1 %"`, `"> 99.9 %"`."""
    if probability < 0.0005:
        return "< 0.1 %"
    return "> 99.9 %" if probability >= 0.9995 else percent_text(probability)


def sentence_text(text: str) -> str:
    """Return a clause as a sentence: `"Only 12 slices; a knee series has 15 or more."`."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?')) else '.'}"


def mean_auc_text(auc: MeanAuc) -> tuple[str, str, str]:
    """Return an AUC, its interval and its seeds: `("0.891", "0.832 to 0.950", "seeds 0.870–0.903")`."""
    value, interval = auc_text(auc.interval)
    return value, interval, _seeds(auc.by_seed, "{:.3f}")


def mean_accuracy_text(accuracy: MeanAccuracy) -> tuple[str, str, str]:
    """Return an accuracy in per cent, its interval, its seeds: `("83.3 %", "75.6 to 89.0", "seeds 81.7–85.0")`."""
    return (
        percent_text(accuracy.value),
        f"{100 * accuracy.low:.1f} to {100 * accuracy.high:.1f}",
        _seeds([100 * value for value in accuracy.by_seed], "{:.1f}"),
    )


def durations_text(seconds: Sequence[float]) -> str:
    """Return the mean of several training times, a dash where there are none."""
    return duration_text(sum(seconds) / len(seconds)) if seconds else "–"


def flag_texts(row: ComparisonRow, reasons: bool) -> list[str]:
    """Return what keeps an arm's figures from being taken at face value: `["collapsed in 2 of 3 seeds"]`.

    With `reasons`, failures come with theirs, on one line and without control characters, wherever they come from.
    """
    flags = []
    if row.collapsed:
        flags.append(f"collapsed in {_of_seeds(row.collapsed, row.seeds)}")
    if row.failures:
        why = "; ".join(dict.fromkeys(_one_line(reason) for reason in row.failures))
        flags.append(f"failed in {_of_seeds(len(row.failures), row.seeds)}{f': {why}' if reasons else ''}")
    return flags


def verdict_text(aucs: Iterable[tuple[str, MeanAuc]]) -> str:
    """Say which arms, by name, differ from the reference at an adjusted p below 0.05; nothing where none is compared.

    `"better: none; worse: jigsaw, rotation; not told apart by these exams: 13."`
    """
    better, worse, alike = [], [], 0
    for name, auc in aucs:
        if auc.difference is None or auc.p_holm is None:
            continue
        if auc.p_holm >= _SIGNIFICANT:
            alike += 1
        elif auc.difference.difference > 0:
            better.append(name)
        else:
            worse.append(name)
    if not better and not worse and not alike:
        return ""
    return (
        f"better: {', '.join(better) or 'none'}; worse: {', '.join(worse) or 'none'}; "
        f"not told apart by these exams: {alike or 'none'}."
    )


def count_text(count: int) -> str:
    """Return a large number short: `"11.2 M"`."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)


def duration_text(seconds: float) -> str:
    """Return a time in the two units that matter: `"1 h 23 min"`, `"4 min 5 s"`, `"8.2 s"`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def memory_text(size: int) -> str:
    """Return bytes as `"3.1 GiB"` or `"412 MiB"`."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


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


def _seeds(values: Sequence[float], form: str) -> str:
    """Return `"seeds 0.870–0.903"`, or `"one seed"`."""
    if len(values) == 1:
        return "one seed"
    return f"seeds {form.format(min(values))}–{form.format(max(values))}"


def _of_seeds(count: int, seeds: int) -> str:
    """Return `"2 of 3 seeds"`, `"all 3 seeds"` or, where there was but one, `"its only seed"`."""
    if seeds == 1:
        return "its only seed"
    return f"all {seeds} seeds" if count == seeds else f"{count} of {seeds} seeds"


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split()) or "no reason given"


def signed_text(value: float) -> str:
    """Return a number with three decimals and its sign: `"+0.021"`, `"−0.060"`, `"0.000"`."""
    rounded = round(value, 3)
    if rounded == 0:
        return "0.000"
    return f"{'+' if rounded > 0 else '−'}{abs(rounded):.3f}"
