import base64
import io
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from helpers.page_head import headed
from PIL import Image

from kneessl.evaluation.decisions import NEVER, OperatingPoints, lock
from kneessl.evaluation.metrics import Proportion
from kneessl.exams.folder import PLANES
from kneessl.report.answer_page import bar, points_text, write_answer_page
from kneessl.report.content import Answer, KeyPicture, Sheet
from kneessl.report.wording import probability_text, sentence_text
from kneessl.sources.dicom.series import SeriesFacts
from kneessl.sources.volume import edges_of

HOSTILE = "<script>alert('x')</script> & \"$\\frac{1}$\" 膝 _"
POINTS = OperatingPoints(
    rule_out=0.2, rule_in=0.7, target_sensitivity=0.95, target_specificity=0.9, n=1100, positives=40,
    sensitivity=Proportion.of(39, 40), specificity=Proportion.of(960, 1060),
)  # fmt: skip
USED = SeriesFacts(1, "sagittal", 3.4, 24, 4.0, 31.56, "PD", True, "TR 3200 ms, TE 32 ms", "R", True, "nearest echo")
UNUSED = SeriesFacts(2, "axial", 41.2, 9, None, None, "unknown", None, "no TE", "", False, "slices are missing")


def a_key(plane="sagittal", caption="sagittal, slice 2 of 3", seed=0):
    rng = np.random.default_rng(seed)
    plain, heated = rng.integers(0, 256, (32, 32), np.uint8), rng.integers(0, 256, (32, 32, 3), np.uint8)
    return KeyPicture(plane, caption, plain, heated)


def an_answer(task="acl", state="yes", probability=0.874, **changes):
    full = {
        "task": task, "state": state, "probability": probability, "interval": (0.791, 0.932), "calibrated": True,
        "planes": ("sagittal", "axial"), "reasons": (), "points": POINTS, "key_slices": [a_key()],
        "heat": "What the heat is.",
    }  # fmt: skip
    return Answer(**full | changes)


NOT_ASSESSED = Answer("mcl", None, None, None, False, (), ("no axial series could be used",), None, [], "")
UNLOCKED = an_answer(state=None, interval=None, calibrated=False, points=None, reasons=("it has no points",))


def content(**changes):
    sheet = Sheet("sagittal", np.random.default_rng(1).integers(0, 256, (3, 200, 100), np.uint8), {1: ["acl", "mcl"]})
    full = {
        "title": "Right knee: what the model says", "facts": [("Study", "00c0ffee")], "alarm": "",
        "flags": [], "answers": [an_answer()], "sheets": [sheet], "series": [UNUSED, USED], "missing": (),
        "edges": {plane: edges_of(plane) for plane in PLANES},
        "left_out": ("localisers (3)", "videos (1)"), "model": [("SHA-256", "5e" * 32)],
    }  # fmt: skip
    return full | changes


@pytest.fixture
def write(tmp_path, parse):
    def write(**changes):
        head, rest = headed(content(**changes))
        write_answer_page(tmp_path / "report.html", head, **rest)
        html = (tmp_path / "report.html").read_text(encoding="utf-8")
        page = parse(html)
        assert page.open == []
        return html, page

    return write


def bars(page):
    return [a["aria-label"] for a in page.all("svg") if a.get("role") == "img"]


def drawn(page, word):
    """The pictures whose text alternative holds a word, as arrays."""
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(a["src"].split(",")[1]))))
        for a in page.all("img")
        if word in a["alt"]
    ]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (an_answer(), "acl Yes The model says that this finding is there. 87.4 % probability, "),
        (
            an_answer(state="no", probability=0.1, interval=None),
            "acl No The model says that this finding is not there.",
        ),
        (
            an_answer(state="doubt", probability=0.3),
            "acl In doubt The model says neither yes nor no. A reader has to d",
        ),
        (UNLOCKED, "acl Probability only This model has no operating points, so it says neither yes nor no. 87.4 %"),
        (
            NOT_ASSESSED,
            "mcl Not assessed The model says nothing about this finding: neither yes nor no. No axial series",
        ),
    ],
    ids=["yes", "no", "doubt", "unlocked", "not assessed"],
)
def test_each_answer_in_words(write, answer, words):
    _, page = write(answers=[answer])
    assert words in page.words


