import base64
import html
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from helpers.made import IDENTITY, STUDY, made
from PIL import Image

from kneessl.evaluate.mistakes import heat_text
from kneessl.reader.answer.assessment import NO_DIAGNOSIS, Flag
from kneessl.reader.answer.page import write_report
from kneessl.reader.answer.pictures import heated_slice, key_slice_png

HOSTILE = "<script>alert('x')</script> & \"膝\""
ORANGE, BLUE = (0xD9, 0x73, 0x0D), (0x2F, 0x7F, 0xD6)


@pytest.fixture(scope="module")
def assessment(tmp_path_factory):
    return made(tmp_path_factory.mktemp("made")).assessment


@pytest.fixture
def write(tmp_path):
    def write(assessment):
        write_report(tmp_path / "report.html", assessment)
        return (tmp_path / "report.html").read_text(encoding="utf-8")

    return write


def words(page):
    """The visible text, with single spaces."""
    visible = re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", visible)).split())


def pictures(page, word):
    """By text alternative, the pictures whose alternative holds a word."""
    found = re.findall(r'<img src="data:image/png;base64,([^"]+)"[^>]*alt="([^"]*)"', page)
    return {alt: np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data, alt in found if word in alt}


def by_hand(grey, heat):
    """One pixel with heat: the grey value, and 62 % of the colour's weight where the heat is full."""
    weight = 0.62 * abs(int(heat)) / 127
    return [(1 - weight) * int(grey) + weight * channel for channel in (ORANGE if heat >= 0 else BLUE)]


def test_heat_lies_on_its_own_pixels_in_its_own_strength(assessment):
    seen = assessment.planes["sagittal"]
    rng = np.random.default_rng(0)
    volume = rng.integers(0, 256, (3, 256, 256), np.uint8)
    heat = rng.integers(-127, 128, (3, 256, 256)).astype(np.int8)
    heat[1, 7, 200], heat[1, 8, 200], heat[1, 9, 200] = 127, -127, 0
    seen = replace(seen, series=replace(seen.series, volume=volume), heat={"acl": heat})
    drawn = heated_slice(seen, "acl", 1)
    assert (drawn.shape, drawn.dtype) == ((256, 256, 3), np.uint8)
    for row, column in [(7, 200), (8, 200), (9, 200), (0, 0), (255, 255), *rng.integers(0, 256, (300, 2)).tolist()]:
        wanted = by_hand(volume[1, row, column], heat[1, row, column])
        assert np.abs(drawn[row, column] - np.array(wanted)).max() <= 0.51, (row, column)
    assert (drawn[9, 200] == volume[1, 9, 200]).all()


def test_a_png_is_the_same_picture_and_always_the_same_bytes(assessment):
    seen = assessment.planes["axial"]
    png = key_slice_png(seen, "acl", 5)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), heated_slice(seen, "acl", 5))
    assert key_slice_png(seen, "acl", 5) == png


def test_page_says_what_the_assessment_says(write, assessment):
    text = words(write(assessment))
    for part in (
        "Right knee: what the model says",
        "Knee right, from the tag of its series",
        f"Study {assessment.key}",
        "Planes read sagittal, axial; coronal missing",
        "acl Yes The model says that this finding is there. 87.5 % probability, 95 % interval 75.0 % to 93.8 %",
        "meniscus In doubt The model says neither yes nor no. A reader has to decide. By its probability alone",
        "Held at doubt, since the model has seen nothing like this study in training.",
        "abnormal No The model says that this finding is not there. 6.2 % probability, 95 % interval 3.1 % to 12.5 %",
        "mcl Not assessed The model says nothing about this finding: neither yes nor no. Nothing is locked",
        "“No” below 20.0 %: 95 % sensitivity asked for, 95.0 % reached (83.5 to 98.6 %; 38/40).",
        "Said from sagittal, axial.",
        "sagittal, slice 3 of 6 (instance 3), 50 % of what speaks for it",
        "abnormal (no) No slice speaks for it.",
        heat_text(True),
        "The model also looks at coronal series; none could be used.",
        "slices are missing: a gap of 12.0 mm after slice 3",
        "Left out before that: localisers (3).",
        "SHA-256 " + "5e" * 32,
        "Trained on synthetic knees (a phantom)",
        "Training data, axial, SHA-256 " + "d1" * 32,
        "Preprocessing, coronal " + "p2" * 8,
        "Time for this answer 1.2 s",
    ):
        assert part in text, part
    assert text.count("1.2 s") == 1
    assert "mcl" not in text.split("Key slices")[1].split("What was used")[0]


