"""Which series of a plane is used: by kind, contrast, echo and size, each with the reason in words."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kneessl.exams.folder import PLANES, Plane, Weighting
from kneessl.sources.dicom.stack import DicomSeries


@dataclass(frozen=True)
class Wanted:
    """What a study is asked for."""

    echo_ms: float
    every_echo: bool
    """Make an exam of each echo; else take the one nearest `echo_ms`."""
    weighting: Mapping[Plane, Weighting]
    """Of some planes."""


@dataclass(frozen=True, eq=False)
class Family:
    """Series that differ in their echo only, such as those of one multi-echo acquisition; one at least."""

    series: tuple[DicomSeries, ...]
    """By rising echo time."""
    digest: str
    """Tells equals apart, always in the same way."""

    @property
    def plane(self) -> Plane:
        """Of all of them."""
        return self.series[0].plane

    def nearest(self, echo_ms: float) -> DicomSeries:
        """The one whose echo time is nearest."""
        return min(self.series, key=lambda series: _distance(series, echo_ms))


@dataclass(frozen=True, eq=False)
class Choice:
    """The series of one exam, and why."""

    candidates: dict[Plane, tuple[DicomSeries, ...]]
    """Of each plane, best first; with the reason in their `choice`."""
    reasons: dict[int, str]
    """By the number of each series: why it comes first in its plane, or why it does not."""


def choose(families: Sequence[Family], wanted: Wanted) -> list[Choice]:
    """Rank the series of each plane of one knee, for its exam; or for as many exams as there are echoes.

    An original comes before a derived one; then one of the weighting that is wanted of the plane; then PD or T2 with
    fat suppressed, which show fluid best, and T1 last; then the echo nearest the one wanted; then most slices; then
    the last by its number, since a series is repeated where the first try went wrong; then a hash.
    """
    exams: dict[int, Choice] = defaultdict(lambda: Choice({}, {}))
    for plane in PLANES:
        ranked = sorted(
            (family for family in families if family.plane == plane),
            key=lambda family: [key for key, _ in _criteria(family, wanted)],
        )
        if not ranked:
            continue
        nearest = [family.nearest(wanted.echo_ms) for family in ranked]
        for number, first in enumerate(ranked[0].series if wanted.every_echo else nearest[:1]):
            reasons = _reasons(ranked, first, wanted)
            candidates = [(first, ranked[0])] if wanted.every_echo else list(zip(nearest, ranked, strict=True))
            exams[number].reasons.update(reasons)
            exams[number].candidates[plane] = tuple(
                _with_words(series, family, reasons[series.number], wanted) for series, family in candidates
            )
    return [exams[number] for number in sorted(exams)]


def _criteria(family: Family, wanted: Wanted) -> list[tuple[Any, str]]:
    """What families are ranked by, the smaller the better, each in words."""
    series = family.nearest(wanted.echo_ms)
    contrast, weighting = series.contrast, wanted.weighting.get(family.plane)
    return [
        (series.derived, "an original before a derived one"),
        (weighting is not None and contrast.weighting != weighting, f"{weighting} is wanted of this plane"),
        (
            0 if contrast.fluid_sensitive else 2 if contrast.weighting == "T1" else 1,
            "PD or T2 with fat suppressed first, T1 last",
        ),
        (_distance(series, wanted.echo_ms), f"echo nearest {wanted.echo_ms:g} ms"),
        (-len(series.images), "most slices"),
        (-series.images[0].series_number, "the last by its number, as a repeat is"),
        (family.digest, "a hash, as nothing else tells them apart"),
    ]


def _reasons(ranked: Sequence[Family], first: DicomSeries, wanted: Wanted) -> dict[int, str]:
    """Why one series of the best family comes first in its plane, and why each of the others does not."""
    best = ranked[0]
    another = (
        "its echo is an exam of its own"
        if wanted.every_echo
        else f"the echo of series {first.number}, of the same acquisition, is nearer {wanted.echo_ms:g} ms"
    )
    reasons = {series.number: another for series in best.series}
    reasons[first.number] = _among(ranked, first, wanted)
    for family in ranked[1:]:
        why = f"series {first.number} of its plane comes first ({_decided_by(best, family, wanted)})"
        reasons.update({series.number: why for series in family.series})
    return reasons


def _among(ranked: Sequence[Family], first: DicomSeries, wanted: Wanted) -> str:
    """Among how many a series was chosen, and by what."""
    words = "the only series of its plane"
    if len(ranked) > 1:
        words = f"1 of {len(ranked)} series of its plane ({_decided_by(ranked[0], ranked[1], wanted)})"
    weighting = wanted.weighting.get(first.plane)
    if weighting and first.contrast.weighting != weighting:
        words += f"; not {weighting}, which is wanted of this plane, but there is none"
    if first.derived:
        words += "; its ImageType is DERIVED, but there is no original"
    return words


def _decided_by(better: Family, worse: Family, wanted: Wanted) -> str:
    """The first criterion in which two families differ."""
    pairs = zip(_criteria(better, wanted), _criteria(worse, wanted), strict=True)
    return next(words for (one, words), (other, _) in pairs if one != other)


def _with_words(series: DicomSeries, family: Family, reason: str, wanted: Wanted) -> DicomSeries:
    contrast = series.contrast
    echo = milliseconds(series.images[0].echo_ms)
    if len(family.series) > 1:
        why = "every echo is an exam" if wanted.every_echo else f"nearest {wanted.echo_ms:g} ms"
        echo += f" ({why}; {len(family.series)} echoes)"
    return replace(series, choice=(reason, f"{contrast} by {contrast.reason}", f"echo {echo}", *series.choice))


def _distance(series: DicomSeries, echo_ms: float) -> float:
    echo = series.images[0].echo_ms
    return float("inf") if echo is None else abs(echo - echo_ms)


def milliseconds(echo_ms: float | None) -> str:
    """An echo time in words."""
    return "unknown" if echo_ms is None else f"{echo_ms:g} ms"
