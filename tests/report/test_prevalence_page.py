import base64
import csv
import re

import numpy as np
import pytest
from helpers.page_head import headed
from PIL import Image

from kneessl.evaluation.bootstrap import Interval
from kneessl.evaluation.rare_positives import ARMS, READOUTS, ArmAt, Panel, PrevalenceRow, prevalence_rows
from kneessl.report.prevalence_page import write_prevalence_page, write_prevalence_png
from kneessl.report.prevalence_table import loss_text, prevalence_table, share_text, write_prevalence_csv

HOSTILE = "<script>alert('x')</script> & \"$\\frac{1}$\" _"
PREVALENCES = [0.5, 0.184, 0.01]
POSITIVES = {0.5: 1500, 0.184: 552, 0.01: 30}
N = 90
LABELS = (np.arange(N) % 3 == 0).astype(int)


def some_panels():
    """Six panels; supervised loses more, and in the first one it has failed at 1 %."""
    rng = np.random.default_rng(3)
    exams = rng.normal(size=N)

    def cell(gain):
        return {seed: gain * LABELS + exams + 0.3 * rng.normal(size=N) for seed in range(3)}

    panels = {}
    for panel in (Panel(r, b) for r in READOUTS for b in ("oversample", "weights", "none")):
        gains = {"self-supervised": (2.0, 1.9, 1.7), "supervised": (2.2, 1.5, 0.1)}
        arms = {arm: [cell(gain) for gain in own] for arm, own in gains.items()}
        if not panels:
            arms["supervised"][2] = {}
        panels[panel] = prevalence_rows(LABELS, PREVALENCES, arms, replicates=200)
    return panels


@pytest.fixture(scope="module")
def panels():
    return some_panels()


@pytest.fixture
def write(tmp_path, parse):
    def write(panels, **changes):
        content = {
            "title": "Rare", "lead": "A summary.", "data_note": "Synthetic phantom.",
            "warnings": ["1-percent-seed0 failed: no"], "facts": [("seeds", "3")], "positives": POSITIVES,
            "settings": {"fine-tuning": {"epochs": 6}, "none": {}},
            "commands": ["kneessl prevalence knees"], "task": "acl", "plane": "sagittal",
        } | changes  # fmt: skip
        head, rest = headed(content)
        write_prevalence_page(tmp_path / "page.html", head, panels=panels, **rest)
        html = (tmp_path / "page.html").read_text(encoding="utf-8")
        page = parse(html)
        assert page.open == []
        return html, page

    return write


def row(prevalence, *losses, less=None):
    """Both arms with these losses, and `(value, low, high)` of the difference."""
    auc = Interval(0.8, 0.7, 0.9, 200)
    arms = {arm: ArmAt(auc, (0.8,), Interval(v, v, v, 200)) for arm, v in zip(ARMS, losses, strict=True)}
    return PrevalenceRow(prevalence, arms, Interval(*less, 200) if less else None)


def test_shares_and_losses_in_words():
    assert [share_text(p) for p in (0.5, 0.184, 0.07, 0.01)] == ["50 %", "18.4 %", "7 %", "1 %"]
    assert loss_text(Interval(-0.0042, -0.031, 0.0219, 200)) == ("−0.4", "−3.1 to 2.2")


def test_terminal_table_has_a_block_for_each_panel(panels):
    lines = prevalence_table(panels, POSITIVES).splitlines()
    assert max(map(len, lines)) <= 120
    start = lines.index(
        "linear classifier on frozen features, from balanced labels; the rarer class weighted in the loss"
    )
    rows = panels[Panel("linear", "weights")]
    assert [line.split()[:2] for line in lines[start + 1 : start + 4]] == [
        ["1,500", "(50"],
        ["552", "(18.4"],
        ["30", "(1"],
    ]
    for line, one in zip(lines[start + 1 : start + 4], rows, strict=True):
        for arm in ARMS:
            auc, loss = one.arms[arm].auc, one.arms[arm].loss
            assert f"{auc.value:.3f} ({auc.low:.2f}–{auc.high:.2f})" in line
            assert loss is None or "{} ({})".format(*loss_text(loss)) in line
        assert one.less is None or line.endswith("{} ({})".format(*loss_text(one.less)))
    first = lines.index("the model's own output; the rarer class oversampled")
    assert lines[first + 3].split()[-1] == "failed"


