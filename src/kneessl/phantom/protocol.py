"""What a knee protocol scans: the weighting of each series, its times, and how bright each tissue then is."""

from dataclasses import dataclass

from kneessl.exams.folder import Plane, Weighting
from kneessl.phantom.painting import Contrast
from kneessl.phantom.scanner import FAT_SUPPRESSED, PROTON_DENSITY

_T1 = Contrast(
    fat=0.92,
    marrow=0.74,
    muscle=0.34,
    cartilage=0.42,
    fluid=0.17,
    synovium=0.26,
    tendon=0.06,
    meniscus=0.07,
    cortex=0.05,
    vessel=0.16,
    skin=0.36,
    oedema=0.28,
)
_T2_FAT_SUPPRESSED = Contrast(
    fat=0.13,
    marrow=0.10,
    muscle=0.17,
    cartilage=0.30,
    fluid=0.98,
    synovium=0.30,
    tendon=0.06,
    meniscus=0.07,
    cortex=0.04,
    vessel=0.42,
    skin=0.22,
    oedema=0.58,
)


@dataclass(frozen=True)
class SeriesKind:
    """One kind of fast spin echo."""

    weighting: Weighting
    fat_suppressed: bool
    tissue: Contrast
    repetition_ms: tuple[float, float]
    """The range that protocols have, as for the echo."""
    echo_ms: tuple[float, float]


PD_FS = SeriesKind("PD", True, FAT_SUPPRESSED, (2600, 4200), (26, 42))
T2_FS = SeriesKind("T2", True, _T2_FAT_SUPPRESSED, (3400, 5200), (64, 84))
PD = SeriesKind("PD", False, PROTON_DENSITY, (2200, 3600), (22, 36))
T1 = SeriesKind("T1", False, _T1, (450, 750), (9, 18))

BEST_FIRST = (PD_FS, T2_FS, PD, T1)
"""Which of several series of a plane is the one to read for a tear: fluid bright and fat dark first, T1 last."""

PROTOCOLS: dict[Plane, tuple[tuple[SeriesKind, ...], ...]] = {
    "sagittal": ((PD_FS, T1), (PD, PD_FS), (PD_FS,), (PD, T2_FS)),
    "coronal": ((T1, PD_FS), (PD_FS,), (T1, T2_FS), (PD_FS, T1)),
    "axial": ((PD_FS,), (T2_FS,), (PD_FS, PD)),
}
"""The series of a plane in the order in which they are scanned; hospitals differ in which they have."""
