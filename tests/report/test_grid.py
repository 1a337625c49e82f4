import base64
import csv
import re

import numpy as np
import pytest
from helpers.page_head import headed
from matplotlib.figure import Figure
from PIL import Image

from kneessl.evaluation.gap import Cell, OverSeeds, gap_points
from kneessl.evaluation.imbalance import GROUPS
from kneessl.report import figures, wording
from kneessl.report.grid_content import IN_DOMAIN, OUT_OF_DOMAIN, READOUTS, GridRow, ReadoutOverSeeds, ratio_text
from kneessl.report.grid_figures import LABELS, keys, lines, picture, write_png
from kneessl.report.grid_page import write_grid_page
from kneessl.report.grid_table import grid_table, interval_text, spread_text, write_grid_csv
from kneessl.report.grid_verdict import verdicts

CLASSES = ["cat", "dog", "eel"]
HOSTILE = "<script>alert('x')</script> & \"$\\frac{1}$\" _"


def seeded(values) -> dict[int, float]:
    return dict(enumerate(values))


def some_rows(accuracies: dict[Cell, list[float]], ood: bool = False) -> list[GridRow]:
    """Rows of a grid whose cells have these accuracies, and 0.1 more out of domain."""
    points = {IN_DOMAIN: gap_points({cell: seeded(own) for cell, own in accuracies.items()}, "supervised")}
    if ood:
        more = {cell: seeded(a + 0.1 for a in own) for cell, own in accuracies.items()}
        points[OUT_OF_DOMAIN] = gap_points(more, "supervised")
    rows = []
    for cell, own in accuracies.items():
        accuracy = OverSeeds.of(seeded(own))
        readouts = {}
        for k, name in enumerate(READOUTS):
            if accuracy and (name != "trained" or cell.arm == "supervised"):
                less = OverSeeds.of(seeded(a - 0.05 * k for a in own))
                parts = {
                    part: OverSeeds.of(seeded(a - 0.05 * k - 0.01 * j for a in own)) for j, part in enumerate(CLASSES)
                }
                readouts[name] = ReadoutOverSeeds(less, dict(zip(GROUPS, parts.values(), strict=True)), parts)
        domains = {domain: own_points[cell] for domain, own_points in points.items()}
        rows.append(GridRow(cell, (700, 200, 100), domains, readouts))
    return rows


def two_sizes(ood: bool = True) -> list[GridRow]:
    """Two arms, two n, three r, three seeds; the supervised arm loses clearly more at n = 2,000, unclearly at 500."""
    rng = np.random.default_rng(1)
    found = {}
    for n in (500, 2000):
        for ratio in (1.0, 0.1, 0.01):
            for arm, lost in (("simclr", 0.02), ("supervised", 0.12)):
                noise = rng.normal(0, 0.004 if n == 2000 else 0.08, 3)
                found[Cell(arm, n, ratio)] = list(0.6 + n / 20_000 + lost * np.log10(ratio) / 2 + noise)
    return some_rows(found, ood)


@pytest.fixture
def write(tmp_path, parse):
    def write(rows, **changes):
        content = {
            "title": "A long tail", "lead": "A summary.", "warnings": ["simclr-n500-r0.1-seed1 failed: no"],
            "facts": [("seeds", "3")], "classes": CLASSES, "reference": "supervised", "elsewhere": "other pictures",
            "settings": {"simclr": {"epochs": 6}, "supervised": {}}, "commands": ["kneessl imbalance-grid cifar"],
        } | changes  # fmt: skip
        head, rest = headed(content)
        write_grid_page(tmp_path / "page.html", head, rows=rows, **rest)
        html = (tmp_path / "page.html").read_text(encoding="utf-8")
        page = parse(html)
        assert page.open == []
        return html, page

    return write


def panels(monkeypatch, tmp_path, rows, measure):
    """The axes of a figure that was written."""
    seen = []

    def keep(figure, *args, **options):
        seen.append(figure)
        return original(figure, *args, **options)

    original = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", keep)
    write_png(tmp_path / f"{measure}.png", rows, measure)
    return seen[0].axes, [text.get_text() for text in seen[0].legends[0].get_texts()]


