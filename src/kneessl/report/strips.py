"""Slices side by side, and names with the line that stands for them: what several pages show alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kneessl.report import figures
from kneessl.report.content import Curve, Views
from kneessl.report.figures import Picture

_VIEW_SIDE = 128
_SLICES_A_ROW = 8
"""More slices than this are thinned out evenly: the report stays a page, not an archive."""


@dataclass(frozen=True)
class Key:
    """A name and how its line is drawn in the figures."""

    name: str
    colour: str
    dashes: str


@dataclass(frozen=True)
class Strip:
    """Some slices of one exam side by side, and what is said about them."""

    heading: str
    side: int
    """The longest side of a picture, in pixels."""
    pictures: list[tuple[Picture, str]]
    shown: str
    """How many of how many slices, empty where all are shown."""


def key(name: str, index: int) -> Key:
    """Return how arm or run `index` is drawn."""
    return Key(
        name,
        figures.COLOURS[index % len(figures.COLOURS)],
        figures.DASHES[index % len(figures.DASHES)],
    )


def strip(
    heading: str,
    subject: str,
    count: int,
    captions: Sequence[str],
    side: int,
    draw: Callable[[int, str], Picture],
) -> Strip:
    """Lay out `count` slices, thinned out evenly where they are many.

    Args:
        heading: what stands above.
        subject: whose slices they are, for the text alternatives.
        count: how many there are.
        captions: one a slice, or none.
        side: the longest side of a picture.
        draw: draws the slice of an index, with a text alternative.
    """
    chosen = sorted(set(np.linspace(0, count - 1, min(count, _SLICES_A_ROW)).round().astype(int).tolist()))
    pictures = []
    for index in chosen:
        caption = captions[index] if captions else ""
        pictures.append((draw(index, f"{subject}, {caption or f'image {index + 1} of {count}'}"), caption))
    shown = f"{len(chosen)} of {count} slices, evenly spaced" if len(chosen) < count else ""
    return Strip(heading, side, pictures, shown)


def grey_strip(heading: str, subject: str, slices: NDArray[np.uint8], captions: Sequence[str], side: int) -> Strip:
    """Lay out slices, uint8 (k, H, W), as they are."""
    return strip(heading, subject, len(slices), captions, side, lambda i, alt: figures.grey(slices[i], side, alt))


def shown_views(views: Sequence[Views]) -> list[tuple[str, list[Strip]]]:
    """Lay out exams as they are and as training sees them."""
    return [
        (exam.name, [grey_strip(label, f"{exam.name}, {label}", rows, (), _VIEW_SIDE) for label, rows in exam.rows])
        for exam in views
    ]


def shown_curves(curves: Sequence[Curve]) -> tuple[list[Key], list[tuple[str, Picture]]]:
    """Draw every metric that a run has, with the keys to the runs."""
    runs = [key(curve.name, index) for index, curve in enumerate(curves)]
    return runs, [(name, figures.training(curves, name)) for name in figures.columns(curves)]
