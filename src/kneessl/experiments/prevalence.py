"""`kneessl prevalence`: train where positives are rare, with pre-training and without; which of the two loses more."""

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from kneessl.classifier.classifier import NetworkName
from kneessl.errors import UserError
from kneessl.evaluation.feature_probe import enough_to_probe
from kneessl.evaluation.imbalance import choose
from kneessl.evaluation.rare_positives import (
    ARMS,
    BALANCED,
    LINEAR,
    MODEL,
    READOUTS,
    SELF_SUPERVISED,
    SUPERVISED,
    Panel,
    PrevalenceRow,
    prevalence_rows,
)
from kneessl.exams.folder import ExamFolder, Plane, Split
from kneessl.exams.subset import labelled, write_subset
from kneessl.exams.summary import data_note
from kneessl.experiments.jobs import (
    OWN_OF_FINETUNE,
    OWN_OF_PRETRAIN,
    Job,
    Words,
    check_settings,
    done,
    failure,
    predictions,
    run_all,
)
from kneessl.files import write_text
from kneessl.finetuning.recipes import OF_RECIPE, Balance, adapt
from kneessl.methods import METHODS, MethodName, make_method
from kneessl.model.labels import FEWEST
from kneessl.model.locked import WEIGHTS
from kneessl.report.page import PageHead
from kneessl.report.prevalence_page import write_prevalence_page, write_prevalence_png
from kneessl.report.prevalence_table import prevalence_table, write_prevalence_csv
from kneessl.settings import require_positive
from kneessl.training.runs import open_run, plain

PREVALENCES = (BALANCED, 0.184, 0.05, 0.01)
"""By default; 18.4 % is MRNet's, 208 ACL tears in 1,130 exams."""
BALANCES: tuple[Balance, ...] = ("oversample", "weights", "none")
NETWORK: NetworkName = "resnet18"
"""Both arms' network, but for its head."""
OF_PREPROCESSING = ("size", "field", "depth")
"""Settings of fine-tuning that hold for the linear classifier too."""


@dataclass(frozen=True)
class Draw:
    """One prevalence and one seed: where its exams lie, and the words of commands on them."""

    out: Path
    prevalence: float
    seed: int
    task: str
    plane: Plane

    @property
    def name(self) -> str:
        """Such as 18.4-percent-seed0."""
        return f"{100 * self.prevalence:g}-percent-seed{self.seed}"

    @property
    def exams(self) -> Path:
        """The exam folder."""
        return self.out / "exams" / self.name

    def run(self, kind: str) -> Path:
        """The folder of one of its jobs."""
        return self.out / "runs" / f"{self.name}-{kind}"

    @property
    def encoder(self) -> Path:
        """The run folder of its pre-training."""
        return self.run("encoder") / "encoder"

    def common(self, config: str) -> Words:
        """Options that every training on its exams has."""
        return ["--plane", self.plane, "--seed", str(self.seed), "--config", str(self.out / config), "--resume"]

    def tune(self, *options: str, config: str = "finetune.yaml") -> Words:
        """Fine-tuning on its exams."""
        return ["finetune", str(self.exams), "--task", self.task, *self.common(config), *options]

    def read(self, out: Path, *start: str) -> Words:
        """Fitting a linear classifier to frozen features, by the labels of this seed's balanced exams."""
        return replace(self, prevalence=BALANCED).tune(*start, "--frozen", "--out", str(out), config="linear.yaml")

    def evaluate(self, model: Path, *against: str) -> Words:
        """Evaluating a model on the valid exams, beside another; both lie in the folder of their job."""
        return ["evaluate", str(model), str(self.exams), *against, "--out", str(model.parent)]


@dataclass(frozen=True)
class PreTraining:
    """An encoder from the exams of a draw, without their labels, and what a linear classifier reads off it."""

    draw: Draw
    method: MethodName

    @property
    def folder(self) -> Path:
        """As of any job."""
        return self.draw.run("encoder")

    def commands(self) -> Iterator[Words]:
        """Pre-train, read, evaluate."""
        draw, encoder = self.draw, str(self.draw.encoder)
        yield ["pretrain", str(draw.exams), "--method", self.method, *draw.common("pretrain.yaml"), "--out", encoder]
        yield draw.read(self.folder / LINEAR, "--from", encoder)
        yield draw.evaluate(self.folder / LINEAR)