def curves(axes):
    """What is drawn under each label: (x, y, bars)."""
    found = {}
    for container, label in zip(*axes.get_legend_handles_labels(), strict=True):
        line, _, bars = container.lines
        found[label] = (line.get_xdata(), line.get_ydata(), [segment[:, 1] for segment in bars[0].get_segments()])
    return found


@pytest.mark.parametrize("measure", ["accuracy", "gap"])
def test_over_images_a_line_for_each_arm_and_ratio_in_two_panels(monkeypatch, tmp_path, measure):
    rows = two_sizes()
    axes, legend = panels(monkeypatch, tmp_path, rows, measure)
    assert [a.get_title(loc="left") for a in axes] == ["In domain", "Out of domain"]
    assert {a.get_ylabel() for a in axes} == {LABELS[measure]}
    assert {a.get_xlabel() for a in axes} == {"Training images n"}
    ratios = ["1", "0.1", "0.01"] if measure == "accuracy" else ["0.1", "0.01"]
    assert legend == [f"{arm}, r = {r}" for r in ratios for arm in ("simclr", "supervised")]
    for domain, panel in zip((IN_DOMAIN, OUT_OF_DOMAIN), axes, strict=True):
        drawn = curves(panel)
        assert list(drawn) == legend
        for label, (xs, ys, bars) in drawn.items():
            arm, ratio = label.split(", r = ")
            for k, n in enumerate((500, 2000)):
                point = next(r for r in rows if r.cell == (arm, n, float(ratio))).domains[domain]
                value = point.accuracy if measure == "accuracy" else point.gap
                assert xs[k] == pytest.approx(n, rel=0.1)
                assert ys[k] == pytest.approx(100 * value.mean)
                assert bars[k] == pytest.approx([100 * (value.mean - value.sd), 100 * (value.mean + value.sd)])
        places = [xs[0] for xs, *_ in drawn.values()]
        assert places == sorted(set(places)), "bars stand side by side, in the legend's order"
    with Image.open(tmp_path / f"{measure}.png") as image:
        assert image.size == (1600, 720)


def test_of_one_number_of_images_over_the_ratio(monkeypatch, tmp_path):
    rows = [row for row in two_sizes(ood=False) if row.cell.images == 2000]
    for measure, ratios in (("accuracy", [0.01, 0.1, 1.0]), ("gap", [0.01, 0.1])):
        with monkeypatch.context() as patch:
            axes, legend = panels(patch, tmp_path, rows, measure)
        assert len(axes) == 1
        assert legend == ["simclr", "supervised"]
        left, right = axes[0].get_xlim()
        assert left > right, "the ratio falls from left to right"
        drawn = curves(axes[0])
        for arm, (xs, ys, _) in drawn.items():
            assert list(xs) == pytest.approx(ratios, rel=0.1)
            values = {row.cell.ratio: row.domains[IN_DOMAIN] for row in rows if row.cell.arm == arm}
            expected = [values[r].accuracy if measure == "accuracy" else values[r].gap for r in ratios]
            assert list(ys) == pytest.approx([100 * value.mean for value in expected])
        assert drawn["simclr"][0][0] > drawn["supervised"][0][0], "the first arm stands to the left"
        assert [tick.get_text() for tick in axes[0].get_xticklabels()] == [ratio_text(r) for r in ratios]


def test_lines_differ_in_more_than_colour():
    drawn = lines(two_sizes(), IN_DOMAIN, "accuracy")
    assert len({(line.key.dashes, line.marker, line.filled) for line in drawn}) == len(drawn) == 6
    assert {line.key.colour for line in drawn} == set(figures.COLOURS[:2])
    assert [key.name for key in keys(two_sizes(), "gap")] == [
        f"{arm}, r = {r}" for r in ("0.1", "0.01") for arm in ("simclr", "supervised")
    ]


def test_a_grid_with_holes_is_drawn(write, tmp_path):
    """A balanced cell that failed takes the gaps with it; one seed has no bars; one arm has nothing beside it."""
    rows = some_rows({Cell("simclr", 500, 1.0): [], Cell("simclr", 500, 0.1): [0.5]})
    for measure in ("accuracy", "gap"):
        write_png(tmp_path / "a.png", rows, measure)
    _, page = write(rows)
    assert len(page.all("img")) == 1
    assert "failed" in page.words
    assert "Which arm loses less" not in page.words
    assert "50.0" in page.words
    assert re.search(r"500 +1 +simclr +failed", grid_table(rows))


