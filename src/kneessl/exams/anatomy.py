"""One knee in millimetres: what varies from knee to knee, the shape of each part, and their painting in order.

The knee is drawn as a lateral-positive right-or-left-free knee; `scanner.py` mirrors it. See `shapes.py` for the axes.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from kneessl.exams.shapes import (
    Canvas,
    Field,
    Patch,
    Point,
    Points,
    arch,
    cord,
    drum,
    ease,
    ellipsoid,
    join,
    meet,
    polyline,
    tube,
    upsampled,
)
from kneessl.exams.textures import Textures

Compartment = Literal["medial", "lateral"]
PLATEAU_SLOPE = 0.08
"""Fall of the tibial plateau in mm for each mm towards posterior."""


@dataclass(frozen=True)
class Contrast:
    """Signal of each tissue under one pulse sequence; 1 is about the brightest."""

    fat: float
    marrow: float
    muscle: float
    cartilage: float
    fluid: float
    synovium: float
    tendon: float
    """Tendon, ligament and fascia."""
    meniscus: float
    cortex: float
    vessel: float
    skin: float
    oedema: float
    """Injured tissue that has taken up water: torn fibres, bruised marrow."""


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
        vein_angles=tuple(float(a) for a in rng.uniform(0, 2 * np.pi, 5)),
        wave_phase=tuple(float(a) for a in rng.uniform(0, 2 * np.pi, 4)),
    )


# Shapes that lesions need as well


def femur(p: Points, a: Anatomy) -> Field:
    """Distance to the bony surface of the femur, without its cartilage."""
    shaft_rx = 15 + 19 * (1 - ease(p.z, 34, 74))
    shaft_ry = 13 + 10 * (1 - ease(p.z, 28, 72))
    radius = np.sqrt(np.square(p.x / shaft_rx) + np.square((p.y + 3) / shaft_ry))
    shaft = np.maximum((radius - 1) * 15, 26 - p.z)
    trochlea = ellipsoid(p, (1, -7, 27), (31, 25, 22))
    condyles = np.minimum(
        drum(p, (-23, 7, 22), (13.5, a.condyle_mm, 21)), drum(p, (23, 6, 22), (13.5, a.condyle_mm - 1, 21))
    )
    bone = join(join(shaft, trochlea, 12), condyles, 9)
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


# The painting, from the skin inwards


def paint_knee(canvas: Canvas, a: Anatomy, tissue: Contrast, textures: Textures) -> None:
    """Paint the whole knee, without any finding, from outside to inside."""
    limb = _limb(canvas.whole.nodes, a)
    _paint_envelope(canvas, a, tissue, textures, limb)
    _paint_muscles(canvas, a, tissue, textures, limb)
    _paint_vessels(canvas, a, tissue, textures)
    _paint_joint_space(canvas, a, tissue, textures)
    _paint_bones(canvas, a, tissue, textures)
    _paint_menisci(canvas, a, tissue, textures)
    _paint_cruciates(canvas, a, tissue, textures)
    _paint_tendons(canvas, a, tissue, textures)


def _limb(p: Points, a: Anatomy) -> Field:
    """Distance to the skin, in mm."""
    front = -38 - 19 * ease(p.z, -50, 45)
    back = 49 + 0.0018 * p.z * p.z + np.float32(0.9 * a.fat_mm)
    half_width = 48 + 0.04 * p.z + 0.0005 * p.z * p.z + np.float32(0.8 * a.fat_mm)
    across = np.square(p.x / half_width)
    along = np.square((2 * p.y - front - back) / (back - front))
    return (np.sqrt(across + along + 0.4 * across * along) - 1) * 50


def _paint_envelope(canvas: Canvas, a: Anatomy, tissue: Contrast, textures: Textures, limb: Field) -> None:
    whole = canvas.whole
    skin = upsampled(limb)
    canvas.paint(whole, skin, tissue.skin)
    canvas.paint(whole, skin + 1.3, tissue.fat * (1 + 0.3 * textures.septa + 0.04 * textures.mottle))
    canvas.paint(whole, np.abs(skin + np.float32(a.fat_mm)) - 0.4, tissue.tendon, opacity=0.45)
    for angle in a.vein_angles:
        x, y = 46 * np.cos(angle), 6 + 46 * np.sin(angle)
        p = canvas.within((x - 9, y - 9, -110), (x + 9, y + 9, 110))
        if p is not None:
            lean = 0.08 * np.sin(3 * angle)
            vein = cord(p.nodes.x - x - lean * p.nodes.z, p.nodes.y - y + lean * p.nodes.z, 1.2)
            canvas.paint(p, np.maximum(vein, skin[p.at] + 2.5), tissue.vessel)


MUSCLES: tuple[tuple[Point, Point, tuple[float, float]], ...] = (
    ((2, -26, 110), (38, 24, 56), (0.0, 0.05)),  # vastus intermedius, rectus femoris
    ((31, -12, 92), (27, 34, 58), (-0.08, 0.0)),  # vastus lateralis
    ((-31, -10, 84), (27, 32, 58), (0.08, 0.0)),  # vastus medialis
    ((4, 26, 104), (26, 22, 46), (0.0, 0.0)),  # adductor magnus, short head of biceps
    ((-19, 52, 84), (11, 12, 66), (0.04, 0.03)),  # semitendinosus
    ((-26, 38, 66), (18, 16, 76), (-0.06, 0.05)),  # semimembranosus
    ((31, 34, 74), (17, 20, 70), (-0.05, 0.10)),  # biceps femoris
    ((-47, 20, 58), (7, 13, 66), (0.04, -0.10)),  # sartorius
    ((-42, 38, 60), (5, 7, 62), (0.04, -0.05)),  # gracilis
    ((-3, 24, -36), (25, 9, 30), (-0.35, 0.05)),  # popliteus
    ((24, -2, -78), (20, 24, 60), (-0.05, 0.05)),  # tibialis anterior
    ((42, 10, -80), (13, 20, 58), (-0.05, 0.05)),  # peroneal muscles
    ((4, 34, -84), (38, 24, 62), (0.0, -0.05)),  # soleus
    ((-22, 42, -46), (24, 20, 84), (0.02, -0.07)),  # gastrocnemius, medial head
    ((22, 42, -46), (22, 18, 80), (-0.02, -0.07)),  # gastrocnemius, lateral head
)
"""Centre, radii in mm, and lean of each muscle, deep before superficial; they overlap, and the later one covers."""


def _paint_muscles(canvas: Canvas, a: Anatomy, tissue: Contrast, textures: Textures, limb: Field) -> None:
    fascia = limb + np.float32(a.fat_mm + 1)
    for centre, radii, lean in MUSCLES:
        rx, ry, rz = a.bulk * radii[0], a.bulk * radii[1], radii[2]
        reach = (rx + abs(lean[0]) * rz, ry + abs(lean[1]) * rz, rz)
        p = canvas.within(
            (centre[0] - reach[0], centre[1] - reach[1], centre[2] - reach[2]),
            (centre[0] + reach[0], centre[1] + reach[1], centre[2] + reach[2]),
        )
        if p is None:
            continue
        p = p.around(ellipsoid(p.nodes, centre, (rx, ry, rz), lean))
        if p is None:
            continue
        belly = upsampled(meet(ellipsoid(p.nodes, centre, (rx, ry, rz), lean), fascia[p.nodes_at], 3))
        canvas.paint(p, belly - 0.9, 0.75 * tissue.fat, opacity=0.8)
        signal = tissue.muscle * (1 + 0.10 * textures.fibres[p.at] + 0.03 * textures.mottle[p.at])
        canvas.paint(p, belly, signal)


def _paint_vessels(canvas: Canvas, a: Anatomy, tissue: Contrast, textures: Textures) -> None:
    p = canvas.within((-26, 4, -4), (28, 62, 86))
    if p is not None:
        fossa = upsampled(ellipsoid(p.nodes, (2, 34, 38), (14, 22, 40), lean=(0, 0.1)))
        canvas.paint(p, fossa, tissue.fat * (0.95 + 0.4 * textures.septa[p.at]))
    p = canvas.within((-8, 28, -120), (16, 60, 120))
    if p is None:
        return
    n = p.nodes
    across = n.x - 1.5 * np.sin(n.z / 23 + np.float32(a.wave_phase[0]))
    along = n.y - 0.0008 * n.z * n.z
    for centre_x, centre_y, radius, signal in (
        (1, 35, 2.6, tissue.cortex),  # popliteal artery, a flow void
        (4.5, 40, 2.9, tissue.vessel),  # popliteal vein
        (7, 46, 2.3, 0.6 * tissue.muscle + 0.4 * tissue.fat),  # tibial nerve
    ):
        distance = cord(across - centre_x, along - centre_y, radius)
        canvas.paint(p, distance - 0.6, tissue.tendon, opacity=0.6)
        canvas.paint(p, distance, signal)


def _paint_joint_space(canvas: Canvas, a: Anatomy, tissue: Contrast, textures: Textures) -> None:
    p = canvas.within((-30, -50, -36), (30, -8, 26))
    if p is not None:
        hoffa = upsampled(ellipsoid(p.nodes, (1, -30, 2), (26, 15, 25), lean=(0, -0.25)))
        canvas.paint(p, hoffa, tissue.fat * (0.88 + 0.4 * textures.septa[p.at]))
    p = canvas.within((-42, -26, -12), (42, 38, 30))
    if p is not None:
        capsule = upsampled(ellipsoid(p.nodes, (0, 4, 4), (41, 29, 11)))
        lining = tissue.synovium * (0.8 + 0.12 * textures.mottle[p.at] + 0.10 * textures.trabeculae[p.at])
        canvas.paint(p, capsule, lining, opacity=0.7)
        canvas.paint(p, upsampled(ellipsoid(p.nodes, (0, 4, 1), (35, 26, 3.5))), tissue.fluid, opacity=0.45)
        cleft = upsampled(ellipsoid(p.nodes, (0, 4, 6), (11, 24, 18), lean=(0, 0.3)))
        canvas.paint(p, cleft, (0.5 * tissue.fat + 0.5 * tissue.synovium) * (1 + 0.35 * textures.septa[p.at]))
    p = canvas.within((-24, -50, 40), (24, -26, 100))
    if p is not None:
        canvas.paint(p, suprapatellar_recess(p.points, a, a.fluid_mm), tissue.fluid, opacity=0.7)


def suprapatellar_recess(p: Points, a: Anatomy, half_thickness_mm: float) -> Field:
    """Distance to the fluid above the patella, between the fat before the femur and the quadriceps tendon."""
    return ellipsoid(p, (1, -34, a.patella_z_mm + 24), (20, half_thickness_mm, 21), lean=(0, -0.18))


def _paint_bones(canvas: Canvas, a: Anatomy, tissue: Contrast, textures: Textures) -> None:
    femoral = canvas.within((-42, -38, -2), (42, 40, 130))
    p = femoral and femoral.around(femur(femoral.nodes, a))
    if p is not None:
        n = p.nodes
        bone = femur(n, a)
        top = np.maximum(n.z - 42 - 0.35 * n.y * (n.y < 0), n.y * 0.6 + n.z - 52)
        sides = np.minimum(np.abs(np.abs(n.x) - 22.5) - 12, np.maximum(n.y + 13, np.abs(n.x) - 25))
        cartilage = meet(bone - np.float32(a.femoral_cartilage_mm), np.maximum(top, sides), 2.5)
        _paint_bone(canvas, p, bone, cartilage, tissue, textures, cortex_mm=0.8 + 1.2 * ease(n.z, 45, 75))
        _paint_scar(canvas, p, a, bone, a.femoral_scar_z_mm, tissue)
    tibial = canvas.within((-40, -32, -130), (40, 32, 9))
    p = tibial and tibial.around(tibia(tibial.nodes, a))
    if p is not None:
        n = p.nodes
        bone = tibia(n, a)
        facets = np.maximum(np.maximum(5.5 - np.abs(n.x), np.abs(n.x) - 34), -n.z - 7)
        cartilage = meet(bone - np.float32(a.tibial_cartilage_mm), facets, 2)
        _paint_bone(canvas, p, bone, cartilage, tissue, textures, cortex_mm=0.8 + 1.4 * ease(-n.z, 30, 60))
        _paint_scar(canvas, p, a, bone, a.tibial_scar_z_mm, tissue)
    p = canvas.within((20, 0, -130), (46, 32, -8))
    if p is not None:
        bone = join(ellipsoid(p.nodes, (33, 16, -22), (9, 9, 11)), tube(p.nodes, (33, 14, -26), (33, 10, -140), 6), 6)
        _paint_bone(canvas, p, bone, None, tissue, textures, cortex_mm=1.2)
    z = a.patella_z_mm
    p = canvas.within((-25, -60, z - 26), (27, -28, z + 26))
    if p is not None:
        bone = patella(p.nodes, a)
        back = np.maximum(-44 - p.nodes.y, np.abs(p.nodes.z - z - 2) - 15)
        _paint_bone(canvas, p, bone, meet(bone - 2.6, back, 3), tissue, textures, cortex_mm=0.9)


def _paint_bone(
    canvas: Canvas,
    p: Patch,
    bone: Field,
    cartilage: Field | None,
    tissue: Contrast,
    textures: Textures,
    cortex_mm: Field | float,
) -> None:
    """Paint a bone from the outside in; `bone` and `cartilage` are distances at the patch's nodes."""
    if cartilage is not None:
        canvas.paint(p, upsampled(cartilage), tissue.cartilage * (1 + 0.06 * textures.mottle[p.at]))
    canvas.paint(p, upsampled(bone), tissue.cortex)
    marrow = upsampled(bone + cortex_mm)
    grain = 0.88 + 0.12 * ease(-marrow, 0, 5)
    grain += 0.045 * textures.trabeculae[p.at]
    grain += 0.04 * textures.mottle[p.at]
    grain *= np.float32(tissue.marrow)
    canvas.paint(p, marrow, grain)


