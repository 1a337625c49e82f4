"""An answer as one picture for viewers that show no structured reports: a DICOM secondary capture.

Pictures are at their own size, one pixel a pixel, so that a viewer that shows the capture 1:1 shows the slices so.
"""

import numpy as np
from highdicom.sc import ConversionTypeValues, SCImage
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom import Dataset

from kneessl.evaluate.mistakes import heat_text
from kneessl.exams.folder import SIDE, Plane
from kneessl.reader.answer.assessment import NOTICE, Assessment, KeySlice, TaskAssessment
from kneessl.reader.answer.drawing import (
    GROUND,
    INK,
    SOFT,
    Text,
    font,
    paragraphs,
    stack_horizontally,
    stack_vertically,
)
from kneessl.reader.answer.pictures import heated_slice
from kneessl.reader.dicom.returned import (
    SIDES,
    ascii_text,
    copy_identity,
    maker_attributes,
    notices,
    result_uids,
    study_uid_of,
)
from kneessl.report.answer_page import WORDS, bar
from kneessl.report.wording import probability_text
from kneessl.sources.volume import edges_of

MARGIN, GAP = 24, 4
CARD = 2 * SIDE + GAP
"""Width of what is said of one finding: a slice, and the same with heat."""
ONE_ROW, FEW = 2, 4
"""Up to so many findings show all of their key slices, and stand in two columns; more show one each, in three."""
MARKS = {"yes": "●", "doubt": "◐", "no": "○", "open": "◌", "none": "–"}
COLOURS = {"yes": "#ff9d4d", "doubt": INK, "no": "#6db3f8", "open": INK, "none": SOFT}
ZONES = {"yes": "#5c3212", "doubt": "#3a4048", "no": "#123a63"}
ALARM = "#5a1e12"
_BAR = 32


def summary_capture(assessment: Assessment, identity: Dataset | None) -> Dataset:
    """Return the answer as a secondary capture: one frame, RGB.

    Args:
        assessment: The answer.
        identity: A header of the study; its patient and study are copied into the header, never into the picture.
    """
    uids = result_uids(assessment.study_uid, assessment.laterality, assessment.model.sha256)
    capture = SCImage(
        pixel_array=draw_summary(assessment),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        study_instance_uid=study_uid_of(assessment, identity),
        series_instance_uid=uids.capture_series,
        sop_instance_uid=uids.capture_instance,
        patient_orientation=("L", "F"),
        **maker_attributes(assessment, "capture"),
    )
    capture["PatientOrientation"].value = None  # a page has none, but highdicom wants one
    capture.Laterality = assessment.laterality
    capture.ConversionType = ConversionTypeValues.WSD.value
    capture.BurnedInAnnotation = "NO"
    capture.DerivationDescription = ascii_text(f"Summary of an answer of kneessl {assessment.model.version}. {NOTICE}")
    copy_identity(capture, identity)
    return capture


def draw_summary(assessment: Assessment) -> NDArray[np.uint8]:
    """Draw the answer on a dark ground, uint8 `(rows, columns, 3)`; as high as it takes, with no identity in it."""
    columns = 2 if len(assessment.findings) <= FEW else 3
    width = columns * CARD + (columns - 1) * MARGIN
    cards = [_card(assessment, finding) for finding in assessment.findings]
    rows = [stack_horizontally(cards[first : first + columns], MARGIN) for first in range(0, len(cards), columns)]
    page = stack_vertically([_head(assessment, width), *rows, _foot(assessment, width)], MARGIN)
    whole = Image.new("RGB", (width + 2 * MARGIN, page.height + 2 * MARGIN), GROUND)
    whole.paste(page, (MARGIN, MARGIN))
    return np.asarray(whole)


def _head(assessment: Assessment, width: int) -> Image.Image:
    title = Text(f"kneessl, {SIDES[assessment.laterality]}: what the model says", 26, bold=True)
    alarms = [Text(text, 17, bold=True) for text in notices(assessment)]
    return stack_vertically([paragraphs([title], width), paragraphs(alarms, width, ALARM, padding=12)], 12)


