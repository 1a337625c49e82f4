import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from helpers.page_head import headed
from PIL import Image
from scipy.stats import norm
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from kneessl.errors import UserError
from kneessl.evaluation import compare_auc, summarise
from kneessl.evaluation.bootstrap import bootstrap_interval, roc_area
from kneessl.evaluation.calibration import calibration
from kneessl.evaluation.decisions import NEVER, apply_points, lock, net_benefit
from kneessl.report.clinical import chapter
from kneessl.report.clinical_figures import overlay
from kneessl.report.content import Arm, Curve, Evaluated, EvaluatedFinding, Mistake, Views
from kneessl.report.evaluation_page import write_evaluation_page
from kneessl.report.operating import predictive_columns, predictive_lines, splits, states_of
from kneessl.report.subgroup_table import subgroup_tables
from kneessl.report.wording import number_text, ratio_text

HOSTILE = "<script>alert('x')</script> & \"$\\frac{1}$\" 膝 _"
N = 80
CAPTIONS = ["sagittal, slice 3 of 9", "axial, slice 1 of 9"]
KINDS = ("discrimination", "decisions", "calibration", "utility", "abstention", "subgroups", "mistakes")


def slices(k=2):
    return np.random.default_rng(k).integers(0, 256, (k, 48, 48), dtype=np.uint8)


def an_arm(name="fused", seed=0, shift=2.0, locked=True, planes=("axial+sagittal",), heat=True):
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], (N - 30, 30))
    before = 1 / (1 + np.exp(-rng.normal(shift * (labels - 0.5))))
    wrong = [i for i in range(N) if (before[i] >= 0.5) != bool(labels[i])][:3]
    mistakes = [
        Mistake(f"{i:04d}", int(labels[i]), float(before[i]), slices(), CAPTIONS,
                np.linspace(-1, 1, 2 * 48 * 48, dtype=np.float32).reshape(2, 48, 48) if heat else None)
        for i in wrong
    ]  # fmt: skip
    if not locked:
        return Arm(name, before, mistakes=mistakes, heat="What the heat is." if heat else "")
    after = before**1.3
    mistakes = [m for m in mistakes if (after[int(m.exam)] >= 0.5) != bool(m.label)]
    points = {key: lock(labels, after ** (1 + i / 5)) for i, key in enumerate(planes)}
    own = [list(points.values())[i % len(planes)] for i in range(N)]
    states = [p.state(float(v)) for p, v in zip(own, after, strict=True)]
    return Arm(name, after, before, states, points, mistakes, "What the heat is." if heat else "")


def a_finding(task="acl", repeated=False, arms=None, **changes):
    labels = np.repeat([0, 1], (N - 30, 30))
    groups = [f"p{i // 2 if repeated and i < 20 else i}" for i in range(N)]
    full = {
        "task": task, "exams": [f"{i:04d}" for i in range(N)], "labels": labels, "groups": groups,
        "arms": arms or [an_arm(), an_arm("single", seed=1, shift=1.0, locked=False)],
        "subgroups": {"laterality": (["left", "right", ""] * N)[:N], "slices": ["9 to 12"] * 40 + ["13 to 30"] * 40},
        "prevalences": {"5 %": 0.05, "23.3 %, as in MRNet": 0.233},
    }  # fmt: skip
    return EvaluatedFinding(**full | changes)


def content(**changes):
    full = {
        "title": "acl from MRI: diagnostic accuracy of a deep learning model",
        "lead": "A summary.",
        "data_note": "Synthetic phantom: says nothing about patients.",
        "warnings": [],
        "evaluated": Evaluated(
            "internal", "The same folder.", [{"finding": "acl", "evaluated": N}], "Patients by group.",
            [{"model": "fused", "network": "resnet18"}], ["Points were locked."], [("fused", "ab" * 32)],
        ),
        "data": [{"split": "valid", "plane": "sagittal", "exams": 1130}],
        "findings": [a_finding()],
        "curves": [Curve("run 1", [{"epoch": e, "loss": 8.0 * 0.8**e} for e in range(30)])],
        "views": [Views("exam 0001", [("as it is", slices())])],
        "settings": {"run 1": {"lr": 0.3}},
    }  # fmt: skip
    return full | changes


@pytest.fixture
def write(tmp_path, parse):
    def write(**changes):
        head, rest = headed(content(**{"curves": [], "views": []} | changes))
        write_evaluation_page(tmp_path / "report.html", head, **rest)
        html = (tmp_path / "report.html").read_text(encoding="utf-8")
        page = parse(html)
        assert page.open == []
        return html, page

    return write