@dataclass(frozen=True)
class FineTuning:
    """A classifier from the labelled exams of a draw, from either start."""

    draw: Draw
    arm: str
    balance: str

    @property
    def folder(self) -> Path:
        """As of any job."""
        return self.draw.run(f"{self.arm}-{self.balance}")

    def commands(self) -> Iterator[Words]:
        """Fine-tune, and evaluate; without pre-training the encoder is no other job's, so it is read here too."""
        draw, model, linear = self.draw, self.folder / MODEL, self.folder / LINEAR
        own = ["--balance", self.balance, "--out", str(model)]
        if self.arm == SUPERVISED:
            yield draw.tune(*own)
            yield draw.read(linear, "--weights", str(model / WEIGHTS))
            yield draw.evaluate(model, "--against", str(linear))
            return
        if not (draw.encoder / "run.json").is_file():
            raise UserError("the pre-training that it starts from failed")
        yield draw.tune("--from", str(draw.encoder), *own)
        yield draw.evaluate(model)


def run_prevalence(
    data: Path,
    task: str,
    out: Path,
    plane: Plane = "sagittal",
    prevalences: list[float] | None = None,
    exams: int | None = None,
    method: MethodName = "byolmed2d",
    seeds: int = 3,
    pretrain: dict[str, Any] | None = None,
    finetune: dict[str, Any] | None = None,
    jobs: int = 1,
    resume: bool = False,
) -> None:
    """Train where positives are rare, with self-supervised pre-training and without, and see which loses how much.

    For each prevalence and seed, equally many training exams are chosen: the seed puts positives and negatives in
    order, and the first of each are taken, so that sets of different prevalence differ in no more exams than they must.
    On these an encoder is pre-trained without labels; then classifiers are fine-tuned from it and from random weights,
    with the rarer class oversampled, weighted in the loss, and as it is. Each is evaluated on the same `valid` exams,
    by its own output, and by a linear classifier that is fitted to its encoder's frozen features with the labels of the
    seed's balanced exams: that compares what was learnt of pictures, whatever the labels did to the output.

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
        resume: Go on where OUT stopped; what failed is tried again.
    """
    asked = {k: v for k, v in locals().items() if k not in {"out", "resume", "jobs"}}
    require_positive({"seeds": seeds, "jobs": jobs}, "seeds", "jobs")
    folder = ExamFolder(data)
    train, valid = (labelled(folder, split, task, plane) for split in ("train", "valid"))
    judged = list(valid.values())
    if min(judged.count(0), judged.count(1)) < FEWEST:
        raise UserError(
            f"{data} has too few valid {plane} exams labelled for {task}: an interval needs {FEWEST} of each label"
        )
    linear = check_trainings(method, pretrain or {}, finetune or {})
    shares = sorted(prevalences or PREVALENCES, reverse=True)
    positives = list(train.values()).count(1)
    total, counts = training_counts(shares, exams, positives, len(train) - positives)
    open_run(out, asked, resume)
    draws = [Draw(out, share, seed, task, plane) for share in shares for seed in range(seeds)]
    for draw in draws:
        part = choose_exams(train, counts[draw.prevalence], total, draw.seed)
        make_exams(folder, draw, {"train": part, "valid": valid})
    settings = {"pretrain": plain(pretrain or {}), "finetune": plain(finetune or {}), "linear": linear}
    for name, values in settings.items():
        write_text(out / f"{name}.yaml", yaml.safe_dump(values))
    encoders = [PreTraining(draw, method) for draw in draws]
    tuned = {arm: [FineTuning(draw, arm, balance) for draw in draws for balance in BALANCES] for arm in ARMS}
    todo: list[Job] = [*encoders, *tuned[SUPERVISED], *tuned[SELF_SUPERVISED]]
    for job in todo:
        job.folder.mkdir(parents=True, exist_ok=True)
    run_all([*encoders, *tuned[SUPERVISED]], jobs, "pre-training and supervised")
    run_all(tuned[SELF_SUPERVISED], jobs, "self-supervised")
    panels = collect(draws, method, shares)
    failures = [f"{job.folder.name} failed: {failure(job)}" for job in todo if not done(job)]
    print(prevalence_table(panels, counts))
    write_prevalence_csv(out / "prevalence.csv", panels, counts, total)
    write_prevalence_page(
        out / "prevalence.html",
        PageHead(
            title=f"Where positives are rare: {task} from {plane} slices",
            lead=f"{total} training exams at each of {len(shares)} prevalences, seeds: {seeds}; pre-trained by "
            f"{method} or not at all, and evaluated on {len(judged)} exams of the valid split, {judged.count(1)} of "
            "them positive.",
            warnings=failures,
            data_note=data_note(folder),
            facts=[
                ("task", task), ("plane", plane), ("training exams", f"{total:,}"),
                ("positives among them", ", ".join(str(counts[share]) for share in shares)), ("pre-training", method),
                ("seeds", str(seeds)),
            ],
            settings={"pre-training": settings["pretrain"], "fine-tuning": settings["finetune"]},
            commands=[shlex.join(["kneessl", *sys.argv[1:]])],
            task=task,
            plane=plane,
        ),
        panels,
        counts,
    )  # fmt: skip
    write_prevalence_png(out / "prevalence.png", panels)
    print(f"table:  {out / 'prevalence.csv'}\npage:   {out / 'prevalence.html'}\nfigure: {out / 'prevalence.png'}")