def _paint_scar(canvas: Canvas, p: Patch, a: Anatomy, bone: Field, z_mm: float, tissue: Contrast) -> None:
    first, second, third, fourth = a.wave_phase
    n = p.nodes
    wave = 1.8 * np.sin(n.x / 8 + first) * np.cos(n.y / 9 + second) + 0.7 * np.sin(n.x / 3 + third + n.y / 4 + fourth)
    line = np.abs(upsampled(n.z - z_mm - wave + 0.004 * np.square(n.y))) - 0.35
    canvas.paint(p, np.maximum(line, upsampled(bone) + 2), 0.35 * tissue.marrow, opacity=a.scar_opacity)


def _paint_menisci(canvas: Canvas, a: Anatomy, tissue: Contrast, textures: Textures) -> None:
    compartments: tuple[Compartment, Compartment] = ("medial", "lateral")
    for compartment, degeneration in zip(compartments, a.degeneration, strict=True):
        p = meniscus_patch(canvas, compartment)
        if p is None:
            continue
        shape = upsampled(meniscus(p.nodes, a, compartment))
        canvas.paint(p, shape, tissue.meniscus * (1 + 0.15 * textures.trabeculae[p.at]))
        if degeneration:
            canvas.paint(p, np.maximum(shape + 1.7, 8 - p.points.y), tissue.oedema, opacity=degeneration)