@pytest.fixture(scope="module")
def whole_html(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    head, rest = headed(content())
    write_evaluation_page(path, head, **rest)
    return path.read_text(encoding="utf-8")


@pytest.fixture
def whole(whole_html, parse):
    """The page of `content()`, written once for all tests that only read it."""
    return whole_html, parse(whole_html)


def ids(page):
    return [attributes["id"] for _, attributes in page.tags if "id" in attributes]


def links(page):
    return [attributes["href"] for attributes in page.all("a")]


VARIANTS = {
    "whole": content(),
    "two findings": {"findings": [a_finding(arms=[an_arm()]), a_finding("meniscus", repeated=True)]},
    "nothing locked": {"findings": [a_finding(arms=[an_arm(locked=False)])]},
    "no heat": {"findings": [a_finding(arms=[an_arm(heat=False)])]},
    "no subgroups": {"findings": [a_finding(subgroups={}, arms=[an_arm()])]},
    "bare": {"data": [], "curves": [], "views": [], "settings": {}, "data_note": "",
             "findings": [a_finding(arms=[replace(an_arm(), mistakes=())])]},
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_link_leads_somewhere_and_every_id_is_one_of_its_kind(write, variant):
    _, page = write(**VARIANTS[variant])
    found = ids(page)
    assert len(found) == len(set(found))
    assert {link.removeprefix("#") for link in links(page)} <= set(found)
    assert all(link.startswith("#") for link in links(page))


def test_an_item_is_answered_only_by_a_section_that_is_there_for_every_finding(write):
    def subgroup_links(findings):
        return [link for link in links(write(findings=findings)[1]) if link.endswith("subgroups")]

    plain, without = (a_finding(arms=[Arm("a", an_arm().probabilities)], **k) for k in ({}, {"subgroups": {}}))
    both, some = [plain, plain], [without, plain]
    assert {"#finding-1-subgroups", "#finding-2-subgroups"} == set(subgroup_links(both))
    assert subgroup_links(some) == ["#finding-2-subgroups"]  # in the contents, in no checklist


@pytest.mark.parametrize("place", ["internal", "external", "unknown"])
def test_the_page_says_where_it_was_tested(write, place):
    evaluated = replace(content()["evaluated"], place=place)
    _, page = write(evaluated=evaluated, findings=[a_finding(arms=[Arm("a", an_arm().probabilities)])])
    assert place in ids(page)
    answered = {"internal": "#internal", "external": "#external"}
    assert {link for link in links(page) if link in answered.values()} == (
        {answered[place]} - {""} if place in answered else set()
    )


def test_nothing_is_loaded_from_elsewhere(whole):
    html, page = whole
    assert page.all("script") == page.all("link") == page.all("iframe") == []
    assert not [name for _, a in page.tags for name in a if name.startswith("on")]
    assert all(a["src"].startswith("data:image/") for _, a in page.tags if "src" in a)
    assert not [word for word in ("url(", "@import", "http://", "https://") if word in html]
    for image in page.all("img"):
        assert len(image["alt"]) > 10
        assert int(image["width"]) > 20
        assert int(image["height"]) > 20


def test_hostile_names_stay_text(write):
    evaluated = Evaluated("external", HOSTILE, [{HOSTILE: HOSTILE}], HOSTILE, [{HOSTILE: HOSTILE}], [HOSTILE],
                          [(HOSTILE, HOSTILE)])  # fmt: skip
    mistake = Mistake(HOSTILE, 1, 0.1, slices(), [HOSTILE, HOSTILE])
    arms = [
        replace(an_arm(HOSTILE), mistakes=[mistake], heat=HOSTILE, points={HOSTILE: an_arm().points["axial+sagittal"]})
    ]
    html, page = write(
        title=HOSTILE, lead=HOSTILE, data_note=HOSTILE, warnings=[HOSTILE], evaluated=evaluated,
        data=[{HOSTILE: HOSTILE}], curves=[Curve(HOSTILE, [{HOSTILE: 1.0}])], settings={HOSTILE: {HOSTILE: HOSTILE}},
        findings=[a_finding(HOSTILE, arms=arms, subgroups={HOSTILE: [HOSTILE] * N}, prevalences={HOSTILE: 0.1})],
    )  # fmt: skip
    assert "<script" not in html
    assert page.all("script") == []
    assert page.words.count(HOSTILE) >= 20


def test_sections_come_in_the_order_that_a_reviewer_reads(whole):
    _, page = whole
    sections = [attributes["id"] for attributes in page.all("section")]
    own = [f"finding-1-{kind}" for kind in KINDS]
    assert sections == ["evaluated", "data", "finding-1", *own, "curves", "views", "settings", "checklist"]
    words = page.words
    assert words.index("Synthetic phantom") < words.index("Not a medical device") < words.index("Internal testing")


def test_discrimination_is_what_the_measures_say(whole):
    finding = a_finding()
    _, page = whole
    for arm in finding.arms:
        s = summarise(finding.labels, arm.probabilities)
        row = page.text.index(arm.name, page.text.index("Discrimination", page.text.index("acl")))
        texts = [f"{s.auc.auc:.3f}", f"{s.auc.low:.3f} to {s.auc.high:.3f}",
                 f"{average_precision_score(finding.labels, arm.probabilities):.3f}"]  # fmt: skip
        assert page.text[row + 1 : row + 4] == texts
        assert page.text[row + 5] == "37.5 %"
    d = compare_auc(finding.labels, finding.arms[1].probabilities, finding.arms[0].probabilities)
    assert f"−{-d.difference:.3f} −{-d.low:.3f} to −{-d.high:.3f}" in page.words
    assert "patients resampled" not in page.words
    assert "every patient has one exam" in page.words


def test_patients_with_several_exams_are_resampled_whole(write):
    finding = a_finding(repeated=True)
    _, page = write(findings=[finding])
    expected = bootstrap_interval(roc_area, finding.labels, finding.arms[0].probabilities, finding.groups)
    assert f"{expected.value:.3f} {expected.low:.3f} to {expected.high:.3f}" in page.words
    assert "10 of 70 patients have more than one exam" in page.words


def test_too_few_patients_for_resampling_is_said_in_a_sentence(write):
    groups = ["one"] * 50 + [f"p{i}" for i in range(30)]
    _, page = write(findings=[a_finding(groups=groups, arms=[an_arm()])])
    assert "fused: the AUROC over patients has no interval: resampling patients needs at least 2" in page.words


def test_auc_of_replicates_is_the_auc():
    rng = np.random.default_rng(3)
    labels, scores = rng.integers(0, 2, 50), rng.integers(0, 6, 50).astype(float)
    assert roc_area(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_states_are_those_of_the_locked_points():
    arm, labels = an_arm(), a_finding().labels
    table, states = apply_points(labels, arm.probabilities, arm.points["axial+sagittal"]), states_of(arm, labels)
    assert (states.positive, states.negative, states.doubt) == (table.positive, table.negative, table.doubt)
    _, out, into = splits(arm, labels)
    assert (out.sensitivity, out.npv) == (table.sensitivity, table.npv)
    assert (into.specificity, into.ppv) == (table.specificity, table.ppv)
    assert states_of(an_arm(locked=False), labels) is None


def test_exams_with_other_planes_are_judged_by_their_own_points():
    arm, labels = an_arm(planes=("axial+sagittal", "sagittal")), a_finding().labels
    out = splits(arm, labels)[1]
    ruled = sum(
        arm.probabilities[i] < list(arm.points.values())[i % 2].rule_out for i in range(N) if labels[i] == 1
    )  # fmt: skip
    assert out.sensitivity.n - out.sensitivity.successes == ruled
    assert "each exam's planes" in out.rule


def test_predictive_values_elsewhere_follow_bayes():
    arm, labels = an_arm(), a_finding().labels
    rows = splits(arm, labels)
    (line,) = predictive_lines(rows, {"5 %": 0.05})
    assert predictive_columns(rows) == ["PPV at 0.5", "NPV at 0.5", "NPV of “no”", "PPV of “yes”"]
    p = 0.05
    for cell, row, figure in zip(line.cells, (rows[0], rows[0], rows[1], rows[2]), "pnnp", strict=True):
        se, sp = row.sensitivity.value, row.specificity.value
        ppv, npv = p * se / (p * se + (1 - p) * (1 - sp)), (1 - p) * sp / ((1 - p) * sp + p * (1 - se))
        if "adjusted" not in cell:
            assert cell[0] == f"{100 * (ppv if figure == 'p' else npv):.1f} %"
    never = replace(an_arm(locked=False), probabilities=np.full(N, 0.1))
    (line,) = predictive_lines(splits(never, labels), {"5 %": 0.05})
    assert line.cells[0] == ("–", "none called positive")
    assert "adjusted" in line.cells[1]


def test_likelihood_ratios_are_those_of_sensitivity_and_specificity(write):
    arm, labels = an_arm(), a_finding().labels
    rows = splits(arm, labels)
    for row in rows:
        se, sp = row.sensitivity.value, row.specificity.value
        if 0 not in (se, sp, 1 - se, 1 - sp):
            assert [cell[0] for cell in row.ratios] == [ratio_text(se / (1 - sp)), ratio_text((1 - se) / sp)]
    assert any("adjusted" not in cell for row in rows for cell in row.ratios)
    never = replace(an_arm(locked=False), probabilities=np.full(N, 0.1))
    (row,) = splits(never, labels)
    assert row.ratios[0] == ("–", "none called positive")
    assert row.ratios[1][-1] == "adjusted"
    _, page = write(findings=[a_finding(arms=[arm])])
    place = page.text.index("LR−")
    assert page.text[place - 3 : place + 2] == ["Sensitivity", "Specificity", "LR+", "LR−", "PPV here"]
    assert all(text in page.text for row in rows for cell in row.ratios for text in cell)


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(0.0004, "0.000"), (0.0312, "0.031"), (0.854, "0.854"), (3.75, "3.75"), (12.34, "12.3"), (205.6, "206")],
)
def test_ratios_in_words(ratio, text):
    assert ratio_text(ratio) == text


def test_a_rule_in_that_is_never_said_reads_well(write):
    arm = an_arm()
    points = replace(arm.points["axial+sagittal"], rule_in=NEVER)
    arm = replace(arm, points={"sagittal": points}, states=[points.state(float(p)) for p in arm.probabilities])
    _, page = write(findings=[a_finding(arms=[arm])])
    assert "“yes”, which this model never says" in page.words
    assert "“yes” never" in page.words
    assert "none called positive" in page.words


def test_calibration_before_and_after(whole):
    finding = a_finding()
    _, page = whole
    for arm, when, probabilities in (
        (finding.arms[0], "before recalibration", finding.arms[0].before),
        (finding.arms[0], "after recalibration", finding.arms[0].probabilities),
        (finding.arms[1], "as the network gives them", finding.arms[1].probabilities),
    ):
        c = calibration(finding.labels, probabilities)
        assert c.brier.value == pytest.approx(brier_score_loss(finding.labels, probabilities))
        at = page.text.index(when)
        assert page.text[at - 1] == arm.name
        assert page.text[at + 1] == number_text(c.slope.value, 2)
        assert page.text[at + 3] == number_text(c.intercept.value, 2)
        assert page.text[at + 5] == number_text(c.brier.value, 3)


def test_where_there_is_no_slope_the_page_says_why(write):
    labels = a_finding().labels
    arm = Arm("perfect", 0.2 + 0.6 * labels)
    _, page = write(findings=[a_finding(arms=[arm])])
    assert "perfect, as the network gives them: no slope, since the probabilities separate the classes" in page.words
    assert "not that the AUC is known exactly" in page.words
    assert "mistakes" not in chapter(a_finding(arms=[arm]), 1).kinds


def test_net_benefit_in_the_table_is_that_of_the_curve():
    finding = a_finding()
    for row in chapter(finding, 1).benefit:
        expected = net_benefit(finding.labels, finding.arms[0].probabilities, [row.threshold])
        assert row.arms[0][0] == number_text(expected.model[0], 3)
        assert row.treat_all == number_text(expected.treat_all[0], 3)


def test_subgroups_are_counted_ordered_and_called_few():
    finding = a_finding(repeated=True, arms=[an_arm()])
    one, two = subgroup_tables(finding)
    assert [(row.value, row.n) for row in one.rows] == [("left", 27), ("right", 27), ("not known", 26)]
    assert [row.value for row in two.rows] == ["9 to 12", "13 to 30"]  # by number, not by letter
    assert [row.patients for row in two.rows] == [30, 40]
    for row, value in zip(one.rows, ("left", "right", ""), strict=True):
        inside = np.array(finding.subgroups["laterality"]) == value
        expected = summarise(finding.labels[inside], finding.arms[0].probabilities[inside])
        assert row.cells[0][0] == f"{expected.auc.auc:.3f}"
        assert row.cells[1][2] == f"{expected.sensitivity.successes}/{expected.sensitivity.n}"
        assert row.few == ""
    assert two.rows[0].few == "few: 0 positive, 40 negative"
    assert two.rows[0].cells[:2] == [("–", "fewer than 2 of each"), ("–", "no positives")]


def test_a_subgroup_in_perfect_order_has_no_interval():
    labels = a_finding().labels
    scores = 0.3 + 0.4 * labels + np.linspace(0, 0.01, N)
    arm = Arm("perfect", scores)
    (table,) = subgroup_tables(a_finding(arms=[arm], subgroups={"all": ["yes"] * N}))
    assert table.rows[0].cells[0] == ("1.000", "no interval: all in order")


def test_mistakes_come_with_heat_where_there_is_one(write):
    _, page = write(findings=[a_finding(arms=[an_arm(locked=False)])])
    assert page.words.count("What the heat is.") == 1
    assert "finding-1-heat" in ids(page)
    alts = [image["alt"] for image in page.all("img") if "with heat" in image["alt"]]
    assert len(alts) == 3 * 2
    assert "exam 0001, with heat, image 1 of 2" in alts or len(set(alts)) == 6
    _, bare = write(findings=[a_finding(arms=[an_arm(locked=False, heat=False)])])
    assert "finding-1-heat" not in ids(bare)


def test_heat_is_orange_for_and_blue_against_and_nothing_where_it_is_nought():
    image = np.full((8, 30), 120, np.uint8)
    heat = np.zeros((8, 30), np.float32)
    heat[:, 10:20], heat[:, 20:] = 2.0, -2.0
    picture = overlay(image, heat, 2.0, 64, "heat on a slice")
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.source.split(",")[1]))).convert("RGB"), int)
    nothing, positive, negative = drawn[4, 3], drawn[4, 15], drawn[4, 26]
    assert np.abs(nothing - 120).max() <= 1
    assert positive[0] > positive[1] > positive[2]
    assert negative[2] > negative[1] > negative[0]
    half = overlay(image, heat, 4.0, 64, "heat on a slice")
    softer = np.asarray(Image.open(io.BytesIO(base64.b64decode(half.source.split(",")[1]))).convert("RGB"), int)[4, 15]
    assert 0 < softer[0] - 120 < positive[0] - 120


