import json

import pytest

from kneessl.demo import demo
from kneessl.errors import UserError


def test_the_demo_leaves_what_it_promises_and_can_run_again(tmp_path, capsys):
    out = tmp_path / "demo"
    demo(out, exams=40)
    printed = capsys.readouterr().out
    figures = json.loads((out / "result.json").read_text())
    assert list(figures) == ["pretrained", "from-nothing"]
    for name, summary in figures.items():
        auc = summary["acl"]["auc"]
        assert 0 <= auc["low"] <= auc["auc"] <= auc["high"] <= 1
        assert f"{name:<12}  AUC {auc['auc']:.3f}  (95 % interval {auc['low']:.3f} to {auc['high']:.3f})" in printed
        assert (out / name / "model.safetensors").is_file()
    assert printed.splitlines()[-1] == f"report: {out / 'report.html'}"
    assert "synthetic phantom" in (out / "report.html").read_text()
    assert "no faults" in printed
    (out / "old").touch()
    with pytest.raises(UserError, match="exams is 0"):
        demo(out, exams=0)
    assert not (out / "old").exists(), "an earlier demo is replaced"


def test_the_demo_replaces_nothing_else(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="not an earlier demo"):
        demo(tmp_path)
    assert (tmp_path / "thesis.tex").exists()
