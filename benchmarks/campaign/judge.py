"""Holds what came out against what went in: right, right and something said, refused in a sentence, or a fault."""

import contextlib
import csv
import io
import logging
import tempfile
import traceback
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from campaign.reading import Slice, pictures, thumbnails
from campaign.studies import SECRET
from kneessl.errors import sentence

RIGHT, SAID, REFUSED, FAULT = OUTCOMES = ("right", "right, and said", "refused", "fault")
_LONGEST_SENTENCE = 2000
_SURE = 20.0
"""mm from the middle of the patient, from which on the place tells the side."""


class Wrong(Exception):
    """What came out is not what went in; the message says how."""


@dataclass
class Told:
    """What one call gave, and all that it said."""

    value: Any = None
    refusal: str = ""
    text: str = ""


@dataclass(eq=False)
class Written:
    """One series as it came out."""

    exam: str
    plane: str
    pictures: np.ndarray
    pixel_mm: float
    slice_mm: float
    side: str
    group: str
    words: str
    of: list[Slice] = field(default_factory=list)
    """What it holds, once that is found out."""


def tell(door: Callable[[], Any], *clean: Path) -> Told:
    """Call something as a user would, with its output caught.

    Args:
        door: What to call.
        clean: Folders in which nothing may be left where it refuses, and no temporary thing in any case.

    Raises:
        Wrong: an error that is no sentence, a patient's identity in what was said, or something left behind.
    """
    told, out = Told(), io.StringIO()
    handler = logging.StreamHandler(out)
    logging.getLogger().addHandler(handler)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), warnings.catch_warnings():
            warnings.simplefilter("always")
            told.value = door()
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit):
            told.refusal = f"status {error.code}"
        else:
            told.refusal = sentence(error) or ""
            if not told.refusal:
                frames = traceback.extract_tb(error.__traceback__)
                raise Wrong(
                    f"{type(error).__name__} at {Path(frames[-1].filename).name}:{frames[-1].lineno}"
                ) from error
            if "\n" in told.refusal or len(told.refusal) > _LONGEST_SENTENCE:
                raise Wrong(f"no sentence: {told.refusal[:200]!r}") from None
    finally:
        logging.getLogger().removeHandler(handler)
    told.text = out.getvalue()
    for word in SECRET:
        if word in told.text or word in told.refusal:
            raise Wrong(f"said {word}, which names a patient: {(told.refusal or told.text)[:200]!r}")
    for folder in clean:
        left = [path.name for path in folder.iterdir() if told.refusal or path.name.startswith((".", "kneessl-"))]
        if left:
            raise Wrong(f"left behind: {left[:3]}")
    return told