def test_same_input_same_bytes(write):
    one = {"findings": [a_finding(repeated=True, arms=[an_arm()])]}
    assert write(**one)[0] == write(**one)[0]


def test_a_failed_page_leaves_the_old_one(write, tmp_path):
    write(findings=[a_finding(arms=[Arm("a", an_arm().probabilities)])])
    before = (tmp_path / "report.html").read_bytes()
    with pytest.raises(UserError, match="probabilities"):
        write(findings=[a_finding(arms=[Arm("a", np.full(N, 2.0))])])
    assert (tmp_path / "report.html").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_few_positives_still_make_a_page(write):
    labels = np.array([1, 1, 0, 0, 0, 0])
    arm = Arm("a", np.array([0.9, 0.2, 0.1, 0.3, 0.2, 0.4]), np.array([0.8, 0.3, 0.2, 0.4, 0.3, 0.5]))
    few = EvaluatedFinding("rare", list("abcdef"), labels, list("abcdef"), [arm], {"side": ["left", "right"] * 3})
    _, page = write(findings=[few])
    assert "6 exams, 2 positive" in page.words
    assert not re.search(r"\bnan\b|\binf\b", page.words)


def test_a_finding_has_one_of_each_and_a_model():
    with pytest.raises(ValueError, match="differ in number"):
        a_finding(groups=["p"])
    with pytest.raises(ValueError, match="differ in number"):
        a_finding(arms=[Arm("a", np.array([0.5]))])
    with pytest.raises(ValueError, match="differ in number"):
        a_finding(arms=[replace(an_arm(), states=["yes"])])
    with pytest.raises(ValueError, match="there is no model"):
        EvaluatedFinding("acl", [], np.array([]), [], [])


@pytest.mark.parametrize(("label", "score"), [(1, 0.5), (0, 0.49)])
def test_a_right_answer_is_no_mistake(label, score):
    with pytest.raises(ValueError, match="is no mistake"):
        Mistake("1", label, score, slices())


def test_a_mistake_is_made_of_pictures():
    with pytest.raises(ValueError, match="uint8"):
        Mistake("1", 1, 0.1, np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match="1 captions for 2 slices"):
        Mistake("1", 1, 0.1, slices(), ["one"])
    with pytest.raises(ValueError, match="heat of shape"):
        Mistake("1", 1, 0.1, slices(), heat=np.zeros((1, 48, 48), np.float32))


def test_wilson_under_each_share(write):
    finding = a_finding(arms=[an_arm(locked=False)])
    row = splits(finding.arms[0], finding.labels)[0]
    k, n, z = row.sensitivity.successes, row.sensitivity.n, norm.ppf(0.975)
    centre, half = (k + z**2 / 2) / (n + z**2), z / (n + z**2) * np.sqrt(k * (n - k) / n + z**2 / 4)
    assert f"{100 * (centre - half):.1f} to {100 * (centre + half):.1f} {k}/{n}" in write(findings=[finding])[1].words
