"""An experiment: many trainings whose figures answer one question. Each is planned, run, collected and published."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import yaml

from kneessl.errors import UserError
from kneessl.exams.folder import ExamFolder, Plane
from kneessl.exams.summary import data_note
from kneessl.experiments.jobs import Job, run_all
from kneessl.files import write_text
from kneessl.report.page import PageHead
from kneessl.settings import Settings, require_positive
from kneessl.training.runs import open_run, plain
from kneessl.workers.apart import apart

Figures = TypeVar("Figures")


class ExperimentSettings(Settings):
    """What every experiment is asked for, beside its own question."""

    free_on_resuming: ClassVar[frozenset[str]] = frozenset({"out", "jobs", "cluster", "resume"})
    out: Path
    seeds: int
    jobs: int
    cluster: str | None
    resume: bool

    def __post_init__(self) -> None:
        require_positive(vars(self), "seeds", "jobs")
        if self.cluster is not None and self.jobs > 1:
            raise UserError(
                f"jobs is {self.jobs}, which is for this machine alone; a cluster trains one on each thread of its "
                "workers, so leave it out"
            )

    @property
    def reads(self) -> list[Path]:
        """The files and folders that are asked for."""
        values = [value for name, value in vars(self).items() if name != "out"]
        listed = [item for value in values for item in (value if isinstance(value, list) else [value])]
        return [item for item in listed if isinstance(item, Path)]


class KneeExperimentSettings(ExperimentSettings):
    """The same of an experiment on knees: one task in one plane of an exam folder."""

    data: Path
    task: str
    plane: Plane


class Experiment(Protocol[Figures]):
    """What was planned: its settings are checked, and nothing is written yet."""

    @property
    def stages(self) -> Mapping[str, Sequence[Job]]:
        """The title of a progress bar -> the trainings under it; a stage begins when the one before it has ended."""

    def prepare(self) -> None:
        """Write what the commands of its trainings read; the folder is this experiment's."""

    def collect(self) -> Figures:
        """The figures of the trainings that are done.

        Raises:
            UserError: there are none.
        """

    def publish(self, figures: Figures) -> Mapping[str, Path]:
        """Print the figures as a table, and write the files that show them.

        Returns:
            What each file is -> its path.
        """


def carry_out(settings: ExperimentSettings, experiment: Experiment[Figures]) -> None:
    """Run the trainings of an experiment that are not done yet, and publish the figures of all.

    Raises:
        UserError: the folder is in use, the cluster is not as it must be, or every training failed.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the running trainings have been asked to stop between two batches.
    """
    with apart(settings.jobs, settings.cluster, settings.reads, settings.out) as submit:
        open_run(settings.out, settings.asked(), settings.resume, defaults=settings.defaults())
        experiment.prepare()
        for title, jobs in experiment.stages.items():
            run_all(jobs, submit, title)
    files = experiment.publish(experiment.collect())
    width = 1 + max(map(len, files))
    for name, path in files.items():
        print(f"{name + ':':<{width}} {path}")


def write_settings(path: Path, settings: Mapping[str, Any] | None) -> None:
    """Write settings of a command as YAML, for its `--config`."""
    write_text(path, yaml.safe_dump(plain(settings or {})))


def knee_page_head(
    settings: KneeExperimentSettings,
    exams: ExamFolder,
    *,
    title: str,
    lead: str,
    facts: Sequence[tuple[str, str]],
    shown: Mapping[str, Mapping[str, object]],
    warnings: Sequence[str] = (),
) -> PageHead:
    """What the pages of experiments on knees begin and end with.

    Args:
        settings: Of the experiment.
        exams: Those that it was made with.
        title: Before the task and plane.
        lead: As of `PageHead`.
        facts: Those between task and plane, and seeds.
        shown: Settings, as of `PageHead`.
        warnings: As of `PageHead`.
    """
    return PageHead(
        title=f"{title}: {settings.task} from {settings.plane} slices",
        lead=lead,
        warnings=warnings,
        data_note=data_note(exams),
        facts=[("task", settings.task), ("plane", settings.plane), *facts, ("seeds", str(settings.seeds))],
        settings=shown,
        commands=[this_command()],
        task=settings.task,
        plane=settings.plane,
    )


def this_command() -> str:
    """What was typed to start this process, for a page to show."""
    return shlex.join(["kneessl", *sys.argv[1:]])


def published_files(out: Path, name: str) -> dict[str, Path]:
    """Where the table, page and figure of an experiment go."""
    return {"table": out / f"{name}.csv", "page": out / f"{name}.html", "figure": out / f"{name}.png"}
