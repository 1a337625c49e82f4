import base64
import io
import re
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from kneessl.errors import UserError
from kneessl.evaluation import compare_auc, summarise
from kneessl.report import Arm, Curve, Mistake, Views, write_report

HOSTILE = "<script>alert('x')</script> & \"$\\frac{1}$\" 膝 _"


def an_arm(name="pre-trained", seed=0, shift=2.0, mistakes=()):
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], (40, 30))
    scores = 1 / (1 + np.exp(-rng.normal(shift * (labels - 0.5))))
    return Arm(name, [f"{i:04d}" for i in range(70)], labels, scores, mistakes)


def some_slices(k=3, height=48, width=48):
    return np.random.default_rng(k).integers(0, 256, (k, height, width), dtype=np.uint8)


ARMS_ONLY = {"curves": [], "views": [], "data": [], "settings": {}}


def content(**changes):
    full = {
        "title": "Pre-training helps",
        "lead": "A summary.",
        "facts": [("Method", "BYOLMed2D")],
        "data": [{"split": "train", "exams": 1130}, {"split": "valid", "exams": 120, "note": "read once"}],
        "data_note": "Synthetic phantom: says nothing about patients.",
        "settings": {"optimiser": {"lr": 0.3, "betas": [0.9, 0.99], "amsgrad": False, "seed": None}},
        "curves": [Curve("run 1", [{"epoch": e, "loss": 8.0 * 0.8**e, "lr": 0.1} for e in range(30)])],
        "warnings": ["The features have collapsed."],
        "views": [Views("exam 0001", [("slices as they are", some_slices()), ("view T", some_slices())])],
        "arms": [
            an_arm(mistakes=[Mistake("0041", 1, 0.03, some_slices(2), ["slice 3 of 9", "slice 4 of 9"])]),
            an_arm("from random weights", seed=1, shift=1.0),
        ],
        "task": "acl",
        "plane": "sagittal",
    }
    return full | changes


@pytest.fixture
def write(tmp_path, parse):
    def write(**changes):
        write_report(tmp_path / "report.html", **content(**changes))
        html = (tmp_path / "report.html").read_text(encoding="utf-8")
        page = parse(html)
        assert page.open == []
        return html, page

    return write


def svgs(page):
    prefix = "data:image/svg+xml;base64,"
    sources = [image["src"] for image in page.all("img")]
    return [base64.b64decode(s.removeprefix(prefix)).decode() for s in sources if s.startswith(prefix)]


def pngs(page):
    prefix = "data:image/png;base64,"
    sources = [image["src"] for image in page.all("img")]
    return [Image.open(io.BytesIO(base64.b64decode(s.removeprefix(prefix)))) for s in sources if s.startswith(prefix)]


def test_nothing_is_loaded_from_elsewhere(write):
    html, page = write()
    assert page.all("script") == page.all("link") == page.all("iframe") == []
    assert not [a for _, a in page.tags if "href" in a or "srcset" in a]
    assert not [name for _, a in page.tags for name in a if name.startswith("on")]
    assert all(a["src"].startswith("data:image/") for _, a in page.tags if "src" in a)
    assert len(page.all("img")) == 1 + 2 + 2 + 2 + 6  # ROC, scores, two metrics, a mistake, views
    assert "url(" not in html
    assert "@import" not in html
    assert "http://" not in html
    assert "https://" not in html
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    for svg in svgs(page):
        assert set(re.findall(r'href="(.)', svg)) <= {"#"}
        assert "<script" not in svg


def test_every_picture_has_a_text_alternative_and_its_size(write):
    _, page = write()
    for image in page.all("img"):
        assert len(image["alt"]) > 10
        assert int(image["width"]) > 0
        assert int(image["height"]) > 0


def test_hostile_names_stay_text(write):
    mistake = Mistake(HOSTILE, 1, 0.1, some_slices(1), [HOSTILE])
    html, page = write(
        title=HOSTILE,
        lead=HOSTILE,
        facts=[(HOSTILE, HOSTILE)],
        data=[{HOSTILE: HOSTILE}],
        data_note=HOSTILE,
        settings={HOSTILE: {HOSTILE: HOSTILE}},
        curves=[Curve(HOSTILE, [{"epoch": 0, HOSTILE: 1.0}])],
        warnings=[HOSTILE],
        views=[Views(HOSTILE, [(HOSTILE, some_slices(1))])],
        arms=[an_arm(HOSTILE, mistakes=[mistake]), an_arm(HOSTILE + "2", seed=1)],
        task=HOSTILE,
        plane=HOSTILE,
    )
    assert "<script" not in html
    assert page.all("script") == []
    assert page.words.count(HOSTILE) >= 15
    assert HOSTILE in page.all("img")[-1]["alt"]


def test_whole_page_in_order(write):
    _, page = write()
    sections = [attributes["id"] for attributes in page.all("section")]
    assert sections == ["data", "results", "mistakes", "curves", "views", "settings"]
    words = page.words
    assert words.index("The features have collapsed.") < words.index("Synthetic phantom") < words.index("1,130")
    assert "Finding: acl" in words
    assert "Plane: sagittal" in words
    assert "Not a medical device" in words
    assert "The threshold of 0.5 was fixed beforehand" in words


