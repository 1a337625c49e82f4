import base64
import csv
import math
import re

import numpy as np
import pytest
from helpers.page_head import headed
from PIL import Image

from kneessl.evaluation.labels_needed import LabelsNeeded, label_curve
from kneessl.report.label_curve_page import write_label_curve_page, write_label_curve_png
from kneessl.report.label_curve_table import label_curve_table, needed_text, write_label_curve_csv

HOSTILE = "<script>alert('x')</script> & \"$\\frac{1}$\" _"
COUNTS = [8, 40, 1200]
N = 90
LABELS = (np.arange(N) % 3 == 0).astype(int)


def some_points(other="byol"):
    """Two starts, the first seed of the reference's largest number failed, and all of the other's smallest."""
    rng = np.random.default_rng(3)
    exams = rng.normal(size=N)

    def cell(gain):
        return {seed: gain * LABELS + exams + 0.3 * rng.normal(size=N) for seed in range(3)}

    arms = {"random": [cell(g) for g in (0.2, 0.8, 1.6)], other: [{}, *(cell(g) for g in (1.4, 2.4))]}
    del arms["random"][2][0]
    return label_curve(LABELS, COUNTS, arms, "random", replicates=200)


@pytest.fixture
def write(tmp_path, parse):
    def write(points, **changes):
        content = {
            "title": "Labels", "lead": "A summary.", "data_note": "Synthetic phantom.",
            "warnings": ["byol-8 failed: no"], "facts": [("seeds", "3")],
            "settings": {"fine-tuning": {"epochs": 6}, "none": {}},
            "commands": ["kneessl label-curve knees"], "task": "acl", "plane": "sagittal",
        } | changes  # fmt: skip
        head, rest = headed(content)
        write_label_curve_page(tmp_path / "page.html", head, points=points, reference="random", **rest)
        html = (tmp_path / "page.html").read_text(encoding="utf-8")
        page = parse(html)
        assert page.open == []
        return html, page

    return write


@pytest.mark.parametrize(
    ("labels", "low", "high", "words"),
    [
        (90.4, 52.0, math.inf, ("90", "52 to > 1,200", "× 2.3")),
        (0.0, 0.0, 8.0, ("< 8", "< 8 to 8", "< × 0.2")),
        (math.inf, 1100.0, math.inf, ("> 1,200", "1,100 to > 1,200", "> × 30")),
    ],
)
def test_labels_needed_in_words(labels, low, high, words):
    assert needed_text(LabelsNeeded(40, labels, low, high, 8, 1200)) == words


def test_terminal_table():
    points = some_points()
    lines = label_curve_table(points, "random").splitlines()
    assert max(map(len, lines)) <= 120
    rows = [line.split()[:2] for line in lines[1:7]]
    assert rows == [[count, arm] for count in ("8", "40", "1,200") for arm in ("random", "byol")]
    assert lines[2].split() == ["8", "byol", "failed"]
    point = next(p for p in points if (p.arm, p.labels) == ("byol", 40))
    interval = point.auc.interval
    for text in (
        f"{interval.auc:.3f} ({interval.low:.2f}–{interval.high:.2f})",
        f"{min(point.auc.by_seed):.2f}–{max(point.auc.by_seed):.2f}",
        f"+{point.auc.difference.difference:.3f}",
        "{} ({})  ".format(*needed_text(point.needed)),
    ):
        assert text in lines[4]
    assert "ref." in lines[3]


