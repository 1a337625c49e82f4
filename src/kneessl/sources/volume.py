"""A volume with its place in the patient, and how it is turned to MRNet's way of looking.

Coordinates are DICOM's patient system, LPS in mm: x grows to the patient's left, y to posterior, z to superior.
"""

import hashlib
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np

from kneessl.exams.folder import Plane

PLANE_OF_AXIS: tuple[Plane, Plane, Plane] = ("sagittal", "coronal", "axial")
"""The plane of a stack whose slices follow one another along x, y, z."""

DISPLAY: dict[Plane, str] = {"sagittal": "LIP", "coronal": "PIL", "axial": "IPL"}
"""Where slices, rows and columns of a series lead. So in a sagittal picture superior is up and anterior (the
patella) on the left, and slices go from the patient's right to left; in a coronal one the patient's right is on the
left, slices from anterior to posterior; in an axial one anterior is up, slices from superior to inferior."""

_DIRECTIONS = {
    "L": (1, 0, 0),
    "R": (-1, 0, 0),
    "P": (0, 1, 0),
    "A": (0, -1, 0),
    "S": (0, 0, 1),
    "I": (0, 0, -1),
}
_SLAB_MM = 3.0
_LATERAL_MM = 20.0


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels with their geometry: parallel slices, or a volume that is as fine along every axis."""

    voxels: np.ndarray
    """float32 `(slices, rows, columns)`; NaN where the scanner stored no measurement (pixel padding)."""
    directions: np.ndarray
    """float64 `(3, 3)`: unit vectors, in LPS, in which the slice, row and column index grow."""
    spacing: tuple[float, float, float]
    """Distance in mm between neighbouring slices, rows and columns."""
    position: np.ndarray | None
    """Centre of the first voxel in LPS, mm; None where the file does not say."""
    told_plane: Plane | None = None
    """The plane of its slices, where more than their orientation tells it."""

    @property
    def plane(self) -> Plane:
        """The plane of the slices: as told, or the largest component of their normal."""
        return PLANE_OF_AXIS[self._nearest_axes()[0]]

    @property
    def centre(self) -> np.ndarray | None:
        """Middle of the volume in LPS, mm; None without a position."""
        if self.position is None:
            return None
        return self.position + (np.array(self.voxels.shape) - 1) * self.spacing @ self.directions / 2

    def sha256(self) -> str:
        """Hash of voxels and geometry: the same for the same slices, however they were stored or named."""
        position = np.zeros(0) if self.position is None else self.position
        geometry = np.concatenate([self.voxels.shape, self.spacing, self.directions.ravel(), position])
        # + 0.0 turns -0.0 into 0.0, which differ in bytes but not in meaning.
        digest = hashlib.sha256((np.round(geometry, 3) + 0.0).astype("<f8").tobytes())
        for image in self.voxels:
            digest.update(image.astype("<f4").tobytes())
        return digest.hexdigest()

    def displayed(self, plane: Plane | None = None) -> "Volume":
        """The same volume, its axes reordered and flipped as `DISPLAY` has them for `plane` (default: its own)."""
        wanted = directions_of(DISPLAY[plane or self.plane])
        nearest = self._nearest_axes()
        order = [nearest.index(int(np.abs(direction).argmax())) for direction in wanted]
        stack = replace(
            self,
            voxels=self.voxels.transpose(order),
            directions=self.directions[order],
            spacing=(self.spacing[order[0]], self.spacing[order[1]], self.spacing[order[2]]),
        )
        for axis in range(3):
            if stack.directions[axis] @ wanted[axis] < 0:
                stack = stack._flipped(axis)
        return stack

    def slabs(self) -> tuple["Volume", int]:
        """Neighbouring slices averaged to about 3 mm, as knee protocols have them; and how many went into one."""
        count = max(1, min(round(_SLAB_MM / self.spacing[0]), len(self.voxels)))
        kept = len(self.voxels) // count * count
        first = (len(self.voxels) - kept) // 2
        slabs = self.voxels[first : first + kept].reshape(-1, count, *self.voxels.shape[1:]).mean(axis=1)
        offset = (first + (count - 1) / 2) * self.spacing[0] * self.directions[0]
        return (
            replace(
                self,
                voxels=slabs,
                spacing=(self.spacing[0] * count, *self.spacing[1:]),
                position=None if self.position is None else self.position + offset,
            ),
            count,
        )

    def _nearest_axes(self) -> list[int]:
        """The patient axis (x, y, z = 0, 1, 2) of each stack axis; the slices choose first."""
        size = np.abs(self.directions)
        first = PLANE_OF_AXIS.index(self.told_plane) if self.told_plane else int(size[0].argmax())
        rest = [axis for axis in range(3) if axis != first]
        rows, columns = max(permutations(rest), key=lambda pair: size[1, pair[0]] + size[2, pair[1]])
        return [first, rows, columns]

    def _flipped(self, axis: int) -> "Volume":
        last = (self.voxels.shape[axis] - 1) * self.spacing[axis] * self.directions[axis]
        directions = self.directions.copy()
        directions[axis] *= -1
        return replace(
            self,
            voxels=np.flip(self.voxels, axis),
            directions=directions,
            position=None if self.position is None else self.position + last,
        )


def side_of_patient(centre: np.ndarray | None) -> str:
    """`L` or `R` by the sign of x at the centre of a knee; empty within 20 mm of the middle, where it is unsure."""
    if centre is None or abs(centre[0]) < _LATERAL_MM:
        return ""
    return "L" if centre[0] > 0 else "R"


def directions_of(code: str) -> np.ndarray:
    """Unit vectors `(3, 3)` in LPS for a code such as `LIP`: one letter an axis, where its index leads.

    Raises:
        ValueError: not three letters, one each of L or R, A or P, S or I.
    """
    if len(code) != 3 or set(code) - set(_DIRECTIONS):
        raise ValueError(code)
    directions = np.array([_DIRECTIONS[letter] for letter in code], dtype=float)
    if np.linalg.matrix_rank(directions) < 3:
        raise ValueError(code)
    return directions


def edges_of(plane: Plane) -> dict[str, str]:
    """Return where in the patient the edges of a displayed slice lie, as DICOM's letters: L, R, A, P, S, I."""
    opposite = dict(zip("LRAPSI", "RLPAIS", strict=True))
    down, right = DISPLAY[plane][1], DISPLAY[plane][2]
    return {"top": opposite[down], "bottom": down, "left": opposite[right], "right": right}
