"""`kneessl compare`: every method on the same exams, split, budget, labels and fine-tuning; the thesis's table 5.2."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kneessl.errors import UserError
from kneessl.evaluation.comparison import ComparedArm, compare_arms
from kneessl.exams.folder import ExamFolder, Plane
from kneessl.experiments.experiment import KneeExperimentSettings, carry_out, knee_page_head, write_settings
from kneessl.experiments.jobs import Words, check_settings, done, failure, predictions
from kneessl.methods import METHODS
from kneessl.report.comparison_page import write_comparison_page
from kneessl.report.comparison_table import terminal_table, write_comparison_csv
from kneessl.settings import require_positive, takes
from kneessl.training.runs import plain, read_record

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
class ComparisonSettings(KneeExperimentSettings):
    """What `kneessl compare` is asked for.

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
        cluster: Address of a Dask scheduler whose workers train instead of this machine, such as tcp://10.0.0.1:8786.
        resume: Go on where a comparison in OUT stopped; what failed is tried again.
    """

    data: Path
    task: str
    out: Path
    plane: Plane = "sagittal"
    methods: list[str] | None = None
    seeds: int = 3
    minutes: float | None = None
    pretrain: dict[str, Any] | None = None
    finetune: dict[str, Any] | None = None
    arms: dict[str, dict[str, dict[str, Any]]] | None = None
    jobs: int = 1
    cluster: str | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.minutes is not None:
            require_positive(vars(self), "minutes")
        for option, given in (("methods", self.names), ("arms", self.arms or {})):
            unknown = sorted(set(given) - set(ARMS))
            if unknown:
                raise UserError(f"{option} names {', '.join(unknown)}; there are {', '.join(ARMS)}")

    @property
    def names(self) -> list[str]:
        """The arms, each once, in the order of the table."""
        return list(dict.fromkeys(self.methods or ARMS))

    def of_arm(self, command: Literal["pretrain", "finetune"], arm: str) -> dict[str, Any]:
        """The settings of one arm's pre-training or fine-tuning: those of every arm, and over them its own."""
        common = {"pretrain": self.pretrain, "finetune": self.finetune}[command]
        return {**(common or {}), **(self.arms or {}).get(arm, {}).get(command, {})}