def test_a_recalibrated_probability_without_interval_says_so(write):
    words = write(answers=[an_answer(interval=None)])[1].words
    assert "87.4 % probability; this model has no interval for it" in words
    assert "The interval of a probability" not in words
    assert "The interval of a probability" in write()[1].words


@pytest.mark.parametrize(
    ("clause", "sentence"), [("only 12", "Only 12."), ("It is.", "It is."), ("é", "É."), ("", ".")]
)
def test_clauses_become_sentences(clause, sentence):
    assert sentence_text(clause) == sentence


def test_each_answer_has_a_shape_and_a_class_of_its_own(write):
    answers = [an_answer(), an_answer(state="no"), an_answer(state="doubt"), UNLOCKED, NOT_ASSESSED]
    html, page = write(answers=answers)
    marks = re.findall(r'<svg class="mark".*?</svg>', html, re.S)
    assert len(marks) == len(set(marks)) == 5
    kinds = [a["class"].split("said-")[1] for a in page.all("article")]
    assert kinds == ["yes", "no", "doubt", "open", "none"]


def test_a_finding_with_its_grounds(write):
    _, page = write(answers=[an_answer(reasons=("said without coronal",))])
    words = page.words
    for text in (
        "87.4 % probability, 95 % interval 79.1 % to 93.2 %",
        "Said without coronal.",
        "Said from sagittal, axial.",
        "“No” below 20.0 %: 95 % sensitivity asked for, 97.5 % reached (87.1 to 99.6 %; 39/40).",
        "“Yes” from 70.0 %: 90 % specificity asked for, 90.6 % reached (88.7 to 92.2 %; 960/1060).",
        "Fixed beforehand on 1,100 exams, 40 of them positive, each predicted by a model that had not seen it",
    ):
        assert text in words
    assert "By its probability alone" not in words
    assert bars(page) == ["Probability 87.4 %; 95 % interval 79.1 % to 93.2 %; rule-out at 20.0 %; rule-in at 70.0 %."]


def test_wilsons_intervals_of_the_promises():
    """By the formula itself (Wilson 1927)."""
    z = 1.959963984540054
    for successes, n in ((39, 40), (960, 1060)):
        share, half = successes / n, z * math.sqrt(successes / n * (1 - successes / n) / n + z * z / (4 * n * n))
        low, high = ((share + z * z / (2 * n) + sign * half) / (1 + z * z / n) for sign in (-1, 1))
        assert f"({100 * low:.1f} to {100 * high:.1f} %; {successes}/{n})" in points_text(POINTS)


def test_what_is_held_at_doubt_says_what_it_would_be(write):
    _, page = write(answers=[an_answer(state="doubt", reasons=("held at doubt, since it is unlike all others",))])
    assert "By its probability alone it would be “yes”." in page.words
    assert "Held at doubt, since it is unlike all others." in page.words


def test_what_was_not_assessed_has_no_number_and_no_bar(write):
    _, page = write(answers=[NOT_ASSESSED], sheets=[])
    assert "probability" not in page.words
    assert bars(page) == page.all("img") == []
    assert "No finding was assessed, so there are none." in page.words


def test_an_unlocked_probability_is_called_a_score(write):
    _, page = write(answers=[UNLOCKED])
    assert "87.4 % probability, not recalibrated" in page.words
    assert "read it as a score, not as a chance" in page.words
    assert "interval" not in page.words.split("Key slices")[0]
    assert bars(page) == ["Probability 87.4 %."]


