"""What about a series may mislead a model, as far as its geometry tells; the limits are our choice."""

from collections.abc import Iterator

from kneessl.exams.folder import SIDE, Plane

FEW_SLICES = 15
"""MRNet's series have 17 to 61."""
WIDE_SLICES_MM = 5.0
"""Knee protocols have 3 to 4.5 mm from slice to slice."""
FIELDS_MM = (120.0, 220.0)
"""Knee protocols look at 130 to 200 mm; a model sees every field at one size, so a wider one shows it a small knee."""
OBLIQUE_DEG = 30.0
LOCALISERS = "localisers, by few slices far apart in a wide field"


def is_localiser(slices: int, slice_mm: float, field_mm: float) -> bool:
    """Whether a series is one by its geometry, whatever its header calls it."""
    return slices < FEW_SLICES and slice_mm > WIDE_SLICES_MM and field_mm > FIELDS_MM[1]


def quality_remarks(
    plane: Plane, slices: int, slice_mm: float, pixel_mm: float, obliquity_deg: float = 0.0
) -> Iterator[str]:
    """What a reader, or whoever trains, should know of one series, in phrases.

    Args:
        plane: Its plane.
        slices: How many it has.
        slice_mm: Distance of their centres; 0, as for `pixel_mm`, where it is not known.
        pixel_mm: Distance of the rows of its pictures, of which there are 256.
        obliquity_deg: Angle between its normal and the axis of its plane.
    """
    if slices < FEW_SLICES:
        yield f"only {slices} slices; a knee series has {FEW_SLICES} or more"
    if slice_mm > WIDE_SLICES_MM:
        yield f"slices are {slice_mm:.1f} mm apart; small lesions may lie between them"
    field_mm = pixel_mm * SIDE
    if pixel_mm and not FIELDS_MM[0] <= field_mm <= FIELDS_MM[1]:
        yield (
            f"the field of view is {field_mm:.0f} mm; knee series have {FIELDS_MM[0]:.0f} to {FIELDS_MM[1]:.0f} mm, "
            "so the knee looks larger or smaller to the model than the ones it learned from"
        )
    if obliquity_deg > OBLIQUE_DEG:
        yield f"the slices are turned {obliquity_deg:.0f} degrees from the {plane} plane"