@pytest.mark.parametrize(
    ("empty", "section"),
    [("data", "data"), ("arms", "results"), ("curves", "curves"), ("views", "views"), ("settings", "settings")],
)
def test_an_empty_part_vanishes(write, empty, section):
    _, page = write(**{empty: type(content()[empty])()})
    left = {attributes["id"] for attributes in page.all("section")}
    gone = {section, "mistakes"} if empty == "arms" else {section}
    assert left == {"data", "results", "mistakes", "curves", "views", "settings"} - gone


def test_a_report_of_nothing_is_still_a_page(write):
    _, page = write(
        lead="", facts=[], data=[], data_note="", settings={}, curves=[], warnings=[], views=[], arms=[],
        task="", plane="",
    )  # fmt: skip
    assert page.all("section") == page.all("img") == page.all("dl") == []
    assert [a for a in page.all("div") if "callout" in a.get("class", "")] == []
    assert page.words.startswith("Pre-training helps Pre-training helps Not a medical device")


def test_runs_without_a_metric_have_no_section(write):
    _, page = write(curves=[Curve("stopped at once", []), Curve("only counts", [{"epoch": 0, "step": 7}])])
    assert "curves" not in {attributes["id"] for attributes in page.all("section")}


def test_the_table_says_what_summarise_says(write):
    arms = [an_arm(), an_arm("other", seed=1, shift=0.5)]
    _, page = write(**ARMS_ONLY, arms=arms)
    for arm in arms:
        s = summarise(arm.labels, arm.scores)
        expected = [f"{s.auc.auc:.3f}", f"{s.auc.low:.3f} to {s.auc.high:.3f}"]
        for share in (s.accuracy, s.sensitivity, s.specificity):
            expected += [
                f"{100 * share.value:.1f} %",
                f"{100 * share.low:.1f} to {100 * share.high:.1f}",
                f"{share.successes}/{share.n}",
            ]
        expected += [f"{s.brier:.3f}", "70", "30 positive"]
        row = page.text.index(arm.name)
        assert page.text[row + 1 : row + 1 + len(expected)] == expected
        matrix = [str(s.tn), "correct", str(s.fp), "false alarm", "labelled positive", str(s.fn), "missed", str(s.tp)]
        assert " ".join(matrix) in page.words
    assert "right in 57.1 % of these exams" in page.words


def test_the_paired_difference(write):
    arms = [an_arm(), an_arm("other", seed=1, shift=0.5)]
    _, page = write(**ARMS_ONLY, arms=arms)
    d = compare_auc(arms[1].labels, arms[1].scores, arms[0].scores)
    assert d.high < 0
    assert f"−{-d.difference:.3f} −{-d.low:.3f} to −{-d.high:.3f} " in page.words
    assert "Difference to “pre-trained”" in page.words
    assert "corrected" not in page.words
    _, three = write(**ARMS_ONLY, arms=[*arms, an_arm("third", seed=2)])
    assert "not corrected for making 2 comparisons" in three.words


def test_a_single_arm_is_compared_with_nothing(write):
    _, page = write(**ARMS_ONLY, arms=[an_arm()])
    assert "Difference" not in page.words
    assert "ROC curve" in page.text
    assert "ROC curves" not in page.text


def test_small_print_follows_the_widest_interval(write):
    arms = [an_arm(), an_arm("other", seed=1, shift=0.5)]
    widths = [summarise(a.labels, a.scores).auc for a in arms]
    reach = max(max(w.auc - w.low, w.high - w.auc) for w in widths)
    _, page = write(**ARMS_ONLY, arms=arms)
    assert (
        f"Few exams: with 70 exams, 30 of them positive, an AUC is known here only to within about ±{reach:.2f}."
    ) in page.words
    perfect = Arm("perfect", arms[0].exams, arms[0].labels, 0.2 + 0.6 * arms[0].labels)
    _, page = write(**ARMS_ONLY, arms=[perfect])
    assert "not that the AUC is known exactly" in page.words
    assert "Few exams" not in page.words


def test_arms_are_paired_by_exam_not_by_place(write):
    first, second = an_arm(), an_arm("other", seed=1)
    order = np.random.default_rng(5).permutation(70)
    shuffled = Arm("other", [second.exams[i] for i in order], second.labels[order], second.scores[order])
    assert write(**ARMS_ONLY, arms=[first, second])[0] == write(**ARMS_ONLY, arms=[first, shuffled])[0]


def test_arms_on_different_exams_are_not_compared(write):
    first, second = an_arm(), an_arm("other", seed=1)
    with pytest.raises(UserError, match="other and pre-trained were evaluated on different exams"):
        write(**ARMS_ONLY, arms=[first, replace(second, exams=[*second.exams[:-1], "9999"])])
    with pytest.raises(UserError, match="different labels for the same exams"):
        write(**ARMS_ONLY, arms=[first, replace(second, labels=1 - second.labels)])
    with pytest.raises(UserError, match="two scores for one exam"):
        write(**ARMS_ONLY, arms=[replace(first, exams=["0000"] * 70)])