@pytest.mark.parametrize(
    ("points", "zones", "marks"),
    [
        (POINTS, {"no": (0, 0.2), "doubt": (0.2, 0.7), "yes": (0.7, 1)}, [("rule-out", 0.2), ("rule-in", 0.7)]),
        (replace(POINTS, rule_in=NEVER), {"no": (0, 0.2), "doubt": (0.2, 1)}, [("rule-out", 0.2)]),
        (replace(POINTS, rule_out=0.0), {"doubt": (0, 0.7), "yes": (0.7, 1)}, [("rule-in", 0.7)]),
        (replace(POINTS, rule_out=0.7), {"no": (0, 0.7), "yes": (0.7, 1)}, [("rule-out", 0.7), ("rule-in", 0.7)]),
        (None, {}, []),
    ],
)
def test_zones_of_the_bar_are_where_the_points_say_so(points, zones, marks):
    laid = bar(0.5, None, points)
    assert {zone.state: (zone.left, pytest.approx(zone.left + zone.width)) for zone in laid.zones} == {
        state: (left, right) for state, (left, right) in zones.items()
    }
    assert laid.marks == marks
    for zone in laid.zones:
        middle = zone.left + zone.width / 2
        assert points.state(middle) == zone.state


def test_the_bar_is_drawn_to_scale(write):
    html, _ = write()
    svg = re.search(r'<svg class="bar".*?</svg>\n<span>', html, re.S).group()
    assert re.search(r'<rect class="zone doubt" x="20.00%" y="22" width="50.00%"', svg)
    assert '<circle class="value" cx="87.40%"' in svg
    assert '<line class="interval" x1="79.10%" x2="93.20%"' in svg
    assert [float(x) for x in re.findall(r'<line class="cut" x1="([\d.]+)%"', svg)] == [20, 70]
    assert re.findall(r">([^<>\n]+)</text>", svg) == ["no", "doubt", "yes", "rule-out 20.0 %", "rule-in 70.0 %"]


def test_a_zone_too_narrow_for_its_name_has_none(write):
    narrow = replace(POINTS, rule_out=0.62)
    html, _ = write(answers=[an_answer(points=narrow)])
    assert re.findall(r'<text class="zone"[^>]*>(\w+)<', html) == ["no", "yes"]


def test_points_that_are_never_reached_say_so():
    assert points_text(replace(POINTS, rule_out=0.0)).startswith("“No” is never said: any threshold")
    never = points_text(replace(POINTS, rule_in=NEVER))
    assert "“Yes” is never said: any threshold would have raised more false alarms" in never
    assert "100" not in never.split("Fixed")[0]


def test_points_of_lock_are_told_as_they_were_locked():
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], (90, 30))
    points = lock(labels, 1 / (1 + np.exp(-rng.normal(2 * labels - 1))))
    text = points_text(points)
    assert f"“No” below {100 * points.rule_out:.1f} %" in text
    assert f"{points.sensitivity.successes}/30)" in text
    assert f"{points.specificity.successes}/90)" in text


@pytest.mark.parametrize(
    ("probability", "text"),
    [(0.0, "< 0.1 %"), (0.0004, "< 0.1 %"), (0.0006, "0.1 %"), (0.5, "50.0 %"), (0.9994, "99.9 %"), (1.0, "> 99.9 %")],
)
def test_nobody_is_told_nought_or_a_hundred_per_cent(probability, text):
    assert probability_text(probability) == text


def test_key_slices_as_they_are_beside_themselves_with_heat(write):
    keys = [a_key(seed=1), a_key("axial", "axial, slice 5 of 8 (instance 6), 34 % of what speaks for it", seed=2)]
    _, page = write(answers=[an_answer(key_slices=keys)])
    for key, plain, heated in zip(keys, drawn(page, "as it is"), drawn(page, "with heat"), strict=True):
        np.testing.assert_array_equal(plain, key.slice)
        np.testing.assert_array_equal(heated, key.heated)
        assert key.caption in page.words
    alts = [image["alt"] for image in page.all("img")]
    assert alts[:2] == ["acl: sagittal, slice 2 of 3, as it is", "acl: sagittal, slice 2 of 3, with heat"]
    assert page.words.count("What the heat is.") == 1


def test_heat_of_two_kinds_is_told_with_each_finding(write):
    _, page = write(answers=[an_answer(), an_answer("mcl", heat="Another heat.")])
    words = page.words.split("Key slices")[1]
    assert words.index("What the heat is.") < words.index("mcl (yes)") < words.index("Another heat.")


