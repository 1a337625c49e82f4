from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import yaml

from kneessl.errors import UserError
from kneessl.exams.folder import write_labels, write_series
from kneessl.experiments import compare, label_curve, prevalence
from kneessl.experiments.compare import ComparisonSettings
from kneessl.experiments.experiment import ExperimentSettings, carry_out, published_files
from kneessl.experiments.label_curve import LabelCurveSettings
from kneessl.experiments.prevalence import PrevalenceSettings
from kneessl.pictures.imbalance_grid import ImbalanceGridSettings
from kneessl.training.runs import open_run


@dataclass(frozen=True)
class Asked(ExperimentSettings):
    out: Path
    seeds: int = 2
    jobs: int = 3
    cluster: str | None = None
    resume: bool = False


@dataclass
class Recorded:
    """An experiment that trains nothing and notes what is asked of it."""

    out: Path
    asked_of_it: list[str] = field(default_factory=list)

    @property
    def stages(self):
        return {"first": [], "second": []}

    def prepare(self):
        assert (self.out / "config.yaml").is_file(), "the folder is this experiment's by now"
        self.asked_of_it.append("prepare")

    def collect(self):
        self.asked_of_it.append("collect")
        return 0.75

    def publish(self, figures):
        self.asked_of_it.append(f"publish {figures}")
        return {"table": self.out / "a.csv", "accuracy": self.out / "a.png"}

    @contextmanager
    def apart(self, *asked):
        yield asked

    def run_all(self, jobs, submit, title):
        assert submit[1:] == (None, [], self.out)
        self.asked_of_it.append(f"{title}, {submit[0]} at once")


@pytest.fixture
def replaced(monkeypatch):
    """Let an experiment be asked instead of run."""

    def replace(experiment: Recorded) -> Recorded:
        for name in ("run_all", "apart"):
            monkeypatch.setattr(f"kneessl.experiments.experiment.{name}", getattr(experiment, name))
        return experiment

    return replace


def test_an_experiment_is_prepared_run_stage_by_stage_collected_and_published(tmp_path, replaced, capsys):
    experiment = replaced(Recorded(tmp_path / "out"))
    carry_out(Asked(tmp_path / "out"), experiment)
    assert experiment.asked_of_it == [
        "prepare", "first, 3 at once", "second, 3 at once", "collect", "publish 0.75",
    ]  # fmt: skip
    out = tmp_path / "out"
    assert capsys.readouterr().out.splitlines() == [f"table:    {out / 'a.csv'}", f"accuracy: {out / 'a.png'}"]
    assert yaml.safe_load((out / "config.yaml").read_text()) == {"seeds": 2}


def test_a_folder_of_another_experiment_is_left_alone(tmp_path, replaced):
    experiment = replaced(Recorded(tmp_path))
    carry_out(Asked(tmp_path), experiment)
    experiment.asked_of_it.clear()
    for again, message in (
        (Asked(tmp_path), "already holds a run"),
        (Asked(tmp_path, seeds=3, resume=True), r"other settings than now asked for \(seeds\)"),
    ):
        with pytest.raises(UserError, match=message):
            carry_out(again, experiment)
    assert experiment.asked_of_it == []
    carry_out(Asked(tmp_path, jobs=1, resume=True), experiment)
    assert experiment.asked_of_it[1] == "first, 1 at once"


@pytest.mark.parametrize("name", ["seeds", "jobs"])
def test_numbers_are_above_0(name, tmp_path):
    with pytest.raises(UserError, match=f"{name} is 0; it must be above 0"):
        Asked(tmp_path, **{name: 0})


def test_jobs_are_for_this_machine_and_a_cluster_has_its_own(tmp_path):
    assert Asked(tmp_path, jobs=1, cluster="tcp://10.0.0.1:8786").asked() == {"seeds": 2}
    with pytest.raises(UserError, match="jobs is 3, which is for this machine alone"):
        Asked(tmp_path, cluster="tcp://10.0.0.1:8786")


def test_what_trainings_read_is_every_path_that_was_asked_for():
    settings = LabelCurveSettings(
        Path("knees"), "acl", Path("o"), from_run=[Path("a"), Path("b")], weights=Path("w.pth"), fractions=[0.5]
    )
    assert settings.reads == [Path("knees"), Path("a"), Path("b"), Path("w.pth")]


@pytest.mark.parametrize(
    ("settings", "written"),
    [
        (
            ComparisonSettings(Path("knees"), "acl", Path("o"), methods=["byol"], pretrain={"size": 32}),
            "data: knees\ntask: acl\nplane: sagittal\nmethods: [byol]\nseeds: 3\nminutes: null\npretrain: {size: 32}\n"
            "finetune: null\narms: null\n",
        ),
        (
            LabelCurveSettings(Path("knees"), "acl", Path("o"), from_run=[Path("runs/byol")], fractions=[0.5, 1.0]),
            "data: knees\ntask: acl\nplane: sagittal\nfrom_run: [runs/byol]\nweights: null\nfractions: [0.5, 1.0]\n"
            "seeds: 3\nleast_steps: 0\nfinetune: null\n",
        ),
        (
            PrevalenceSettings(Path("knees"), "acl", Path("o"), prevalences=[0.5, 0.1]),
            "data: knees\ntask: acl\nplane: sagittal\nprevalences: [0.5, 0.1]\nexams: null\nmethod: byolmed2d\n"
            "seeds: 3\npretrain: null\nfinetune: null\n",
        ),
        (
            ImbalanceGridSettings(Path("cifar"), Path("o"), images=[500]),
            "data: cifar\nmethod: simclr\narms: both\nimages: [500]\nratios: null\nseeds: 3\nlabels: null\ntest: null\n"
            "held_out: 0\nood: null\npretrain: null\nsupervised: null\nsettings: null\nprecision: auto\n",
        ),
    ],
    ids=["compare", "label-curve", "prevalence", "imbalance-grid"],
)
def test_what_version_0_1_was_asked_for_is_what_is_asked_for_now(settings, written, tmp_path):
    (tmp_path / "config.yaml").write_text(written)
    open_run(tmp_path, settings.asked(), resume=True)


def test_the_files_of_an_experiment():
    assert published_files(Path("o"), "curve") == {
        "table": Path("o/curve.csv"), "page": Path("o/curve.html"), "figure": Path("o/curve.png"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "plan"),
    [
        (ComparisonSettings, compare.plan),
        (LabelCurveSettings, label_curve.plan),
        (PrevalenceSettings, prevalence.plan),
    ],
)
def test_labels_without_a_series_are_refused_without_naming_an_option_of_other_commands(tmp_path, kind, plan):
    for split in ("train", "valid"):
        write_series(tmp_path, split, "sagittal", "0000", np.zeros((3, 256, 256), np.uint8))
        write_labels(tmp_path, split, "acl", {"0000": 0, "0777": 1})
    with pytest.raises(UserError, match=r"such as 0777; .* remove their labels") as error:
        plan(kind(data=tmp_path, task="acl", out=tmp_path / "out"))
    assert "--unlabelled" not in str(error.value)