def meniscus_patch(canvas: Canvas, compartment: Compartment) -> Patch | None:
    """The part of the canvas in which a meniscus can lie."""
    if compartment == "medial":
        return canvas.within((-40, -23, -6), (-4, 29, 8))
    return canvas.within((4, -21, -6), (40, 25, 8))


def cruciate_patch(canvas: Canvas) -> Patch | None:
    """The part of the canvas in which the cruciate ligaments can lie."""
    return canvas.within((-15, -20, -14), (15, 32, 32))


def _paint_cruciates(canvas: Canvas, a: Anatomy, tissue: Contrast, textures: Textures) -> None:
    p = cruciate_patch(canvas)
    if p is None:
        return
    posterior = polyline(p.nodes, pcl_course(a), a.pcl_radius_mm)
    canvas.paint(p, upsampled(posterior), tissue.tendon * (1 + 0.1 * textures.trabeculae[p.at]))
    paint_acl(canvas, p, upsampled(acl(p.nodes, a)), a, tissue, textures)


def acl(p: Points, a: Anatomy) -> Field:
    """Distance to the sound ACL."""
    return polyline(p, acl_course(a), a.acl_radius_mm, flatness=1.15)


def paint_acl(canvas: Canvas, p: Patch, shape: Field, a: Anatomy, tissue: Contrast, textures: Textures) -> None:
    """Paint ACL fibres: dark, with paler strands that fan out towards the tibia."""
    low = ease(-p.points.z, -16, 0)
    strands = np.clip(textures.fibres[p.at], -1, 2) * (0.10 + 0.25 * low) + a.magic_angle * low
    canvas.paint(p, shape, tissue.tendon + np.maximum(strands, 0) * (tissue.synovium - tissue.tendon))


