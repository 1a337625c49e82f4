"""`kneessl prevalence`: train where positives are rare, with pre-training and without; which of the two loses more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from kneessl.classifier.classifier import NetworkName
from kneessl.errors import UserError
from kneessl.evaluation.imbalance import choose
from kneessl.evaluation.rare_positives import (
    ARMS,
    BALANCED,
    LINEAR,
    READOUTS,
    SELF_SUPERVISED,
    SUPERVISED,
    Panel,
    PrevalenceRow,
    prevalence_rows,
)
from kneessl.exams.folder import ExamFolder, Plane, Split
from kneessl.exams.subset import labelled, write_subset
from kneessl.experiments.experiment import (
    KneeExperimentSettings,
    carry_out,
    knee_page_head,
    published_files,
    write_settings,
)
from kneessl.experiments.jobs import Job, check_settings, done, failures, predictions, require_one_done
from kneessl.experiments.prevalence_runs import PrevalenceFineTuning, PrevalencePretraining, TrainingSet
from kneessl.finetuning.recipes import Balance, adapt
from kneessl.finetuning.settings import FinetuneSettings, of_recipe
from kneessl.methods import METHODS, MethodName, make_method
from kneessl.model.labels import FEWEST
from kneessl.report.prevalence_page import write_prevalence_page, write_prevalence_png
from kneessl.report.prevalence_table import prevalence_table, write_prevalence_csv
from kneessl.settings import takes
from kneessl.training.pretrain import PretrainSettings
from kneessl.training.runs import plain

PREVALENCES = (BALANCED, 0.184, 0.05, 0.01)
"""By default; 18.4 % is MRNet's, 208 ACL tears in 1,130 exams."""
BALANCES: tuple[Balance, ...] = ("oversample", "weights", "none")
NETWORK: NetworkName = "resnet18"
"""Both arms' network, but for its head."""
OF_PREPROCESSING = ("size", "field", "depth")
"""Settings of fine-tuning that hold for the linear classifier too."""


@dataclass(frozen=True)
class PrevalenceSettings(KneeExperimentSettings):
    """What `kneessl prevalence` is asked for.

    Args:
        data: Exam folder; training exams are chosen from its labelled `train` exams, `valid` is used as it is.
        task: acl, meniscus, abnormal, or any other with label files.
        out: Folder to write: prevalence.csv, .html and .png, exam folders of links, and a folder for each training.
        plane: The plane to learn from.
        prevalences: Shares of positives among the training exams, 0.5 one of them; the nearest whole number of exams,
            2 at the least, is taken. By default [0.5,0.184,0.05,0.01].
        exams: Training exams at every prevalence; by default the most that all of them allow.
        method: How to pre-train.
        seeds: Choices of exams, each with its own trainings.
        pretrain: Settings of every pre-training, as `kneessl pretrain --help` lists them.
        finetune: Settings of every fine-tuning, as `kneessl finetune --help` lists them.
        jobs: Trainings at the same time, sharing the processor's cores.
        cluster: Address of a Dask scheduler whose workers train instead of this machine, such as tcp://10.0.0.1:8786.
        resume: Go on where OUT stopped; what failed is tried again.
    """

    data: Path
    task: str
    out: Path
    plane: Plane = "sagittal"
    prevalences: list[float] | None = None
    exams: int | None = None
    method: MethodName = "byolmed2d"
    seeds: int = 3
    pretrain: dict[str, Any] | None = None
    finetune: dict[str, Any] | None = None
    jobs: int = 1
    cluster: str | None = None
    resume: bool = False

    @property
    def shares(self) -> list[float]:
        """The prevalences, falling."""
        return sorted(self.prevalences or PREVALENCES, reverse=True)


@takes(PrevalenceSettings)
def run_prevalence(settings: PrevalenceSettings) -> None:
    """Train where positives are rare, with self-supervised pre-training and without, and see which loses how much.

    For each prevalence and seed, equally many training exams are chosen: the seed puts positives and negatives in
    order, and the first of each are taken, so that sets of different prevalence differ in no more exams than they must.
    On these an encoder is pre-trained without labels; then classifiers are fine-tuned from it and from random weights,
    with the rarer class oversampled, weighted in the loss, and as it is. Each is evaluated on the same `valid` exams,
    by its own output, and by a linear classifier that is fitted to its encoder's frozen features with the labels of the
    seed's balanced exams: that compares what was learnt of pictures, whatever the labels did to the output.
    """
    carry_out(settings, plan(settings))