def test_csv_holds_the_numbers(tmp_path):
    points = some_points()
    write_label_curve_csv(tmp_path / "c.csv", points, 2400)
    with (tmp_path / "c.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [(line["start"], int(line["labels"])) for line in lines] == [(p.arm, p.labels) for p in points]
    for line, point in zip(lines, points, strict=True):
        assert float(line["fraction"]) == point.labels / 2400
        if point.auc is None:
            assert (line["seeds"], line["auc"], line["needed"], line["needed_low"]) == ("0", "", "", "")
            continue
        assert float(line["auc_high"]) == point.auc.interval.high
        assert [float(v) for v in line["auc_by_seed"].split()] == list(point.auc.by_seed)
        if point.arm != "random":
            assert float(line["difference"]) == point.auc.difference.difference
            assert float(line["p_holm"]) == point.auc.p_holm
            assert float(line["p_false"]) == point.auc.difference.p_false
            for name in ("labels", "low", "high", "ratio"):
                assert float(line[f"needed_{name}"]) == getattr(point.needed, name)
    assert lines[2]["seeds"] == "2"


def test_page_is_whole_and_loads_nothing(write):
    html, page = write(some_points())
    assert page.all("script") == page.all("link") == page.all("iframe") == []
    assert not re.search(r"url\(|@import|https?://", html)
    assert [a["id"] for a in page.all("section")] == ["curve", "results", "reading", "settings", "commands"]
    words = page.words
    assert words.index("byol-8 failed: no") < words.index("Synthetic phantom.")
    assert "kneessl label-curve knees" in words
    assert "failed; the warnings above say why" in words
    assert "for all 2 comparisons" in words


def test_the_table_says_what_the_points_say(write):
    points = some_points()
    _, page = write(points)
    for point in points:
        if point.auc is None:
            continue
        expected = [f"{point.auc.interval.auc:.3f}", f"{point.auc.interval.low:.3f} to {point.auc.interval.high:.3f}"]
        if point.needed:
            expected += needed_text(point.needed)
            p = point.auc.p_holm
            expected += [f"adjusted p {p:.3f}" if p >= 0.001 else "adjusted p < 0.001"]
        assert [text for text in expected if text not in page.words] == []
        assert f"{point.auc.interval.auc:.3f} with {point.labels:,} labels" in page.all("img")[0]["alt"]
    byol = {p.labels: p.auc for p in points if p.arm == "byol" and p.auc}
    better = [f"{n:,} labels" for n, auc in byol.items() if auc.p_holm < 0.05]
    assert better, "the example has something to find"
    assert f"byol: better: {', '.join(better)}; worse: none" in page.words


def test_bars_are_drawn_to_scale(write):
    """Read the intervals back from the SVG: vertical strokes in the arms' colours, against the gridlines."""
    points = some_points()
    _, page = write(points)
    picture = base64.b64decode(page.all("img")[0]["src"].split(",")[1]).decode()
    shown = re.findall(r'd="M ([\d.]+) ([\d.]+) \nL ([\d.]+) ([\d.]+) \n" [^>]*stroke: #(1d5fa3|b8480f)', picture)
    bars = [(float(y0) - float(y1), colour) for x0, y0, x1, y1, colour in shown if x0 == x1]
    heights = {"1d5fa3": [], "b8480f": []}
    for height, colour in bars:
        heights[colour].append(height)
    wanted = {
        colour: [p.auc.interval.high - p.auc.interval.low for p in points if p.arm == arm and p.auc]
        for arm, colour in (("random", "1d5fa3"), ("byol", "b8480f"))
    }
    assert (
        {c: len(h) for c, h in heights.items()} == {c: len(w) for c, w in wanted.items()} == {"1d5fa3": 3, "b8480f": 2}
    )
    ratios = [h / w for colour in heights for h, w in zip(heights[colour], wanted[colour], strict=True)]
    assert ratios == pytest.approx([ratios[0]] * 5, rel=1e-4)


def test_hostile_names_stay_text(write, tmp_path):
    points = some_points(HOSTILE)
    html, page = write(
        points, title=HOSTILE, lead=HOSTILE, data_note=HOSTILE, warnings=[HOSTILE], facts=[(HOSTILE, HOSTILE)],
        settings={HOSTILE: {HOSTILE: HOSTILE}}, commands=[HOSTILE], task=HOSTILE, plane=HOSTILE,
    )  # fmt: skip
    assert "<script" not in html
    assert page.words.count(HOSTILE) >= 14
    write_label_curve_png(tmp_path / "c.png", points)


def test_same_input_same_bytes(write, tmp_path):
    points = some_points()
    assert write(points)[0] == write(points)[0]
    for name in ("a.png", "b.png"):
        write_label_curve_png(tmp_path / name, points)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (1520, 920)


def test_one_number_of_labels_and_one_start(write):
    points = label_curve(LABELS, [8], {"random": [{0: LABELS + 0.0}]}, "random")
    _, page = write(points, warnings=[])
    assert "1.000" in page.words
    assert "comparisons" not in page.words
    assert "random" in label_curve_table(points, "random")
