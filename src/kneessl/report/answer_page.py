"""The page of one knee: what a model says of it and why; one HTML file that is read in a minute."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from kneessl.evaluation import Proportion
from kneessl.evaluation.decisions import NEVER, OperatingPoints
from kneessl.exams.folder import Plane
from kneessl.report import figures
from kneessl.report.content import Answer, SeriesRow, Sheet
from kneessl.report.figures import Picture
from kneessl.report.page import PageHead, write_page
from kneessl.report.wording import probability_text, proportion_text

WORDS = {
    "yes": ("Yes", "The model says that this finding is there."),
    "no": ("No", "The model says that this finding is not there."),
    "doubt": ("In doubt", "The model says neither yes nor no. A reader has to decide."),
    "open": ("Probability only", "This model has no operating points, so it says neither yes nor no."),
    "none": ("Not assessed", "The model says nothing about this finding: neither yes nor no."),
}
"""How an answer is headed, and what it means."""
_THUMBNAIL_SIDE = 96
_NAMED_FROM = 0.14
"""A zone of the bar at least so wide, as a share, has its name in it."""


@dataclass(frozen=True)
class Zone:
    """A part of the bar; shares of its width."""

    state: str
    left: float
    width: float

    @property
    def named(self) -> bool:
        """Whether its name fits in."""
        return self.width >= _NAMED_FROM


@dataclass(frozen=True)
class Bar:
    """A probability with its interval, and the zones that it may lie in; all in [0, 1]."""

    value: float
    interval: tuple[float, float] | None
    zones: list[Zone]
    marks: list[tuple[str, float]]
    """`rule-out` or `rule-in`, and where; what is never reached has none."""
    alt: str


@dataclass(frozen=True)
class Pair:
    """A key slice, as it is and with heat."""

    plane: Plane
    caption: str
    plain: Picture
    heated: Picture


@dataclass(frozen=True)
class AnswerSection:
    """One finding, ready for the template."""

    id: str
    task: str
    kind: str
    """A key of `WORDS`."""
    word: str
    meaning: str
    answer: Answer
    bar: Bar | None
    """None where it was not assessed."""
    points_text: str
    """What its operating points hold to, in sentences; empty where it has none."""
    pairs: list[Pair]


@dataclass(frozen=True)
class ContactSheet:
    """All slices of a series, small, each with the tasks that it is a key slice for."""

    plane: Plane
    thumbnails: list[tuple[Picture, str]]


def write_answer_page(
    path: Path,
    head: PageHead,
    alarm: str,
    flags: Sequence[tuple[str, str]],
    answers: Sequence[Answer],
    sheets: Sequence[Sheet],
    series: Sequence[SeriesRow],
    missing: Sequence[Plane],
    left_out: Sequence[str],
    edges: Mapping[Plane, Mapping[str, str]],
    model: Sequence[tuple[str, str]],
) -> None:
    """Write the page of one knee, as `write_page` does. That it is no medical device the page says by itself.

    Args:
        path: The HTML file.
        head: Which knee: title and facts; `alarm` and `flags` stand in the place of its warnings.
        alarm: Why the answers are none at all, in plain sight, such as a model that learned from a phantom; else empty.
        flags: What to know before trusting an answer: of what kind it is, and a sentence.
        answers: One a task.
        sheets: The series that were used.
        series: All series of the study, used or not.
        missing: Planes of the model that could not be used.
        left_out: What of the study never became a series.
        edges: Where in the patient the edges of a plane's slices lie, such as `{"top": "S", ...}`.
        model: Name and value of what tells which model it was.
    """
    write_page(
        path,
        "answer.html",
        head,
        alarm=alarm,
        flags=flags,
        findings=[_section(answer, number) for number, answer in enumerate(answers, start=1)],
        edges=edges,
        sheets=[_contact_sheet(sheet) for sheet in sheets],
        series=sorted(series, key=lambda row: (not row.used, row.number)),
        missing=missing,
        left_out=left_out,
        model=model,
    )


def _section(answer: Answer, number: int) -> AnswerSection:
    kind = "none" if answer.probability is None else answer.state or "open"
    word, meaning = WORDS[kind]
    return AnswerSection(
        f"finding-{number}",
        answer.task,
        kind,
        word,
        " ".join([meaning, *_overruled(answer)]),
        answer,
        None if answer.probability is None else bar(answer.probability, answer.interval, answer.points),
        points_text(answer.points) if answer.points else "",
        [
            Pair(
                key.plane,
                key.caption,
                figures.png(Image.fromarray(key.slice), f"{answer.task}: {key.caption}, as it is"),
                figures.png(Image.fromarray(key.heated), f"{answer.task}: {key.caption}, with heat"),
            )
            for key in answer.key_slices
        ],
    )


def _overruled(answer: Answer) -> list[str]:
    """What the operating points alone would say, where the answer is another."""
    if answer.points is None or answer.probability is None:
        return []
    alone = answer.points.state(answer.probability)
    return [] if alone == answer.state else [f"By its probability alone it would be “{alone}”."]


def bar(value: float, interval: tuple[float, float] | None, points: OperatingPoints | None) -> Bar:
    """Lay out a probability among the zones that operating points cut."""
    zones, marks = [], []
    if points:
        rule_out, rule_in = points.rule_out, min(points.rule_in, 1.0)
        cuts = (("no", 0.0, rule_out), ("doubt", rule_out, rule_in), ("yes", rule_in, 1.0))
        zones = [Zone(state, left, right - left) for state, left, right in cuts if right > left]
        marks = [("rule-out", rule_out)] if rule_out > 0 else []
        marks += [("rule-in", rule_in)] if points.rule_in < NEVER else []
    texts = [f"Probability {probability_text(value)}"]
    if interval:
        texts.append(f"95 % interval {_range(*interval)}")
    texts += [f"{name} at {probability_text(at)}" for name, at in marks]
    return Bar(value, interval, zones, marks, f"{'; '.join(texts)}.")


def points_text(points: OperatingPoints) -> str:
    """Return what operating points hold to and what they were set on, in sentences."""
    no = "“No” is never said: any threshold would have missed more positive exams than was asked for."
    if points.rule_out > 0:
        kept = _reached("sensitivity", points.target_sensitivity, points.sensitivity)
        no = f"“No” below {probability_text(points.rule_out)}: {kept}."
    yes = "“Yes” is never said: any threshold would have raised more false alarms than was asked for."
    if points.rule_in < NEVER:
        kept = _reached("specificity", points.target_specificity, points.specificity)
        yes = f"“Yes” from {probability_text(points.rule_in)}: {kept}."
    return (
        f"{no} {yes} Fixed beforehand on {points.n:,} exams, {points.positives:,} of them positive, each predicted by "
        "a model that had not seen it (out of fold)."
    )


def _reached(what: str, target: float, reached: Proportion) -> str:
    value, interval, counts = proportion_text(reached)
    return f"{100 * target:g} % {what} asked for, {value} reached ({interval} %; {counts})"


def _range(low: float, high: float) -> str:
    return f"{probability_text(low)} to {probability_text(high)}"


def _contact_sheet(sheet: Sheet) -> ContactSheet:
    count = len(sheet.slices)
    return ContactSheet(
        sheet.plane,
        [
            (
                figures.grey(image, _THUMBNAIL_SIDE, f"{sheet.plane}, slice {index + 1} of {count}"),
                ", ".join(sheet.key.get(index, ())),
            )
            for index, image in enumerate(sheet.slices)
        ],
    )
