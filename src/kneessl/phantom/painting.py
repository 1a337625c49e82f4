"""The painting of a knee, tissue over tissue from the skin inwards."""

from dataclasses import dataclass

import numpy as np

from kneessl.phantom import anatomy
from kneessl.phantom.anatomy import Anatomy, Compartment
from kneessl.phantom.shapes import (
    Canvas,
    Field,
    Patch,
    Point,
    arch,
    cord,
    ease,
    ellipsoid,
    join,
    meet,
    polyline,
    strap,
    through,
    tube,
    upsampled,
)
from kneessl.phantom.textures import Textures


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


def paint_knee(canvas: Canvas, a: Anatomy, tissue: Contrast, textures: Textures) -> None:
    """Paint the whole knee, without any finding, from outside to inside."""
    limb = anatomy.limb(canvas.whole.nodes, a)
    _paint_envelope(canvas, a, tissue, textures, limb)
    _paint_muscles(canvas, a, tissue, textures, limb)
    _paint_vessels(canvas, a, tissue, textures)
    _paint_joint_space(canvas, a, tissue, textures)
    _paint_capsule(canvas, a, tissue, limb)
    _paint_bones(canvas, a, tissue, textures)
    _paint_menisci(canvas, a, tissue, textures)
    _paint_cruciates(canvas, a, tissue, textures)
    _paint_tendons(canvas, a, tissue, textures)


def _paint_envelope(canvas: Canvas, a: Anatomy, tissue: Contrast, textures: Textures, limb: Field) -> None:
    whole = canvas.whole
    skin = upsampled(limb)
    canvas.fill(whole, limb, tissue.skin)
    canvas.fill(whole, limb + 1.3, tissue.fat * (1 + 0.3 * textures.septa + 0.04 * textures.mottle))
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
    ((-42, 22, 58), (7, 12, 68), (0.0, -0.10)),  # sartorius
    ((-36, 39, 60), (6, 7, 64), (0.0, -0.05)),  # gracilis
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
        muscle = p.around(meet(ellipsoid(p.nodes, centre, (rx, ry, rz), lean), fascia[p.nodes_at], 3))
        if muscle is None:
            continue
        p, belly = muscle
        canvas.fill(p, belly - 0.9, 0.75 * tissue.fat, opacity=0.8)
        signal = tissue.muscle * (1 + 0.10 * textures.fibres[p.at] + 0.03 * textures.mottle[p.at])
        canvas.fill(p, belly, signal)


def _paint_vessels(canvas: Canvas, a: Anatomy, tissue: Contrast, textures: Textures) -> None:
    p = canvas.within((-26, 4, -4), (28, 62, 86))
    if p is not None:
        fossa = ellipsoid(p.nodes, (2, 34, 38), (14, 22, 40), lean=(0, 0.1))
        canvas.fill(p, fossa, tissue.fat * (0.95 + 0.4 * textures.septa[p.at]))
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
        hoffa = ellipsoid(p.nodes, (1, -30, 2), (26, 15, 25), lean=(0, -0.25))
        canvas.fill(p, hoffa, tissue.fat * (0.88 + 0.6 * textures.septa[p.at] + 0.05 * textures.mottle[p.at]))
    p = canvas.within((-42, -26, -12), (42, 38, 30))
    if p is not None:
        capsule = ellipsoid(p.nodes, (0, 4, 4), (41, 29, 11))
        lining = tissue.synovium * (0.8 + 0.12 * textures.mottle[p.at] + 0.10 * textures.trabeculae[p.at])
        canvas.fill(p, capsule, lining, opacity=0.7)
        canvas.fill(p, ellipsoid(p.nodes, (0, 4, 1), (35, 26, 3.5)), tissue.fluid, opacity=0.45)
        cleft = ellipsoid(p.nodes, (0, 4, 6), (11, 24, 18), lean=(0, 0.3))
        canvas.fill(p, cleft, (0.5 * tissue.fat + 0.5 * tissue.synovium) * (1 + 0.35 * textures.septa[p.at]))
    p = canvas.within((-24, -50, 40), (24, -26, 100))
    if p is not None:
        canvas.paint(p, anatomy.suprapatellar_recess(p.points, a, a.fluid_mm), tissue.fluid, opacity=0.7)


