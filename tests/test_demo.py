import csv
import io
import json
from contextlib import redirect_stdout

import numpy as np
import pytest

from kneessl import cli
from kneessl.demo import demo, what_was_shown
from kneessl.errors import UserError
from kneessl.evaluation import compare_auc
from kneessl.reader.answer.assessment import NO_DIAGNOSIS


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A small demo: its folder, and what it printed. Few pixels and epochs, to save minutes; every exam labelled."""
    out, printed = tmp_path_factory.mktemp("demo") / "demo", io.StringIO()
    presets = cli.presets()
    for command in ("pretrain", "finetune"):
        presets["quick"][command] |= {"size": 48, "epochs": 1}
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.setattr(cli, "presets", lambda: presets)
        patch.setattr("kneessl.demo.PER_LABEL", 1)
        demo(out, exams=60)
    return out, printed.getvalue()


def test_the_demos_model_answers_the_real_knee_and_says_that_it_is_no_diagnosis(ran, real_data, tmp_path):
    cli.run("predict", [str(ran[0] / "pretrained"), str(real_data("knee_mese")), "--out", str(tmp_path / "answer")])
    told = json.loads((tmp_path / "answer" / "result.json").read_text())
    (finding,) = told["findings"]
    assert finding["answer"] in {"yes", "doubt", "no"}
    assert 0 < finding["interval"][0] <= finding["probability"] <= finding["interval"][1] < 1
    assert told["model"]["synthetic"] is True
    assert [flag["text"] for flag in told["flags"] if flag["kind"] == "model"] == [NO_DIAGNOSIS]
    assert "its answer is not a diagnosis" in (tmp_path / "answer" / "report.html").read_text()


def test_the_demo_leaves_what_it_promises_and_can_run_again(ran):
    out, printed = ran
    figures = json.loads((out / "result.json").read_text())
    assert list(figures) == ["pretrained", "from-nothing"]
    for name, summary in figures.items():
        auc = summary["acl"]["auc"]
        assert 0 <= auc["low"] <= auc["auc"] <= auc["high"] <= 1
        assert f"  AUC {auc['auc']:.3f} (95 % interval {auc['low']:.3f} to {auc['high']:.3f})  " in printed
        assert (out / name / "model.safetensors").is_file()
    assert "ACL tears on 20 synthetic knees that no model has seen, 40 labels:" in printed
    assert f"report: {out / 'report.html'}" in printed.splitlines()
    assert (out / "pretrained" / "decisions.json").is_file(), "so that `kneessl predict` has operating points"
    assert "synthetic phantom" in (out / "report.html").read_text()
    assert "no faults" in printed
    (out / "old").touch()
    with pytest.raises(UserError, match="exams is 0"):
        demo(out, exams=0)
    assert not (out / "old").exists(), "an earlier demo is replaced"


@pytest.mark.parametrize(
    ("signal", "verdict"), [((1, 0), "helps"), ((0, 1), "harms"), ((1, 1), "is not shown to help or harm")]
)
def test_the_last_words_say_what_the_interval_says(tmp_path, signal, verdict):
    labels = np.arange(200) % 2
    noise = np.random.default_rng(0).normal(size=(2, 200))
    scores = {
        name: s * labels + 0.5 * n for name, s, n in zip(("pretrained", "from-nothing"), signal, noise, strict=True)
    }
    with (tmp_path / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["exam", "label", *scores])
        writer.writerows(zip(range(200), labels, *scores.values(), strict=True))
    said = what_was_shown(tmp_path, 400).splitlines()
    assert said[0] == "ACL tears on 200 synthetic knees that no model has seen, 100 labels:"
    expected = compare_auc(labels, *scores.values())
    assert said[3] == (
        f"Here pre-training {verdict}: difference {expected.difference:+.3f} "
        f"(95 % interval {expected.low:+.3f} to {expected.high:+.3f})."
    )
    assert "synthetic" in said[-1]


def test_the_demo_replaces_nothing_else(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="not an earlier demo"):
        demo(tmp_path)
    assert (tmp_path / "thesis.tex").exists()
