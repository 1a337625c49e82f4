import base64
import csv
import re
from dataclasses import replace

import numpy as np
import pytest
from helpers.page_head import headed

from kneessl.evaluation import ComparedArm, compare_arms, ranked
from kneessl.report.comparison_page import write_comparison_page
from kneessl.report.comparison_table import terminal_table, write_comparison_csv
from kneessl.report.page import PageHead
from kneessl.report.wording import p_false_text

HOSTILE = "<script>alert('x')</script> & \"$\\frac{1}$\" 膝 _"
N = 50
LABELS = np.repeat([1, 0], (20, 30))


def an_arm(name, seed=0, quality=1.0, **changes):
    rng = np.random.default_rng(seed)
    logits = quality * (LABELS - 0.5) + rng.normal(size=(3, N))
    arm = ComparedArm(
        name=name,
        kind="self-supervised",
        exams=[f"{i:04d}" for i in range(N)],
        labels=LABELS,
        fine_tuned=1 / (1 + np.exp(-logits)),
        frozen=logits + rng.normal(size=(3, N)),
        parameters=11_200_000,
        seconds=[3600.0, 5400.0, 4980.0],
        memory_bytes=[3 * 2**30, 2**30, 2**30],
        collapsed=0,
        failures=[],
        published=None,
    )
    return replace(arm, **changes)


def failed(name="mae", reason="CUDA out of memory"):
    return an_arm(name, fine_tuned=None, frozen=None, seconds=[], memory_bytes=[], failures=[reason] * 3)


def some_arms():
    return [
        failed(),
        an_arm("simsiam", seed=9, quality=6.0, collapsed=2),
        an_arm("byol", seed=1, quality=0.2),
        an_arm("byolmed2d", seed=2, quality=2.0, published=(0.801, 0.733, "thesis")),
        an_arm("mrnet", seed=3, quality=1.9, frozen=None, kind="supervised", published=(0.987, 0.867, "MRNet")),
    ]


@pytest.fixture
def write(tmp_path, parse):
    def write(arms, **changes):
        content = {
            "title": "Compared",
            "lead": "A summary.",
            "data_note": "Synthetic phantom.",
            "facts": [("seeds", "3")],
            "settings": {"pre-training": {"epochs": 20}},
            "commands": ["kneessl compare --seeds 3"],
            "task": "acl",
            "plane": "sagittal",
        } | changes
        head, rest = headed(content)
        write_comparison_page(tmp_path / "page.html", head, rows=compare_arms(arms), arms=arms, **rest)
        html = (tmp_path / "page.html").read_text(encoding="utf-8")
        page = parse(html)
        assert page.open == []
        return html, page

    return write


def table_rows(html):
    """Name to the HTML of its line of the big table."""
    table = html[html.index('<table class="wide arms">') :]
    lines = re.findall(r"<tr.*?</tr>", table[table.index("<tbody>") : table.index("</tbody>")], re.DOTALL)
    return {re.search(r'class="name">([^<]*)', line)[1]: line for line in lines}


def forests(html):
    """One list of (name, SVG) for each forest plot."""
    plots = html.split('<table class="forest">')[1:]
    return [re.findall(r'<th scope="row"[^>]*>([^<]*).*?(<svg role.*?</svg>)', plot, re.DOTALL) for plot in plots]


def test_terminal_table_sorts_and_flags():
    arms = some_arms()
    rows = compare_arms(arms)
    lines = terminal_table(rows).splitlines()
    assert lines[1].split() == [
        *("method", "AUC", "(95", "%)", "seeds", "acc.", "diff.", "p", "P(F)"),
        *("AUC", "(95", "%)", "diff.", "p", "P(F)", "published"),
    ]
    names = [line[2:].split()[0] for line in lines[2:] if line[2:3].strip() and line[:2].strip() in ("", "!")]
    assert names[:5] == ["byolmed2d", "mrnet", "byol", "simsiam", "mae"]
    assert any(line.startswith("! simsiam ") for line in lines)
    assert any(line.strip() == "collapsed in 2 of 3 seeds" for line in lines)
    assert any(
        line.startswith("! mae ") and line.endswith("failed in all 3 seeds: CUDA out of memory") for line in lines
    )
    byol = rows[2]
    shown = next(line for line in lines if line.startswith("  byol "))
    for auc in (byol.fine_tuned, byol.frozen):
        assert f"{auc.interval.auc:.3f} ({auc.interval.low:.2f}–{auc.interval.high:.2f})" in shown
        assert f"−{-auc.difference.difference:.3f}" in shown
    assert f"{100 * byol.accuracy.value:.1f} %" in shown
    assert "published elsewhere (MRNet, other exams), not measured here" in lines[-1]


