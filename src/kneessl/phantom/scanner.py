"""The scanner: how a knee lies in it, how a series is acquired, and what the picture then looks like."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from scipy import fft

from kneessl.exams.folder import SIDE, Plane
from kneessl.phantom.anatomy import Anatomy
from kneessl.phantom.lesions import Lesion, paint_lesion
from kneessl.phantom.painting import Contrast, paint_knee
from kneessl.phantom.shapes import STRIDE, Canvas, Field, upsampled
from kneessl.phantom.textures import draw_textures

PROTON_DENSITY = Contrast(
    fat=0.86,
    marrow=0.60,
    muscle=0.22,
    cartilage=0.40,
    fluid=0.66,
    synovium=0.44,
    tendon=0.07,
    meniscus=0.07,
    cortex=0.05,
    vessel=0.16,
    skin=0.30,
    oedema=0.40,
)
FAT_SUPPRESSED = Contrast(
    fat=0.20,
    marrow=0.17,
    muscle=0.31,
    cartilage=0.46,
    fluid=0.95,
    synovium=0.36,
    tendon=0.07,
    meniscus=0.08,
    cortex=0.05,
    vessel=0.45,
    skin=0.34,
    oedema=0.60,
)
FAT_SUPPRESSED_PD = "proton density, fat-suppressed"
SEQUENCES = {"proton density": PROTON_DENSITY, FAT_SUPPRESSED_PD: FAT_SUPPRESSED}

AXES: dict[Plane, tuple[tuple[float, ...], ...]] = {
    "sagittal": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
    "coronal": ((0, 1, 0), (0, 0, -1), (1, 0, 0)),
    "axial": ((0, 0, -1), (0, 1, 0), (1, 0, 0)),
}
"""Patient directions (left, posterior, superior) of growing slice, row and column."""
CENTRE_MM: dict[Plane, tuple[float, float, float]] = {
    "sagittal": (0, 6, 8),
    "coronal": (0, -2, 8),
    "axial": (0, 4, 14),
}
"""Middle of the field of view from the joint's origin: left, posterior, superior."""
COVERAGE_MM: dict[Plane, float] = {"sagittal": 96, "coronal": 98, "axial": 104}


SHEETS = (-0.25, 0.25)
"""Where in a slice's thickness its shapes are measured, see `Canvas`."""


FIELD_OF_VIEW_MM: dict[Plane, tuple[float, float]] = {
    "sagittal": (140, 172),
    "coronal": (140, 168),
    "axial": (128, 155),
}


@dataclass(frozen=True)
class Pose:
    """How one knee lies in the scanner, the same for its three series."""

    laterality: str
    """`L` or `R`."""
    rotation: np.ndarray
    """Turns from patient to knee directions, `(3, 3)`."""
    bend: float
    """Tangent of the knee's flexion, -0.02 to 0.22."""
    valgus: float
    """Tangent of the knee's sideways angle, -0.06 to 0.06."""
    ripple_mm: np.ndarray
    """Amplitudes of the smooth waves that make every outline irregular, `(3, 3)`: wave, direction of shift."""
    ripple_waves: np.ndarray
    """Wave vectors in radians per mm, and phases, `(3, 4)`."""


@dataclass(frozen=True)
class Scan:
    """How one series is acquired."""

    plane: Plane
    sequence: str
    tissue: Contrast
    slices: int
    spacing_mm: float
    """Distance from slice to slice."""
    thickness_mm: float
    field_of_view_mm: float
    phase_lines: int
    """Lines of k-space kept along rows, of 256."""
    tilt: np.ndarray
    """Small turn of this series against the patient, `(3, 3)`."""
    centre_mm: np.ndarray
    noise: float
    """Deviation of the noise in each channel, as a share of white."""
    coil: tuple[float, float, float, float]
    """Gradient along slices, rows and columns, and brightening towards the skin."""
    white: float
    """Where the window ends: a factor on the sound knee's 99.5th percentile, or on most of fluid where that is more."""

    @property
    def pixel_mm(self) -> float:
        """Side of a pixel, in mm."""
        return self.field_of_view_mm / SIDE


@dataclass(frozen=True)
class Box:
    """Where a lesion shows on one slice; pixels, first and last included."""

    slice: int
    lesion: Lesion
    row_min: int
    row_max: int
    column_min: int
    column_max: int