def make_exams(folder: ExamFolder, draw: Draw, parts: Mapping[Split, Mapping[str, int]]) -> None:
    """Write a draw's exam folder, of links into `folder`; one that is there already must be just that.

    Raises:
        UserError: it holds other exams or labels, since the labels of `folder` have changed.
    """
    if not draw.exams.is_dir():
        write_subset(folder, draw.exams, draw.task, draw.plane, parts)
    elif any(ExamFolder(draw.exams).labels(split, draw.task) != labels for split, labels in parts.items()):
        raise UserError(
            f"the labelled exams of {folder.root} have changed since {draw.out} began; choose another --out"
        )


def check_trainings(method: MethodName, pretrain: Mapping[str, Any], finetune: Mapping[str, Any]) -> dict[str, float]:
    """Parse the settings of all trainings before anything is written; those that the linear classifier has.

    Raises:
        UserError: as `check_settings`, a setting out of range, or a method whose network has no random start.
    """
    if METHODS[method].network != NETWORK:
        raise UserError(
            f"method {method} trains a network that cannot start from random weights, with which this compares; "
            "choose another method"
        )
    before = check_settings("pretrain", pretrain, (*OWN_OF_PRETRAIN, "weights", "probe"))
    make_method(method, before.pool, before.settings or {})
    own = (*OWN_OF_FINETUNE, "network", "weights", "labels", "labels_seed", "folds", "frozen", "balance")
    values = check_settings("finetune", finetune, own)
    adapt(NETWORK, {name: values[name] for name in OF_RECIPE}, values.size, 1)
    return {name: values[name] for name in OF_PREPROCESSING}


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
    enough_to_probe(np.repeat([0, 1], [total - counts[BALANCED], counts[BALANCED]]), total)
    return total, counts


def choose_exams(labels: Mapping[str, int], positives: int, total: int, seed: int) -> dict[str, int]:
    """Exams with their labels: `positives` of 1, the rest of 0; the first ones in an order that the seed makes."""
    names = list(labels)
    chosen = choose(np.array(list(labels.values())), [total - positives, positives], seed)
    return {names[i]: labels[names[i]] for i in chosen}


def scored_by(draw: Draw, method: MethodName, panel: Panel, arm: str) -> Job:
    """The job whose predictions have an arm's scores for a panel; one encoder serves all balances."""
    if panel.readout == LINEAR and arm == SELF_SUPERVISED:
        return PreTraining(draw, method)
    return FineTuning(draw, arm, panel.balance)


def collect(
    draws: Sequence[Draw], method: MethodName, prevalences: Sequence[float]
) -> dict[Panel, list[PrevalenceRow]]:
    """What the jobs have left behind, by readout and balance.

    Raises:
        UserError: every job failed.
    """
    panels = [Panel(readout, balance) for readout in READOUTS for balance in BALANCES]
    cells: dict[tuple[Panel, str], list[dict[int, np.ndarray]]]
    cells = {key: [{} for _ in prevalences] for key in product(panels, ARMS)}
    truth: np.ndarray | None = None
    for (panel, arm), draw in product(cells, draws):
        job = scored_by(draw, method, panel, arm)
        if done(job):
            rows = predictions(job, draw.task)
            truth = np.array([int(row["label"]) for row in rows])
            scores = np.array([float(row[panel.readout]) for row in rows])
            cells[panel, arm][prevalences.index(draw.prevalence)][draw.seed] = scores
    if truth is None:
        raise UserError(f"every training failed; the first one because: {failure(PreTraining(draws[0], method))}")
    return {panel: prevalence_rows(truth, prevalences, {arm: cells[panel, arm] for arm in ARMS}) for panel in panels}