def test_a_finding_that_nothing_speaks_for(write):
    _, page = write(answers=[an_answer(state="no", key_slices=[], probability=0.02)])
    assert "acl (no) No slice speaks for it." in page.words


def test_contact_sheet_holds_every_slice_in_order(write):
    _, page = write()
    thumbnails = [a for a in page.all("img") if re.fullmatch(r"sagittal, slice \d of 3", a["alt"])]
    assert [a["alt"] for a in thumbnails] == [f"sagittal, slice {k} of 3" for k in (1, 2, 3)]
    assert {(a["width"], a["height"]) for a in thumbnails} == {("48", "96")}
    assert "All 3 sagittal slices 1 2 ★ acl, mcl 3" in page.words


def test_table_of_series(write):
    html, page = write(missing=("axial",))
    words = page.words.split("What was used")[1]
    assert "The model also looks at axial series; none could be used." in words
    assert "1 sagittal 24 4.0 mm 31.6 ms PD TR 3200 ms, TE 32 ms yes 3° R ✓ used nearest echo" in words
    assert "2 axial 9 – – unknown no TE not known 41° – not used slices are missing" in words
    assert words.index("✓ used") < words.index("not used")  # although number 2 was handed in first
    assert "Left out before that: localisers (3); videos (1)." in words
    assert "SHA-256 " + "5e" * 32 in words
    assert html.count('<tr class="unused">') == 1


def test_alarm_before_notice_before_flags_before_answers(write):
    flags = [("Quality, axial", "few slices"), ("Side", "tag and position disagree")]
    words = write(alarm="It learned from a phantom.", flags=flags)[1].words
    order = ["It learned from a phantom.", "Not a medical device", "Quality, axial: Few slices.", "Side: Tag", "87.4 %"]
    assert [words.index(text) for text in order] == sorted(words.index(text) for text in order)
    assert "Findings (not a diagnosis)" in words
    calm = write()[1].words
    assert "not a diagnosis" not in calm
    assert "Before you trust an answer" not in calm
    assert calm.index("Not a medical device") < calm.index("87.4 %")


def test_nothing_is_loaded_from_elsewhere(write):
    html, page = write(answers=[an_answer(), NOT_ASSESSED, UNLOCKED])
    assert page.all("script") == page.all("link") == page.all("iframe") == page.all("a") == []
    assert not [name for _, a in page.tags for name in a if name.startswith("on") or name in {"href", "srcset"}]
    assert all(a["src"].startswith("data:image/png;base64,") for a in page.all("img"))
    assert not re.search(r"url\(|@import|https?://", html)
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_hostile_text_stays_text(write):
    series = replace(USED, reason=HOSTILE, contrast_from=HOSTILE)
    sheet = Sheet("sagittal", np.zeros((1, 8, 8), np.uint8), {0: [HOSTILE]})
    answer = an_answer(HOSTILE, reasons=(HOSTILE,), heat=HOSTILE, key_slices=[a_key(caption=HOSTILE)])
    html, page = write(
        title=HOSTILE, facts=[(HOSTILE, HOSTILE)], alarm=HOSTILE, flags=[(HOSTILE, HOSTILE)], answers=[answer],
        sheets=[sheet], series=[series], left_out=(HOSTILE,), model=[(HOSTILE, HOSTILE)],
    )  # fmt: skip
    assert "<script" not in html
    assert page.all("script") == []
    assert page.words.count(HOSTILE) >= 16
    assert HOSTILE in next(a["alt"] for a in page.all("img"))


def test_same_input_same_bytes(write):
    assert write()[0] == write()[0]


def test_pictures_must_be_pictures():
    grey = np.zeros((8, 8), np.uint8)
    with pytest.raises(ValueError, match="uint8"):
        KeyPicture("axial", "a slice", grey.astype(float), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="with heat"):
        KeyPicture("axial", "a slice", grey, np.zeros((8, 9, 3), np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        Sheet("axial", grey, {})