def test_a_failed_report_leaves_the_old_one(write, tmp_path):
    write()
    before = (tmp_path / "report.html").read_bytes()
    with pytest.raises(UserError, match="probabilities"):
        write(**ARMS_ONLY, arms=[replace(an_arm(), scores=np.full(70, 2.0))])
    assert (tmp_path / "report.html").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_same_input_same_bytes_whatever_the_user_has_set_in_matplotlib(write):
    settings_before = dict(mpl.rcParams)
    html, _ = write()
    assert dict(mpl.rcParams) == settings_before
    with mpl.rc_context({"svg.hashsalt": None}):
        assert write()[0] == html


def test_mistakes_are_shown_with_label_probability_and_slices(write):
    missed = [Mistake(f"00{40 + i}", 1, 0.01 * i, some_slices(1)) for i in range(9)]
    alarm = Mistake("0002", 0, 0.987, some_slices(20), [f"slice {i} of 20" for i in range(1, 21)])
    _, page = write(arms=[an_arm(mistakes=[*missed, alarm])], views=[])
    words = page.words
    assert "Missed (false negatives) Exam 0040: labelled positive, probability 0.000" in words
    assert "Exam 0045" in words
    assert "Exam 0046" not in words  # six of a kind at most
    assert "False alarms (false positives) Exam 0002: labelled negative, probability 0.987" in words
    assert "(8 of 20 slices, evenly spaced)" in words
    assert "slice 1 of 20" in page.text
    assert "slice 20 of 20" in page.text
    assert len(pngs(page)) == 6 + 8


def test_slices_are_scaled_down_and_otherwise_themselves(write):
    gradient = np.broadcast_to(np.linspace(0, 255, 320).astype(np.uint8), (2, 160, 320))
    small = some_slices(1, 40, 30)
    _, page = write(arms=[], views=[Views("exam 1", [("as it is", gradient), ("small", small)])])
    first, _, tiny = pngs(page)
    assert first.size == (128, 64)
    assert first.mode == "L"
    assert np.abs(np.asarray(first)[:, 1:-1] - np.linspace(0.5, 254.5, 128)[1:-1]).max() < 3
    np.testing.assert_array_equal(np.asarray(tiny), small[0])


def test_metrics_are_drawn_where_they_exist(write):
    rows = [{"epoch": e, "loss": 8.0 * 0.5**e, "tau": 0.99 + e / 1e4} for e in range(9)]
    rows[3]["loss"] = float("nan")
    other = [{"loss": 2.0, "auc": 0.5}]
    _, page = write(curves=[Curve("a", rows), Curve("b", other)], arms=[], views=[])
    alts = [image["alt"] for image in page.all("img")]
    assert alts == [
        "loss by epoch. a: from 8 to 0.03125; b: from 2 to 2.",
        "tau by epoch. a: from 0.99 to 0.9908.",
        "auc by epoch. b: from 0.5 to 0.5.",
    ]
    assert "momentum of the target network" in page.words


def test_a_lone_value_among_missing_ones_is_a_dot(write):
    nan = float("nan")
    lone = [{"epoch": e, "linear_auc": 0.7 if e == 5 else nan, "knn_auc": nan} for e in range(30)]
    many = [{"epoch": e, "linear_auc": 0.7} for e in range(30)]
    _, page = write(curves=[Curve("a", lone)], arms=[], views=[])
    (dotted,) = svgs(page)  # a column without any value is not drawn
    assert "fill: #1d5fa3" in dotted  # only markers are filled
    assert "out of fold, on labels that training never sees" in page.words
    _, page = write(curves=[Curve("a", many)], arms=[], views=[])
    assert "fill: #1d5fa3" not in svgs(page)[0]


def test_values_read_well(write):
    _, page = write(
        settings={"s": {"a": 1e-6, "b": None, "c": True, "d": (1, 2.5), "e": {"p": 0.5}, "f": 4096, "g": [4096, 256]}}
    )
    assert "a 1e-06 b – c yes d 1, 2.5 e p: 0.5 f 4096 g 4096, 256" in page.words


def test_slices_must_be_pictures():
    with pytest.raises(ValueError, match="uint8"):
        Views("exam 1", [("row", np.zeros((3, 8, 8)))])
    with pytest.raises(ValueError, match="uint8"):
        Mistake("1", 1, 0.1, np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match="1 captions for 3 slices"):
        Mistake("1", 1, 0.1, some_slices(3), ["one"])


@pytest.mark.parametrize(("label", "score"), [(1, 0.5), (0, 0.49)])
def test_a_right_answer_is_no_mistake(label, score):
    with pytest.raises(ValueError, match="is no mistake"):
        Mistake("1", label, score, some_slices(1))


def test_an_arm_has_one_of_each():
    with pytest.raises(ValueError, match="differ in length"):
        Arm("a", ["1", "2"], np.array([0, 1]), np.array([0.5]))