def plan(settings: PrevalenceSettings) -> "Prevalence":
    """The training sets of every prevalence and seed, of equal size.

    Raises:
        UserError: exams or labels are missing or too few, or a setting is wrong.
    """
    folder = ExamFolder(settings.data)
    train, valid = (labelled(folder, split, settings.task, settings.plane) for split in ("train", "valid"))
    judged = list(valid.values())
    if min(judged.count(0), judged.count(1)) < FEWEST:
        raise UserError(
            f"{settings.data} has too few valid {settings.plane} exams labelled for {settings.task}: an interval needs "
            f"{FEWEST} of each label"
        )
    linear = check_trainings(settings)
    positives = list(train.values()).count(1)
    total, counts = training_counts(settings.shares, settings.exams, positives, len(train) - positives)
    return Prevalence(settings, folder, train, valid, linear, total, counts)


@dataclass(frozen=True)
class Prevalence:
    """The experiment: its figures are a table of prevalences for each readout and balance."""

    settings: PrevalenceSettings
    exams: ExamFolder
    train: Mapping[str, int]
    """Exam -> label, of those that training sets are chosen from."""
    valid: Mapping[str, int]
    linear: Mapping[str, float]
    """Settings of the linear classifier."""
    total: int
    """Exams of a training set."""
    positives: Mapping[float, int]
    """Prevalence -> positive exams of a training set."""

    @property
    def training_sets(self) -> list[TrainingSet]:
        """One for each prevalence and seed."""
        chosen = self.settings
        return [
            TrainingSet(chosen.out, share, seed, chosen.task, chosen.plane)
            for share in chosen.shares
            for seed in range(chosen.seeds)
        ]

    @property
    def stages(self) -> dict[str, Sequence[Job]]:
        """Fine-tuning waits for the encoders that it starts from."""
        sets = self.training_sets
        encoders = [PrevalencePretraining(exams, self.settings.method) for exams in sets]
        supervised, tuned = (
            [PrevalenceFineTuning(exams, arm, balance) for exams in sets for balance in BALANCES]
            for arm in (SUPERVISED, SELF_SUPERVISED)
        )
        return {"pre-training and supervised": [*encoders, *supervised], "self-supervised": tuned}

    def prepare(self) -> None:
        """Write the training sets, and the settings that all trainings share."""
        settings = self.settings
        for exams in self.training_sets:
            chosen = choose_exams(self.train, self.positives[exams.prevalence], self.total, exams.seed)
            make_exams(self.exams, exams, {"train": chosen, "valid": self.valid})
        for name, values in (
            ("pretrain", settings.pretrain), ("finetune", settings.finetune), ("linear", self.linear)
        ):  # fmt: skip
            write_settings(settings.out / f"{name}.yaml", values)

    def collect(self) -> dict[Panel, list[PrevalenceRow]]:
        """The figures by readout and balance, of the trainings that are done.

        Raises:
            UserError: every training failed.
        """
        require_one_done([job for jobs in self.stages.values() for job in jobs])
        settings, shares = self.settings, self.settings.shares
        panels = [Panel(readout, balance) for readout in READOUTS for balance in BALANCES]
        cells: dict[tuple[Panel, str], list[dict[int, np.ndarray]]]
        cells = {key: [{} for _ in shares] for key in product(panels, ARMS)}
        truth = np.array([], dtype=int)
        for (panel, arm), exams in product(cells, self.training_sets):
            job = scored_by(exams, settings.method, panel, arm)
            if done(job):
                predicted = predictions(job, settings.task)
                truth = predicted.labels
                cells[panel, arm][shares.index(exams.prevalence)][exams.seed] = predicted.scores[panel.readout]
        return {panel: prevalence_rows(truth, shares, {arm: cells[panel, arm] for arm in ARMS}) for panel in panels}

    def publish(self, figures: Mapping[Panel, list[PrevalenceRow]]) -> dict[str, Path]:
        """Print and write the table, and write the page and the figure."""
        settings, shares = self.settings, self.settings.shares
        files = published_files(settings.out, "prevalence")
        print(prevalence_table(figures, self.positives))
        write_prevalence_csv(files["table"], figures, self.positives, self.total)
        head = knee_page_head(
            settings,
            self.exams,
            title="Where positives are rare",
            lead=f"{self.total} training exams at each of {len(shares)} prevalences, seeds: {settings.seeds}; "
            f"pre-trained by {settings.method} or not at all, and evaluated on {len(self.valid)} exams of the valid "
            f"split, {sum(self.valid.values())} of them positive.",
            warnings=failures(job for jobs in self.stages.values() for job in jobs),
            facts=[
                ("training exams", f"{self.total:,}"),
                ("positives among them", ", ".join(str(self.positives[share]) for share in shares)),
                ("pre-training", settings.method),
            ],
            shown={
                "pre-training": plain(settings.pretrain or {}),
                "fine-tuning": plain(settings.finetune or {}),
            },
        )
        write_prevalence_page(files["page"], head, figures, self.positives)
        write_prevalence_png(files["figure"], figures)
        return files