def test_terminal_table_is_aligned_and_fits():
    arms = [an_arm("byolmed2d"), *(an_arm(f"method_{i:02d}_with_name", seed=i) for i in range(1, 19)), failed()]
    lines = terminal_table(compare_arms(arms)).splitlines()
    assert max(map(len, lines)) <= 120
    ends = {line.index(") ") for line in lines[2:20]}
    assert len(ends) == 1


def test_terminal_table_leaves_out_empty_columns():
    lines = terminal_table(compare_arms([an_arm("byolmed2d", frozen=None)])).splitlines()
    assert lines[1].split() == ["method", "AUC", "(95", "%)", "seeds", "acc.", "diff."]
    assert "failed in all 3 seeds" in terminal_table(compare_arms([failed("byolmed2d")]))


def test_a_reason_cannot_take_over_the_terminal():
    text = terminal_table(compare_arms([failed("byolmed2d", "no\nmemory\x1b[31m\r"), an_arm("byol")]))
    assert "no memory [31m" in text
    assert "\x1b" not in text


def test_csv_holds_the_numbers(tmp_path):
    arms = some_arms()
    rows = compare_arms(arms)
    write_comparison_csv(tmp_path / "c.csv", rows)
    with (tmp_path / "c.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [line["name"] for line in lines] == [arm.name for arm in arms]
    assert [line["status"] for line in lines] == ["failed", "collapsed", "sound", "sound", "sound"]
    assert lines[1]["flags"] == "collapsed in 2 of 3 seeds"
    byol, line = rows[2], lines[2]
    for what, auc in (("fine_tuned", byol.fine_tuned), ("frozen", byol.frozen)):
        assert float(line[f"{what}_auc"]) == auc.interval.auc
        assert float(line[f"{what}_auc_low"]) == auc.interval.low
        assert [float(value) for value in line[f"{what}_auc_by_seed"].split()] == list(auc.by_seed)
        assert float(line[f"{what}_difference_high"]) == auc.difference.high
        assert float(line[f"{what}_p"]) == auc.difference.p
        assert float(line[f"{what}_p_holm"]) == auc.p_holm
        assert float(line[f"{what}_p_false"]) == auc.difference.p_false == auc.difference.p / 2
    assert float(line["fine_tuned_accuracy"]) == byol.accuracy.value
    assert float(line["fine_tuned_accuracy_p_false"]) == byol.accuracy_p_false
    assert lines[0]["fine_tuned_auc"] == lines[3]["fine_tuned_p"] == lines[4]["frozen_auc"] == ""
    assert (lines[3]["published_elsewhere_auc"], lines[2]["published_elsewhere_auc"]) == ("0.801", "")


def test_page_loads_nothing_and_runs_nothing(write):
    html, page = write(some_arms())
    assert page.all("script") == page.all("link") == page.all("iframe") == []
    assert not [a for _, a in page.tags if "href" in a or "srcset" in a]
    assert not [name for _, a in page.tags for name in a if name.startswith("on")]
    assert all(a["src"].startswith("data:image/") for _, a in page.tags if "src" in a)
    assert not re.search(r"url\(|@import|https?://", html)


def test_page_in_order_with_text_for_every_picture(write):
    _, page = write(some_arms())
    assert [a["id"] for a in page.all("section")] == [
        "results", "forest", "roc", "reading", "cost", "settings", "commands",
    ]  # fmt: skip
    words = page.words
    assert words.index("mae failed in all 3 seeds: CUDA out of memory.") < words.index("Synthetic phantom.")
    assert "simsiam collapsed in 2 of 3 seeds." in words
    assert "kneessl compare --seeds 3" in words
    for image in page.all("img"):
        assert image["alt"].startswith("ROC curve of ")
    for svg in page.all("svg"):
        assert svg.get("aria-hidden") == "true" or re.match(r"AUC [01]\.\d{3}, 95 % interval", svg["aria-label"])


def test_the_table_says_what_the_rows_say(write):
    arms = some_arms()
    html, page = write(arms)
    rows = {row.name: row for row in compare_arms(arms)}
    lines = table_rows(html)
    assert list(lines) == [row.name for row in ranked(rows.values())]
    byol = rows["byol"]
    text = re.sub(r"<[^>]*>", " ", lines["byol"])
    expected = []
    for auc in (byol.fine_tuned, byol.frozen):
        expected += [f"{auc.interval.auc:.3f}", f"{auc.interval.low:.3f} to {auc.interval.high:.3f}"]
        expected += [f"seeds {min(auc.by_seed):.3f}–{max(auc.by_seed):.3f}"]
        expected += [f"−{-auc.difference.difference:.3f}"]
        expected += [f"adjusted p {auc.p_holm:.3f}" if auc.p_holm >= 0.001 else "adjusted p &lt; 0.001"]
        expected += [f"P(false) {p_false_text(auc.difference.p_false)}".replace("<", "&lt;")]
    expected += [f"{100 * byol.accuracy.value:.1f} %", f"{100 * byol.accuracy.low:.1f} to"]
    assert [item for item in expected if item not in text] == []
    assert lines["byolmed2d"].count(">reference<") == 2
    assert "right in 60.0 % of these exams" in page.words
    assert "11.2 M" in page.words
    assert "1 h 18 min" in page.words  # the mean of 3600, 5400 and 4980 s is 77.7 min
    assert "3.0 GiB" in page.words


def test_the_verdict_names_the_sound_that_differ(write):
    arms = some_arms()
    _, page = write(arms)
    rows = {row.name: row for row in compare_arms(arms)}
    assert rows["byol"].fine_tuned.p_holm < 0.05 < rows["mrnet"].fine_tuned.p_holm
    assert rows["simsiam"].fine_tuned.p_holm < 0.05
    assert "After fine-tuning: better: none; worse: byol; not told apart by these exams: 1." in page.words


def test_the_collapsed_never_look_like_a_success(write):
    html, page = write(some_arms())
    lines = table_rows(html)
    assert list(lines)[-2:] == ["simsiam", "mae"]
    for name in ("simsiam", "mae"):
        assert "<b>" not in lines[name]
        assert lines[name].startswith('<tr class="unsound">')
    assert "collapsed in 2 of 3 seeds" in lines["simsiam"]
    assert "failed in all 3 seeds: CUDA out of memory" in lines["mae"]
    assert "<b>" in lines["byol"]
    assert 'class="unsound"' not in lines["byol"]
    for forest in forests(html):
        svg = dict(forest)["simsiam"]
        assert 'fill="#fff" stroke="#8b949e" stroke-width="1.5"' in svg
        assert "#8b949e" not in dict(forest)["byol"]
        assert "mae" not in dict(forest)
    collapsed = next(i for i in page.all("img") if "simsiam" in i["alt"])
    picture = base64.b64decode(collapsed["src"].split(",")[1]).decode()
    assert "#1d5fa3" not in picture
    assert "#b8480f" not in picture


def test_a_collapsed_or_failed_reference_is_said_first(write):
    arms = [an_arm("byolmed2d", collapsed=3), an_arm("byol", seed=1)]
    _, page = write(arms)
    assert "collapsed: a difference to it says nothing of the methods." in page.words
    assert "not told apart" not in page.words
    _, page = write([failed("byolmed2d"), an_arm("byol", seed=1)])
    assert "failed: there are no differences." in page.words
    assert "dashed" not in page.words


def test_published_figures_are_only_in_their_column(write):
    html, page = write(some_arms())
    assert html.count("0.987") == 1  # not in the forest, the test or a text alternative
    assert "0.987" in table_rows(html)["mrnet"].split('class="number group aside"')[-1]
    assert "Published elsewhere (MRNet, other exams)" in page.words
    html, _ = write([an_arm("byolmed2d")])
    assert "ublished" not in html


def test_forest_positions_are_to_scale(write):
    arms = some_arms()
    html, _ = write(arms)
    rows = {row.name: row for row in compare_arms(arms)}
    axis = re.search(r'<svg class="axis".*?</svg>', html, re.DOTALL)[0]
    ticks = {float(label): float(at) for at, label in re.findall(r'x="([\d.]+)%"[^>]*>([\d.]+)<', axis)}
    low, high = min(ticks), max(ticks)
    assert low <= 0.5 <= high

    def place(auc):
        return pytest.approx(ticks[low] + (auc - low) / (high - low) * (ticks[high] - ticks[low]), abs=0.02)

    for what, forest in zip(("fine_tuned", "frozen"), forests(html), strict=True):
        assert len(forest) == sum(getattr(row, what) is not None for row in rows.values())
        for name, svg in forest:
            auc = getattr(rows[name], what)
            mean, *seeds = (float(at) for at in re.findall(r'<circle cx="([\d.]+)%"', svg))
            assert mean == place(auc.interval.auc)
            assert seeds == [place(seed) for seed in auc.by_seed]
            bar = re.search(r'x1="([\d.]+)%" x2="([\d.]+)%" y1="40%"', svg)
            assert [float(end) for end in bar.groups()] == [place(auc.interval.low), place(auc.interval.high)]
            dashed = re.search(r'x1="([\d.]+)%"[^>]*stroke-dasharray', svg)
            assert float(dashed[1]) == place(getattr(rows["byolmed2d"], what).interval.auc)
            assert float(re.search(r'class="chance" x1="([\d.]+)%"', svg)[1]) == place(0.5)


@pytest.mark.parametrize("count", [1, 2, 25])
def test_any_number_of_arms(write, count):
    arms = [an_arm("byolmed2d"), *(an_arm(f"method {i}", seed=i) for i in range(1, count))]
    html, page = write(arms)
    assert len(page.all("img")) == count
    assert [len(forest) for forest in forests(html)] == [count, count]
    assert ("is adjusted for that by Holm's method" in page.words) == (count > 2)


def test_all_failed_is_still_a_page(write):
    _, page = write([failed("byolmed2d"), failed("byol")])
    assert page.all("img") == []
    assert "byol failed in all 3 seeds: CUDA out of memory." in page.words
    assert "No method has figures to compare" in page.words


def test_one_readout_only(write):
    html, page = write([an_arm("byolmed2d", fine_tuned=None), an_arm("byol", seed=1, fine_tuned=None)])
    assert len(forests(html)) == 1
    assert "fine-tuning" not in page.words
    assert "Accuracy" not in page.words


def test_hostile_names_stay_text(write):
    arms = [
        an_arm("byolmed2d", published=(0.8, 0.7, HOSTILE)),
        an_arm(HOSTILE, seed=1, failures=[HOSTILE]),
        failed(HOSTILE + "2", HOSTILE),
    ]
    html, page = write(
        arms,
        title=HOSTILE,
        lead=HOSTILE,
        data_note=HOSTILE,
        facts=[(HOSTILE, HOSTILE)],
        settings={HOSTILE: {HOSTILE: HOSTILE}},
        commands=[HOSTILE],
        task=HOSTILE,
        plane=HOSTILE,
    )
    assert "<script" not in html
    assert page.all("script") == []
    assert page.words.count(HOSTILE) >= 15
    assert [HOSTILE in image["alt"] for image in page.all("img")].count(True) == 1


def test_same_input_same_bytes_and_a_failure_leaves_the_old_page(write, tmp_path):
    html, _ = write(some_arms())
    assert write(some_arms())[0] == html
    with pytest.raises(KeyError):
        write_comparison_page(tmp_path / "page.html", PageHead(""), rows=compare_arms(some_arms()), arms=[])
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == html
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