def test_csv_holds_the_numbers(tmp_path, panels):
    write_prevalence_csv(tmp_path / "p.csv", panels, POSITIVES, 3000)
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as file:
        lines = {
            (line["readout"], line["balance"], float(line["prevalence"]), line["arm"]): line
            for line in csv.DictReader(file)
        }
    assert len(lines) == 6 * 3 * 2
    for (readout, balance, prevalence, arm), line in lines.items():
        one = next(r for r in panels[Panel(readout, balance)] if r.prevalence == prevalence)
        assert (line["exams"], line["positives"]) == ("3000", str(POSITIVES[prevalence]))
        found = one.arms.get(arm)
        if found is None:
            assert (line["seeds"], line["auc"], line["loss_low"], line["auc_by_seed"]) == ("0", "", "", "")
            continue
        assert line["seeds"] == "3"
        assert [float(v) for v in line["auc_by_seed"].split()] == list(found.by_seed)
        for name, interval in (("auc", found.auc), ("loss", found.loss), ("less", one.less)):
            expected = [str(v) for v in (interval.value, interval.low, interval.high)] if interval else [""] * 3
            assert [line[name], line[f"{name}_low"], line[f"{name}_high"]] == expected
    assert lines["model", "oversample", 0.01, "supervised"]["auc"] == ""


def test_page_is_whole_and_loads_nothing(write, panels):
    html, page = write(panels)
    assert page.all("script") == page.all("link") == page.all("iframe") == []
    assert not re.search(r"url\(|@import|https?://", html)
    assert [a["id"] for a in page.all("section")] == ["figure", "results", "reading", "settings", "commands"]
    words = page.words
    assert words.index("1-percent-seed0 failed: no") < words.index("Synthetic phantom.")
    assert "kneessl prevalence knees" in words


def test_the_table_and_the_alternative_text_say_what_the_rows_say(write, panels):
    _, page = write(panels)
    alt = page.all("img")[0]["alt"]
    assert "The model's own output; the rarer class oversampled, supervised: " in alt
    for rows in panels.values():
        for one in rows:
            assert f"{share_text(one.prevalence)} ({POSITIVES[one.prevalence]:,})" in page.words
            for found in one.arms.values():
                auc = found.auc
                assert f"{auc.value:.3f} {auc.low:.3f} to {auc.high:.3f}" in page.words
                assert f"{auc.value:.3f} at {share_text(one.prevalence)}" in alt
                if found.loss:
                    assert "{} % {}".format(*loss_text(found.loss)) in page.words
            if one.less:
                assert "{} % {}".format(*loss_text(one.less)) in page.words


def test_the_verdict_follows_the_intervals(write):
    rows = [
        row(0.5, 0, 0),
        row(0.3, 0.10, 0.02, less=(-0.08, -0.10, -0.01)),
        row(0.2, 0.10, 0.11, less=(0.01, -0.01, 0.03)),
        row(0.1, 0.05, 0.151, less=(0.101, 0.05, 0.15)),
    ]
    name = "The model's own output; classes as they are:"
    positives = {one.prevalence: 5 for one in rows}
    words = write({Panel("model", "none"): rows}, positives=positives)[1].words.replace("\u00a0", " ")
    assert (
        f"{name} self-supervised loses less at 10 %; supervised loses less at 30 %; not told apart at 20 %. "
        "At 10 %, self-supervised 5.0 % and supervised 15.1 % of the AUC at 50 % is lost."
    ) in words
    assert f"{name} not compared, since trainings failed." in write({Panel("model", "none"): rows[:1]})[1].words


def test_bars_are_drawn_to_scale(write, panels):
    """Read the intervals back from the SVG: vertical strokes in the arms' colours."""
    _, page = write(panels)
    picture = base64.b64decode(page.all("img")[0]["src"].split(",")[1]).decode()
    shown = re.findall(r'd="M ([\d.]+) ([\d.]+) \nL ([\d.]+) ([\d.]+) \n" [^>]*stroke: #(1d5fa3|b8480f)', picture)
    for arm, colour in zip(ARMS, ("1d5fa3", "b8480f"), strict=True):
        heights = sorted(float(y0) - float(y1) for x0, y0, x1, y1, own in shown if x0 == x1 and own == colour)
        found = [one.arms[arm].auc for rows in panels.values() for one in rows if arm in one.arms]
        wanted = sorted(auc.high - auc.low for auc in found)
        assert len(heights) == len(wanted) == 18 - (arm == "supervised")
        ratios = np.array(heights) / wanted
        assert ratios == pytest.approx(ratios[0], rel=1e-3)


def test_hostile_text_stays_text(write, panels):
    html, page = write(
        panels, title=HOSTILE, lead=HOSTILE, data_note=HOSTILE, warnings=[HOSTILE], facts=[(HOSTILE, HOSTILE)],
        settings={HOSTILE: {HOSTILE: HOSTILE}}, commands=[HOSTILE], task=HOSTILE, plane=HOSTILE,
    )  # fmt: skip
    assert "<script" not in html
    assert page.words.count(HOSTILE) >= 10


def test_same_input_same_bytes(write, tmp_path, panels):
    assert write(panels)[0] == write(some_panels())[0]
    for name in ("a.png", "b.png"):
        write_prevalence_png(tmp_path / name, panels)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (2000, 1200)


def test_a_page_where_everything_failed(write):
    rows = [PrevalenceRow(p, {}, None) for p in PREVALENCES]
    _, page = write({Panel("model", "none"): rows}, warnings=[])
    assert "not compared" in page.words
    assert page.all("img")[0]["alt"].count("failed") == 2
