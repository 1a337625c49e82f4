"""Series from a whole volume: cut into the three planes where its voxels allow it."""

from collections.abc import Iterator

import numpy as np

from kneessl.errors import UserError
from kneessl.exams.folder import PLANES, Plane
from kneessl.sources.exam import FEWEST_SLICES, ImportedSeries
from kneessl.sources.resample import WINDOW, field_of, pictures_of
from kneessl.sources.volume import Volume, side_of_patient

_LARGEST_VOXELS = 2**29
_ISOTROPIC = 1.5


def series_of(
    volume: Volume, name: str, source: str, reason: str, remarks: tuple[str, ...] = ()
) -> Iterator[ImportedSeries]:
    """The series that a volume allows.

    Args:
        volume: One whole volume.
        name: What an error calls it.
        source: As `Provenance.source`.
        reason: How it was read, in words.
        remarks: As `ImportedSeries.remarks`.

    Raises:
        UserError: a plane would have fewer than 5 slices, or every voxel has the same value.
    """
    side, digest = side_of_patient(volume.centre), volume.sha256()
    known = "laterality from the centre's x" if side else "laterality unknown"
    for plane, stack, cut in _cuts(volume):
        if len(stack.voxels) < FEWEST_SLICES:
            raise UserError(f"{name} gives {len(stack.voxels)} {plane} slices; a series needs {FEWEST_SLICES}")
        pictures, pixel_mm = pictures_of(name, stack)
        yield ImportedSeries(
            plane=plane,
            volume=pictures,
            pixel_mm=pixel_mm,
            slice_mm=stack.spacing[0],
            laterality=side,
            source=source,
            source_sha256=digest,
            choice="; ".join((reason, cut, known, field_of(stack), WINDOW)),
            remarks=remarks,
        )


def planes_of(volume: Volume) -> tuple[Plane, ...]:
    """The planes that `series_of` would give."""
    return PLANES if max(volume.spacing) < _ISOTROPIC * min(volume.spacing) else (_in_own_plane(volume).plane,)


def require_volume(shape: tuple[int, ...], name: str) -> None:
    """Refuse what is not one volume of a credible size.

    Raises:
        UserError: not three axes of two voxels or more, or too many voxels.
    """
    if len(shape) != 3 or min(shape) < 2:
        raise UserError(f"{name} has shape {shape}; it must be one volume with three axes")
    if np.prod(shape, dtype=float) > _LARGEST_VOXELS:
        raise UserError(f"{name} claims {shape} voxels, more than any knee exam has")


def _cuts(volume: Volume) -> Iterator[tuple[Plane, Volume, str]]:
    """Each series with its plane and why it was cut so.

    All three planes where voxels are nearly isotropic, slices averaged to about 3 mm; else the plane it was scanned
    in, across its longest spacing.
    """
    shortest, longest = min(volume.spacing), max(volume.spacing)
    if longest < _ISOTROPIC * shortest:
        for plane in PLANES:
            stack, count = volume.displayed(plane).slabs()
            yield plane, stack, f"{plane} cut from a nearly isotropic volume, each slice the mean of {count}"
        return
    stack = _in_own_plane(volume)
    yield stack.plane, stack.displayed(), f"{stack.plane} is the volume's own plane, its longest spacing"


def _in_own_plane(volume: Volume) -> Volume:
    """The volume with the axis of its longest spacing first."""
    thickest = volume.spacing.index(max(volume.spacing))
    order = [thickest, *(axis for axis in range(3) if axis != thickest)]
    return Volume(
        volume.voxels.transpose(order),
        volume.directions[order],
        (volume.spacing[order[0]], volume.spacing[order[1]], volume.spacing[order[2]]),
        volume.position,
    )
