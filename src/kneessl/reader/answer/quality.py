"""Flags on a series whose geometry may mislead a model; the limits are our choice."""

from collections.abc import Iterator

from kneessl.exams.folder import SIDE
from kneessl.reader.answer.assessment import Flag
from kneessl.sources.dicom.series import Prepared, SeriesFacts

FEW_SLICES = 15
"""MRNet's series have 17 to 61."""
WIDE_SLICES_MM = 5.0
"""Knee protocols have 3 to 4.5 mm from slice to slice."""
FIELDS_MM = (120.0, 220.0)
"""Knee protocols look at 130 to 200 mm; a model sees every field at one size, so a wider one shows it a small knee."""
OBLIQUE_DEG = 30.0


def quality_flags(series: Prepared, facts: SeriesFacts) -> Iterator[Flag]:
    """Flags on one series that was used."""

    def flag(text: str) -> Flag:
        return Flag("quality", series.plane, text)

    if len(series.volume) < FEW_SLICES:
        yield flag(f"only {len(series.volume)} slices; a knee series has {FEW_SLICES} or more")
    if series.slice_mm > WIDE_SLICES_MM:
        yield flag(f"slices are {series.slice_mm:.1f} mm apart; small lesions may lie between them")
    field = series.pixel_mm * SIDE
    if not FIELDS_MM[0] <= field <= FIELDS_MM[1]:
        yield flag(
            f"the field of view is {field:.0f} mm; knee series have {FIELDS_MM[0]:.0f} to {FIELDS_MM[1]:.0f} mm, "
            "so the knee looks larger or smaller to the model than the ones it learned from"
        )
    if facts.obliquity_deg > OBLIQUE_DEG:
        yield flag(f"the slices are turned {facts.obliquity_deg:.0f} degrees from the {series.plane} plane")
