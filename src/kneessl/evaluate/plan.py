"""`kneessl plan`: how many exams a test set needs, before one is collected."""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kneessl.errors import UserError
from kneessl.evaluation import Proportion
from kneessl.evaluation.sample_size import (
    Pair,
    Pilot,
    binormal_error,
    exams_for_auc,
    exams_for_difference,
    exams_for_share,
    hanley_mcneil_error,
    obuchowski_error,
    simulated_power,
    simulated_width,
)

CORRELATIONS = (0.0, 0.3, 0.5, 0.7, 0.9)
"""Shown side by side where nothing says how the two models' scores correlate."""
_ERRORS = {
    "normal scores, equally spread in each class": binormal_error,
    "Hanley & McNeil 1982": hanley_mcneil_error,
    "Obuchowski 2004": obuchowski_error,
}
_DRAWN = 1_000_000
"""Exams that a simulation draws in all, so that it ends within seconds."""
_STUDIES = (200, 2000)
"""The fewest and the most studies that are simulated."""


def plan(
    auc: float | None = None,
    against: float | None = None,
    sensitivity: float | None = None,
    specificity: float | None = None,
    prevalence: float | None = None,
    width: float | None = None,
    power: float = 0.8,
    correlation: float | None = None,
    pilot: Path | None = None,
    task: str | None = None,
    seed: int = 0,
) -> None:
    """Say how many exams are needed for an interval of some width, and for telling two models apart.

    Of an AUC, exams follow in closed form from scores that are normal and equally spread within each class; Hanley &
    McNeil's and Obuchowski's formulas, which ask for more, stand beside, for scores that are not. Of two models on the
    same exams, from the error that their AUCs' difference has then. Simulated studies check both by the intervals and
    tests that reports make. Of a sensitivity or specificity at a threshold that is locked beforehand, from Wilson's
    interval.

    Args:
        auc: The AUC that is expected; by default that of the first model of the pilot.
        against: The other model's, on the same exams; by default that of the pilot's second model.
        sensitivity: Expected at the locked operating point.
        specificity: Expected at the locked operating point.
        prevalence: Share of positives among the exams to come; by default the pilot's.
        width: Of the 95 % interval wanted, from its lower to its upper end, such as .05.
        power: Chance of finding the difference at p < .05, two-sided.
        correlation: Of the two models' scores within each class; by default the pilot's.
        pilot: predictions.csv of an evaluation, of one model or of two (`kneessl evaluate --against`).
        task: The pilot's task, where it has several.
        seed: Of the simulated studies.
    """
    for name, value in {
        "auc": auc,
        "against": against,
        "prevalence": prevalence,
        "width": width,
        "power": power,
    }.items():
        if value is not None and not 0 < value < 1:
            raise UserError(f"{name} is {value}; it must be between 0 and 1")
    shares = {"sensitivity": sensitivity, "specificity": specificity}
    for name, value in shares.items():
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"{name} is {value}; it must be from 0 to 1")
    if correlation is not None and not 0 <= correlation < 1:
        raise UserError(f"correlation is {correlation}; it must be 0 or more and below 1")
    known = None if pilot is None else read_pilot(pilot, task, correlation is None)
    if known is not None:
        auc, prevalence = auc or known.auc, prevalence or known.prevalence
        against = against or (known.pair.against if known.pair else None)
    if prevalence is None:
        raise UserError("prevalence is missing: give the share of positives among the exams to come, or a --pilot")
    wants_width = auc is not None or any(share is not None for share in shares.values())
    if (width is None or not wants_width) and (auc is None or against is None):
        raise UserError(
            "there is nothing to plan: give --width with --auc, --sensitivity or --specificity, or --auc and --against"
        )
    for name, value in {"auc": auc, "against": against}.items():
        if value is not None and not 0 < value < 1:
            raise UserError(f"{name} is {value} in the pilot, which leaves no error to plan with; give --{name}")
    if auc is not None and auc == against:
        raise UserError(f"auc and against are both {auc}; no number of exams tells apart what is equally good")
    print(f"assumed: {100 * prevalence:g} % of the exams positive{', from the pilot' if known else ''}")
    for line in _lines(auc, against, shares, prevalence, width, power, _pairs(auc, against, correlation, known), seed):
        print(line)