def draw_pose(rng: np.random.Generator) -> Pose:
    """Draw how a knee lies."""
    waves = rng.standard_normal((3, 3))
    waves *= (2 * np.pi / rng.uniform(45, 90, (3, 1))) / np.linalg.norm(waves, axis=1, keepdims=True)
    return Pose(
        laterality="L" if rng.random() < 0.5 else "R",
        rotation=_turn(np.radians(rng.normal(0, (2.5, 2.5, 5)))),
        bend=float(rng.uniform(-0.02, 0.22)),
        valgus=float(np.clip(rng.normal(0, 0.025), -0.06, 0.06)),
        ripple_mm=rng.normal(0, 0.75, (3, 3)),
        ripple_waves=np.hstack([waves, rng.uniform(0, 2 * np.pi, (3, 1))]),
    )


def draw_scan(rng: np.random.Generator, plane: Plane, sequences: Mapping[str, Contrast] = SEQUENCES) -> Scan:
    """Draw how a series is acquired, by one of some sequences."""
    sequence = str(rng.choice(list(sequences)))
    nominal = sequences[sequence]
    factors = np.exp(rng.normal(0, 0.05, len(fields(Contrast))))
    tissue = Contrast(
        **{
            field.name: getattr(nominal, field.name) * float(f)
            for field, f in zip(fields(Contrast), factors, strict=True)
        }
    )
    spacing = float(rng.uniform(3.2, 4.2))
    matrix = int(rng.choice((256, 320, 384)))
    return Scan(
        plane=plane,
        sequence=sequence,
        tissue=tissue,
        slices=round(COVERAGE_MM[plane] * float(rng.uniform(0.94, 1.1)) / spacing),
        spacing_mm=spacing,
        thickness_mm=spacing * float(rng.uniform(0.8, 0.95)),
        field_of_view_mm=float(rng.uniform(*FIELD_OF_VIEW_MM[plane])),
        phase_lines=min(SIDE, int(matrix * rng.uniform(0.66, 0.95))),
        tilt=_turn(np.radians(rng.normal(0, 2.5, 3))),
        centre_mm=np.array(CENTRE_MM[plane]) + rng.normal(0, 3, 3),
        noise=float(rng.uniform(0.008, 0.026)),
        coil=(
            float(rng.normal(0, 0.05)),
            float(rng.normal(0, 0.08)),
            float(rng.normal(0, 0.08)),
            float(rng.uniform(0.1, 0.45)),
        ),
        white=float(rng.uniform(0.85, 1.1)),
    )


def _turn(angles: np.ndarray) -> np.ndarray:
    """Rotation about left, posterior and superior, one after the other, in radians."""
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = [k for k in range(3) if k != axis]
        step = np.eye(3)
        step[i, i] = step[j, j] = np.cos(angle)
        step[i, j], step[j, i] = -np.sin(angle), np.sin(angle)
        turn = step @ turn
    return turn


def render(
    anatomy: Anatomy, pose: Pose, scan: Scan, lesions: list[Lesion], seed: np.random.SeedSequence
) -> tuple[np.ndarray, list[Box]]:
    """Scan a knee: the series, uint8 `(slices, 256, 256)`, and where each lesion shows.

    The same arguments with `lesions=[]` give the same knee, noise and window without its lesions.
    """
    texture_seed, noise_seed = seed.generate_state(2, np.uint64).tolist()
    textures = draw_textures(np.random.default_rng(texture_seed), scan.slices, upright=scan.plane != "axial")
    nodes = np.stack([_knee_nodes(anatomy, pose, scan, sheet * scan.thickness_mm) for sheet in SHEETS], axis=2)
    sound = np.zeros((scan.slices, SIDE, SIDE), np.float32)
    changes = np.zeros((len(lesions), *sound.shape), np.float32)
    for i in range(scan.slices):
        canvas = Canvas(nodes[:, i], scan.pixel_mm)
        paint_knee(canvas, anatomy, scan.tissue, textures[i])
        sound[i] = canvas.image[0]
        before = sound[i]
        for lesion, change in zip(lesions, changes, strict=True):
            paint_lesion(canvas, lesion, anatomy, scan.tissue, textures[i])
            change[i] = canvas.image[0] - before
            before = canvas.image[0].copy()
    gain = _coil_gain(scan)
    sound *= gain
    white = scan.white * max(float(np.percentile(sound[:, ::2, ::2], 99.5)), 0.75 * scan.tissue.fluid)
    gain /= white
    sound /= white
    boxes = []
    for lesion, change in zip(lesions, changes, strict=True):
        change *= gain
        sound += change
        boxes += _boxes(lesion, change)
    picture = _acquired(sound, scan, np.random.default_rng(noise_seed))
    return np.clip(picture * 255, 0, 255).astype(np.uint8), boxes


