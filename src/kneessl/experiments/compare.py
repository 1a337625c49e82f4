"""`kneessl compare`: every method on the same exams, split, budget, labels and fine-tuning; the thesis's table 5.2."""

import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from kneessl import cli
from kneessl.errors import UserError
from kneessl.evaluation.comparison import ComparedArm, compare_arms
from kneessl.exams.folder import ExamFolder, Plane
from kneessl.exams.summary import data_note
from kneessl.experiments.jobs import (
    OWN_OF_FINETUNE,
    OWN_OF_PRETRAIN,
    Words,
    check_settings,
    done,
    failure,
    predictions,
    run_all,
)
from kneessl.files import write_text
from kneessl.methods import METHODS
from kneessl.report.comparison_page import write_comparison_page
from kneessl.report.comparison_table import terminal_table, write_comparison_csv
from kneessl.report.page import PageHead
from kneessl.settings import require_positive
from kneessl.training.runs import open_run, plain

SUPERVISED: dict[str, str] = {
    "supervised": "resnet18",
    "mrnet_resnet18": "mrnet_resnet18",
    "mrnet_alexnet": "mrnet_alexnet",
}
"""Arms without pre-training, and the network that each fine-tunes."""
ARMS: tuple[str, ...] = (*METHODS, *SUPERVISED)
REFERENCE = "byolmed2d"
PUBLISHED: dict[tuple[str, str], dict[str, tuple[float, float, str]]] = {
    ("acl", "sagittal"): {
        "byolmed2d": (0.801, 0.733, "thesis 2022"),
        "manna2022": (0.848, 0.766, "Manna et al. 2022"),
        "sslm": (0.893, 0.80, "SSLM, as the thesis cites it"),
        "mrnet_alexnet": (0.915, 0.867, "MRNet, sagittal"),
    }
}
"""AUC and accuracy on MRNet's 120 valid exams, by task and plane; shown beside, never tested against."""