def test_page_is_whole_and_loads_nothing(write):
    html, page = write(two_sizes())
    assert page.all("script") == page.all("link") == page.all("iframe") == []
    assert not re.search(r"url\(|@import|https?://", html)
    assert [a["id"] for a in page.all("section")] == [
        "verdict", "figures", "results", "readouts", "reading", "settings", "commands"
    ]  # fmt: skip
    assert "simclr-n500-r0.1-seed1 failed: no" in page.words
    assert "Out of domain: other pictures." in page.words
    assert "The 8 comparisons above are not adjusted" in page.words
    for image in page.all("img"):
        assert base64.b64decode(image["src"].split(",")[1]).startswith(b"<?xml")


def test_the_page_holds_the_numbers(write):
    rows = two_sizes()
    _, page = write(rows)
    for row in rows:
        for point in row.domains.values():
            assert spread_text(point.accuracy) in page.words
            if point.gap:
                assert f"{spread_text(point.gap)} {interval_text(point.gap)} seeds" in page.words
                assert (
                    f"{wording.number_text(100 * point.gap.mean, 1)} at {row.cell.images:,} images"
                    in page.all("img")[1]["alt"]
                )
        for name, readout in row.readouts.items():
            words = [READOUTS[name], *map(spread_text, (readout.accuracy, *readout.groups.values()))]
            assert f"{row.cell.arm} {ratio_text(row.cell.ratio)} {' '.join(words)}" in page.words
            each = [spread_text(readout.per_class[label]) for label in CLASSES]
            assert f"{row.cell.images:,} {ratio_text(row.cell.ratio)} {' '.join(each)}" in page.words
    assert "700 200 100" in page.words


def test_a_gain_has_a_proper_minus_sign(write):
    html, page = write(two_arms([-0.04, -0.06], [0.0, 0.02]))
    assert "−5.0 ± 1.4" in page.words
    assert "seeds −4.0, −6.0" in page.words
    assert "simclr: −5.0 at r = 0.1" in page.all("img")[1]["alt"]
    assert not re.search(r"[ >]-\d", html.split("</style>")[1])


def test_without_another_data_set_nothing_is_said_of_it(write):
    rows = two_sizes(ood=False)
    _, page = write(rows)
    assert "out of domain" not in page.words.lower()
    assert ", out" not in grid_table(rows)


def test_hostile_text_stays_text(write):
    html, page = write(
        two_sizes(), title=HOSTILE, lead=HOSTILE, warnings=[HOSTILE], facts=[(HOSTILE, HOSTILE)], elsewhere=HOSTILE,
        classes=[HOSTILE, "a", "b"], settings={HOSTILE: {HOSTILE: HOSTILE}}, commands=[HOSTILE],
    )  # fmt: skip
    assert "<script" not in html
    assert page.words.count(HOSTILE) >= 12


def test_same_input_same_bytes(write, tmp_path):
    rows = two_sizes()
    assert write(rows)[0] == write(rows)[0]
    assert picture(rows, "gap") == picture(rows, "gap")
    for name in ("a.png", "b.png"):
        write_png(tmp_path / name, rows, "gap")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def two_arms(own: list[float], theirs: list[float]) -> list[GridRow]:
    """Both arms are right half of the time where balanced, and lose these shares of it at ratio 0.1."""
    found = {Cell(arm, 1200, 1.0): [0.5] * len(own) for arm in ("simclr", "supervised")}
    found[Cell("simclr", 1200, 0.1)] = [0.5 * (1 - gap) for gap in own]
    found[Cell("supervised", 1200, 0.1)] = [0.5 * (1 - gap) for gap in theirs]
    return some_rows(found)


