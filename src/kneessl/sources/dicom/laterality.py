"""Left or right knee: by the tag, else by the side of the patient's middle that a series lies on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kneessl.sources.volume import side_of_patient

APART_MM = 100.0
"""The centres of two knees are at least this far apart; our choice (of legs side by side it is 150 mm and more)."""
_TAG = "its tag"
SIDES = {"L": "left", "R": "right"}
"""In words."""


@dataclass(frozen=True, eq=False)
class Placed:
    """What one series tells of its side."""

    number: int
    """How a flag names it."""
    tags: frozenset[str]
    """Of its images: `L`, `R`; more than one where they contradict one another."""
    centre: np.ndarray | None
    """LPS, mm."""

    @property
    def tag(self) -> str:
        """`L`, `R`, or empty where there is none or they contradict one another."""
        return min(self.tags) if len(self.tags) == 1 else ""

    @property
    def by_centre(self) -> str:
        """`L`, `R`, or empty near the middle."""
        return side_of_patient(self.centre)

    @property
    def x_mm(self) -> float:
        """Of the centre, growing to the patient's left; NaN where it is not known."""
        return float("nan") if self.centre is None else float(self.centre[0])


@dataclass(frozen=True)
class Side:
    """The side of one series."""

    side: str
    """`L`, `R` or empty."""
    source: str
    """How it is known, or why it is not, in words."""
    sure: bool = False
    flags: tuple[str, ...] = ()
    """Sentences on what contradicts it."""

    @property
    def tagged(self) -> bool:
        """Known by the series' own tag."""
        return self.source == _TAG

    def __str__(self) -> str:
        return f"laterality from {self.source}" if self.side else f"laterality unknown ({self.source})"


UNKNOWN = Side("", "no tag, centre near the middle")
_BOTH_SIDES = "No series has a tag, and their centres lie on both sides of the middle, so the side is unknown."


def sides(study: Sequence[Placed]) -> list[Side]:
    """The side of each series of one study."""
    tagged = {series.tag for series in study} - {""}
    borne_out = {series.tag for series in study if series.tag and series.by_centre == series.tag}
    together = _together(study)
    one_knee = not tagged and together and {"L", "R"} <= {series.by_centre for series in study}
    tags = [series.tag for series in study if series.tag]
    prevailing = {side for side in borne_out if together and 2 * tags.count(side) > len(tags)}
    return [_with_mixed_tags(series, _side(series, tagged, borne_out, prevailing, one_knee)) for series in study]


def _side(series: Placed, tagged: set[str], borne_out: set[str], prevailing: set[str], one_knee: bool) -> Side:
    """The side of one series.

    Args:
        series: The series.
        tagged: Sides that some tag of the study names.
        borne_out: Sides that some tag names for a series that lies on that side.
        prevailing: Of these, the side that holds against another tag: most tags say it, and all series lie where one
            knee is.
        one_knee: No series has a tag, and they lie on both sides of the middle, too near for two knees.
    """
    by_centre = series.by_centre
    if series.tag and by_centre in prevailing - {series.tag}:
        taken = f", where others are tagged {SIDES[by_centre]}, and it was taken as {SIDES[by_centre]}"
        flag = _conflict(series, f"is tagged {SIDES[series.tag]}", taken)
        return Side(by_centre, "the centre and the tags of the study's other series", False, (flag,))
    if series.tag:
        flags = (_conflict(series, f"is tagged {SIDES[series.tag]}"),) if by_centre not in {"", series.tag} else ()
        return Side(series.tag, _TAG, not flags, flags)
    if len(tagged) == 1:
        (other,) = tagged
        if by_centre in {"", other}:
            return Side(other, "the study's other series", True)
        flag = _conflict(series, f"has no tag, and the study's others are tagged {SIDES[other]}")
        if other not in borne_out:  # their centres do not go by their tag either: the patient lay off the middle
            return Side(other, "the study's other series", False, (flag,))
        return Side(by_centre, f"the centre at x = {series.x_mm:.0f} mm (no tag)", False, (flag,))
    if by_centre and one_knee:
        return Side("", "no tag, and its series lie on both sides of the middle", False, (_BOTH_SIDES,))
    if by_centre:
        return Side(by_centre, f"the centre at x = {series.x_mm:.0f} mm (no tag)")
    return UNKNOWN


def _together(study: Sequence[Placed]) -> bool:
    """Whether the series that lie off the middle are too near to one another to be of two knees."""
    centres = [series.x_mm for series in study if series.by_centre]
    return bool(centres) and max(centres) - min(centres) < APART_MM


def _conflict(series: Placed, what: str, taken: str = "") -> str:
    return (
        f"Series {series.number} {what}, but its centre lies {abs(series.x_mm):.0f} mm to the patient's "
        f"{SIDES[series.by_centre]}{taken}; check which knee this is."
    )


def _with_mixed_tags(series: Placed, side: Side) -> Side:
    if len(series.tags) < 2:
        return side
    flag = f"Series {series.number} has images tagged left and images tagged right; check which knee this is."
    return Side(side.side, side.source, False, (flag, *side.flags))