def _paint_capsule(canvas: Canvas, a: Anatomy, tissue: Contrast, limb: Field) -> None:
    """Paint the retinacula and the capsule: a dark sheet that passes from the patella round the condyles."""
    z = a.patella_z_mm
    p = canvas.within((-46, -56, -4), (46, 22, z + 16))
    if p is None:
        return
    n = p.nodes
    surface = join(anatomy.femur(n, a), anatomy.patella(n, a), 16) - 3
    bounds = np.maximum(np.maximum(n.y - 16, -2 - n.z), np.maximum(n.z - z - 10, 14 - np.abs(n.x)))
    bounds = np.maximum(bounds, limb[p.nodes_at] + 5)
    canvas.paint(p, np.maximum(np.abs(upsampled(surface)) - 0.5, upsampled(bounds)), tissue.tendon, opacity=0.6)


def _paint_bones(canvas: Canvas, a: Anatomy, tissue: Contrast, textures: Textures) -> None:
    femoral = canvas.within((-42, -38, -2), (42, 40, 130))
    femur = femoral and femoral.around(anatomy.femur(femoral.nodes, a))
    if femur:
        p, bone = femur
        n = p.nodes
        top = np.maximum(n.z - 42 - 0.35 * n.y * (n.y < 0), n.y * 0.6 + n.z - 52)
        sides = np.minimum(np.abs(np.abs(n.x) - 22.5) - 12, np.maximum(n.y + 13, np.abs(n.x) - 25))
        cartilage = meet(bone - np.float32(a.femoral_cartilage_mm), np.maximum(top, sides), 2.5)
        _paint_bone(canvas, p, bone, cartilage, tissue, textures, cortex_mm=0.8 + 1.2 * ease(n.z, 45, 75))
        _paint_scar(canvas, p, a, bone, a.femoral_scar_z_mm, tissue)
    tibial = canvas.within((-40, -32, -130), (40, 32, 9))
    tibia = tibial and tibial.around(anatomy.tibia(tibial.nodes, a))
    if tibia:
        p, bone = tibia
        n = p.nodes
        facets = np.maximum(np.maximum(5.5 - np.abs(n.x), np.abs(n.x) - 34), -n.z - 7)
        cartilage = meet(bone - np.float32(a.tibial_cartilage_mm), facets, 2)
        _paint_bone(canvas, p, bone, cartilage, tissue, textures, cortex_mm=0.8 + 1.4 * ease(-n.z, 30, 60))
        _paint_scar(canvas, p, a, bone, a.tibial_scar_z_mm, tissue)
    fibular = canvas.within((20, 0, -130), (46, 32, -8))
    if fibular is not None:
        p = fibular
        bone = join(ellipsoid(p.nodes, (33, 16, -22), (9, 9, 11)), tube(p.nodes, (33, 14, -26), (33, 10, -140), 6), 6)
        _paint_bone(canvas, p, bone, None, tissue, textures, cortex_mm=1.2)
    z = a.patella_z_mm
    patellar = canvas.within((-25, -60, z - 26), (27, -28, z + 26))
    if patellar is not None:
        p = patellar
        bone = anatomy.patella(p.nodes, a)
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
        canvas.fill(p, cartilage, tissue.cartilage * (1 + 0.06 * textures.mottle[p.at]))
    canvas.fill(p, bone, tissue.cortex)
    marrow = bone + cortex_mm
    grain = upsampled(through(0.88 + 0.12 * ease(-marrow, 0, 5)))
    grain += 0.045 * textures.trabeculae[p.at]
    grain += 0.04 * textures.mottle[p.at]
    grain *= np.float32(tissue.marrow)
    canvas.fill(p, marrow, grain)


def _paint_scar(canvas: Canvas, p: Patch, a: Anatomy, bone: Field, z_mm: float, tissue: Contrast) -> None:
    first, second, third, fourth = a.wave_phase
    scar = p.around(np.maximum(bone, np.abs(p.nodes.z - z_mm) - 4))
    if scar is None:
        return
    p, inside = scar
    n = p.nodes
    wave = 1.8 * np.sin(n.x / 8 + first) * np.cos(n.y / 9 + second) + 0.7 * np.sin(n.x / 3 + third + n.y / 4 + fourth)
    from_scar = np.abs(upsampled(n.z - z_mm - wave + 0.004 * np.square(n.y))) - 0.35
    canvas.paint(p, np.maximum(from_scar, upsampled(inside) + 2), 0.35 * tissue.marrow, opacity=a.scar_opacity)


