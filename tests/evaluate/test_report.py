import csv
import json
import re

import numpy as np
import pytest
import torch

from kneessl.classifier.classifier import build_classifier
from kneessl.errors import UserError
from kneessl.evaluate.characteristics import characteristics_of, thirds
from kneessl.evaluate.evaluate import evaluate_models, groups_text, reader_lines
from kneessl.evaluate.mistakes import SHOWN_SLICES, mistake_of
from kneessl.evaluate.report import prevalences_for, trained_on
from kneessl.evaluate.suspects import suspects
from kneessl.evaluation.label_errors import suspected_errors
from kneessl.exams.folder import ExamFolder, Provenance, write_labels, write_provenance, write_series
from kneessl.explain.explain import explain
from kneessl.model.crossfit import OutOfFold
from kneessl.model.fuse import fuse
from kneessl.model.locked import lock_plane, read_decisions
from kneessl.model.model import load_model
from kneessl.model.predict import series_logits
from kneessl.nets.encoder import save_weights
from kneessl.training.runs import data_hash, write_record
from kneessl.views.preprocess import Preprocessing

PLANES = ("sagittal", "axial")
TASKS = ["acl", "my task"]
SLICES = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Noise in two planes; exams 06 and 07 are of one patient, and 09 has no axial series."""
    root = tmp_path_factory.mktemp("exams") / "knees"
    rng = np.random.default_rng(0)
    lines = []
    for split, count in (("train", 8), ("valid", 10)):
        for i in range(count):
            for plane in PLANES:
                if split == "valid" and i == 9 and plane == "axial":
                    continue
                write_series(root, split, plane, f"{i:02d}", rng.integers(0, 256, (SLICES, 256, 256), dtype=np.uint8))
                group = f"p{6 if i == 7 else i}"
                lines.append(
                    Provenance(split, f"{i:02d}", plane, group, "LR"[i % 2], 0.5, 0.5, 3.0 + i / 9, "", "by hand")
                )
        write_labels(root, split, "acl", {f"{i:02d}": i % 2 for i in range(count)})
        write_labels(root, split, "my task", {f"{i:02d}": int(i % 3 == 0) for i in range(count - 1)})
    write_provenance(root, lines)
    return ExamFolder(root)


def a_plane(out, folder, plane, head="max", seed=0, folds=True):
    torch.manual_seed(seed)
    out.mkdir(parents=True)
    save_weights(build_classifier("resnet18", head, 2, {}), out / "model.safetensors")
    exams = folder.exams("train", plane)
    write_record(
        out, Preprocessing(32), rows=[], kind="finetune", network="resnet18", head=head, tasks=TASKS, plane=plane,
        start="random weights", exams=len(exams), labelled_exams=exams,
        data_sha256=data_hash(folder, "train", plane, exams),
    )  # fmt: skip
    (out / "config.yaml").write_text(f"data: {folder.root}\nlr: 0.001\nview: {{flip: 0.5}}\n")
    (out / "metrics.csv").write_text("epoch,loss,seconds\n1,0.7,3\n2,0.6,3\n")
    if folds:
        logits = np.random.default_rng(seed).normal(size=(len(exams), 2))
        truth = np.array([[i % 2, i // 2 % 2] for i in range(len(exams))])
        lock_plane(out, plane, OutOfFold(TASKS, exams, np.arange(len(exams)) // 4, truth, logits), "2 folds by hand")
    return out


@pytest.fixture(scope="module")
def models(folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    planes = [a_plane(root / plane, folder, plane, seed=i) for i, plane in enumerate(PLANES)]
    fuse(planes, root / "fused")
    return {"fused": root / "fused", "single": a_plane(root / "single", folder, "sagittal", "transformer", folds=False)}


@pytest.fixture(scope="module")
def report(folder, models, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    evaluate_models(models, folder.root, "valid", out)
    return (out / "report.html").read_text(encoding="utf-8"), out


def text_of(html):
    body = re.sub(r'src="data[^"]*"', "", html[html.index("</style>") :])
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def test_the_page_says_what_was_evaluated_and_what_was_fixed(report, models):
    text = text_of(report[0])
    assert "acl, my task from sagittal, axial MRI of the knee" in text
    assert "On 10 valid exams, 5 of them positive, fused finds acl with an AUROC of" in text
    assert "On 9 valid exams, 3 of them positive, fused finds my task" in text
    assert "Internal testing" in text
    assert "acl 10 0 0 10 5 (50.0 %) 5 9" in text  # exams, not labelled, lack planes, evaluated, positive, patients
    assert "my task 10 1 0 9 3 (33.3 %) 6 8" in text
    assert "fused from axial+sagittal (9), sagittal (1); single from sagittal (10)." in text
    assert "acl from axial+sagittal: 8 training exams, 4 positive" in text
    assert json.loads((models["fused"] / "decisions.json").read_text())["sha256"] in text
    assert "single decides at a threshold of 0.5, fixed beforehand" in text
    assert "fused fuses its planes by logistic stacking" in text


def test_the_page_has_all_of_every_task(report):
    html = report[0]
    for number in (1, 2):
        for kind in ("discrimination", "decisions", "doubt", "calibration", "utility", "abstention", "subgroups"):
            assert f'id="finding-{number}-{kind}"' in html
    text = text_of(html)
    assert "23.3 %, as in MRNet" in text
    assert "1 of 9 patients have more than one exam" in text
    for words in ("laterality", "distance of slices", "3.0 to", "planes answered from", "fine-tuning of fused, axial"):
        assert words in text
    assert "Grad-CAM" in text  # single's head is not exact
    assert "share of the logit" in text  # fused's are


@pytest.mark.parametrize(
    ("fat", "groups"),
    [
        ((True, False, None), ["fat-suppressed", "not fat-suppressed", ""]),
        ((False, False, True), ["not fat-suppressed", "not fat-suppressed", "fat-suppressed"]),
        ((True, True, None), None),
        ((None, None, None), None),
    ],
)
def test_the_sequence_is_told_by_its_column_and_not_by_words(tmp_path, fat, groups):
    exams = ["00", "01", "02"]
    for exam in exams:
        write_series(tmp_path, "valid", "sagittal", exam, np.zeros((2, 256, 256), np.uint8))
    misleading = "DICOM; PD, fat-suppressed"
    write_provenance(
        tmp_path,
        [
            Provenance("valid", exam, "sagittal", exam, "", 0.5, 0.5, 3.0, "", misleading, fat_suppressed=known)
            for exam, known in zip(exams, fat, strict=True)
        ],
    )
    assert characteristics_of(["sagittal"] * 3, ExamFolder(tmp_path), "valid", exams).get("sequence") == groups


def test_groups_that_are_asked_for(folder, models, tmp_path):
    about = folder.root / "about.csv"
    about.write_text(
        "split,exam,site,age,name\n" + "".join(f"valid,{i:02d},{'AB'[i // 5]},{30 + i},n{i}\n" for i in range(9))
    )
    try:
        found = evaluate_models(
            {"single": models["single"]}, folder.root, "valid", tmp_path, ["acl"], by=["site", "age"]
        )
        figures = found["single"]["acl"]
        assert [(g.variable, g.value, g.n) for g in figures.groups] == [
            *(("site", "A", 5), ("site", "B", 4), ("site", "not known", 1)),
            *(("age", "30 to 32", 3), ("age", "33 to 35", 3), ("age", "36 to 38", 3), ("age", "not known", 1)),
        ]
        assert figures.interactions == []
        assert "by site\n  A: " in groups_text(figures)
        assert "Not tested: fewer than two groups have 10 positives and 10 negatives." in groups_text(figures)
        kept = json.loads((tmp_path / "result.json").read_text())["single"]["acl"]
        assert [group["value"] for group in kept["groups"]][:3] == ["A", "B", "not known"]
        text = text_of((tmp_path / "report.html").read_text())
        assert "site A few: " in text
        assert "laterality" not in text[text.index("Subgroups") :]
    finally:
        about.unlink()


def test_several_readers_are_compared(folder, models, tmp_path):
    labels = folder.labels("valid", "acl")
    files = [folder.root / f"valid-acl.reader{name}.csv" for name in ("A", "B")]
    files[0].write_text("".join(f"{exam},{label}\n" for exam, label in labels.items()))
    files[1].write_text("".join(f"{exam},{1 - label if exam == '00' else label}\n" for exam, label in labels.items()))
    try:
        figures = evaluate_models({"single": models["single"]}, folder.root, "valid", tmp_path, ["acl"])["single"][
            "acl"
        ]
        assert folder.tasks("valid") == ["acl", "my task"]
    finally:
        for file in files:
            file.unlink()
    (pair,) = figures.kappas
    assert (pair.first, pair.second, pair.n, round(pair.agreement, 9)) == ("A", "B", 10, 0.9)
    assert [(one.reader, one.n, one.positives) for one in figures.against_readers] == [
        *(("A", 10, 5), ("B", 10, 6), ("majority", 9, 5)),
    ]
    assert figures.against_readers[0].auc == figures.summary.auc
    lines = list(reader_lines(figures))
    assert lines[0].startswith("readers A and B: kappa 0.80 (95 %")
    assert lines[-1].startswith("against most readers: AUC ")


def test_labels_that_the_folds_contradict_are_listed_with_pictures(folder, models, tmp_path):
    single = models["fused"].parent / "sagittal"
    suspects(single, folder.root, tmp_path)
    with (tmp_path / "suspects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    seen, locked = OutOfFold.read(single / "out_of_fold.csv"), read_decisions(single)
    labels = folder.labels("train", "acl")
    probabilities = locked.decisions["acl"]["sagittal"].recalibration.apply(seen.logits[:, 0])
    expected = suspected_errors([labels[exam] for exam in seen.exams], probabilities)
    assert [row["exam"] for row in rows if row["task"] == "acl"] == [seen.exams[one.index] for one in expected]
    html = (tmp_path / "suspects.html").read_text()
    assert html.count('<figure class="strip">') == len(rows)
    with pytest.raises(UserError, match="--folds"):
        suspects(models["single"], folder.root, tmp_path)


@pytest.mark.parametrize(
    ("by", "reason"),
    [("sex", "sex is not known of any exam of valid"), ("field", "field is not known"), ("sequence", "not known")],
)
def test_groups_that_cannot_be_told_are_refused_before_anything_is_predicted(folder, models, tmp_path, by, reason):
    with pytest.raises(UserError, match=reason):
        evaluate_models({"single": models["single"]}, folder.root, "valid", tmp_path / "out", ["acl"], by=[by])
    assert not (tmp_path / "out").exists()


def test_no_path_but_those_of_the_settings(report, folder, models):
    html = report[0]
    settings = html.index('id="settings"'), html.index('id="checklist"')
    outside = html[: settings[0]] + html[settings[1] :]
    assert str(folder.root) in html
    assert str(folder.root.parent) not in outside
    assert str(models["fused"].parent) not in outside


def test_same_models_same_bytes(report, folder, models, tmp_path):
    evaluate_models({"single": models["single"]}, folder.root, "valid", tmp_path / "a", ["acl"])
    evaluate_models({"single": models["single"]}, folder.root, "valid", tmp_path / "b", ["acl"])
    a, b = ((tmp_path / name / "report.html").read_bytes() for name in "ab")
    assert a == b
    assert b"finding-1-doubt" not in a  # nothing is locked with it


def test_a_model_asked_about_its_training_exams_is_called_out(folder, models, tmp_path):
    evaluate_models({"single": models["single"]}, folder.root, "train", tmp_path, ["acl"])
    assert "single was trained on exams of this very split" in text_of((tmp_path / "report.html").read_text())


def test_where_a_model_was_trained(folder, models, tmp_path):
    single = models["single"]
    assert trained_on(single, folder) is True
    assert trained_on(models["fused"], folder) is True
    other = tmp_path / "other"
    write_series(other, "valid", "sagittal", "00", np.zeros((2, 256, 256), np.uint8))
    assert trained_on(single, ExamFolder(other)) is False
    moved = tmp_path / "moved"
    moved.symlink_to(folder.root)
    config = (single / "config.yaml").read_text()
    try:
        (single / "config.yaml").write_text("data: elsewhere\n")
        assert trained_on(single, ExamFolder(moved)) is True, "the same series under another path"
        record = json.loads((single / "run.json").read_text())
        alone = tmp_path / "alone"
        alone.mkdir()
        (alone / "run.json").write_text(json.dumps({k: v for k, v in record.items() if k != "labelled_exams"}))
        assert trained_on(alone, folder) is None
    finally:
        (single / "config.yaml").write_text(config)


def test_mistakes_are_the_surest_wrong_answers_with_the_slices_that_raised_them_most(report, folder, models):
    html, out = report
    with (out / "predictions.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["task"] == "acl"]
    alarms = sorted(
        (r for r in rows if r["label"] == "0" and float(r["fused"]) >= 0.5), key=lambda r: -float(r["fused"])
    )
    missed = sorted((r for r in rows if r["label"] == "1" and float(r["fused"]) < 0.5), key=lambda r: float(r["fused"]))
    expected = [f"Exam {r['exam']}: labelled positive, probability {float(r['fused']):.3f}" for r in missed[:3]]
    expected += [f"Exam {r['exam']}: labelled negative, probability {float(r['fused']):.3f}" for r in alarms[:3]]
    part = html[html.index('id="finding-1-mistakes"') :]
    found = re.findall(r"Exam \d+: labelled \w+, probability [\d.]+", part[: part.index("single <span")])
    assert expected
    assert found == expected


def test_slices_of_a_mistake_are_chosen_over_all_planes_by_their_weighted_share(folder, models):
    model = load_model(models["fused"])
    series = {plane: np.array(folder.series("valid", plane, "03")) for plane in PLANES}
    seen = {plane: explain(model.planes[plane], series[plane], "acl") for plane in PLANES}
    weights = {"sagittal": 1.0, "axial": 0.25}
    parts = [(plane, series[plane], seen[plane], weights[plane]) for plane in PLANES]
    mistake = mistake_of(model.planes, "03", 1, 0.2, parts)
    shares = [(weights[p] * float(seen[p].slice_scores[k]), p, k) for p in PLANES for k in range(SLICES)]
    best = sorted(shares, key=lambda share: -share[0])[:SHOWN_SLICES]
    expected = [f"{p}, slice {k + 1} of {SLICES}" for p in PLANES for k in sorted(k for _, q, k in best if q == p)]
    assert list(mistake.captions) == expected
    for caption, picture in zip(mistake.captions, mistake.slices, strict=True):
        plane, k = re.match(r"(\w+), slice (\d+)", caption).groups()
        assert np.array_equal(picture, series[plane][int(k) - 1])
    logit = series_logits(model.planes["sagittal"], series["sagittal"])[0]
    assert seen["sagittal"].logit == pytest.approx(logit, abs=1e-5)
    assert mistake.heat.shape == mistake.slices.shape
    assert np.abs(mistake.heat).max() > 0


def test_thirds_hold_a_third_each_and_name_their_ends():
    values = np.array([3.0, 1.0, 2.0, 4.0, 6.0, 5.0, np.nan])
    words = thirds(values, "{:.0f} to {:.0f}")
    assert words == ["3 to 4", "1 to 2", "1 to 2", "3 to 4", "5 to 6", "5 to 6", ""]
    assert set(thirds(np.full(4, 3.0), "{:.0f} to {:.0f}")) == {"3 to 3"}


def test_prevalences_rise_and_know_mrnets_tasks():
    assert list(prevalences_for("acl").values()) == sorted([0.05, 0.2, 0.4, 319 / 1370])
    assert list(prevalences_for("cyst")) == ["5 %", "20 %", "40 %"]


@pytest.mark.parametrize("labels", [[1, 1, 1, 1], [0, 0, 0, 1], [0, 1, 1, 1]])
def test_one_class_is_found_out_before_any_predicting(models, tmp_path, monkeypatch, labels):
    for exam, _ in enumerate(labels):
        write_series(tmp_path, "valid", "sagittal", f"{exam:02d}", np.zeros((6, 256, 256), np.uint8))
    write_labels(tmp_path, "valid", "acl", {f"{exam:02d}": label for exam, label in enumerate(labels)})
    monkeypatch.setattr("kneessl.evaluate.evaluate.predict_split", lambda *_: pytest.fail("it predicted"))
    with pytest.raises(UserError, match="needs at least 2 exams of each label"):
        evaluate_models({"single": models["single"]}, tmp_path, "valid", tmp_path / "out", ["acl"])


def test_labels_of_exams_that_are_not_there_are_refused_before_any_predicting(models, folder, tmp_path, monkeypatch):
    for exam in range(6):
        write_series(tmp_path, "valid", "sagittal", f"{exam:04d}", np.zeros((6, 256, 256), np.uint8))
    write_labels(tmp_path, "valid", "acl", {str(exam): exam % 2 for exam in range(6)})
    monkeypatch.setattr("kneessl.evaluate.evaluate.predict_split", lambda *_: pytest.fail("it predicted"))
    with pytest.raises(UserError, match="such as 0, where the series is 0000: leading zeros were lost"):
        evaluate_models({"single": models["single"]}, tmp_path, "valid", tmp_path / "out", ["acl"])
