"""Every interval of 95 % holds the truth on 93 to 97 % of simulated test sets of 120 exams, 48 of them positive.

The simulations are those of `benchmarks/coverage.py`, which runs them on more sets; one standard error of the share
is 0.5 % on 2,000 sets, 0.8 % on 800. The bootstrap gets 400 sets (1.1 %) of 400 replicates, for time.
"""

import importlib.util
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "coverage.py"


@pytest.fixture(scope="module")
def coverage():
    spec = importlib.util.spec_from_file_location("benchmark_of_coverage", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def right(row):
    return 0.93 <= row.covers <= 0.97 and row.covers + row.below + row.above == pytest.approx(1)


def test_simulated_scores_have_the_stated_auc(coverage):
    for auc in (0.8, 0.9):
        areas = [coverage.roc_area(coverage.LABELS, scores) for scores in coverage.drawn(auc, 1000)]
        assert sum(areas) / len(areas) == pytest.approx(auc, abs=0.005)


def test_stated_auprc_is_that_of_very_many_exams(coverage):
    rng = coverage.np.random.default_rng(0)
    labels = coverage.LABELS.repeat(5000)
    scores = rng.normal(labels * coverage.shift(0.8))
    assert coverage.average_precision(labels, scores) == pytest.approx(coverage.true_auprc(0.8), abs=0.002)


def test_auc_of_08(coverage):
    plain, on_logits = coverage.auc_coverage(0.8, 2000)
    assert right(plain)
    assert right(on_logits)


def test_auc_of_09(coverage):
    plain, on_logits = coverage.auc_coverage(0.9, 2000)
    assert right(on_logits)
    # DeLong's own interval covers only 92.8 % of 10,000 sets: it is symmetric, so it misses nearly always on one side.
    assert plain.covers < on_logits.covers
    assert plain.above > 4 * plain.below


@pytest.mark.parametrize("pair", [(0.8, 0.8), (0.9, 0.8)])
def test_difference_of_two_correlated_aucs(coverage, pair):
    assert right(coverage.difference_coverage(*pair, 2000))


def test_figures_of_counts(coverage):
    rows = coverage.counts_coverage(2000)
    assert [row.figure for row in rows] == ["sensitivity", "specificity", "PPV at 10%", "NPV at 10%", "LR+", "LR-"]
    for row in rows:
        assert right(row), row


@pytest.mark.parametrize("auc", [0.8, 0.9])
def test_auprc(coverage, auc):
    assert right(coverage.auprc_coverage(auc, 800))


@pytest.mark.parametrize("auc", [0.8, 0.9])
def test_bootstrapped_auc(coverage, auc):
    assert right(coverage.bca_coverage("AUC", coverage.roc_area, auc, auc, sets=400, replicates=400))


def test_patients_are_the_unit(coverage):
    patients, exams = coverage.patients_coverage(0.8, sets=400, replicates=400)
    assert right(patients)
    assert exams.covers < 0.9