def _paint_menisci(canvas: Canvas, a: Anatomy, tissue: Contrast, textures: Textures) -> None:
    compartments: tuple[Compartment, Compartment] = ("medial", "lateral")
    for compartment, degeneration in zip(compartments, a.degeneration, strict=True):
        p = meniscus_patch(canvas, compartment)
        if p is None:
            continue
        shape = anatomy.meniscus(p.nodes, a, compartment)
        canvas.fill(p, shape, tissue.meniscus * (1 + 0.15 * textures.trabeculae[p.at]))
        if degeneration:
            canvas.fill(p, np.maximum(shape + 1.7, 8 - p.nodes.y), tissue.oedema, opacity=degeneration)


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
    posterior = polyline(p.nodes, anatomy.pcl_course(a), a.pcl_radius_mm)
    canvas.fill(p, posterior, tissue.tendon * (1 + 0.1 * textures.trabeculae[p.at]))
    paint_acl(canvas, p, anatomy.acl(p.nodes, a), a, tissue, textures)


def paint_acl(canvas: Canvas, p: Patch, shape: Field, a: Anatomy, tissue: Contrast, textures: Textures) -> None:
    """Paint ACL fibres into a shape given at nodes: dark, with paler strands that fan out towards the tibia."""
    low = upsampled(through(ease(-p.nodes.z, -16, 0)))
    strands = np.clip(textures.fibres[p.at], -1, 2) * (0.10 + 0.25 * low) + a.magic_angle * low
    canvas.fill(p, shape, tissue.tendon + np.maximum(strands, 0) * (tissue.synovium - tissue.tendon))


def _paint_tendons(canvas: Canvas, a: Anatomy, tissue: Contrast, textures: Textures) -> None:
    z = a.patella_z_mm
    pole = (1.0, -48.5, z - 14)
    _paint_strap(canvas, pole, (2.5, -27.5, -39), 13, 2.5, tissue, textures)  # patellar tendon
    glow = canvas.within((-13, -52, z - 26), (15, -40, z - 14))
    if glow is not None:  # magic angle
        near_pole = np.maximum(
            ellipsoid(glow.nodes, pole, (13, 4, 11)), strap(glow.nodes, pole, (2.5, -27.5, -39), 13, 2.5, False)
        )
        canvas.fill(glow, near_pole, tissue.synovium, opacity=a.magic_angle)
    _paint_strap(canvas, (1, -46, z + 95), (1, -50, z + 14), 17, 3.2, tissue, textures)  # quadriceps tendon
    _paint_strap(canvas, (1, -54.5, z + 16), (1, -51.5, z - 18), 14, 0.9, tissue, textures)  # prepatellar fibres
    for start, end, half_width_mm, half_thickness_mm in SIDE_STRAPS:
        _paint_strap(canvas, start, end, half_width_mm, half_thickness_mm, tissue, textures, turned=True)
    p = canvas.within((30, 2, -24), (46, 28, 26))
    if p is not None:  # lateral collateral ligament, popliteus tendon
        canvas.paint(p, tube(p.points, (38.5, 6, 22), (37, 16, -15), 1.9), tissue.tendon)
        canvas.paint(p, polyline(p.points, arch((37.5, 4, 14), (38, 20, 6), (26, 25, -12), 3), 1.8), tissue.tendon)


SIDE_STRAPS: tuple[tuple[Point, Point, float, float], ...] = (
    ((-37, 3, 28), (-40, 1, 0), 6, 1.0),  # medial collateral ligament, over the femur
    ((-40, 1, 0), (-26, -4, -46), 6, 1.0),  # and over the tibia
    ((44, -12, 100), (39, -13, 20), 10, 0.8),  # iliotibial tract, over the thigh
    ((39, -13, 20), (32, -15, -12), 8, 1.0),  # and over the joint
)
"""Ends, half width and half thickness in mm of the straps at the knee's sides, from above downwards."""


def _paint_strap(
    canvas: Canvas,
    upper: Point,
    lower: Point,
    half_width_mm: float,
    half_thickness_mm: float,
    tissue: Contrast,
    textures: Textures,
    turned: bool = False,
) -> None:
    rx, ry = (half_thickness_mm, half_width_mm) if turned else (half_width_mm, half_thickness_mm)
    (left, right), (front, back) = sorted((upper[0], lower[0])), sorted((upper[1], lower[1]))
    p = canvas.within((left - rx, front - ry, lower[2]), (right + rx, back + ry, upper[2]))
    if p is not None:
        band = strap(p.points, upper, lower, half_width_mm, half_thickness_mm, turned)
        canvas.paint(p, band, tissue.tendon * (1 + 0.2 * textures.fibres[p.at]))
