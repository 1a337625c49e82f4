"""What one study of the archive is: whose, when, on which scanner, which series, and what is wrong with it."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cached_property

import numpy as np
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    RLELossless,
)

from kneessl.errors import UserError
from kneessl.exams.folder import PLANES, Plane
from kneessl.phantom.knee import SCAN, TASKS, Plan
from kneessl.phantom.protocol import BEST_FIRST, PROTOCOLS, T1, SeriesKind
from kneessl.phantom.scanner import Scan, draw_scan
from kneessl.phantom.vendors import SCANNERS, Acquired, Role, Scanner

SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLosslessSV1, JPEG2000Lossless, RLELossless)
"""How an archive keeps its files."""
DAMAGES = ("cut short", "empty", "slice missing", "no orientation", "another PatientID")
"""What is wrong with a file of the series to read, or with the series."""
_ENHANCED_DAMAGES = DAMAGES[:4]
_SECOND_KNEES = 1_000_003
"""Numbers of the second knees of studies of both; a prime, so that they take turns too."""
_COMBINATIONS = tuple((scanner, syntax) for scanner in SCANNERS for syntax in SYNTAXES)
_STUDIES, _PERSONS, _COMBINED, _LABELLED = range(2**31 + 1, 2**31 + 5)
"""Spawn keys; no exam has these numbers."""

_BOTH_KNEES, _RETURNS, _IN_THE_MIDDLE = 0.08, 0.1, 0.05
"""Shares of the studies: of both knees; of a person seen before; of a knee that lies in the magnet's middle."""
_REPEATED, _REFORMATTED, _NO_AXIAL, _UNDESCRIBED, _MISTAGGED = 0.12, 0.1, 0.04, 0.12, 0.05
_LOCALISER_TIMES_MS = (6.2, 2.7)
_FAMILY_NAMES = ("Quitte", "Pomelo", "Mirabelle", "Damson", "Níspero", "Satsuma", "Schlehe", "Ciruela", "Pêche")
_GIVEN_NAMES = ("Linde", "Ash", "Olmo", "Hêtre", "Rowan", "Ulme", "Aliso", "Willow", "Kiefer", "Saule")


@dataclass(frozen=True)
class ArchiveSettings:
    """What the archive is to be; one study depends on no other, and not on how many there are."""

    seed: int
    prevalences: tuple[float, float, float]
    """Share of the knees with each of `TASKS`."""
    planes: tuple[Plane, ...]
    matrix: int | None = None
    """Rows and columns of the pictures; None for what each scanner has."""
    slices: int | None = None
    """At most so many a series, those in the middle; None for all."""
    knees: int | None = None
    """Draw so many different knees, which take turns; None for a new one in each study."""
    damaged: float = 0.0
    """Share of the studies with damage."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.matrix is not None and (self.matrix % 2 or not 32 <= self.matrix <= 1024):
            raise UserError(f"matrix is {self.matrix}; give an even number from 32 to 1024")
        if self.slices is not None and self.slices < 5:
            raise UserError(f"slices is {self.slices}; a series has 5 or more")
        if self.knees is not None and self.knees < 1:
            raise UserError(f"knees is {self.knees}; draw at least 1")
        if not 0 <= self.damaged <= 1:
            raise UserError(f"damaged is {self.damaged}; it is a share of the studies, from 0 to 1")

    def rng(self, *key: int) -> np.random.Generator:
        """One source of randomness."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))

    def uid(self, *parts: object) -> str:
        """A UID, always the same for the same parts; made of a hash, so that it is no scanner's."""
        digest = hashlib.sha256(repr(("kneessl phantom", self.seed, *parts)).encode()).hexdigest()
        return f"2.25.{int(digest[:32], 16)}"

    def knee(self, number: int) -> Plan:
        """A knee by its number, with its findings."""
        number = number if self.knees is None else number % self.knees
        abnormal, acl, meniscus = self.prevalences
        drawn = self.rng(_LABELLED, number).random(3)
        labels = {"abnormal": bool(drawn[0] < abnormal)}
        for task, share, draw in (("acl", acl, drawn[1]), ("meniscus", meniscus, drawn[2])):
            labels[task] = labels["abnormal"] and bool(draw * abnormal < share)
        return Plan(self.seed, number, "train", {task: labels[task] for task in TASKS})

    def scan(self, knee: int, plane: Plane, kind: SeriesKind) -> Scan:
        """How a series of a knee is acquired."""
        stream = self.knee(knee).stream(SCAN, PLANES.index(plane), 1 + BEST_FIRST.index(kind))
        name = f"{kind.weighting}{', fat-suppressed' if kind.fat_suppressed else ''}"
        scan = draw_scan(np.random.default_rng(stream), plane, {name: kind.tissue})
        return replace(scan, slices=min(scan.slices, self.slices or scan.slices))