@contextlib.contextmanager
def temporary_in(folder: Path) -> Iterable[None]:
    """Let everything temporary go into a folder, so that what is left there is seen."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def exams_of(out: Path) -> list[Written]:
    """What `kneessl import` wrote.

    Raises:
        Wrong: exams.csv and the series beside it differ, or something in the folder names a patient.
    """
    with (out / "exams.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    written = [
        Written(
            exam=f"{line['split']}/{line['exam']}",
            plane=line["plane"],
            pictures=np.load(out / line["split"] / line["plane"] / f"{line['exam']}.npy"),
            pixel_mm=float(line["row_mm"]),
            slice_mm=float(line["slice_mm"]),
            side=line["laterality"],
            group=line["patient_group"],
            words=line["choice"],
        )
        for line in lines
    ]
    files = [path for path in out.rglob("*") if path.is_file()]
    if sum(path.suffix == ".npy" for path in files) != len(lines):
        raise Wrong("exams.csv does not list what is there")
    texts = [str(path.relative_to(out)) for path in files]
    texts += [path.read_text() for path in files if path.suffix != ".npy"]
    if told := [word for word in SECRET if any(word in text for text in texts)]:
        raise Wrong(f"the folder names a patient ({told[0]})")
    return written


def judge(written: Sequence[Written], slices: Sequence[Slice], unread: int, text: str) -> str:
    """Right, or right and said.

    Args:
        written: Every series that came out.
        slices: Every image that went in, by the plain reading.
        unread: How many files the plain reading could not make out.
        text: All that was said.

    Raises:
        Wrong: they differ, and not by what was said.
    """
    said = text + " ".join(one.words for one in written)
    try:
        return _judged(written, slices, unread, text, said)
    except Wrong as wrong:
        wrong.add_note(said)
        raise


def _judged(written: Sequence[Written], slices: Sequence[Slice], unread: int, text: str, said: str) -> str:
    for one in written:
        one.of = _found(one, [each for each in slices if each.plane == one.plane])
        _require_one_series(one, said)
        _require_order(one)
        _require_scale(one)
        _require_side(one, said)
    _require_persons(written, slices)
    used = {id(each) for one in written for each in one.of}
    if sum(len(one.of) for one in written) != len(used):
        raise Wrong("one image came out twice")
    lost = [each for each in slices if id(each) not in used]
    _require_said(lost, used, slices, said)
    if unread and "left out" not in said:
        raise Wrong(f"{unread} files are not mentioned")
    return SAID if lost or unread or "assumed" in text or "check which knee" in text else RIGHT


def _found(one: Written, candidates: Sequence[Slice]) -> list[Slice]:
    """The image that each picture shows, exactly.

    Raises:
        Wrong: a picture that no image shows, or shows with other grey values.
    """
    if not candidates:
        raise Wrong(f"a {one.plane} series came out, and none went in")
    series: dict[str, list[Slice]] = defaultdict(list)
    for each in candidates:
        series[each.series].append(each)
    for whole in series.values():
        if len(whole) == len(one.pictures):
            in_order = sorted(whole, key=lambda each: each.place)
            if _difference(one, in_order).max() <= 1:
                return in_order
    recognised = _recognised(one, candidates)
    difference = _difference(one, recognised)
    if difference.max() > 1:
        raise Wrong(f"grey values differ by {difference.max():.0f} ({(difference > 1).mean():.2%} of the pixels)")
    return recognised


def _recognised(one: Written, candidates: Sequence[Slice]) -> list[Slice]:
    """As `_found`, by what pictures look like, where they are no whole series in its order."""
    alike = thumbnails(one.pictures.astype(float)) @ thumbnails(_plain(candidates)).T
    best = alike.max(axis=1)
    if best.min() < 0.9:
        raise Wrong(f"a picture that no image shows (nearest {best.min():.2f})")
    votes: dict[str, int] = defaultdict(int)
    for row in alike:
        votes[candidates[int(row.argmax())].series] += 1
    favourite = np.array([each.series == max(votes, key=lambda name: votes[name]) for each in candidates])
    chosen = [int(np.where((row > row.max() - 1e-3) & favourite, 1, row - 1).argmax()) for row in alike]
    if len(set(chosen)) < len(chosen):
        raise Wrong("one image is shown twice in a series")
    return [candidates[index] for index in chosen]


def _plain(slices: Sequence[Slice]) -> np.ndarray:
    """Each image in its own window, for recognising it."""
    return np.concatenate([pictures([each]) for each in slices])


def _difference(one: Written, of: Sequence[Slice]) -> np.ndarray:
    return np.abs(one.pictures.astype(float) - pictures(of))


def _require_one_series(one: Written, said: str) -> None:
    for name in ("study", "series"):
        if len({getattr(each, name) for each in one.of}) > 1:
            raise Wrong(f"images of several {name} UIDs in one series")
    if len({each.person for each in one.of} - {""}) > 1:
        raise Wrong("images of several persons in one series")
    if len({each.kind for each in one.of}) > 1:
        raise Wrong("images of several kinds in one series")
    echoes = {each.echo for each in one.of}
    if None in echoes and len(echoes) > 1:
        raise Wrong("images with and without an echo time in one series")
    if None not in echoes and max(echoes) - min(echoes) > 1:
        raise Wrong("several echoes in one series")
    normals = np.array([each.normal for each in one.of])
    if np.abs(normals - normals[0]).max() > 0.03:
        raise Wrong("several orientations in one series")
    if np.ptp([each.spacing for each in one.of], axis=0).max() > 0.02:
        raise Wrong("several pixel spacings in one series")


def _require_order(one: Written) -> None:
    places = np.array([each.place for each in one.of])
    if np.isnan(places).all():
        numbers = [each.number for each in one.of]
        if None in numbers or (numbers != sorted(numbers) and numbers != sorted(numbers, reverse=True)):
            raise Wrong("slices without positions are not in the order of their numbers")
        if "positions are missing" not in one.words:
            raise Wrong("positions are missing, and nothing says so")
        return
    known = places[~np.isnan(places)]
    if len(known) < len(places) and "has no position" not in one.words:
        raise Wrong("a position is missing, and nothing says so")
    steps = np.diff(known)
    if not (steps > 0).all():
        raise Wrong("slices are out of order")
    if len(known) == len(places) and steps.max() > 1.6 * np.median(steps):
        raise Wrong("slices are missing in between")


def _require_scale(one: Written) -> None:
    rows, columns = one.of[0].values.shape
    pixel = max(rows * one.of[0].spacing[0], columns * one.of[0].spacing[1]) / 256
    if not one.pixel_mm and "spacing not known" in one.words:
        return
    if abs(pixel - one.pixel_mm) > 1e-3 * pixel + 1e-4:
        raise Wrong(f"pixels of {one.pixel_mm} mm, and they have {pixel:.4f}")
    places = np.array([each.place for each in one.of])
    if not np.isnan(places).any() and abs(np.median(np.diff(places)) - one.slice_mm) > 1e-2:
        raise Wrong(f"slices {one.slice_mm} mm apart, and they are {np.median(np.diff(places)):.3f}")


def _require_side(one: Written, said: str) -> None:
    tags = {each.tag for each in one.of} - {""}
    if len(tags) > 1:
        if "images tagged left and images tagged right" not in said and not one.side:
            raise Wrong("a series with both tags, and nothing says so")
        if "tagged" not in said and "check which knee" not in said and "knees" not in said:
            raise Wrong("a series with both tags, and nothing says so")
        return
    if tags and one.side != min(tags) and "check which knee" not in said:
        raise Wrong(f"tagged {min(tags)}, and came out as {one.side or 'unknown'}")
    x = float(np.mean([each.centre_x for each in one.of]))
    by_place = "" if np.isnan(x) or abs(x) < _SURE * 1.02 else "L" if x > 0 else "R"
    if one.side and by_place and one.side != by_place and "check which knee" not in said:
        raise Wrong(f"came out as {one.side}, lies on {by_place}, and nothing says so")


def _require_persons(written: Sequence[Written], slices: Sequence[Slice]) -> None:
    issuers: dict[str, set[str]] = defaultdict(set)
    for each in slices:
        issuers[each.person].add(each.issuer)
    people: dict[str, set[str]] = defaultdict(set)
    for one in written:
        person = max(each.person for each in one.of)
        issuer = max(each.issuer for each in one.of)
        apart = len(issuers[person]) > 1 and "" not in issuers[person]
        people[f"{person} {issuer if apart else ''}" if person else f"study {one.of[0].study}"].add(one.group)
    if any(len(groups) > 1 for groups in people.values()):
        raise Wrong("one person has several groups")
    named = [min(groups) for person, groups in people.items() if not person.startswith("study ")]
    if len(set(named)) < len(named):
        raise Wrong("several persons have one group")
    exams: dict[str, list[Written]] = defaultdict(list)
    for one in written:
        exams[one.exam].append(one)
    for series in exams.values():
        if len({one.of[0].study for one in series}) > 1 or len({one.group for one in series}) > 1:
            raise Wrong("one exam has series of several studies or persons")
        if len({one.side for one in series} - {""}) > 1:
            raise Wrong("one exam has both sides")


def _require_said(lost: Sequence[Slice], used: set[int], slices: Sequence[Slice], said: str) -> None:
    """Whatever did not come out is spoken of."""
    series: dict[tuple[str, str], int] = defaultdict(int)
    for each in lost:
        series[each.study, each.series] += 1
    for (study, name), count in series.items():
        partly = any(id(each) in used for each in slices if each.series == name and each.study == study)
        words = (
            "is a part of its SeriesInstanceUID",
            "echoes)",
            "left out",
            "of its plane",
            "its echo is",
            "the echo of",
        )
        words += () if partly else ("comes first", "cannot be used")
        if not any(word in said for word in words):
            raise Wrong(f"{count} images of a series {'partly ' if partly else 'not '}taken, and nothing says so")
