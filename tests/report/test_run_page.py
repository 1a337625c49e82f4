import base64
import io
import re

import matplotlib as mpl
import numpy as np
import pytest
from helpers.page_head import headed
from PIL import Image

from kneessl.report.content import Curve, Views
from kneessl.report.run_page import write_run_page

HOSTILE = "<script>alert('x')</script> & \"$\\frac{1}$\" 膝 _"


def some_slices(k=3, height=48, width=48):
    return np.random.default_rng(k).integers(0, 256, (k, height, width), dtype=np.uint8)


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
        "task": "acl",
        "plane": "sagittal",
    }
    return full | changes


@pytest.fixture
def write(tmp_path, parse):
    def write(**changes):
        head, rest = headed(content(**changes))
        write_run_page(tmp_path / "report.html", head, **rest)
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
    assert len(page.all("img")) == 2 + 6  # two metrics, views
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
        task=HOSTILE,
        plane=HOSTILE,
    )
    assert "<script" not in html
    assert page.all("script") == []
    assert page.words.count(HOSTILE) >= 12
    assert HOSTILE in page.all("img")[-1]["alt"]


def test_whole_page_in_order(write):
    _, page = write()
    sections = [attributes["id"] for attributes in page.all("section")]
    assert sections == ["data", "curves", "views", "settings"]
    words = page.words
    assert words.index("The features have collapsed.") < words.index("Synthetic phantom") < words.index("1,130")
    assert "Finding: acl" in words
    assert "Plane: sagittal" in words
    assert "Not a medical device" in words


@pytest.mark.parametrize("empty", ["data", "curves", "views", "settings"])
def test_an_empty_part_vanishes(write, empty):
    _, page = write(**{empty: type(content()[empty])()})
    assert {attributes["id"] for attributes in page.all("section")} == {"data", "curves", "views", "settings"} - {empty}


def test_a_report_of_nothing_is_still_a_page(write):
    _, page = write(
        lead="", facts=[], data=[], data_note="", settings={}, curves=[], warnings=[], views=[],
        task="", plane="",
    )  # fmt: skip
    assert page.all("section") == page.all("img") == page.all("dl") == []
    assert [a for a in page.all("div") if "callout" in a.get("class", "")] == []
    assert page.words.startswith("Pre-training helps Pre-training helps Not a medical device")


def test_runs_without_a_metric_have_no_section(write):
    _, page = write(curves=[Curve("stopped at once", []), Curve("only counts", [{"epoch": 0, "step": 7}])])
    assert "curves" not in {attributes["id"] for attributes in page.all("section")}


def test_same_input_same_bytes_whatever_the_user_has_set_in_matplotlib(write):
    settings_before = dict(mpl.rcParams)
    html, _ = write()
    assert dict(mpl.rcParams) == settings_before
    with mpl.rc_context({"svg.hashsalt": None}):
        assert write()[0] == html


def test_slices_are_scaled_down_and_otherwise_themselves(write):
    gradient = np.broadcast_to(np.linspace(0, 255, 320).astype(np.uint8), (2, 160, 320))
    small = some_slices(1, 40, 30)
    _, page = write(curves=[], views=[Views("exam 1", [("as it is", gradient), ("small", small)])])
    first, _, tiny = pngs(page)
    assert first.size == (128, 64)
    assert first.mode == "L"
    assert np.abs(np.asarray(first)[:, 1:-1] - np.linspace(0.5, 254.5, 128)[1:-1]).max() < 3
    np.testing.assert_array_equal(np.asarray(tiny), small[0])


def test_metrics_are_drawn_where_they_exist(write):
    rows = [{"epoch": e, "loss": 8.0 * 0.5**e, "tau": 0.99 + e / 1e4} for e in range(9)]
    rows[3]["loss"] = float("nan")
    other = [{"loss": 2.0, "auc": 0.5}]
    _, page = write(curves=[Curve("a", rows), Curve("b", other)], views=[])
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
    _, page = write(curves=[Curve("a", lone)], views=[])
    (dotted,) = svgs(page)  # a column without any value is not drawn
    assert "fill: #1d5fa3" in dotted  # only markers are filled
    assert "out of fold, on labels that training never sees" in page.words
    _, page = write(curves=[Curve("a", many)], views=[])
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
        Views("exam 1", [("row", np.zeros((8, 8), np.uint8))])