def test_key_slices_on_the_page_are_the_assessments(write, assessment):
    page = write(assessment)
    plain, heated = pictures(page, "as it is"), pictures(page, "with heat")
    keys = [(finding.task, key) for finding in assessment.findings for key in finding.key_slices]
    assert len(plain) == len(heated) == len(keys) == 4
    for (task, key), before, after in zip(keys, plain.values(), heated.values(), strict=True):
        seen = assessment.planes[key.plane]
        np.testing.assert_array_equal(before, seen.series.volume[key.index])
        np.testing.assert_array_equal(after, heated_slice(seen, task, key.index))
    assert next(iter(plain)) == "acl: sagittal, slice 3 of 6 (instance 3), 50 % of what speaks for it, as it is"
    assert "3 ★ acl" in words(page)


def test_an_image_without_a_number_is_captioned_without_one(write, assessment):
    finding = assessment.findings[0]
    key = finding.key_slices[0]
    unnumbered = replace(finding, key_slices=(replace(key, image=replace(key.image, instance_number=None)),))
    assert "sagittal, slice 3 of 6, 50 % of what speaks for it" in words(
        write(replace(assessment, findings=(unnumbered,)))
    )


def test_a_phantoms_model_is_called_one_once_and_before_all_else(write, assessment):
    text = words(write(assessment))
    assert text.count(NO_DIAGNOSIS) == 1
    assert text.index(NO_DIAGNOSIS) < text.index("Not a medical device") < text.index("Quality, axial:")
    unflagged = replace(assessment, flags=())
    assert NO_DIAGNOSIS in words(write(unflagged))
    patients = replace(unflagged, model=replace(assessment.model, synthetic=False))
    assert NO_DIAGNOSIS not in words(write(patients))
    assert "phantom)" not in words(write(patients))
    unknown = words(write(replace(unflagged, model=replace(assessment.model, synthetic=None))))
    assert "Model: It is not recorded whether the model was trained on patients or on a phantom" in unknown
    assert "Trained on not recorded" in unknown


def test_flags_of_every_kind(write, assessment):
    flags = [Flag(kind, None, f"about {kind}") for kind in ("unfamiliar", "laterality", "data", "model")]
    text = words(write(replace(assessment, flags=(Flag("quality", "axial", "about quality"), *flags))))
    assert (
        "Quality, axial: About quality. Unlike the training data: About unfamiliar. Side: About laterality. "
        "Data: About data. Model: About model."
    ) in text


@pytest.mark.parametrize(
    ("side", "source", "title", "fact"),
    [
        ("L", "the tag", "Left knee: what", "Knee left, from the tag Study"),
        ("", "no tag", "Knee, side not known: what", "Knee side not known (no tag) Study"),
        ("", "", "Knee, side not known: what", "Knee side not known Study"),
    ],
)
def test_which_knee(write, assessment, side, source, title, fact):
    text = words(write(replace(assessment, laterality=side, laterality_from=source)))
    assert title in text
    assert fact in text


def test_heat_that_is_no_share_of_the_answer_is_called_so(write, assessment):
    sagittal, axial = assessment.planes["sagittal"], assessment.planes["axial"]
    gradient = {"sagittal": replace(sagittal, exact=False), "axial": replace(axial, exact=False)}
    text = words(write(replace(assessment, planes=gradient)))
    assert heat_text(False) in text
    assert heat_text(True) not in text
    mixed = words(write(replace(assessment, planes={"sagittal": sagittal, "axial": gradient["axial"]})))
    assert f"In sagittal slices: {heat_text(True)} In axial slices: {heat_text(False)}" in mixed


def test_nothing_assessed_is_a_calm_page(write, assessment):
    none = replace(assessment, findings=assessment.findings[-1:], planes={}, missing=assessment.model.planes)
    page = write(none)
    text = words(page)
    assert "Planes read nothing; sagittal, coronal, axial missing" in text
    assert "Not assessed" in text
    assert "No finding was assessed, so there are none." in text
    assert "probability" not in text
    assert "<img" not in page


def test_hostile_names_stay_text(write, assessment):
    finding = replace(assessment.findings[0], task=HOSTILE)
    planes = {plane: replace(seen, heat={HOSTILE: seen.heat["acl"]}) for plane, seen in assessment.planes.items()}
    model = replace(assessment.model, name=HOSTILE, tasks=(HOSTILE,))
    page = write(replace(assessment, findings=(finding,), planes=planes, model=model))
    assert "<script" not in page
    assert words(page).count(HOSTILE) >= 6


def test_the_page_holds_no_identity_and_loads_nothing(write, assessment):
    page = write(assessment)
    planted = {*IDENTITY.values(), *str(IDENTITY["PatientName"]).split("^"), STUDY, "planted", "Planted"} - {"F"}
    assert [text for text in planted if str(text) in page] == []
    assert not re.search(r"<(script|link|iframe)|url\(|https?://|\ssrc=\"(?!data:image/png;base64,)", page)


def test_same_assessment_same_bytes(write, assessment):
    assert write(assessment) == write(assessment)
    assert write(assessment) != write(replace(assessment, seconds=2.5))
