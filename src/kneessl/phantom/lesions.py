"""Findings of a phantom knee: what is torn, bruised or swollen, drawn at random and painted over the sound knee."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kneessl.phantom import anatomy
from kneessl.phantom.anatomy import Anatomy, Compartment
from kneessl.phantom.painting import Contrast, cruciate_patch, meniscus_patch, paint_acl
from kneessl.phantom.shapes import (
    Canvas,
    Field,
    Patch,
    Point,
    ease,
    ellipsoid,
    meet,
    polyline,
    through,
    tube,
    upsampled,
)
from kneessl.phantom.textures import Textures


@dataclass(frozen=True)
class Lesion:
    """One lesion: which task it answers, what it looks like, and where it sits."""

    finding: str
    """`acl`, `meniscus`, or `abnormal` for what is neither."""
    kind: str
    place: float
    """Where: 0 to 1 along the ACL or the cartilage, or radians around a meniscus (0 lateral, pi/2 posterior)."""
    extent_mm: float
    """Its length, or half the thickness of an effusion."""
    strength: float
    """Share of the tissue that the lesion replaces, 0 to 1."""
    compartment: Compartment = "medial"


ACL_KINDS = ("gap", "swelling", "absent", "wavy", "partial")
MENISCUS_KINDS = ("horizontal", "vertical", "radial", "complex")
OTHER_KINDS = ("effusion", "bone_bruise", "cartilage_defect")


def draw_lesions(rng: np.random.Generator, acl: bool, meniscus: bool, abnormal: bool) -> list[Lesion]:
    """Draw the lesions of one exam.

    An ACL tear brings a bone bruise in half of the exams and an effusion in half; a meniscal tear brings an effusion in
    three of ten and a cartilage defect in two of ten. An exam that is abnormal without a tear has one or two of these.
    The companions are painted before the tears, so that a tear is never hidden under them.
    """
    chances = rng.random(5)
    other: set[str] = set()
    if acl:
        other |= {kind for kind, chance in (("effusion", chances[0]), ("bone_bruise", chances[1])) if chance < 0.5}
    if meniscus:
        if chances[2] < 0.3:
            other.add("effusion")
        if chances[3] < 0.2:
            other.add("cartilage_defect")
    if abnormal and not acl and not meniscus:
        other.update(rng.choice(OTHER_KINDS, size=1 if chances[4] < 0.6 else 2, replace=False).tolist())
    lesions = [DRAW_OTHER[kind](rng) for kind in OTHER_KINDS if kind in other]
    if meniscus:
        lesions.append(_draw_meniscal_tear(rng))
    if acl:
        lesions.append(_draw_acl_tear(rng))
    return lesions


def _draw_acl_tear(rng: np.random.Generator) -> Lesion:
    kind = str(rng.choice(ACL_KINDS, p=(0.28, 0.2, 0.14, 0.14, 0.24)))
    if kind == "partial":
        return Lesion("acl", kind, rng.uniform(0.25, 0.7), rng.uniform(5, 8), rng.uniform(0.55, 0.85))
    return Lesion("acl", kind, rng.uniform(0.25, 0.65), rng.uniform(7, 12), rng.uniform(0.7, 0.95))


def _draw_meniscal_tear(rng: np.random.Generator) -> Lesion:
    kind = str(rng.choice(MENISCUS_KINDS, p=(0.35, 0.25, 0.2, 0.2)))
    compartment: Compartment = "medial" if rng.random() < 0.65 else "lateral"
    outward = np.pi if compartment == "medial" else 0.0
    towards = 1.0 if compartment == "lateral" else -1.0
    horn = rng.choice((1.0, 0.3, -1.0), p=(0.65, 0.2, 0.15))
    place = outward + towards * horn * rng.uniform(0.9, 1.45)
    return Lesion("meniscus", kind, place, rng.uniform(7, 16), rng.uniform(0.75, 1.0), compartment)


def _draw_effusion(rng: np.random.Generator) -> Lesion:
    return Lesion("abnormal", "effusion", 0.0, rng.uniform(4, 8.5), rng.uniform(0.85, 1.0))


def _draw_bone_bruise(rng: np.random.Generator) -> Lesion:
    compartment: Compartment = "lateral" if rng.random() < 0.7 else "medial"
    return Lesion("abnormal", "bone_bruise", rng.random(), rng.uniform(8, 15), rng.uniform(0.5, 0.9), compartment)


def _draw_cartilage_defect(rng: np.random.Generator) -> Lesion:
    compartment: Compartment = "medial" if rng.random() < 0.6 else "lateral"
    return Lesion("abnormal", "cartilage_defect", rng.random(), rng.uniform(6, 12), rng.uniform(0.8, 1.0), compartment)


DRAW_OTHER: dict[str, Callable[[np.random.Generator], Lesion]] = {
    "effusion": _draw_effusion,
    "bone_bruise": _draw_bone_bruise,
    "cartilage_defect": _draw_cartilage_defect,
}


def paint_lesion(canvas: Canvas, lesion: Lesion, a: Anatomy, tissue: Contrast, textures: Textures) -> None:
    """Paint one lesion over the knee that `canvas` shows."""
    PAINTERS[lesion.kind](canvas, lesion, a, tissue, textures)


# The anterior cruciate ligament


def _acl_point(a: Anatomy, place: float) -> Point:
    points = np.array(anatomy.acl_course(a))
    x, y, z = (float(np.interp(place, np.linspace(0, 1, len(points)), axis)) for axis in points.T)
    return x, y, z


def _torn_fibres(p: Patch, tissue: Contrast, textures: Textures) -> Field:
    return tissue.oedema * (1 + 0.14 * textures.trabeculae[p.at] + 0.12 * textures.mottle[p.at])


def _clear_acl(canvas: Canvas, p: Patch, shape: Field, tissue: Contrast, textures: Textures) -> None:
    cleft = 0.4 * tissue.fat + 0.4 * tissue.synovium + 0.2 * tissue.fluid
    signal = cleft * (1 + 0.3 * textures.septa[p.at] + 0.1 * textures.mottle[p.at])
    canvas.fill(p, shape - 0.8, signal)


def _paint_gap(canvas: Canvas, lesion: Lesion, a: Anatomy, tissue: Contrast, textures: Textures) -> None:
    p = cruciate_patch(canvas)
    if p is None:
        return
    shape = anatomy.acl(p.nodes, a)
    x, y, z = _acl_point(a, lesion.place)
    half = lesion.extent_mm / 2
    hole = ellipsoid(p.nodes, (x, y, z), (a.acl_radius_mm + 2, half, half))
    near = upsampled(through(1 - ease(hole, 0, 5)))
    canvas.fill(p, shape - 0.6, _torn_fibres(p, tissue, textures), opacity=0.75 * lesion.strength * near)
    haze = 0.5 * (tissue.fluid + tissue.oedema) * (1 + 0.12 * textures.trabeculae[p.at])
    canvas.fill(p, meet(hole, shape - 2, 2), haze, opacity=lesion.strength)


def _paint_swelling(canvas: Canvas, lesion: Lesion, a: Anatomy, tissue: Contrast, textures: Textures) -> None:
    p = cruciate_patch(canvas)
    if p is None:
        return
    x, y, z = _acl_point(a, lesion.place)
    n = p.nodes
    bulge = 2.2 * (1 - ease(np.sqrt(np.square(n.x - x) + np.square(n.y - y) + np.square(n.z - z)), 4, 15))
    canvas.fill(p, anatomy.acl(p.nodes, a) - bulge, _torn_fibres(p, tissue, textures), opacity=lesion.strength)


def _paint_absent(canvas: Canvas, lesion: Lesion, a: Anatomy, tissue: Contrast, textures: Textures) -> None:
    p = cruciate_patch(canvas)
    if p is not None:
        _clear_acl(canvas, p, anatomy.acl(p.nodes, a), tissue, textures)


def _paint_wavy(canvas: Canvas, lesion: Lesion, a: Anatomy, tissue: Contrast, textures: Textures) -> None:
    p = cruciate_patch(canvas)
    if p is None:
        return
    _clear_acl(canvas, p, anatomy.acl(p.nodes, a), tissue, textures)
    x, y, z = a.acl_tibia
    sag = 6 + 10 * lesion.place
    course = [(x, y, z)]
    for step in (0.25, 0.5, 0.75, 1.0):
        bow = 2.2 * (-1 if step in (0.25, 0.75) else 1)
        course.append((x + 5 * step, y + 22 * step, z + 3 + sag * step + bow))
    slack = polyline(p.nodes, course, 0.6 * a.acl_radius_mm)
    paint_acl(canvas, p, slack, a, tissue, textures)
    canvas.fill(p, slack, _torn_fibres(p, tissue, textures), opacity=0.4)


def _paint_partial(canvas: Canvas, lesion: Lesion, a: Anatomy, tissue: Contrast, textures: Textures) -> None:
    p = cruciate_patch(canvas)
    if p is None:
        return
    x, y, z = _acl_point(a, lesion.place)
    half = lesion.extent_mm / 2
    spot = ellipsoid(p.points, (x - 1.5, y - 1.5, z), (2.6, 0.75 * half, half), lean=(0, 0.8))
    canvas.paint(
        p,
        meet(spot, upsampled(anatomy.acl(p.nodes, a)) - 0.3, 1),
        _torn_fibres(p, tissue, textures),
        opacity=lesion.strength,
    )


# The menisci


def _paint_meniscal_tear(canvas: Canvas, lesion: Lesion, a: Anatomy, tissue: Contrast, textures: Textures) -> None:
    p = meniscus_patch(canvas, lesion.compartment)
    if p is None:
        return
    inward, above = anatomy.meniscus_depth(p.points, a, lesion.compartment)
    x0, y0, radius = (-19.5, 3.0, 17.0) if lesion.compartment == "medial" else (20.0, 2.0, 15.0)
    cos, sin = np.float32(np.cos(lesion.place)), np.float32(np.sin(lesion.place))
    n = p.points
    along = (n.y - y0) * cos - (n.x - x0) * sin
    outward = (n.x - x0) * cos + (n.y - y0) * sin
    near = np.maximum(np.abs(along) - np.float32(lesion.extent_mm / 2), 0.3 * radius - outward)
    width, height = a.meniscus_width_mm, a.meniscus_height_mm
    horizontal = np.maximum(np.abs(above - 0.36 * height * (1 - inward / width) - 0.2) - 0.75, 2.5 - inward)
    vertical = np.abs(inward - 0.42 * width + 0.25 * above) - 0.8
    if lesion.kind == "horizontal":
        tear = np.maximum(horizontal, near)
    elif lesion.kind == "vertical":
        tear = np.maximum(vertical, near)
    elif lesion.kind == "radial":
        tear = np.maximum(np.abs(along) - 1.4, np.maximum(0.3 * radius - outward, 3 - inward))
    else:
        tear = np.maximum(np.minimum(horizontal, vertical), near)
    inside = np.maximum(tear, upsampled(anatomy.meniscus(p.nodes, a, lesion.compartment)))
    signal = 0.5 * (tissue.fluid + tissue.oedema) * (1 + 0.08 * textures.trabeculae[p.at])
    canvas.paint(p, inside, signal, opacity=lesion.strength)


# Abnormal without a tear


def _paint_effusion(canvas: Canvas, lesion: Lesion, a: Anatomy, tissue: Contrast, textures: Textures) -> None:
    z = a.patella_z_mm
    p = canvas.within((-46, -54, -6), (46, 4, z + 56))
    if p is None:
        return
    swell = lesion.extent_mm
    pouch = anatomy.suprapatellar_recess(p.nodes, a, swell)
    gutters = np.minimum(
        ellipsoid(p.nodes, (-35, -16, 24), (0.7 * swell, 13, 20)),
        ellipsoid(p.nodes, (35, -16, 24), (0.7 * swell, 13, 20)),
    )
    cleft = ellipsoid(p.nodes, (1, -33, z - 6), (24, 0.6 * swell, 22))
    fluid = np.minimum(np.minimum(pouch, gutters), cleft)
    bones = np.minimum(
        anatomy.femur(p.nodes, a) - np.float32(a.femoral_cartilage_mm), anatomy.patella(p.nodes, a) - 2.6
    )
    canvas.fill(p, meet(fluid, 0.5 - bones, 1.5), tissue.fluid * (1 + 0.03 * textures.mottle[p.at]), lesion.strength)


def _paint_bone_bruise(canvas: Canvas, lesion: Lesion, a: Anatomy, tissue: Contrast, textures: Textures) -> None:
    sign = -1 if lesion.compartment == "medial" else 1
    femoral = lesion.place < 0.5
    centre = (sign * 24.0, -8 + 30 * lesion.place, 9.0) if femoral else (sign * 22.0, 40 * lesion.place - 24, -11.0)
    half = lesion.extent_mm
    x, y, z = centre
    p = canvas.within((x - half, y - half, z - half), (x + half, y + half, z + half))
    if p is None:
        return
    bone = anatomy.femur(p.nodes, a) if femoral else anatomy.tibia(p.nodes, a)
    spot = upsampled(through(ellipsoid(p.nodes, centre, (0.8 * half, half, 0.75 * half)))) + 1.2 * textures.mottle[p.at]
    depth = 1 - ease(spot, -0.6 * half, 0)
    signal = tissue.oedema * (1 + 0.08 * textures.trabeculae[p.at])
    canvas.fill(p, bone + 1.3, signal, opacity=lesion.strength * depth)


def _paint_cartilage_defect(canvas: Canvas, lesion: Lesion, a: Anatomy, tissue: Contrast, textures: Textures) -> None:
    sign = -1 if lesion.compartment == "medial" else 1
    x, y = sign * 22.0, -6 + 20 * lesion.place
    half = lesion.extent_mm / 2
    p = canvas.within((x - half, y - half, -4), (x + half, y + half, 14))
    if p is None:
        return
    bone = anatomy.femur(p.nodes, a)
    surface = upsampled(bone)
    layer = np.maximum(surface - np.float32(a.femoral_cartilage_mm) - 0.2, 0.3 - surface)
    hole = np.maximum(tube(p.points, (x, y, -10), (x, y, 12), half), layer)
    canvas.paint(p, hole, tissue.fluid, opacity=lesion.strength)
    beneath = 1 - ease(ellipsoid(p.nodes, (x, y, 3), (half, half, 6)), -3, 0)
    canvas.fill(p, bone + 1, tissue.oedema, opacity=0.6 * lesion.strength * upsampled(through(beneath)))


Painter = Callable[[Canvas, Lesion, Anatomy, Contrast, Textures], None]
PAINTERS: dict[str, Painter] = {
    "gap": _paint_gap,
    "swelling": _paint_swelling,
    "absent": _paint_absent,
    "wavy": _paint_wavy,
    "partial": _paint_partial,
    **dict.fromkeys(MENISCUS_KINDS, _paint_meniscal_tear),
    "effusion": _paint_effusion,
    "bone_bruise": _paint_bone_bruise,
    "cartilage_defect": _paint_cartilage_defect,
}
