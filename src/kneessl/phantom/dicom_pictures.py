"""The pictures of one series as a scanner stores them, each with its place in the patient."""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy import fft

from kneessl.exams.folder import PLANES, Plane
from kneessl.phantom.dicom_study import ArchiveSettings, Study, StudySeries
from kneessl.phantom.knee import PICTURE, draw_knee
from kneessl.phantom.protocol import BEST_FIRST, SeriesKind
from kneessl.phantom.scanner import AXES, Scan, render

_LOCALISER_SLICES, _LOCALISER_SPACING_MM, _LOCALISER_FIELD_MM = 5, 14.0, 360.0
_PICTURES = 2**31 + 5
"""Spawn key, beside those of `dicom_study`."""
_MOST_REMEMBERED = 32
"""Series of a knee that takes turns in many studies: those of one knee are all that is wanted at a time."""


@dataclass(frozen=True, eq=False)
class Stack:
    """Parallel slices of one series, in the order of their instance numbers."""

    stored: np.ndarray
    """As stored, `(slices, rows, columns)`; int16 or uint16."""
    positions_mm: np.ndarray
    """Centre of the first pixel of each slice in LPS, `(slices, 3)`."""
    directions: np.ndarray
    """Unit vectors in LPS in which slice (of the scan, not of the numbers), row and column grow, `(3, 3)`."""
    pixel_mm: float
    spacing_mm: float
    thickness_mm: float
    phase_lines: int


def stacks_of(study: Study, series: StudySeries) -> list[Stack]:
    """The stacks of a series: one, or of a localiser one a plane."""
    settings, acquired = study.settings, series.acquired
    localiser = acquired.role == "localiser"
    rng = settings.rng(_PICTURES, study.number, series.number)
    white = rng.uniform(*study.scanner.vendor.white)
    draw = _draw if settings.knees is None else _remembered
    stacks = []
    for plane in PLANES if localiser else (acquired.plane,):
        about = (settings, settings.knee(series.knee.number).number)
        grey = draw(*about, series.knee.side, plane, acquired.kind, localiser, acquired.matrix)
        if acquired.role == "moved":
            grey = _ghosted(grey)
        if acquired.role == "unfinished":
            grey = grey[: max(1, len(grey) // 2)]
        grey = grey + rng.standard_normal(grey.shape, np.float32)
        scan = _scan(*about, plane, acquired.kind, localiser)
        stacks.append(_stack(study, series, scan, grey, white, backwards=bool(rng.integers(2))))
    return stacks


def _stack(study: Study, series: StudySeries, scan: Scan, grey: np.ndarray, white: float, backwards: bool) -> Stack:
    vendor, acquired = study.scanner.vendor, series.acquired
    directions = np.array(AXES[scan.plane]) @ scan.tilt
    pixel_mm = scan.field_of_view_mm / acquired.matrix
    rows = _rows_kept(study, acquired.matrix)
    along = (np.arange(scan.slices) - (scan.slices - 1) / 2)[: len(grey)] * scan.spacing_mm
    corner = -(rows - 1) / 2 * pixel_mm * directions[1] - (acquired.matrix - 1) / 2 * pixel_mm * directions[2]
    origin = np.array(series.knee.origin_mm) + scan.centre_mm + corner
    positions = origin + along[:, None] * directions[0]
    first = (acquired.matrix - rows) // 2
    top = 2 ** (vendor.bits - vendor.signed) - 1
    stored = np.clip(np.rint(grey[:, first : first + rows] * (white / 255)), 0, top)
    order = slice(None, None, -1) if backwards else slice(None)
    return Stack(
        stored=np.ascontiguousarray(stored[order].astype("<i2" if vendor.signed else "<u2")),
        positions_mm=positions[order],
        directions=directions,
        pixel_mm=pixel_mm,
        spacing_mm=scan.spacing_mm,
        thickness_mm=scan.thickness_mm,
        phase_lines=min(scan.phase_lines, acquired.matrix),
    )


def _rows_kept(study: Study, matrix: int) -> int:
    """Siemens often scans fewer lines than it has columns, and keeps the picture oblong."""
    oblong = study.scanner.vendor.name == "Siemens" and study.variant
    return matrix - 2 * (matrix // 16) if oblong else matrix


def _scan(settings: ArchiveSettings, knee: int, plane: Plane, kind: SeriesKind, localiser: bool) -> Scan:
    scan = settings.scan(knee, plane, kind)
    if not localiser:
        return scan
    return replace(
        scan,
        slices=min(_LOCALISER_SLICES, settings.slices or _LOCALISER_SLICES),
        spacing_mm=_LOCALISER_SPACING_MM,
        thickness_mm=8.0,
        field_of_view_mm=_LOCALISER_FIELD_MM,
    )


def _draw(
    settings: ArchiveSettings, knee: int, side: str, plane: Plane, kind: SeriesKind, localiser: bool, matrix: int
) -> np.ndarray:
    """The pictures of a knee, 0 to 255, float16 `(slices, matrix, matrix)`; not to be changed."""
    plan = settings.knee(knee)
    drawn = draw_knee(plan)
    scan = _scan(settings, knee, plane, kind, localiser)
    seed = plan.stream(PICTURE, PLANES.index(plane), 1 + BEST_FIRST.index(kind) + len(BEST_FIRST) * localiser)
    volume, _ = render(drawn.anatomy, replace(drawn.pose, laterality=side), scan, drawn.lesions, seed)
    return resampled(volume, matrix).astype(np.float16)


_remembered = lru_cache(_MOST_REMEMBERED)(_draw)


def resampled(volume: np.ndarray, matrix: int) -> np.ndarray:
    """Pictures of another matrix over the same field: k-space is cut off, or filled up with zeros, as scanners do it.

    Args:
        volume: `(slices, side, side)`.
        matrix: Rows and columns of the result; even.

    Returns:
        float32 `(slices, matrix, matrix)`; each picture covers the same square as before, edge to edge.
    """
    side = volume.shape[1]
    half = min(side, matrix) // 2
    kept = np.r_[0:half, -half:0]
    # The centre of the first pixel moves by half the difference of the two pixels.
    shift = np.exp(1j * np.pi * kept / side * (side / matrix - 1)).astype(np.complex64)
    factor = shift[:, None] * shift * (matrix / side) ** 2
    result = np.empty((len(volume), matrix, matrix), np.float32)
    for picture, resampled_picture in zip(volume, result, strict=True):
        spectrum = np.zeros((matrix, matrix), np.complex64)
        at = np.ix_(kept, kept)
        spectrum[at] = fft.fft2(picture.astype(np.float32))[at] * factor
        resampled_picture[:] = fft.ifft2(spectrum).real
    return result


def _ghosted(grey: np.ndarray) -> np.ndarray:
    """As if the patient had moved: faint copies along the rows' direction."""
    copies = sum(np.roll(grey, step, axis=1) for step in (grey.shape[1] // 8, -grey.shape[1] // 5))
    return 0.7 * grey + 0.2 * copies