def _scanner_nodes(scan: Scan, shift_mm: float) -> np.ndarray:
    """Patient coordinates in mm of the sample points' nodes, `(3, slices, 65, 65)`; `shift_mm` along the slice axis."""
    middle = (scan.slices - 1) / 2
    along = ((np.arange(scan.slices) - middle) * scan.spacing_mm + shift_mm)[:, None, None]
    pixels = (np.arange(0, SIDE + 1, STRIDE) - (SIDE - 1) / 2) * scan.pixel_mm
    directions = np.array(AXES[scan.plane]) @ scan.tilt
    steps = (along, pixels[:, None], pixels[None, :])
    offsets = [sum(step * d[axis] for step, d in zip(steps, directions, strict=True)) for axis in range(3)]
    return (np.stack(offsets) + scan.centre_mm[:, None, None, None]).astype(np.float32)


def _knee_nodes(anatomy: Anatomy, pose: Pose, scan: Scan, shift_mm: float) -> np.ndarray:
    """Knee coordinates in mm of the sample points' nodes, `(3, slices, 65, 65)`."""
    turn = (pose.rotation / anatomy.size).astype(np.float32)
    x, y, z = np.einsum("ij,j...->i...", turn, _scanner_nodes(scan, shift_mm))
    if pose.laterality == "R":
        x = -x
    above = 0.5 * (z - 12 + np.sqrt(np.square(z - 12) + 200))
    bent = np.stack([x - pose.valgus * above, y - pose.bend * above, z])
    ripples = zip(pose.ripple_mm.astype(np.float32), pose.ripple_waves.astype(np.float32), strict=True)
    for amplitude, wave in ripples:
        phase = np.einsum("j,j...->...", wave[:3], bent) + wave[3]
        bent = bent + amplitude[:, None, None, None] * np.sin(phase)
    return bent


def _coil_gain(scan: Scan) -> Field:
    """Sensitivity of the coil, about 1 in the middle of the knee, `(slices, 256, 256)`."""
    across = np.linspace(-1, 1, SIDE // STRIDE + 1)
    s, r, c = np.meshgrid(np.linspace(-1, 1, scan.slices), across, across, indexing="ij")
    slope_s, slope_r, slope_c, skin = scan.coil
    gain = np.exp(slope_s * s + slope_r * r + slope_c * c) * (1 + skin * (r**2 + c**2 + 0.5 * s**2 - 0.5))
    if scan.plane != "axial":
        gain *= 1 - 0.6 * np.clip((np.abs(r) - 0.8) / 0.2, 0, 1) ** 2
    return upsampled(np.maximum(gain, 0.1).astype(np.float32))


def _acquired(signal: Field, scan: Scan, rng: np.random.Generator) -> Field:
    """What the scanner reconstructs: noise in both channels, k-space cut off along rows, magnitude."""
    frequency = np.abs(np.fft.fftfreq(SIDE, 1 / SIDE))
    taper = np.clip((scan.phase_lines / 2 - frequency) / 12 + 0.5, 0, 1).astype(np.float32)[:, None]
    picture = np.empty_like(signal)
    channels = np.empty((SIDE, SIDE), np.complex64)
    for i in range(len(signal)):
        noise = rng.standard_normal((SIDE, SIDE), np.float32)
        noise *= np.float32(scan.noise)
        channels.real = signal[i] + noise
        channels.imag = noise[::-1, ::-1]  # as good as independent at any one pixel, and half the work
        picture[i] = np.abs(fft.ifft(fft.fft(channels, axis=0) * taper, axis=0))
    return picture


VISIBLE = 0.06
"""A lesion shows where it changes the noise-free picture by more than this share of white."""


def _boxes(lesion: Lesion, change: Field) -> list[Box]:
    boxes = []
    shows = np.abs(change) > VISIBLE
    for i in np.flatnonzero(shows.sum(axis=(1, 2)) >= 4):
        rows, columns = np.flatnonzero(shows[i].any(axis=1)), np.flatnonzero(shows[i].any(axis=0))
        boxes.append(Box(int(i), lesion, int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])))
    return boxes