def make_exams(folder: ExamFolder, exams: TrainingSet, parts: Mapping[Split, Mapping[str, int]]) -> None:
    """Write a training set's exam folder, of links into `folder`; one that is there already must be just that.

    Raises:
        UserError: it holds other exams or labels, since the labels of `folder` have changed.
    """
    if not exams.folder.is_dir():
        write_subset(folder, exams.folder, exams.task, exams.plane, parts)
    elif any(ExamFolder(exams.folder).labels(split, exams.task) != labels for split, labels in parts.items()):
        raise UserError(
            f"the labelled exams of {folder.root} have changed since {exams.out} began; choose another --out"
        )


def check_trainings(settings: PrevalenceSettings) -> dict[str, float]:
    """Parse the settings of all trainings before anything is written; those that the linear classifier has.

    Raises:
        UserError: as `check_settings`, a setting out of range, or a method whose network has no random start.
    """
    method = settings.method
    if METHODS[method].network != NETWORK:
        raise UserError(
            f"method {method} trains a network that cannot start from random weights, with which this compares; "
            "choose another method"
        )
    before: PretrainSettings = check_settings("pretrain", settings.pretrain, "weights", "probe")
    make_method(method, before.pool, before.settings or {})
    reserved = ("network", "weights", "labels", "labels_seed", "folds", "frozen", "balance")
    values: FinetuneSettings = check_settings("finetune", settings.finetune, *reserved)
    adapt(NETWORK, of_recipe(values), values.size, 1)
    return {name: getattr(values, name) for name in OF_PREPROCESSING}


def training_counts(
    prevalences: Sequence[float], exams: int | None, positives: int, negatives: int
) -> tuple[int, dict[float, int]]:
    """How many training exams there are at every prevalence, and how many of them are positive at each.

    Args:
        prevalences: Shares of positives.
        exams: As asked for; None for the most that the labelled exams allow.
        positives: Labelled exams that are.
        negatives: Those that are not.

    Raises:
        UserError: a prevalence is out of range or there twice, 0.5 is missing, or the labelled exams do not allow it.
    """
    named = ", ".join(f"{share:g}" for share in prevalences)
    if not all(0 < share < 1 for share in prevalences) or BALANCED not in prevalences:
        raise UserError(
            f"prevalences is {named}; they must be above 0 and below 1, and {BALANCED} one of them, from which losses "
            "are counted"
        )

    def fits(total: int) -> bool:
        return all(round(p * total) <= positives and total - round(p * total) <= negatives for p in prevalences)

    most = max(filter(fits, range(positives + negatives + 1)))
    total = most if exams is None else exams
    if not 0 < total <= most:
        raise UserError(
            f"exams is {total}; with {positives} positive and {negatives} negative labelled training exams, "
            f"prevalences {named} allow 1 to {most}"
        )
    counts = {share: round(share * total) for share in prevalences}
    for share, count in counts.items():
        if min(count, total - count) < FEWEST:
            raise UserError(
                f"prevalence {share:g} of {total} exams is {count} positive; training needs {FEWEST} of each class, so "
                "leave it out, or use more labelled exams"
            )
    if len(set(counts.values())) < len(prevalences):
        raise UserError(
            f"prevalences {named} of {total} exams are {', '.join(map(str, counts.values()))} positive; leave out what "
            "is there twice"
        )
    return total, counts


def choose_exams(labels: Mapping[str, int], positives: int, total: int, seed: int) -> dict[str, int]:
    """Exams with their labels: `positives` of 1, the rest of 0; the first ones in an order that the seed makes."""
    names = list(labels)
    chosen = choose(np.array(list(labels.values())), [total - positives, positives], seed)
    return {names[i]: labels[names[i]] for i in chosen}


def scored_by(exams: TrainingSet, method: MethodName, panel: Panel, arm: str) -> Job:
    """The run whose predictions have an arm's scores for a panel; one encoder serves all balances."""
    if panel.readout == LINEAR and arm == SELF_SUPERVISED:
        return PrevalencePretraining(exams, method)
    return PrevalenceFineTuning(exams, arm, panel.balance)