@dataclass(frozen=True)
class Job:
    """One arm under one seed: its folder, and the settings of its commands."""

    arm: str
    seed: int
    folder: Path
    data: Path
    task: str
    plane: Plane
    pretrain: Mapping[str, Any]
    finetune: Mapping[str, Any]
    minutes: float | None

    def commands(self) -> Iterator[Words]:
        """The commands still to be run; each is made when the ones before it are done."""
        data, common = str(self.data), ["--plane", self.plane, "--seed", str(self.seed), "--resume"]
        encoder, frozen, tuned = (self.folder / name for name in ("encoder", "frozen", "fine-tuned"))
        start: Words = []
        network = ["--network", SUPERVISED[self.arm]] if self.arm in SUPERVISED else []
        if self.arm not in SUPERVISED:
            method = ["--method", self.arm, "--config", str(self.folder / "pretrain.yaml")]
            pretrain = ["pretrain", data, *method, *common]
            budget: Words = []
            if self.minutes is not None:
                trial = self.folder / "trial"
                yield [*pretrain, "--out", str(trial), "--epochs", "1", "--warmup_epochs", "0"]
                epochs = epochs_within(self.minutes, trial)
                warmup = min(cli.parse_settings("pretrain", self.pretrain).warmup_epochs, epochs // 2)
                budget = ["--epochs", str(epochs), "--warmup_epochs", str(warmup)]
            yield [*pretrain, "--out", str(encoder), *budget]
            start = ["--from", str(encoder)]
        tune = ["finetune", data, "--task", self.task, *network, *start, *common]
        tune += ["--config", str(self.folder / "finetune.yaml")]
        yield [*tune, "--out", str(tuned)]
        against: Words = []
        if not self.arm.startswith("mrnet"):
            yield [*tune, "--frozen", "--out", str(frozen)]
            against = ["--against", str(frozen)]
        yield ["evaluate", str(tuned), data, *against, "--out", str(self.folder)]


def epochs_within(minutes: float, trial: Path) -> int:
    """How many epochs fit into so many minutes, judged by the one that `trial` took."""
    record = json.loads((trial / "run.json").read_text(encoding="utf-8"))
    return max(1, int(60 * minutes / record["seconds"]))


def compare(
    data: Path,
    task: str,
    out: Path,
    plane: Plane = "sagittal",
    methods: list[str] | None = None,
    seeds: int = 3,
    minutes: float | None = None,
    pretrain: dict[str, Any] | None = None,
    finetune: dict[str, Any] | None = None,
    arms: dict[str, dict[str, dict[str, Any]]] | None = None,
    jobs: int = 1,
    resume: bool = False,
) -> None:
    """Train every method alike, and compare them on the `valid` exams: table, CSV, and a page with all curves.

    Every arm has the same exams, labels, seeds and settings, but for what `arms` says. Each self-supervised arm is read
    in two ways: a linear probe on its frozen features, and fine-tuning. Differences to BYOLMed2D are tested by paired
    DeLong with Holm's correction. A method that fails stands in the table with its reason, and the rest go on.

    Args:
        data: Exam folder; trained on `train`, read once on `valid`.
        task: acl, meniscus, abnormal, or any other with label files.
        out: Folder to write: comparison.csv, comparison.html, and a folder for each arm and seed.
        plane: The plane to compare on.
        methods: Which arms, such as [byolmed2d,simclr,supervised]; all of them unless told otherwise.
        seeds: Trainings of each arm, seeds 0, 1, ...
        minutes: Give every pre-training so many minutes instead of its epochs, as many whole ones as fit (a trial epoch
            tells); warm-up takes half of them at the most.
        pretrain: Settings of every pre-training, as `kneessl pretrain --help` lists them.
        finetune: Settings of every fine-tuning, as `kneessl finetune --help` lists them.
        arms: Settings of single arms, such as {sslm: {pretrain: {settings: {width: 16}}}}.
        jobs: Arms to train at the same time, sharing the processor's cores.
        resume: Go on where a comparison in OUT stopped; what failed is tried again.
    """
    asked = {k: v for k, v in locals().items() if k not in {"out", "resume", "jobs"}}
    require_positive({**asked, "jobs": jobs}, "seeds", "jobs", *(["minutes"] if minutes is not None else []))
    folder = ExamFolder(data)
    for split in ("train", "valid"):
        folder.labels(split, task)
        folder.require(split, plane)
    names = list(dict.fromkeys(methods or ARMS))
    for option, given in (("methods", names), ("arms", arms or {})):
        unknown = sorted(set(given) - set(ARMS))
        if unknown:
            raise UserError(f"{option} names {', '.join(unknown)}; there are {', '.join(ARMS)}")
    jobs_to_do = []
    for seed in range(seeds):
        for name in names:
            own = (arms or {}).get(name, {})
            jobs_to_do.append(
                Job(
                    name, seed, out / "runs" / f"{name}-seed{seed}", data, task, plane, minutes=minutes,
                    pretrain=dict(pretrain or {}) | dict(own.get("pretrain", {})),
                    finetune=dict(finetune or {}) | dict(own.get("finetune", {})),
                )
            )  # fmt: skip
    check_all(jobs_to_do)
    open_run(out, asked, resume)
    for job in jobs_to_do:
        write_text(job.folder / "pretrain.yaml", yaml.safe_dump(plain(job.pretrain)))
        write_text(job.folder / "finetune.yaml", yaml.safe_dump(plain(job.finetune)))
    run_all(jobs_to_do, jobs, "compare")
    compared = [collect(name, [job for job in jobs_to_do if job.arm == name]) for name in names]
    reference = REFERENCE if REFERENCE in names else names[0]
    rows = compare_arms(compared, reference)
    write_comparison_csv(out / "comparison.csv", rows)
    write_comparison_page(
        out / "comparison.html",
        PageHead(
            title=f"Methods compared: {task} from {plane} slices",
            lead=f"{len(names)} arms, {seeds} seeds each, evaluated on {len(compared[0].exams)} exams of the valid "
            "split.",
            data_note=data_note(folder),
            facts=[("task", task), ("plane", plane), ("arms", str(len(names))), ("seeds", str(seeds))],
            settings={kind: plain(asked[kind] or {}) for kind in ("pretrain", "finetune", "arms")},
            commands=[shlex.join(["kneessl", *sys.argv[1:]])],
            task=task,
            plane=plane,
        ),
        rows,
        compared,
    )
    print(terminal_table(rows))
    print(f"table: {out / 'comparison.csv'}\npage:  {out / 'comparison.html'}")


def check_all(jobs: list[Job]) -> None:
    """Parse every arm's settings before anything is trained.

    Raises:
        UserError: as `check_settings`, and which arm's they are.
    """
    for job in jobs:
        try:
            check_settings("pretrain", job.pretrain, OWN_OF_PRETRAIN)
            check_settings("finetune", job.finetune, OWN_OF_FINETUNE)
        except UserError as error:
            raise UserError(f"{job.arm}, {error}") from error


def collect(name: str, jobs: list[Job]) -> ComparedArm:
    """What an arm's runs have left behind."""
    tables, failures, records, collapsed = [], [], [], 0
    for job in jobs:
        if not done(job):
            failures.append(failure(job))
            continue
        tables.append(predictions(job, job.task))
        first = job.folder / ("fine-tuned" if name in SUPERVISED else "encoder") / "run.json"
        records.append(json.loads(first.read_text(encoding="utf-8")))
        tuned = json.loads((job.folder / "fine-tuned" / "run.json").read_text(encoding="utf-8"))
        records[-1]["parameters"] = tuned["parameters"]
        collapsed += bool(records[-1].get("collapsed"))
    exams = [row["exam"] for row in tables[0]] if tables else []

    def scores(column: str) -> np.ndarray | None:
        if not tables or column not in tables[0][0]:
            return None
        return np.array([[float(row[column]) for row in table] for table in tables])

    return ComparedArm(
        name=name,
        kind="supervised" if name in SUPERVISED else "self-supervised",
        exams=exams,
        labels=np.array([int(row["label"]) for row in tables[0]]) if tables else np.array([], dtype=int),
        fine_tuned=scores("fine-tuned"),
        frozen=scores("frozen"),
        parameters=records[0]["parameters"] if records else None,
        seconds=[record["seconds"] for record in records],
        memory_bytes=[record["peak_memory_bytes"] for record in records],
        collapsed=collapsed,
        failures=failures,
        published=PUBLISHED.get((jobs[0].task, jobs[0].plane), {}).get(name),
    )
