"""The picture that goes back: what is in its pixels, what is not, and its header."""

import io
import re
import shutil
import subprocess
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pydicom
import pytest
from helpers.made import IDENTITY, STUDY, made
from PIL import Image

from kneessl.exams.folder import SIDE
from kneessl.reader.answer.drawing import GROUND, Text, font, paragraphs, stack_horizontally, stack_vertically, wrapped
from kneessl.reader.answer.pictures import heated_slice
from kneessl.reader.dicom.capture import CARD, COLOURS, GAP, MARGIN, draw_summary, summary_capture

GROUND_RGB = tuple(int(GROUND[i : i + 2], 16) for i in (1, 3, 5))
LETTERS = 20
"""The directions are written within so many pixels of a slice's edges."""


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return made(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def picture(case):
    return draw_summary(case.assessment)


def read(dataset):
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return pydicom.dcmread(io.BytesIO(buffer.getvalue()))


def inner(image):
    """Without the edges that directions are written at."""
    return image[LETTERS:-LETTERS, LETTERS:-LETTERS]


def places(picture, image):
    """Where an image is in a picture, pixel by pixel: the row and column of its first pixel."""
    image = inner(image if image.ndim == 3 else image[..., None].repeat(3, -1))
    height, width, _ = image.shape
    first = (picture[: -height + 1, : -width + 1] == image[0, 0]).all(-1)
    return [
        (int(row) - LETTERS, int(column) - LETTERS)
        for row, column in np.argwhere(first)
        if (picture[row : row + height, column : column + width] == image).all()
    ]


def has(picture, colour):
    return bool((picture == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all(-1).any())


def test_the_strongest_key_slice_is_there_pixel_by_pixel_with_and_without_heat(case, picture):
    for finding in case.assessment.findings[:2]:
        key = finding.key_slices[0]
        seen = case.assessment.planes[key.plane]
        ((row, column),) = places(picture, heated_slice(seen, finding.task, key.index))
        assert (row, column - SIDE - GAP) in places(picture, seen.series.volume[key.index])


def test_one_finding_shows_all_of_its_key_slices(case):
    one = replace(case.assessment, findings=case.assessment.findings[:1])
    picture = draw_summary(one)
    for key in one.findings[0].key_slices:
        assert len(places(picture, heated_slice(one.planes[key.plane], "acl", key.index))) == 1


def test_many_findings_stand_in_three_columns(case, picture):
    assert picture.dtype == np.uint8
    assert picture.shape[1:] == (2 * CARD + 3 * MARGIN, 3)
    many = replace(case.assessment, findings=case.assessment.findings * 3)
    assert draw_summary(many).shape[1:] == (3 * CARD + 4 * MARGIN, 3)


def test_the_margin_stays_dark_whatever_the_texts_are(case):
    endless = "Endless" * 40
    findings = tuple(replace(f, reasons=(endless, "a b " * 200)) for f in case.assessment.findings)
    model = replace(case.assessment.model, name=endless)
    picture = draw_summary(replace(case.assessment, findings=findings, model=model))
    for edge in (picture[:, :MARGIN], picture[:, -MARGIN:], picture[:MARGIN], picture[-MARGIN:]):
        assert (edge == GROUND_RGB).all()
    between = picture[300:, MARGIN + CARD : 2 * MARGIN + CARD]
    assert (between == GROUND_RGB).all(-1).mean() > 0.8  # only the last lines, which are of the whole picture, cross it


def test_each_state_has_its_colour(case):
    for finding, state, others in zip(
        case.assessment.findings[:3], ("yes", "doubt", "no"), (("no",), ("yes", "no"), ("yes",)), strict=True
    ):
        bare = replace(finding, key_slices=(), reasons=())
        picture = draw_summary(replace(case.assessment, findings=(bare,)))
        assert has(picture, COLOURS[state])
        assert not any(has(picture, COLOURS[other]) for other in others)


def test_what_was_not_assessed_has_no_scale(case):
    none = replace(case.assessment, findings=case.assessment.findings[3:])
    bare = replace(case.assessment.findings[0], key_slices=(), reasons=(), task="mcl")
    assert draw_summary(none).shape[0] < draw_summary(replace(case.assessment, findings=(bare,))).shape[0]


def test_the_same_answer_gives_the_same_picture(case, picture):
    assert (draw_summary(case.assessment) == picture).all()


def test_no_identity_reaches_the_pixels(case, picture):
    """The picture is drawn of the same things, whoever the patient is."""
    for identity in (None, case.header):
        assert (read(summary_capture(case.assessment, identity)).pixel_array == picture).all()


def test_the_study_has_no_part_in_the_picture_but_by_its_key(case, picture):
    assert (draw_summary(replace(case.assessment, study_uid="1.2.3")) == picture).all()
    assert (draw_summary(replace(case.assessment, key="f" * 16)) != picture).any()


def test_the_header_says_what_it_is(case):
    capture = read(summary_capture(case.assessment, case.header))
    assert capture.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    assert capture.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    assert capture.ConversionType == "WSD"
    assert capture.BurnedInAnnotation == "NO"
    assert capture.ImageType == ["DERIVED", "SECONDARY", "OTHER"]
    assert capture.Laterality == "R"
    assert capture.PatientOrientation in {None, ""}
    assert (capture.PhotometricInterpretation, capture.SamplesPerPixel, capture.BitsStored) == ("RGB", 3, 8)
    assert "NumberOfFrames" not in capture
    assert capture.DerivationDescription == (
        "Summary of an answer of kneessl 0.1.0. Not a medical device; for research only. Nothing here may guide the "
        "care of a patient."
    )
    assert capture.PatientName == IDENTITY["PatientName"]
    assert capture.StudyInstanceUID == STUDY
    assert capture.ContentDate == capture.SeriesDate != IDENTITY["StudyDate"]


def test_dcmtk_turns_it_into_the_same_picture(case, picture, tmp_path):
    if shutil.which("dcm2img") is None and shutil.which("dcmj2pnm") is None:
        pytest.skip("dcmtk's dcm2img or dcmj2pnm is not installed")
    program = "dcm2img" if shutil.which("dcm2img") else "dcmj2pnm"
    summary_capture(case.assessment, None).save_as(tmp_path / "capture.dcm", enforce_file_format=True)
    options = ["+on"] if program == "dcmj2pnm" else ["--write-png"]
    done = subprocess.run(
        [program, *options, tmp_path / "capture.dcm", tmp_path / "capture.png"], capture_output=True, text=True
    )
    assert (done.returncode, re.findall("^[WEF]: .*", done.stderr, re.MULTILINE)) == (0, [])
    assert (np.asarray(Image.open(tmp_path / "capture.png").convert("RGB")) == picture).all()


def test_lines_are_as_long_as_they_may_be_and_no_longer():
    text = Text("alpha beta\u00a0gamma delta " + "x" * 100, 16)
    lines = wrapped(text, 120)
    assert lines[:2] == ["alpha", "beta\u00a0gamma"]
    assert "".join(lines).replace("\u00a0", "") == "alphabetagammadelta" + "x" * 100
    assert all(font(16).getlength(line) <= 120 for line in lines)
    for line, following in pairwise(lines):
        start = following.split(" ")[0]
        assert font(16).getlength(f"{line} {start}") > 120 or set(line) == {"x"}


def test_a_paragraph_is_as_wide_as_asked_and_as_high_as_its_lines():
    one, two = (paragraphs([Text(words, 20)], 300, padding=5) for words in ("short", "two\u00a0lines " * 4))
    assert one.size == (300, 27 + 10)
    assert two.size == (300, 2 * 27 + 10)
    assert paragraphs([], 300).size == (300, 0)


def test_pictures_are_put_together_without_loss():
    red, blue = Image.new("RGB", (3, 2), "red"), Image.new("RGB", (1, 4), "blue")
    down, across = np.asarray(stack_vertically([red, blue], 2)), np.asarray(stack_horizontally([red, blue], 2))
    assert (down.shape, across.shape) == ((8, 3, 3), (4, 6, 3))
    assert (down[:2] == (255, 0, 0)).all()
    assert (down[4:, 0] == (0, 0, 255)).all()
    assert (down[2:4] == GROUND_RGB).all()
    assert (across[:2, :3] == (255, 0, 0)).all()
    assert (across[:, 5] == (0, 0, 255)).all()
    assert (across[2:, :3] == GROUND_RGB).all()