def _paint_tendons(canvas: Canvas, a: Anatomy, tissue: Contrast, textures: Textures) -> None:
    z = a.patella_z_mm
    dark = tissue.tendon
    p = canvas.within((-20, -62, -46), (22, -22, z + 90))
    if p is not None:
        grain = dark * (1 + 0.2 * textures.fibres[p.at])
        near_pole = a.magic_angle * (tissue.synovium - dark) * ease(p.points.z, z - 26, z - 16)
        canvas.paint(p, _band(p.points, (1, -48.5, z - 14), (2.5, -27.5, -39), 13, 2.5), grain + near_pole)
        canvas.paint(p, _band(p.points, (1, -46, z + 95), (1, -50, z + 14), 17, 3.2), grain)
        canvas.paint(p, _band(p.points, (1, -54.5, z + 16), (1, -51.5, z - 18), 14, 0.9), dark)
    p = canvas.within((-43, -9, -50), (-22, 12, 30))
    if p is not None:  # medial collateral ligament
        canvas.paint(p, _band(p.points, (-37, 3, 28), (-40, 1, 0), 6, 1.0, sideways=True), dark)
        canvas.paint(p, _band(p.points, (-40, 1, 0), (-26, -4, -46), 6, 1.0, sideways=True), dark)
    p = canvas.within((28, -26, -14), (48, 2, 100))
    if p is not None:  # iliotibial tract
        canvas.paint(p, _band(p.points, (44, -12, 100), (39, -13, 20), 10, 0.8, sideways=True), dark)
        canvas.paint(p, _band(p.points, (39, -13, 20), (32, -15, -12), 8, 1.0, sideways=True), dark)
    p = canvas.within((30, 2, -24), (46, 28, 26))
    if p is not None:  # lateral collateral ligament, popliteus tendon
        canvas.paint(p, tube(p.points, (38.5, 6, 22), (37, 16, -15), 1.9), dark)
        canvas.paint(p, polyline(p.points, arch((37.5, 4, 14), (38, 20, 6), (26, 25, -12), 3), 1.8), dark)


def _band(
    p: Points, start: Point, end: Point, half_width_mm: float, half_thickness_mm: float, sideways: bool = False
) -> Field:
    """A flat strap between two points that differ mostly in z; its flat side faces front, or the side."""
    share = (p.z - start[2]) / (end[2] - start[2])
    dx = p.x - (start[0] + share * (end[0] - start[0]))
    dy = p.y - (start[1] + share * (end[1] - start[1]))
    wide, thin = (dy, dx) if sideways else (dx, dy)
    section = (np.sqrt(np.square(wide / half_width_mm) + np.square(thin / half_thickness_mm)) - 1) * half_thickness_mm
    return np.maximum(section, (np.abs(share - 0.5) - 0.5) * abs(start[2] - end[2]))
