import pytest

from kneessl.errors import UserError
from kneessl.experiments.compare import Job
from kneessl.experiments.jobs import OWN_OF_FINETUNE, check_settings, done, ended_by, finished, predictions


def a_job(folder):
    return Job("simclr", 0, folder, folder, "acl", "sagittal", {}, {}, None)


def test_a_process_that_died_is_explained():
    assert ended_by(-9) == "killed by SIGKILL (out of memory, perhaps)"
    assert ended_by(-11) == "killed by SIGSEGV"
    assert ended_by(1) == "ended with status 1"


def test_training_is_finished_by_its_record_and_an_evaluation_never(tmp_path):
    assert not finished(["finetune", "data", "--out", str(tmp_path)])
    (tmp_path / "run.json").write_text("{}")
    assert finished(["finetune", "data", "--out", str(tmp_path)])
    assert not finished(["evaluate", "model", "data", "--out", str(tmp_path)])
    assert not done(a_job(tmp_path))
    (tmp_path / "result.json").write_text("{}")
    assert done(a_job(tmp_path))


def test_predictions_are_of_one_task(tmp_path):
    (tmp_path / "predictions.csv").write_text("exam,task,label,model\n0001,acl,1,0.5\n0001,meniscus,0,0.25\n")
    assert predictions(a_job(tmp_path), "meniscus") == [
        {"exam": "0001", "task": "meniscus", "label": "0", "model": "0.25"}
    ]


def test_settings_are_parsed_and_those_of_each_training_refused():
    values = check_settings("finetune", {"epochs": 3}, OWN_OF_FINETUNE)
    assert (values.epochs, values.batch, values.size) == (3, None, 224)
    for name in OWN_OF_FINETUNE:
        with pytest.raises(UserError, match=f"finetune: {name} is not to be set here"):
            check_settings("finetune", {name: 1}, OWN_OF_FINETUNE)
    with pytest.raises(UserError, match=r"finetune: .*epoch"):
        check_settings("finetune", {"epoch": 3}, OWN_OF_FINETUNE)