@pytest.mark.parametrize(
    ("own", "theirs", "summary", "ending"),
    [
        (
            [0.04, 0.05, 0.06], [0.13, 0.15, 0.17], "In domain, simclr loses less than supervised.",
            "10.00 points (95 % interval 7.52 to 12.48, 3 seeds); the interval excludes 0: simclr loses less.",
        ),
        (
            [0.13, 0.15, 0.17], [0.04, 0.05, 0.06], "In domain, supervised loses less than simclr.",
            "−10.00 points (95 % interval −12.48 to −7.52, 3 seeds); the interval excludes 0: supervised loses less.",
        ),
        (
            [0.05, 0.05], [0.04, 0.26], "In domain, these seeds do not tell whether simclr or supervised loses less.",
            "10.00 points (95 % interval −129.77 to 149.77, 2 seeds); the interval holds 0, so which loses less is not "
            "told.",
        ),
        (
            [0.05], [0.15], "In domain, these seeds do not tell whether simclr or supervised loses less.",
            "10.00 points, of one seed, so without an interval.",
        ),
        (
            [0.0, 0.0], [0.5, 0.5], "In domain, these seeds do not tell whether simclr or supervised loses less.",
            "50.00 points (95 % interval 50.00 to 50.00, 2 seeds), the same with every seed, so the interval has no "
            "width and tells nothing.",
        ),
    ],
)  # fmt: skip
def test_the_verdict_says_what_the_interval_bears(write, own, theirs, summary, ending):
    rows = two_arms(own, theirs)
    (verdict,) = verdicts(rows, "supervised")
    assert verdict.summary == summary
    mean, other = (f"{100 * np.mean(gaps):.1f} %" for gaps in (own, theirs))
    start = f"1,200 images, r = 0.1: Δ is {mean} for simclr and {other} for supervised; the difference, supervised"
    assert verdict.cells == [f"{start} less simclr, is {ending}"]
    _, page = write(rows)
    assert summary in page.words
    assert verdict.cells[0] in page.words
    assert "not adjusted" not in page.words, "there is one comparison"
    claims = page.words.split("How to read this")[0]
    assert ("simclr loses less" in claims) == (summary == "In domain, simclr loses less than supervised.")


def test_several_comparisons_are_counted():
    in_domain, elsewhere = verdicts(two_sizes(), "supervised")
    differences = [row.domains[IN_DOMAIN].less for row in two_sizes() if row.domains[IN_DOMAIN].less]
    fewer = sum(less.low > 0 for less in differences)
    assert 0 < fewer < 4, "the example has some of either kind"
    assert in_domain.summary == (
        f"In domain, of 4 comparisons: simclr loses less than supervised in {fewer}, supervised less than simclr in "
        f"none, not told apart by these seeds in {4 - fewer}."
    )
    assert elsewhere.summary.startswith("Out of domain, of 4 comparisons: ")


def test_terminal_table():
    rows = two_sizes()
    text = grid_table(rows).splitlines()
    assert max(map(len, text)) <= 120
    assert [line.split()[:3] for line in text[1:13]] == [
        [f"{row.cell.images:,}", ratio_text(row.cell.ratio), row.cell.arm] for row in rows
    ]
    for line, row in zip(text[1:13], rows, strict=True):
        point = row.domains[OUT_OF_DOMAIN]
        assert spread_text(point.accuracy) in line
        gap = f"{100 * point.gap.mean:.1f} ({interval_text(point.gap)})" if point.gap else "ref."
        assert gap.replace("-", "−") in line
        assert spread_text(row.readouts["linear"].accuracy) in line
        last = row.readouts["trained" if row.cell.arm == "supervised" else "linear"]
        assert line.endswith(spread_text(last.accuracy))


def test_numbers_in_words():
    one, three = OverSeeds.of({0: -0.0312}), OverSeeds.of({0: 0.5, 1: 0.52, 2: 0.54})
    assert (spread_text(None), spread_text(one), spread_text(three)) == ("–", "−3.1", "52.0 ± 2.0")
    assert (interval_text(one), interval_text(three)) == ("one seed", "47.0 to 57.0")
    assert [ratio_text(r) for r in (1.0, 0.01, 0.005, 1 / 3)] == ["1", "0.01", "0.005", "0.333333333333"]


def test_csv_is_unrounded_and_empty_where_there_is_nothing(tmp_path):
    rows = some_rows({Cell("simclr", 500, 1.0): [1 / 3, 2 / 3], Cell("simclr", 500, 0.1): []})
    write_grid_csv(tmp_path / "grid.csv", rows)
    with (tmp_path / "grid.csv").open(newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert first["accuracy_by_seed"] == f"{1 / 3} {2 / 3}"
    assert first["counts"] == "700 200 100"
    assert float(first["accuracy_sd"]) == pytest.approx(np.std([1 / 3, 2 / 3], ddof=1))
    assert {v for k, v in second.items() if k not in {"arm", "images", "ratio", "counts"}} == {""}
