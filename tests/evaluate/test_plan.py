"""`kneessl plan`: what is asked, what is answered, and what is refused before anything is computed."""

import re

import numpy as np
import pytest
from helpers.command_line import kneessl

from kneessl.evaluation.sample_size import Pair, exams_for_difference, exams_for_share


@pytest.fixture
def pilot(tmp_path):
    rng = np.random.default_rng(0)
    lines = ["exam,task,label,new,old"]
    for i in range(200):
        label, shared = int(i < 60), rng.normal()
        new, old = (1 / (1 + np.exp(-(shared + rng.normal() + k * label))) for k in (2.0, 1.5))
        lines += [f"{i:04d},acl,{label},{new},{old}", f"{i:04d},meniscus,{i % 2},{new},{old}"]
    path = tmp_path / "predictions.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def plan(*words):
    return kneessl("plan", *words).stdout


def test_without_a_correlation_each_that_may_hold_is_shown():
    told = plan("--auc", ".9", "--against", ".85", "--prevalence", ".2", "--power", ".8")
    for correlation in (0.0, 0.3, 0.5, 0.7, 0.9):
        exams = exams_for_difference(Pair(0.9, 0.85, correlation, correlation), 0.8, 0.2)
        assert re.search(rf"{exams:,} exams \(.*\): scores correlate {correlation:.2f} within each class", told)
    assert "say with --correlation" in told
    assert "simulated" not in told


def test_an_interval_by_each_formula_and_by_simulation():
    told = plan("--auc", ".8", "--width", ".15", "--prevalence", ".4")
    assert told.splitlines()[0] == "assumed: 40 % of the exams positive"
    assert [source in told for source in ("normal scores", "Hanley & McNeil 1982", "Obuchowski 2004")] == [True] * 3
    share = float(re.search(r"narrow in ([\d.]+) %", told)[1])
    assert 35 < share < 65


def test_a_sensitivity_counts_positives_and_a_specificity_negatives():
    told = plan("--sensitivity", ".95", "--specificity", ".9", "--prevalence", ".2", "--width", ".06")
    positives, negatives = exams_for_share(0.95, 0.06), exams_for_share(0.9, 0.06)
    assert f"{int(np.ceil(positives / 0.2)):,} exams, of them {positives:,} positive" in told
    assert f"{int(np.ceil(negatives / 0.8)):,} exams, of them {negatives:,} negative" in told


def test_a_pilot_says_what_is_not_given(pilot):
    told = plan("--pilot", pilot, "--task", "acl")
    assert told.startswith("assumed: 30 % of the exams positive, from the pilot\n")
    assert re.search(r"scores correlate 0\.\d\d among positives, 0\.\d\d among negatives", told)
    found = float(re.search(r"finds it in ([\d.]+) %", told)[1])
    assert found == pytest.approx(80, abs=6)
    assert "AUC 0.900 against 0.850" in plan("--pilot", pilot, "--task", "acl", "--auc", ".9", "--against", ".85")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "prevalence is missing"),
        (["--prevalence", ".2"], "there is nothing to plan"),
        (["--prevalence", ".2", "--auc", ".9"], "there is nothing to plan"),
        (["--prevalence", ".2", "--width", ".1"], "there is nothing to plan"),
        (["--prevalence", "20", "--auc", ".9", "--width", ".1"], "prevalence is 20"),
        (["--prevalence", ".2", "--auc", "1", "--width", ".1"], "auc is 1"),
        (["--prevalence", ".2", "--sensitivity", "95", "--width", ".1"], "sensitivity is 95"),
        (["--prevalence", ".2", "--auc", ".9", "--against", ".9"], "equally good"),
        (["--prevalence", ".2", "--auc", ".9", "--against", ".8", "--correlation", "1"], "correlation is 1"),
        (["--prevalence", ".2", "--auc", ".9", "--against", ".8", "--power", "nan"], "Got value: nan"),
        (["--pilot", "nowhere.csv"], "cannot be read"),
    ],
)
def test_what_cannot_be_planned_is_refused(words, reason):
    assert reason in kneessl("plan", *words, expect=2).stderr


def test_a_pilot_that_is_none_is_refused(pilot, tmp_path):
    assert "choose one with --task" in kneessl("plan", "--pilot", pilot, expect=2).stderr
    other = tmp_path / "other.csv"
    other.write_text("exam,label\n0,1\n")
    assert "no predictions.csv" in kneessl("plan", "--pilot", other, expect=2).stderr
    other.write_text("exam,task,label,new\n0,acl,1,much\n")
    assert "no predictions.csv" in kneessl("plan", "--pilot", other, expect=2).stderr
    other.write_text("exam,task,label,new\n" + "".join(f"{i},acl,{i % 2},{i % 2}\n" for i in range(8)))
    assert "give --auc" in kneessl("plan", "--pilot", other, "--width", ".1", expect=2).stderr
