"""Which scanner made an image: maker, model and field strength.

Makers and models are kept in the words below only: what else stands in those attributes may be a hospital's or a
patient's, and is left out.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from kneessl.sources.dicom.header import Header, plausible

_LARGEST_TESLA = 20.0
_GAUSS = 10_000.0
"""In a tesla; old scanners write 15000 for 1.5."""
_MAKERS = {
    "siemens": "Siemens",
    "ge": "GE",
    "philips": "Philips",
    "canon": "Canon",
    "toshiba": "Toshiba",
    "hitachi": "Hitachi",
    "fujifilm": "Fujifilm",
    "esaote": "Esaote",
    "uih": "United Imaging",
    "united": "United Imaging",
    "fonar": "Fonar",
    "paramed": "Paramed",
    "neusoft": "Neusoft",
    "hyperfine": "Hyperfine",
}
"""By the first word that is one of these."""
_MODELS = {
    word.lower(): word
    for word in (
        # Siemens
        *("Aera", "Altea", "Amira", "Avanto", "Biograph", "Cima", "Essenza", "Espree", "Free", "Harmony", "Impact"),
        *("Lumina", "mMR", "Prisma", "Sempra", "Skyra", "Sola", "Sonata", "Spectra", "Symphony", "Terra"),
        *("Trio", "Verio", "Viato", "Vida"),
        # GE
        *("Signa", "Artist", "Architect", "Creator", "Champion", "Excite", "Explorer", "HDe", "HDx", "HDxt"),
        *("Pioneer", "Premier", "Voyager", "Optima", "Discovery", "Brivo"),
        # Philips
        *("Achieva", "Ambition", "dStream", "Elition", "Evolution", "Gyroscan", "Ingenia", "Intera", "Multiva"),
        *("Panorama", "Prodiva"),
        # Canon, Toshiba, Hitachi, Fujifilm, Esaote, United Imaging, and others
        *("Atlas", "Centurian", "Elan", "Fortian", "Galan", "Gracian", "Orian", "Titan", "Vantage", "Airis", "Altaire"),
        *("Aperto", "Echelon", "Oasis", "Oval", "Artoscan", "Omega", "Swoop", "Upright"),
    )
}
_NUMBERED = re.compile(
    r"\b(MR(?:355|360|380|430|450|750)[sw]?|MR (?:5300|7700)|uMR (?:5[678]0|588|6[678]0|7[789]0|8[789]0))\b",
    re.IGNORECASE,
)
"""GE's, Philips's and United Imaging's; other numbers might be a patient's."""


class Scanner(NamedTuple):
    """What made an image; no identity of a device or a hospital."""

    maker: str
    """Such as `Siemens`; empty where it is not known, or none of those that we know."""
    model: str
    """Such as `Skyra`; empty likewise."""
    field_t: float | None
    """Field strength in tesla, to a tenth; None where it is not known."""


def scanner_of(header: Header) -> Scanner:
    """The scanner that a header names."""
    field = plausible(header.first("MagneticFieldStrength"), _LARGEST_TESLA * _GAUSS)
    if field is not None and field > _LARGEST_TESLA:
        field = field / _GAUSS
    return _scanner(header.text("Manufacturer"), header.text("ManufacturerModelName"), round(field or 0, 1) or None)


@lru_cache(maxsize=256)  # one value for all the images of a scanner
def _scanner(maker: str, model: str, field_t: float | None) -> Scanner:
    makers = (_MAKERS.get(word) for word in re.split(r"[^a-z]+", maker.lower()))
    words = [_MODELS.get(word) or _MODELS.get(word.removesuffix("tim")) for word in re.findall("[a-z]+", model.lower())]
    return Scanner(next(filter(None, makers), ""), " ".join((*filter(None, words), *_NUMBERED.findall(model))), field_t)