def _foot(assessment: Assessment, width: int) -> Image.Image:
    model = assessment.model
    heat: dict[str, list[Plane]] = {}
    for plane, plane_result in assessment.planes.items():
        heat.setdefault(heat_text(plane_result.exact), []).append(plane)
    missing = f"; could not be used: {', '.join(assessment.missing)}" if assessment.missing else ""
    texts = [f"Heat, {' and '.join(planes)}: {text}" for text, planes in heat.items()]
    texts += [
        f"Planes read: {', '.join(assessment.planes) or 'none'}{missing}.",
        f"Model {model.name}, SHA-256 {model.sha256}, kneessl {model.version}. Study {assessment.key}.",
    ]
    return paragraphs([Text(text, 14, SOFT) for text in texts], width)


def _card(assessment: Assessment, finding: TaskAssessment) -> Image.Image:
    kind = "none" if finding.probability is None else finding.state or "open"
    parts = [
        paragraphs(
            [Text(finding.task, 22, bold=True), Text(f"{MARKS[kind]} {WORDS[kind][0]}", 22, COLOURS[kind])], CARD
        )
    ]
    if finding.probability is not None:
        parts += [paragraphs([Text(_chance(finding), 17)], CARD), _scale(finding)]
    if finding.reasons:
        parts.append(paragraphs([Text(reason, 14, SOFT) for reason in finding.reasons], CARD))
    room = len(finding.key_slices) if len(assessment.findings) <= ONE_ROW else 1
    for key in finding.key_slices[:room]:
        parts.append(_pair(assessment, finding.task, key))
        parts.append(paragraphs([Text(_caption(key), 14, SOFT)], CARD))
    if others := [_caption(key) for key in finding.key_slices[room:]]:
        parts.append(paragraphs([Text(f"Then {' and '.join(others)}", 14, SOFT)], CARD))
    return stack_vertically(parts, 6)


def _chance(finding: TaskAssessment) -> str:
    texts = [f"Probability {probability_text(finding.probability or 0.0)}"]
    if finding.interval:
        texts.append(f"95 % interval {' to '.join(map(probability_text, finding.interval))}")
    return ", ".join(texts if finding.calibrated else [*texts, "not calibrated"])


def _scale(finding: TaskAssessment) -> Image.Image:
    """Draw a bar from 0 at the left to 1 at the right: zones of the operating points, interval and probability."""
    laid_out = bar(finding.probability or 0.0, finding.interval, finding.points)
    picture = Image.new("RGB", (CARD, _BAR), ZONES["doubt"])
    draw = ImageDraw.Draw(picture)

    def at(share: float) -> float:
        return share * (CARD - 1)

    for zone in laid_out.zones:
        draw.rectangle((at(zone.left), 0, at(zone.left + zone.width), _BAR), ZONES[zone.state])
        if zone.named:
            draw.text((at(zone.left + zone.width / 2), 13), zone.state, INK, font(12), "ms")
    y = _BAR - 9
    if laid_out.interval:
        draw.line((at(laid_out.interval[0]), y, at(laid_out.interval[1]), y), INK, 2)
    draw.circle((at(laid_out.value), y), 6, INK)
    return picture


def _pair(assessment: Assessment, task: str, key: KeySlice) -> Image.Image:
    plane_result = assessment.planes[key.plane]
    plain_slice = Image.fromarray(plane_result.series.volume[key.index]).convert("RGB")
    pair = [plain_slice, Image.fromarray(heated_slice(plane_result, task, key.index))]
    for picture in pair:
        _add_directions(picture, key.plane)
    return stack_horizontally(pair, GAP)


def _add_directions(picture: Image.Image, plane: Plane) -> None:
    """Write at each edge of a slice which way of the patient it lies, as L, R, A, P, S or I."""
    draw, far = ImageDraw.Draw(picture), SIDE - 4
    places: dict[str, tuple[float, float, str]] = {"top": (SIDE / 2, 4, "mt"), "bottom": (SIDE / 2, far, "mb")}
    places |= {"left": (4, SIDE / 2, "lm"), "right": (far, SIDE / 2, "rm")}
    for edge, letter in edges_of(plane).items():
        x, y, anchor = places[edge]
        draw.text((x, y), letter, "white", font(14, True), anchor, stroke_width=2, stroke_fill="black")


def _caption(key: KeySlice) -> str:
    return f"{key.plane} {key.index + 1} of {key.of}, {100 * key.share:.0f}\u00a0% of what speaks for it"