@dataclass(frozen=True)
class Person:
    """Somebody who does not exist."""

    name: str
    patient_id: str
    birth: date
    sex: str


@dataclass(frozen=True)
class StudyKnee:
    """One knee of a study: one exam."""

    number: int
    side: str
    """`L` or `R`."""
    origin_mm: tuple[float, float, float]
    """Where its joint lies in the scanner: left, posterior, superior."""


@dataclass(frozen=True)
class StudySeries:
    """One series of a study."""

    uid: str
    number: int
    knee: StudyKnee
    acquired: Acquired
    minutes: float
    """Since the study began."""
    tag: str
    """Laterality: `L`, `R` or empty."""


class Study:
    """One study: what stands in its headers, and what its pictures follow from."""

    def __init__(self, settings: ArchiveSettings, number: int) -> None:
        self.settings = settings
        self.number = number
        self.uid = settings.uid("study", number)
        self.accession = f"{settings.seed % 1000:03d}{number:06d}"
        self._rng = settings.rng(_STUDIES, number)
        block, place = divmod(number, len(_COMBINATIONS))
        combination = settings.rng(_COMBINED, block).permutation(len(_COMBINATIONS))[place]
        self.scanner: Scanner = _COMBINATIONS[combination][0]
        self.syntax: UID = _COMBINATIONS[combination][1]
        both, self.middle, tagged, described, self.seconds = self._rng.random(5)
        self.tagged = bool(tagged < self.scanner.vendor.tagged)
        self.variant = int(self._rng.integers(2))
        self.described = bool(described > _UNDESCRIBED) or self.scanner.vendor.name == "Philips"
        self.knees = self._place_knees(both=bool(both < _BOTH_KNEES))
        self.series = self._with_tags(tuple(self._list_series()))
        self.damage = self._draw_damage()

    @cached_property
    def person(self) -> Person:
        """Whose it is."""
        first, _ = self._visit(self.number)
        rng = self.settings.rng(_PERSONS, first)
        family, given = rng.choice(_FAMILY_NAMES), rng.choice(_GIVEN_NAMES)
        birth = date(1940, 1, 1) + timedelta(days=int(rng.integers(365 * 65)))
        return Person(
            f"{family}^{given}", f"KP{self.settings.seed:03d}-{first:06d}", birth, str(rng.choice(["F", "M"]))
        )

    @cached_property
    def date(self) -> date:
        """When it was made; a later one of the same person is later."""
        first, visit = self._visit(self.number)
        days = int(self.settings.rng(_PERSONS, first, 1).integers(365 * 8)) + 400 * visit + self.number % 300
        return date(2013, 1, 1) + timedelta(days=days)

    @property
    def side_told_by(self) -> str:
        """What in the headers tells the side: `tag`, `most tags` (one is wrong), `position` or `nothing`."""
        if self.tagged:
            return "most tags" if self.mistagged else "tag"
        return "position" if abs(self.knees[0].origin_mm[0]) > 40 else "nothing"

    @property
    def damaged_series(self) -> StudySeries | None:
        """The series with the damage; None where there is none."""
        return self.read_series(self.knees[0])[0] if self.damage else None

    def read_series(self, knee: StudyKnee) -> list[StudySeries]:
        """The series to read of each plane of a knee."""
        return [series for series in self.series if series.knee == knee and series.acquired.role == "read"]

    def _visit(self, number: int) -> tuple[int, int]:
        """The first study of the person of a study, and how many came between."""
        rng = self.settings.rng(_STUDIES, number, 0)
        before = number - int(rng.integers(1, 21))
        if before < 0 or rng.random() >= _RETURNS:
            return number, 0
        first, visit = self._visit(before)
        return first, visit + 1

    def _place_knees(self, both: bool) -> tuple[StudyKnee, ...]:
        first = "LR"[int(self._rng.integers(2))]
        knees = []
        for index, side in enumerate("LR" if both else first):
            x = self._rng.uniform(85, 105) if both else self._rng.uniform(70, 110)
            if self.middle < _IN_THE_MIDDLE and not both:
                x = self._rng.uniform(-8, 8)
            y, z = self._rng.normal(0, (8, 12))
            origin = (float(x if side == "L" else -x), float(y), float(z))
            knees.append(StudyKnee(self.number + _SECOND_KNEES * index, side, origin))
        return tuple(knees)

    def _list_series(self) -> Iterator[StudySeries]:
        number, minutes = 0, 1.0
        for knee in self.knees:
            times: dict[tuple[Plane, SeriesKind], tuple[float, float]] = {}
            for role, plane, kind in self._protocol():
                number += 1
                minutes += float(self._rng.uniform(2, 5))
                if (plane, kind) not in times:  # a repeat has the same
                    times[plane, kind] = self._times(kind)
                acquired = self._acquired(role, plane, kind, times[plane, kind])
                named = 100 * number + 1 if self.scanner.vendor.hundreds else number
                uid = self.settings.uid("series", self.number, number)
                yield StudySeries(uid, named, knee, acquired, minutes, knee.side if self.tagged else "")

    def _with_tags(self, series: tuple[StudySeries, ...]) -> tuple[StudySeries, ...]:
        """Now and then somebody has clicked the other side for one of several series."""
        usable = [one for one in series if one.acquired.role in {"read", "other"}]
        drawn, chosen = self._rng.random(), usable[int(self._rng.integers(len(usable)))]
        one_side = len(self.knees) == 1 and self.middle >= _IN_THE_MIDDLE
        self.mistagged = self.tagged and one_side and len(usable) > 2 and bool(drawn < _MISTAGGED)
        if not self.mistagged:
            return series
        wrong = {"L": "R", "R": "L"}[chosen.tag]
        return tuple(replace(one, tag=wrong) if one is chosen else one for one in series)

    def _protocol(self) -> Iterator[tuple[Role, Plane, SeriesKind]]:
        """The series of one knee, in the order in which they are made."""
        yield "localiser", "axial", T1
        reformatted: list[tuple[Role, Plane, SeriesKind]] = []
        for plane in self.settings.planes:
            repeated, stopped, computed, left_out = self._rng.random(4)
            kinds = PROTOCOLS[plane][int(self._rng.integers(len(PROTOCOLS[plane])))]
            if plane == "axial" and left_out < _NO_AXIAL and len(self.settings.planes) > 1:
                continue
            best = min(kinds, key=BEST_FIRST.index)
            for kind in kinds:
                if kind == best and repeated < _REPEATED:
                    yield ("unfinished" if stopped < 0.5 else "moved"), plane, kind
                yield ("read" if kind == best else "other"), plane, kind
            if computed < _REFORMATTED:
                reformatted.append(("reformat", plane, best))
        yield from reformatted

    def _times(self, kind: SeriesKind) -> tuple[float, float]:
        """Repetition and echo time, ms."""
        repetition_ms, echo_ms = (float(self._rng.uniform(*limits)) for limits in (kind.repetition_ms, kind.echo_ms))
        return round(repetition_ms, 1), round(echo_ms, 2)

    def _acquired(self, role: Role, plane: Plane, kind: SeriesKind, times: tuple[float, float]) -> Acquired:
        scanner, localiser = self.scanner, role == "localiser"
        matrix = 256 if localiser else scanner.matrices[self.number % len(scanner.matrices)]
        repetition_ms, echo_ms = _LOCALISER_TIMES_MS if localiser else times
        return Acquired(
            role=role,
            kind=kind,
            plane=plane,
            matrix=self.settings.matrix or matrix,
            repetition_ms=repetition_ms,
            echo_ms=echo_ms,
            variant=self.variant,
            slope=round(float(self._rng.uniform(*scanner.vendor.slopes)), 6),
        )

    def _draw_damage(self) -> str:
        """Every so many studies one, beginning somewhere, so that the share is right however many there are."""
        share, start = self.settings.damaged, self.settings.rng(_STUDIES).random()
        if int(self.number * share + start) == int((self.number + 1) * share + start):
            return ""
        return str(self._rng.choice(_ENHANCED_DAMAGES if self.scanner.enhanced else DAMAGES))