def read_pilot(path: Path, task: str | None, of_two: bool) -> Pilot:
    """What an evaluation's `predictions.csv` says of exams to come.

    Args:
        path: The file.
        task: One of its tasks; None where it has but one.
        of_two: Whether the correlation of its two models is wanted, where it has two.

    Raises:
        UserError: no such file, or not of that form; another task; too few exams.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            rows, models = list(reader), (reader.fieldnames or [])[3:]
        if (reader.fieldnames or [])[:3] != ["exam", "task", "label"] or not 1 <= len(models) <= 2:
            raise ValueError("other columns")
        tasks = list(dict.fromkeys(row["task"] for row in rows))
        if task is None and len(tasks) == 1:
            task = tasks[0]
        if task not in tasks:
            raise UserError(f"{path} has the tasks {', '.join(tasks) or '(none)'}; choose one with --task")
        chosen = [row for row in rows if row["task"] == task]
        labels = np.array([int(row["label"]) for row in chosen])
        scores = [np.array([float(row[model]) for row in chosen]) for model in models]
    except OSError as error:
        raise UserError(f"{path} cannot be read; name the predictions.csv that an evaluation wrote") from error
    except (ValueError, TypeError, csv.Error) as error:
        raise UserError(
            f"{path} is no predictions.csv of one evaluated model or two: its columns are exam, task, label and a "
            "number for each model"
        ) from error
    return Pilot.of(labels, *(scores if of_two else scores[:1]))


def _pairs(auc: float | None, against: float | None, correlation: float | None, pilot: Pilot | None) -> list[Pair]:
    """The comparison to plan, by each correlation that may hold; none where no comparison is asked for."""
    if auc is None or against is None:
        return []
    if correlation is None and pilot is not None and pilot.pair is not None:
        return [Pair(auc, against, pilot.pair.positives, pilot.pair.negatives)]
    return [Pair(auc, against, r, r) for r in (CORRELATIONS if correlation is None else (correlation,))]


def _lines(
    auc: float | None,
    against: float | None,
    shares: dict[str, float | None],
    prevalence: float,
    width: float | None,
    power: float,
    pairs: list[Pair],
    seed: int,
) -> Iterator[str]:
    """What is printed, one answer after the other."""
    if auc is not None and width is not None:
        yield f"AUC {auc:.3f} with a 95 % interval (on the logit scale) that is {width:g} wide:"
        needed = {source: exams_for_auc(auc, width, prevalence, error) for source, error in _ERRORS.items()}
        for source, exams in needed.items():
            yield f"  {_counted(exams, prevalence)}: {source}"
        exams = next(iter(needed.values()))
        narrow = simulated_width(auc, width, *_each(exams, prevalence), _studies(exams), seed)
        yield f"  with the first of these the interval is that narrow in {_of(narrow)} simulated studies"
    if pairs:
        yield f"AUC {auc:.3f} against {against:.3f} on the same exams, p < 0.05 with a power of {power:g}:"
    for pair in pairs:
        exams = exams_for_difference(pair, power, prevalence)
        yield f"  {_counted(exams, prevalence)}: scores correlate {_correlated(pair)}"
    if len(pairs) == 1:
        found = simulated_power(pairs[0], *_each(exams, prevalence), _studies(exams), seed)
        yield f"  the paired DeLong test finds it in {_of(found)} simulated studies"
    elif pairs:
        yield "  which of these holds, say with --correlation, or with the --pilot of both models"
    for name, share in shares.items():
        if share is not None and width is not None:
            of_one = exams_for_share(share, width)
            part, label = (prevalence, "positive") if name == "sensitivity" else (1 - prevalence, "negative")
            yield (
                f"{name} {share:g} at a locked point with a 95 % interval (Wilson) that is {width:g} wide:\n"
                f"  {int(np.ceil(of_one / part)):,} exams, of them {of_one:,} {label}"
            )


def _each(exams: int, prevalence: float) -> tuple[int, int]:
    positives = min(max(round(exams * prevalence), 2), exams - 2)
    return positives, exams - positives


def _counted(exams: int, prevalence: float) -> str:
    positives, negatives = _each(exams, prevalence)
    return f"{exams:,} exams ({positives:,} positive, {negatives:,} negative)"


def _studies(exams: int) -> int:
    return min(max(_DRAWN // exams, _STUDIES[0]), _STUDIES[1])


def _of(share: Proportion) -> str:
    return f"{100 * share.value:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f}) of {share.n:,}"


def _correlated(pair: Pair) -> str:
    if pair.positives == pair.negatives:
        return f"{pair.positives:.2f} within each class"
    return f"{pair.positives:.2f} among positives, {pair.negatives:.2f} among negatives"
