"""One knee in millimetres: what varies from knee to knee, and the shape of each part.

Left and right knees are the same here, with x growing towards lateral; `scanner.py` mirrors one of them. The axes are
those of `shapes.py`.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from kneessl.phantom.shapes import Field, Point, Points, arch, drum, ease, ellipsoid, join, meet, polyline

Compartment = Literal["medial", "lateral"]
PLATEAU_SLOPE = 0.08
"""Fall of the tibial plateau in mm for each mm towards posterior."""


@dataclass(frozen=True)
class Anatomy:
    """What varies from knee to knee; lengths in mm unless the name says otherwise."""

    size: float
    """Scale of the whole knee, 0.9 to 1.1."""
    fat_mm: float
    """Thickness of the subcutaneous fat, 3 to 14."""
    bulk: float
    """Scale of the muscles, 0.85 to 1.1."""
    condyle_mm: float
    """Half the front-to-back length of the condyles, 25 to 29."""
    notch_mm: float
    """Half the width of the intercondylar notch, 8 to 11."""
    femoral_cartilage_mm: float
    tibial_cartilage_mm: float
    patella_z_mm: float
    """Height of the patella's centre over the joint line, 36 to 48."""
    acl_femur: Point
    acl_tibia: Point
    acl_radius_mm: float
    pcl_radius_mm: float
    pcl_bow_mm: float
    meniscus_height_mm: float
    meniscus_width_mm: float
    femoral_scar_z_mm: float
    tibial_scar_z_mm: float
    scar_opacity: float
    fluid_mm: float
    """Normal joint fluid: half the thickness of the film in the suprapatellar recess, 0.3 to 1.6."""
    magic_angle: float
    """Brightening of the patellar tendon's and the ligaments' ends, 0 to 0.3; no finding."""
    degeneration: tuple[float, float]
    """Signal inside the medial and lateral meniscus that reaches no surface, 0 to 0.4; no finding."""
    vein_angles: tuple[float, ...]
    """Where veins run in the subcutaneous fat, in radians around the leg."""
    wave_phase: tuple[float, ...]
    """Phases of the physeal scars' waves, in radians."""


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw one knee."""

    def about(mean: float, deviation: float, limit: float = 2.0) -> float:
        return mean + deviation * float(np.clip(rng.standard_normal(), -limit, limit))

    size = about(1.0, 0.045)
    scar = about(38, 2)
    return Anatomy(
        size=size,
        fat_mm=float(np.clip(rng.gamma(4, 1.6), 3, 14)),
        bulk=about(0.98, 0.05),
        condyle_mm=about(27, 1),
        notch_mm=about(9.5, 0.7),
        femoral_cartilage_mm=about(2.1, 0.25),
        tibial_cartilage_mm=about(2.0, 0.25),
        patella_z_mm=about(42, 2.5),
        acl_femur=(about(5.5, 0.6), about(16.5, 1.2), about(23, 1.2)),
        acl_tibia=(about(-1.0, 0.7), about(-10.5, 1.3), about(0.5, 0.4)),
        acl_radius_mm=about(4.5, 0.35),
        pcl_radius_mm=about(4.6, 0.4),
        pcl_bow_mm=about(0, 2),
        meniscus_height_mm=about(7.0, 0.5),
        meniscus_width_mm=about(10.5, 0.9),
        femoral_scar_z_mm=scar,
        tibial_scar_z_mm=about(-17, 1.5),
        scar_opacity=float(rng.uniform(0.1, 0.75)),
        fluid_mm=float(rng.uniform(0.3, 1.6)),
        magic_angle=float(rng.uniform(0, 0.3)),
        degeneration=(
            float(rng.uniform(0.1, 0.4) * (rng.random() < 0.4)),
            float(rng.uniform(0.1, 0.4) * (rng.random() < 0.25)),
        ),
        vein_angles=tuple(float(a) for a in rng.uniform(0, 2 * np.pi, 3)),
        wave_phase=tuple(float(a) for a in rng.uniform(0, 2 * np.pi, 4)),
    )


def femur(p: Points, a: Anatomy) -> Field:
    """Distance to the bony surface of the femur, without its cartilage."""
    shaft_rx = 15 + 19 * (1 - ease(p.z, 34, 74))
    shaft_ry = 13 + 10 * (1 - ease(p.z, 28, 72))
    radius = np.sqrt(np.square(p.x / shaft_rx) + np.square((p.y + 3) / shaft_ry))
    shaft = np.maximum((radius - 1) * 15, 26 - p.z)
    trochlea = drum(p, (0, -4, 29), (35.5, 28, 24))
    condyles = np.minimum(
        drum(p, (-23, 7, 22), (13.5, a.condyle_mm, 21)), drum(p, (23, 6, 22), (13.5, a.condyle_mm - 1, 21))
    )
    bone = join(join(shaft, trochlea, 10), condyles, 8)
    roof = -0.55 * (p.y + 13) + 0.83 * (p.z - 10)
    notch = meet(meet(np.abs(p.x) - a.notch_mm, roof, 5), -14 - p.y, 4)
    groove = np.hypot(p.x - 1, p.y + 45 - 0.06 * np.abs(p.z - 25)) - 16
    return meet(meet(bone, -notch, 8), -groove, 4)


def tibia(p: Points, a: Anatomy) -> Field:
    """Distance to the bony surface of the tibia, without its cartilage."""
    taper = ease(-p.z, 4, 52)
    rx, ry = 37 - 21 * taper, 24 - 9 * taper
    across = np.square(p.x / rx)
    along = np.square((p.y - 2 + 4 * taper) / ry)
    outline = np.sqrt(across + along + 0.35 * across * along)
    side = (outline - 1) * 18
    spines = 8 * ease(1 - np.square((np.abs(p.x) - 5) / 5.5) - np.square((p.y - 3) / 10), 0, 1)
    top = p.z + 3.6 + PLATEAU_SLOPE * p.y - spines
    bone = meet(side, top, 5)
    tubercle = ellipsoid(p, (3, -19, -36), (9, 9, 16))
    return join(bone, tubercle, 8)


def patella(p: Points, a: Anatomy) -> Field:
    """Distance to the bony surface of the patella."""
    body = ellipsoid(p, (1, -44, a.patella_z_mm), (22, 11.5, 21.5), lean=(0, -0.08))
    facets = p.y + 34.5 + 0.42 * np.abs(p.x - 2)
    return meet(body, facets, 4)


def meniscus(p: Points, a: Anatomy, compartment: Compartment) -> Field:
    """Distance to one meniscus, a C whose section is a wedge, between the cartilage of femur and tibia."""
    inward, above = meniscus_depth(p, a, compartment)
    sign = -1.0 if compartment == "medial" else 1.0
    wedge = above - np.float32(a.meniscus_height_mm) * (1 - inward / a.meniscus_width_mm)
    horns = 7.0 - sign * p.x
    shape = meet(meet(np.maximum(wedge, -above), -inward, 1.5), horns, 2)
    return np.maximum(shape, np.float32(a.femoral_cartilage_mm) - femur(p, a))


def meniscus_depth(p: Points, a: Anatomy, compartment: Compartment) -> tuple[Field, Field]:
    """Depth in mm from a meniscus's outer rim, and height in mm over its lower face."""
    if compartment == "medial":
        radius = np.sqrt(np.square((p.x + 19.5) / 18.5) + np.square((p.y - 3) / 24))
    else:
        radius = np.sqrt(np.square((p.x - 20) / 17.5) + np.square((p.y - 2) / 21))
    above = p.z + np.float32(3.6 - a.tibial_cartilage_mm) + PLATEAU_SLOPE * p.y
    return (1 - radius) * 20, above


