"""Implicit shapes in millimetres, and the canvas on which they are painted.

Knee coordinates: x grows from medial to lateral, y from anterior to posterior, z from inferior to superior; the origin
lies between the two condyles at the level of the joint line. A shape is its signed distance in mm, negative inside; for
ellipsoids and what is made of them the distance is exact only near the surface, which is where it is used.
"""

from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import pairwise

import numpy as np

Field = np.ndarray
"""Float32 values at sample points, `(sheets, rows, columns)`: two sheets for distances, one for what is seen."""
Point = tuple[float, float, float]
"""x, y, z in mm."""

STRIDE = 4
"""Smooth shapes are computed at every fourth row and column only, the nodes, and interpolated between."""
NODE_MARGIN_MM = 3.0
"""A shape reaches this far beyond its own box, for its soft edge and for the distance between nodes."""


@dataclass(frozen=True)
class Points:
    """Knee coordinates of sample points, in mm."""

    x: Field
    y: Field
    z: Field


@dataclass
class Patch:
    """The part of a canvas in which one shape can lie."""

    at: tuple[slice, slice, slice]
    """Its sheets, rows and columns on the canvas."""
    nodes: Points
    """Coordinates of every fourth row and column; `upsampled` takes a distance from here to the pixels."""

    def cut(self, rows: np.ndarray, columns: np.ndarray) -> "Patch | None":
        """The smaller patch about the rows and columns of nodes that are marked; none where none is."""
        marked_rows, marked_columns = np.flatnonzero(rows), np.flatnonzero(columns)
        if not len(marked_rows) or not len(marked_columns):
            return None
        top, bottom = max(int(marked_rows[0]) - 1, 0), min(int(marked_rows[-1]) + 1, len(rows) - 1)
        left, right = max(int(marked_columns[0]) - 1, 0), min(int(marked_columns[-1]) + 1, len(columns) - 1)
        row, column = self.at[1].start, self.at[2].start
        at = (
            slice(None),
            slice(row + top * STRIDE, row + bottom * STRIDE),
            slice(column + left * STRIDE, column + right * STRIDE),
        )
        nodes_at = (slice(None), slice(top, bottom + 1), slice(left, right + 1))
        return Patch(at, Points(self.nodes.x[nodes_at], self.nodes.y[nodes_at], self.nodes.z[nodes_at]))

    def around(self, distance: Field) -> "tuple[Patch, Field] | None":
        """The smaller patch that holds a shape, and its distance there, both at nodes; none where it is elsewhere."""
        near = distance.min(axis=0) < NODE_MARGIN_MM
        patch = self.cut(near.any(axis=1), near.any(axis=0))
        if patch is None:
            return None
        top, left = (
            (inner.start - outer.start) // STRIDE for inner, outer in zip(patch.at[1:], self.at[1:], strict=True)
        )
        height, width = patch.nodes.x.shape[1:]
        return patch, distance[:, top : top + height, left : left + width]

    @property
    def nodes_at(self) -> tuple[slice, slice, slice]:
        """The nodes' sheets, rows and columns on the canvas."""
        rows, columns = (slice(s.start // STRIDE, s.stop // STRIDE + 1) for s in self.at[1:])
        return (slice(None), rows, columns)

    @cached_property
    def points(self) -> Points:
        """Coordinates of every pixel: for shapes too thin for the nodes."""
        return Points(upsampled(self.nodes.x), upsampled(self.nodes.y), upsampled(self.nodes.z))


class Canvas:
    """One slice with its thickness, onto which tissues are painted in turn.

    Args:
        nodes: Knee coordinates in mm of every fourth row and column, on two sheets a quarter of the slice's thickness
            before and behind its middle, `(3, 2, side / 4 + 1, side / 4 + 1)`.
        edge_mm: Width over which one tissue turns into the next in the plane; about one pixel.
    """

    def __init__(self, nodes: np.ndarray, edge_mm: float) -> None:
        self.nodes = nodes.astype(np.float32)
        self.edge_mm = edge_mm
        rows, columns = nodes.shape[2:]
        height, width = (rows - 1) * STRIDE, (columns - 1) * STRIDE
        self.image = np.zeros((1, height, width), np.float32)
        self.whole = Patch((slice(None), slice(0, height), slice(0, width)), Points(*self.nodes))
        self._row_low, self._row_high = self.nodes.min(axis=(1, 3)), self.nodes.max(axis=(1, 3))
        self._low, self._high = self._row_low.min(axis=1).tolist(), self._row_high.max(axis=1).tolist()
        self._column_low, self._column_high = self.nodes.min(axis=(1, 2)), self.nodes.max(axis=(1, 2))

    def within(self, low: Point, high: Point) -> Patch | None:
        """The patch that covers the box from `low` to `high`, or none where the box lies outside the picture."""
        extent = zip(self._low, self._high, low, high, strict=True)
        if any(most < lower - NODE_MARGIN_MM or least > upper + NODE_MARGIN_MM for least, most, lower, upper in extent):
            return None
        least, most = np.array(low)[:, None] - NODE_MARGIN_MM, np.array(high)[:, None] + NODE_MARGIN_MM
        rows = ((self._row_high > least) & (self._row_low < most)).all(axis=0)
        columns = ((self._column_high > least) & (self._column_low < most)).all(axis=0)
        return self.whole.cut(rows, columns)

    def fill(self, patch: Patch, distance: Field, signal: Field | float, opacity: Field | float = 1.0) -> None:
        """Cover the inside of a smooth shape, whose distance is given at the patch's nodes, with a signal."""
        self._cover(patch, upsampled(self._softened(distance)), signal, opacity)

    def paint(self, patch: Patch, distance: Field, signal: Field | float, opacity: Field | float = 1.0) -> None:
        """Cover the inside of a shape, whose distance is given at the patch's pixels, with a signal."""
        self._cover(patch, self._softened(distance), signal, opacity)

    def _softened(self, distance: Field) -> Field:
        """How far inside each point is, in widths of the edge there, `(1, rows, columns)`.

        Where a surface runs oblique to the slice, the slice's thickness blurs it: its distance then differs between the
        two sheets, which are half the thickness apart.
        """
        front, back = distance[:1], distance[1:]
        width = np.abs(front - back)
        width *= 2
        width += np.float32(self.edge_mm)
        inside = front + back
        inside *= np.float32(-0.5)
        inside /= width
        return inside

    def _cover(self, patch: Patch, cover: Field, signal: Field | float, opacity: Field | float) -> None:
        cover += np.float32(0.5)
        np.clip(cover, 0, 1, out=cover)
        if not isinstance(opacity, float) or opacity != 1.0:
            cover *= opacity
        region = self.image[patch.at]
        cover *= signal - region
        region += cover


def through(field: Field) -> Field:
    """Mean over the sheets, `(1, rows, columns)`."""
    return 0.5 * (field[:1] + field[1:])


def upsampled(nodes: Field) -> Field:
    """Linear interpolation in the plane: `(sheets, n + 1, m + 1)` to `(sheets, 4 n, 4 m)`."""
    sheets, rows, columns = nodes.shape
    wide = np.empty((sheets, rows, STRIDE * (columns - 1)), np.float32)
    between = nodes[:, :, :-1]
    step = (nodes[:, :, 1:] - between) * np.float32(1 / STRIDE)
    for k in range(STRIDE):
        wide[:, :, k::STRIDE] = between
        between = between + step
    full = np.empty((sheets, rows - 1, STRIDE, wide.shape[2]), np.float32)
    step = (wide[:, 1:] - wide[:, :-1]) * np.float32(1 / STRIDE)
    full[:, :, 0] = wide[:, :-1]
    for k in range(1, STRIDE):
        np.add(full[:, :, k - 1], step, out=full[:, :, k])
    return full.reshape(sheets, -1, wide.shape[2])


def ellipsoid(p: Points, centre: Point, radii: Point, lean: tuple[float, float] = (0.0, 0.0)) -> Field:
    """An ellipsoid; `lean` shifts it in x and y by so many mm for each mm in z."""
    dz = p.z - np.float32(centre[2])
    dx = p.x - np.float32(centre[0])
    dy = p.y - np.float32(centre[1])
    if lean[0]:
        dx -= np.float32(lean[0]) * dz
    if lean[1]:
        dy -= np.float32(lean[1]) * dz
    dx *= np.float32(1 / radii[0])
    dy *= np.float32(1 / radii[1])
    dz *= np.float32(1 / radii[2])
    dx *= dx
    dy *= dy
    dz *= dz
    dx += dy
    dx += dz
    np.sqrt(dx, out=dx)
    dx -= 1
    dx *= np.float32(min(radii))
    return dx


def drum(p: Points, centre: Point, radii: Point) -> Field:
    """A disc that stands upright: an ellipse in y and z, thick in x, its rims well rounded."""
    flat = np.square((p.x - np.float32(centre[0])) * np.float32(1 / radii[0]))
    disc = np.square((p.y - np.float32(centre[1])) * np.float32(1 / radii[1]))
    disc += np.square((p.z - np.float32(centre[2])) * np.float32(1 / radii[2]))
    flat *= flat
    disc *= disc
    flat += disc
    np.sqrt(flat, out=flat)
    np.sqrt(flat, out=flat)
    flat -= 1
    flat *= np.float32(min(radii[1:]))
    return flat


def tube(p: Points, start: Point, end: Point, radius: float, flatness: float = 1.0) -> Field:
    """A straight rod with round ends; `flatness` above 1 thins it in x."""
    a = np.array(start, np.float32)
    d = np.array(end, np.float32) - a
    dx, dy, dz = p.x - a[0], p.y - a[1], p.z - a[2]
    along = dx * d[0]
    along += dy * d[1]
    along += dz * d[2]
    along *= np.float32(1 / max(float(d @ d), 1e-6))
    np.clip(along, 0, 1, out=along)
    dx -= along * d[0]
    dy -= along * d[1]
    dz -= along * d[2]
    if flatness != 1.0:
        dx *= np.float32(flatness)
    dx *= dx
    dx += dy * dy
    dx += dz * dz
    np.sqrt(dx, out=dx)
    dx -= np.float32(radius)
    return dx


def cord(across: Field, along: Field, radius: float) -> Field:
    """Distance at the pixels to a cord that is thinner than the nodes are apart; its two offsets are given at nodes."""
    offset, other = upsampled(across), upsampled(along)
    offset *= offset
    other *= other
    offset += other
    np.sqrt(offset, out=offset)
    offset -= np.float32(radius)
    return offset


def polyline(p: Points, points: list[Point], radius: float, flatness: float = 1.0) -> Field:
    """Rods joined end to end."""
    return reduce(np.minimum, (tube(p, start, end, radius, flatness) for start, end in pairwise(points)))


def strap(p: Points, start: Point, end: Point, half_width_mm: float, half_thickness_mm: float, turned: bool) -> Field:
    """A flat strap between two points that differ mostly in z; it faces front, or the side where it is turned."""
    share = (p.z - start[2]) / (end[2] - start[2])
    dx = p.x - (start[0] + share * (end[0] - start[0]))
    dy = p.y - (start[1] + share * (end[1] - start[1]))
    wide, thin = (dy, dx) if turned else (dx, dy)
    section = (np.sqrt(np.square(wide / half_width_mm) + np.square(thin / half_thickness_mm)) - 1) * half_thickness_mm
    return np.maximum(section, (np.abs(share - 0.5) - 0.5) * abs(start[2] - end[2]))


def arch(start: Point, control: Point, end: Point, pieces: int = 7) -> list[Point]:
    """Points along a quadratic curve from `start` to `end`, drawn towards `control`."""
    t = np.linspace(0, 1, pieces + 1)[:, None]
    curve = (1 - t) ** 2 * np.array(start) + 2 * t * (1 - t) * np.array(control) + t**2 * np.array(end)
    return [(float(x), float(y), float(z)) for x, y, z in curve]


def join(a: Field, b: Field, blend_mm: float) -> Field:
    """Union of two shapes, the crease between them filled over about `blend_mm`."""
    overlap = np.abs(a - b)
    np.subtract(np.float32(blend_mm), overlap, out=overlap)
    np.maximum(overlap, 0, out=overlap)
    overlap *= overlap
    overlap *= np.float32(0.25 / blend_mm)
    joined = np.minimum(a, b)
    joined -= overlap
    return joined


def meet(a: Field, b: Field, blend_mm: float) -> Field:
    """Intersection of two shapes, the edge between them rounded over about `blend_mm`."""
    return -join(-a, -b, blend_mm)


def ease(value: Field, start: float, end: float) -> Field:
    """Smooth step: 0 up to `start`, 1 from `end` on."""
    t = (value - np.float32(start)) * np.float32(1 / (end - start))
    np.clip(t, 0, 1, out=t)
    return t * t * (3 - 2 * t)
