from dataclasses import dataclass
from pathlib import Path

import pytest

from kneessl.errors import UserError
from kneessl.experiments.jobs import (
    SET_BY_EXPERIMENT,
    check_settings,
    done,
    ended_by,
    failures,
    finished,
    predictions,
    require_one_done,
)


@dataclass(frozen=True)
class Training:
    """A job without commands."""

    folder: Path

    def commands(self):
        return iter(())


def test_a_process_that_died_is_explained():
    assert ended_by(-9) == "killed by SIGKILL (out of memory, perhaps)"
    assert ended_by(-11) == "killed by SIGSEGV"
    assert ended_by(1) == "ended with status 1"


def test_training_is_finished_by_its_record_and_an_evaluation_never(tmp_path):
    assert not finished(["finetune", "data", "--out", str(tmp_path)])
    (tmp_path / "run.json").write_text("{}")
    assert finished(["finetune", "data", "--out", str(tmp_path)])
    assert not finished(["evaluate", "model", "data", "--out", str(tmp_path)])
    assert not done(Training(tmp_path))
    (tmp_path / "result.json").write_text("{}")
    assert done(Training(tmp_path))


def test_predictions_are_of_one_task(tmp_path):
    (tmp_path / "predictions.csv").write_text(
        "exam,task,label,model,linear\n0001,acl,1,0.5,1.0\n0001,meniscus,0,0.25,0.0\n0002,meniscus,1,0.75,0.5\n"
    )
    predicted = predictions(Training(tmp_path), "meniscus")
    assert predicted.exams == ["0001", "0002"]
    assert predicted.labels.tolist() == [0, 1]
    assert {model: scores.tolist() for model, scores in predicted.scores.items()} == {
        "model": [0.25, 0.75], "linear": [0.0, 0.5],
    }  # fmt: skip


def test_failures_are_named_and_one_job_that_is_done_is_enough(tmp_path):
    jobs = [Training(tmp_path / name) for name in ("a", "b")]
    for job in jobs:
        job.folder.mkdir()
        (job.folder / "failure.txt").write_text(f"no luck with {job.folder.name}")
    with pytest.raises(UserError, match="every training failed; the first one because: no luck with a"):
        require_one_done(jobs)
    (tmp_path / "a" / "result.json").write_text("{}")
    require_one_done(jobs)
    assert failures(jobs) == ["b failed: no luck with b"]


def test_settings_are_parsed_and_those_of_each_training_refused():
    values = check_settings("finetune", {"epochs": 3})
    assert (values.epochs, values.batch, values.size) == (3, None, 224)
    for name in (*SET_BY_EXPERIMENT["finetune"], "labels"):
        with pytest.raises(UserError, match=f"finetune: {name} is not to be set here"):
            check_settings("finetune", {name: 1}, "labels")
    with pytest.raises(UserError, match=r"finetune: .*epoch"):
        check_settings("finetune", {"epoch": 3})