@dataclass(frozen=True)
class ComparisonRun:
    """One arm under one seed: pre-train, fine-tune, fit a linear probe, evaluate both."""

    settings: ComparisonSettings
    arm: str
    seed: int

    @property
    def folder(self) -> Path:
        """Of all its commands."""
        return self.settings.out / "runs" / f"{self.arm}-seed{self.seed}"

    def commands(self) -> Iterator[Words]:
        """The words after `kneessl`; with a budget in minutes, the epochs are known once the trial has run."""
        data = str(self.settings.data)
        common = ["--plane", self.settings.plane, "--seed", str(self.seed), "--resume"]
        encoder, frozen, tuned = (self.folder / name for name in ("encoder", "frozen", "fine-tuned"))
        start: Words = []
        network = ["--network", SUPERVISED[self.arm]] if self.arm in SUPERVISED else []
        if self.arm not in SUPERVISED:
            method = ["--method", self.arm, "--config", str(self.folder / "pretrain.yaml")]
            pretrain = ["pretrain", data, *method, *common]
            budget: Words = []
            if self.settings.minutes is not None:
                trial = self.folder / "trial"
                yield [*pretrain, "--out", str(trial), "--epochs", "1", "--warmup_epochs", "0"]
                epochs = epochs_within(self.settings.minutes, trial)
                budget = ["--epochs", str(epochs)]
                if wanted := self.settings.of_arm("pretrain", self.arm).get("warmup_epochs"):
                    budget += ["--warmup_epochs", str(min(wanted, epochs // 2))]
            yield [*pretrain, "--out", str(encoder), *budget]
            start = ["--from", str(encoder)]
        tune = ["finetune", data, "--task", self.settings.task, *network, *start, *common]
        tune += ["--config", str(self.folder / "finetune.yaml")]
        yield [*tune, "--out", str(tuned)]
        against: Words = []
        if not self.arm.startswith("mrnet"):
            yield [*tune, "--frozen", "--out", str(frozen)]
            against = ["--against", str(frozen)]
        yield ["evaluate", str(tuned), data, *against, "--out", str(self.folder)]


def epochs_within(minutes: float, trial: Path) -> int:
    """How many epochs fit into so many minutes, judged by the one that `trial` took."""
    return max(1, int(60 * minutes / read_record(trial)["seconds"]))


@takes(ComparisonSettings)
def compare(settings: ComparisonSettings) -> None:
    """Train every method alike, and compare them on the `valid` exams: table, CSV, and a page with all curves.

    Every arm has the same exams, labels, seeds and settings, but for what `arms` says. Each self-supervised arm is read
    in two ways: a linear probe on its frozen features, and fine-tuning. Differences to BYOLMed2D are tested by paired
    DeLong with Holm's correction. A method that fails stands in the table with its reason, and the rest go on.
    """
    carry_out(settings, plan(settings))


def plan(settings: ComparisonSettings) -> "Comparison":
    """Every arm under every seed, whole seeds first.

    Raises:
        UserError: exams or labels are missing, or an arm has settings that its commands do not take.
    """
    folder = ExamFolder(settings.data)
    for split in ("train", "valid"):
        folder.labels(split, settings.task)
        folder.require(split, settings.plane)
    budget = {} if settings.minutes is None else {"warmup_epochs": 0}  # it is fitted to the epochs
    for arm in settings.names:
        try:
            check_settings("pretrain", {**settings.of_arm("pretrain", arm), **budget})
            check_settings("finetune", settings.of_arm("finetune", arm))
        except UserError as error:
            raise UserError(f"{arm}, {error}") from error
    runs = [ComparisonRun(settings, arm, seed) for seed in range(settings.seeds) for arm in settings.names]
    return Comparison(settings, folder, runs)


@dataclass(frozen=True)
class Comparison:
    """The experiment: its figures are one `ComparedArm` for each arm."""

    settings: ComparisonSettings
    exams: ExamFolder
    runs: Sequence[ComparisonRun]

    @property
    def stages(self) -> dict[str, Sequence[ComparisonRun]]:
        """All runs at once."""
        return {"compare": self.runs}

    def prepare(self) -> None:
        """Write the settings of each run."""
        for run in self.runs:
            write_settings(run.folder / "pretrain.yaml", self.settings.of_arm("pretrain", run.arm))
            write_settings(run.folder / "finetune.yaml", self.settings.of_arm("finetune", run.arm))

    def collect(self) -> list[ComparedArm]:
        """An arm of which every seed failed has its reasons, and no scores."""
        return [collect_arm(arm, [run for run in self.runs if run.arm == arm]) for arm in self.settings.names]

    def publish(self, figures: Sequence[ComparedArm]) -> dict[str, Path]:
        """Print and write the table, and write the page."""
        settings, names = self.settings, self.settings.names
        files = {"table": settings.out / "comparison.csv", "page": settings.out / "comparison.html"}
        rows = compare_arms(figures, REFERENCE if REFERENCE in names else names[0])
        write_comparison_csv(files["table"], rows)
        head = knee_page_head(
            settings,
            self.exams,
            title="Methods compared",
            lead=f"{len(names)} arms, {settings.seeds} seeds each, evaluated on {len(figures[0].exams)} exams of the "
            "valid split.",
            facts=[("arms", str(len(names)))],
            shown={kind: plain(getattr(settings, kind) or {}) for kind in ("pretrain", "finetune", "arms")},
        )
        write_comparison_page(files["page"], head, rows, figures)
        print(terminal_table(rows))
        return files


def collect_arm(arm: str, runs: Sequence[ComparisonRun]) -> ComparedArm:
    """What the runs of one arm, one for each seed, have left behind."""
    settings = runs[0].settings
    finished = [run for run in runs if done(run)]
    tables = [predictions(run, settings.task) for run in finished]
    trained = [read_record(run.folder / ("fine-tuned" if arm in SUPERVISED else "encoder")) for run in finished]
    tuned = [read_record(run.folder / "fine-tuned") for run in finished]

    def scores(model: str) -> np.ndarray | None:
        if not tables or model not in tables[0].scores:
            return None
        return np.stack([table.scores[model] for table in tables])

    return ComparedArm(
        name=arm,
        kind="supervised" if arm in SUPERVISED else "self-supervised",
        exams=tables[0].exams if tables else [],
        labels=tables[0].labels if tables else np.array([], dtype=int),
        fine_tuned=scores("fine-tuned"),
        frozen=scores("frozen"),
        parameters=tuned[0]["parameters"] if tuned else None,
        seconds=[record["seconds"] for record in trained],
        memory_bytes=[record["peak_memory_bytes"] for record in trained],
        collapsed=sum(bool(record.get("collapsed")) for record in trained),
        failures=[failure(run) for run in runs if not done(run)],
        published=PUBLISHED.get((settings.task, settings.plane), {}).get(arm),
    )