def acl_course(a: Anatomy) -> list[Point]:
    """Points along the ACL from the femur to the tibia, in mm."""
    (fx, fy, fz), (tx, ty, tz) = a.acl_femur, a.acl_tibia
    return arch(a.acl_femur, ((fx + tx) / 2, (fy + ty) / 2 + 0.5, (fz + tz) / 2 - 1.5), a.acl_tibia, 3)


def pcl_course(a: Anatomy) -> list[Point]:
    """Points along the PCL from the femur to the tibia, in mm."""
    return arch((-5.5, 1, 16), (-4, 22 + a.pcl_bow_mm, 20), (0, 25, -7), 6)


def acl(p: Points, a: Anatomy) -> Field:
    """Distance to the sound ACL."""
    fan = 1.2 * ease(-p.z, -14, 0)
    return polyline(p, acl_course(a), a.acl_radius_mm - 0.4, flatness=1.15) - fan


def suprapatellar_recess(p: Points, a: Anatomy, half_thickness_mm: float) -> Field:
    """Distance to the fluid above the patella, between the fat before the femur and the quadriceps tendon."""
    return ellipsoid(p, (1, -34, a.patella_z_mm + 24), (20, half_thickness_mm, 21), lean=(0, -0.18))


def limb(p: Points, a: Anatomy) -> Field:
    """Distance to the skin, in mm."""
    front = -38 - 19 * ease(p.z, -50, 45)
    back = 49 + 0.0018 * p.z * p.z + np.float32(0.9 * a.fat_mm)
    half_width = 48 + 0.04 * p.z + 0.0005 * p.z * p.z + np.float32(0.8 * a.fat_mm)
    across = np.square(p.x / half_width)
    along = np.square((2 * p.y - front - back) / (back - front))
    return (np.sqrt(across + along + 0.4 * across * along) - 1) * 50
