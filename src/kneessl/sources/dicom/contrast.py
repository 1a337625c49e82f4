"""What an MR series shows bright: its weighting, and whether fat is suppressed, from the header.

Times come first, as physics has it; what the scanner states (AcquisitionContrast), and then what the description hints
at, decides only where times leave it open. The limits follow knee protocols: T1 has TR 400 to 800 ms and TE 10 to 20,
PD (also called intermediate) TR above 1,000 ms and TE 10 to 50, T2 TE above 60. Public code for the knee series of the
RSNA 2026 challenge parts T1 from the rest at a TR of 800 or 900 ms, and PD from T2 at a TE of 35 or 60 ms.
"""

from dataclasses import dataclass

from kneessl.exams.folder import Weighting
from kneessl.sources.dicom.header import Acquisition
from kneessl.sources.dicom.image import Image

SHORT_TR_MS = 900.0
"""Spin echo: a shorter TR is T1 (T1 at 3 T has up to 850 ms; three-dimensional PD begins at 900 ms)."""
T1_LONGEST_TE_MS = 30.0
"""Spin echo: with a short TR, a longer TE is a mixture that times alone do not name."""
T2_SHORTEST_TE_MS = 60.0
"""Spin echo: with a long TR, a shorter TE is PD."""
GRADIENT_TR_MS = 100.0
"""A shorter TR is a gradient echo where the header does not say; no spin echo of a knee is as fast. Our choice."""
T2_STAR_SHORTEST_TE_MS = 10.0
"""Gradient echo: below, a spoiled one is T1. Our choice: T2* of the knee has 12 to 25 ms, spoiled series up to 8 ms."""
T1_SMALLEST_FLIP_DEG = 10.0
"""Gradient echo: a spoiled one with a smaller flip angle is nearer PD than T1. Our choice: the Osteoarthritis
Initiative's T1 FLASH has 12 degrees."""
STIR_LONGEST_TI_MS = 300.0
"""Fat is nulled at a TI of ln 2 x T1 = 130 to 260 ms between 1.5 and 3 T; fluid only far above 1,000 ms."""
_WATER = frozenset(("WATER", "W"))
_IN_PHASE = frozenset(("IN_PHASE", "IP"))


@dataclass(frozen=True)
class Contrast:
    """Weighting and fat suppression of one series, and what they were told by."""

    weighting: Weighting
    fat_suppressed: bool | None
    """None where the header does not say."""
    reason: str
    """In words, such as `TR 3200 ms, TE 34 ms, ScanOptions FS`; never text from the header."""

    def __str__(self) -> str:
        fat = {True: " with fat suppressed", False: " without fat suppression", None: ""}[self.fat_suppressed]
        return ("unknown weighting" if self.weighting == "unknown" else self.weighting) + fat

    @property
    def fluid_sensitive(self) -> bool:
        """PD or T2 with fat suppressed: fluid, and so oedema, is the brightest of all."""
        return self.fat_suppressed is True and self.weighting in {"PD", "T2"}


def contrast_of(image: Image) -> Contrast:
    """Weighting and fat suppression of an image."""
    if _is_stir(image.acquisition):
        return Contrast("T2", True, f"inversion with TI {image.acquisition.inversion_ms:g} ms (STIR)")
    weighting, told_by = _weighting(image)
    fat_suppressed, fat_told_by = _fat(image)
    return Contrast(
        weighting, fat_suppressed, ", ".join(filter(None, (*told_by, fat_told_by))) or "nothing in its header"
    )


def is_water(image: Image) -> bool:
    """The water image of a Dixon series, which scanners call derived though it is what is read."""
    return bool(_WATER & set(image.image_type[2:]))


def _is_stir(acquisition: Acquisition) -> bool:
    inversion_ms = acquisition.inversion_ms
    return acquisition.inversion and inversion_ms is not None and 0 < inversion_ms < STIR_LONGEST_TI_MS


def _weighting(image: Image) -> tuple[Weighting, list[str]]:
    """By times, else by what the scanner states, else by the description."""
    acquisition = image.acquisition
    told_by = _times(image)
    by_times = _by_times(image)
    if by_times != "unknown":
        return by_times, told_by
    if acquisition.stated:
        return acquisition.stated, [*told_by, f"AcquisitionContrast {acquisition.stated}"]
    if len(acquisition.hints) == 1:
        return min(acquisition.hints), [*told_by, "its description"]
    return "unknown", told_by


def _times(image: Image) -> list[str]:
    """The times that are known, in words."""
    acquisition = image.acquisition
    gradient = _gradient_echo(acquisition)
    times = {"TR": acquisition.repetition_ms, "TE": image.echo_ms, "TI": acquisition.inversion_ms}
    words = ["gradient echo"] if gradient else []
    words += [f"{name} {round(value, 2):g} ms" for name, value in times.items() if value is not None]
    if gradient and acquisition.flip_deg is not None:
        words.append(f"flip angle {acquisition.flip_deg:g} degrees")
    return words


def _gradient_echo(acquisition: Acquisition) -> bool:
    if acquisition.gradient_echo is not None:
        return acquisition.gradient_echo
    return acquisition.repetition_ms is not None and 0 < acquisition.repetition_ms < GRADIENT_TR_MS


def _by_times(image: Image) -> Weighting:
    acquisition, echo_ms = image.acquisition, image.echo_ms
    if _gradient_echo(acquisition):
        return "unknown" if acquisition.inversion or echo_ms is None else _gradient_weighting(acquisition, echo_ms)
    if not acquisition.repetition_ms or not echo_ms or acquisition.inversion:
        return "unknown"
    if acquisition.repetition_ms < SHORT_TR_MS:
        return "T1" if echo_ms < T1_LONGEST_TE_MS else "unknown"
    return "T2" if echo_ms >= T2_SHORTEST_TE_MS else "PD"


def _gradient_weighting(acquisition: Acquisition, echo_ms: float) -> Weighting:
    if echo_ms >= T2_STAR_SHORTEST_TE_MS:
        return "T2*"
    flip_deg = acquisition.flip_deg
    return "T1" if acquisition.spoiled and flip_deg is not None and flip_deg >= T1_SMALLEST_FLIP_DEG else "unknown"


def _fat(image: Image) -> tuple[bool | None, str]:
    """Whether fat is suppressed, and what says so."""
    acquisition = image.acquisition
    if acquisition.fat_by:
        return True, acquisition.fat_by
    if is_water(image):
        return True, "ImageType WATER"
    if _IN_PHASE & set(image.image_type[2:]):
        return False, "ImageType IN_PHASE"
    if acquisition.fat_hinted:
        return True, "fat suppression by its description"
    return (False, "no fat suppression among its options") if acquisition.fat_stated else (None, "")
