"""`kneessl label-curve`: what pre-training is worth in labels. AUC against the number of labels, start by start."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kneessl.classifier.classifier import NETWORKS, NetworkName
from kneessl.errors import UserError
from kneessl.evaluation.labels_needed import CurvePoint, Scores, label_curve
from kneessl.exams.folder import ExamFolder, Plane
from kneessl.experiments.experiment import (
    KneeExperimentSettings,
    carry_out,
    knee_page_head,
    published_files,
    write_settings,
)
from kneessl.experiments.jobs import Words, check_settings, done, failures, predictions, require_one_done
from kneessl.finetuning.recipes import Recipe, adapt
from kneessl.finetuning.settings import FinetuneSettings, of_recipe
from kneessl.finetuning.start import chosen_network, read_start, start_classifier
from kneessl.model.labels import FEWEST as FEWEST_OF_A_CLASS
from kneessl.model.labels import label_subset, labelled_exams
from kneessl.report.label_curve_page import write_label_curve_page, write_label_curve_png
from kneessl.report.label_curve_table import label_curve_table, write_label_curve_csv
from kneessl.settings import require_not_negative, takes
from kneessl.training.runs import plain

RANDOM = "random"
"""The arm that starts from random weights, with which the others are compared."""
WEIGHTS = "weights"
"""The arm that starts from a file, such as ImageNet's weights."""
FRACTIONS = (0.01, 0.05, 0.1, 0.25, 1.0)
FEWEST = 2 * FEWEST_OF_A_CLASS
"""Labels that `label_subset` can still choose enough of each class from."""


@dataclass(frozen=True)
class LabelCurveSettings(KneeExperimentSettings):
    """What `kneessl label-curve` is asked for.

    Args:
        data: Exam folder; trained on `train`, read once on `valid`.
        task: acl, meniscus, abnormal, or any other with label files.
        out: Folder to write: label_curve.csv, .html and .png, and a folder for each training.
        plane: The plane to learn from.
        from_run: Run folder of `kneessl pretrain` to start from, or several, such as [runs/byol,runs/simclr]; each is
            called by its folder's name. Also spelled --from.
        weights: File (.safetensors, .pth) to start from as well, with torchvision's names, such as ImageNet's.
        fractions: Shares of the labelled training exams to train with, rising, up to 1; at least 4 exams are taken. By
            default [0.01,0.05,0.1,0.25,1].
        seeds: Trainings of each start with each number of labels; the seed also chooses which exams' labels.
        least_steps: Raise the epochs where few labels would make fewer optimiser steps than this, oversampling not
            counted; 0 gives all the same epochs.
        finetune: Settings of every fine-tuning, as `kneessl finetune --help` lists them; with frozen true it is a
            linear probe's curve.
        jobs: Trainings at the same time, sharing the processor's cores.
        cluster: Address of a Dask scheduler whose workers train instead of this machine, such as tcp://10.0.0.1:8786.
        resume: Go on where OUT stopped; what failed is tried again.
    """

    data: Path
    task: str
    out: Path
    plane: Plane = "sagittal"
    from_run: list[Path] | Path | None = None
    weights: Path | None = None
    fractions: list[float] | None = None
    seeds: int = 3
    least_steps: int = 0
    finetune: dict[str, Any] | None = None
    jobs: int = 1
    cluster: str | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_not_negative(vars(self), "least_steps")

    @property
    def pretrained(self) -> list[Path]:
        """The run folders to start from."""
        return [self.from_run] if isinstance(self.from_run, Path) else self.from_run or []


@dataclass(frozen=True)
class LabelCurveRun:
    """One start, number of labels and seed: fine-tune, and evaluate on valid."""

    settings: LabelCurveSettings
    arm: str
    start: tuple[str, ...]
    """The words that name what it starts from."""
    labels: int
    seed: int
    epochs: int

    @property
    def folder(self) -> Path:
        """Of both commands."""
        return self.settings.out / "runs" / f"{self.arm}-{self.labels}-seed{self.seed}"

    def commands(self) -> Iterator[Words]:
        """The words after `kneessl`."""
        model, data, seed = str(self.folder / "model"), str(self.settings.data), str(self.seed)
        config = ["--config", str(self.folder / "finetune.yaml"), "--epochs", str(self.epochs)]
        subset = ["--labels", str(self.labels), "--labels_seed", seed, "--seed", seed]
        tune = ["finetune", data, "--task", self.settings.task, "--plane", self.settings.plane, *self.start]
        yield [*tune, *config, *subset, "--out", model, "--resume"]
        yield ["evaluate", model, data, "--out", str(self.folder)]


@takes(LabelCurveSettings)
def run_label_curve(settings: LabelCurveSettings) -> None:
    """Fine-tune from random weights and from pre-trained ones with few labels and with more: how many are saved.

    Every start has the same labels, seeds and settings, and is evaluated on the `valid` exams once. Beside each AUC
    stands how many labels random weights need for the same, by linear interpolation in the logarithm of labels on their
    curve, made never-falling; its interval is a bootstrap's over exams and seeds.
    """
    carry_out(settings, plan(settings))


def plan(settings: LabelCurveSettings) -> "LabelCurve":
    """Every start with every number of labels under every seed, by rising numbers.

    Raises:
        UserError: exams or labels are missing or too few, a start does not fit the others, or a setting is wrong.
    """
    folder = ExamFolder(settings.data)
    valid = folder.labels("valid", settings.task)
    labels = [valid[exam] for exam in folder.require("valid", settings.plane) if exam in valid]
    if min(np.bincount(labels, minlength=2)) < 2:
        raise UserError(
            f"{settings.data} has too few valid {settings.plane} exams labelled for {settings.task}: an interval needs "
            "2 of each label"
        )
    starts = name_starts(settings.pretrained, settings.weights)
    values: FinetuneSettings = check_settings("finetune", settings.finetune, "weights", "labels", "labels_seed")
    network, recipe = check_starts(starts, values)
    labelled, truth = labelled_exams(folder, [settings.task], settings.plane, None, 0)
    counts = count_labels(settings.fractions or list(FRACTIONS), len(labelled))
    for count in counts:
        label_subset(truth[:, 0], count, 0)  # it says where a class has too few
    epochs = {count: epochs_for(recipe, count, settings.least_steps) for count in counts}
    runs = [
        LabelCurveRun(settings, arm, tuple(start), count, seed, epochs[count])
        for count in counts
        for seed in range(settings.seeds)
        for arm, start in starts.items()
    ]
    return LabelCurve(settings, folder, starts, network, len(labelled), epochs, runs)


@dataclass(frozen=True)
class LabelCurve:
    """The experiment: its figures are the points of all curves."""

    settings: LabelCurveSettings
    exams: ExamFolder
    starts: Mapping[str, Words]
    """As `name_starts`."""
    network: NetworkName
    labelled: int
    """Training exams with a label."""
    epochs: Mapping[int, int]
    """Number of labels, rising -> epochs."""
    runs: Sequence[LabelCurveRun]

    @property
    def stages(self) -> dict[str, Sequence[LabelCurveRun]]:
        """All runs at once."""
        return {"label curve": self.runs}

    def prepare(self) -> None:
        """Write the settings of each run."""
        for run in self.runs:
            write_settings(run.folder / "finetune.yaml", self.settings.finetune)

    def collect(self) -> "LabelCurveFigures":
        """The points of the curves, of the runs that are done.

        Raises:
            UserError: every run failed.
        """
        require_one_done(self.runs)
        counts = list(self.epochs)
        curves: dict[str, list[dict[int, np.ndarray]]] = {arm: [{} for _ in counts] for arm in self.starts}
        truth = np.array([], dtype=int)
        for run in filter(done, self.runs):
            predicted = predictions(run, self.settings.task)
            truth = predicted.labels
            curves[run.arm][counts.index(run.labels)][run.seed] = predicted.scores["model"]
        scores: dict[str, list[Scores]] = {arm: list(curve) for arm, curve in curves.items()}
        return LabelCurveFigures(label_curve(truth, counts, scores, RANDOM), len(truth), int(truth.sum()))

    def publish(self, figures: "LabelCurveFigures") -> dict[str, Path]:
        """Print and write the table, and write the page and the figure."""
        settings, points = self.settings, figures.points
        files = published_files(settings.out, "label_curve")
        print(label_curve_table(points, RANDOM))
        write_label_curve_csv(files["table"], points, self.labelled)
        head = knee_page_head(
            settings,
            self.exams,
            title="What pre-training is worth in labels",
            lead=f"Starts: {len(self.starts)}, numbers of labels: {len(self.epochs)}, seeds: {settings.seeds}; "
            f"evaluated on {figures.exams} exams of the valid split, {figures.positives} of them positive.",
            warnings=failures(self.runs),
            facts=[
                ("labelled training exams", f"{self.labelled:,}"),
                ("labels trained with", ", ".join(map(str, self.epochs))),
            ],
            shown={
                "starts": {arm: " ".join(start) or "random weights" for arm, start in self.starts.items()},
                "fine-tuning": plain(settings.finetune or {}) | {"network": self.network},
                "epochs by labels": {str(count): epochs for count, epochs in self.epochs.items()},
            },
        )
        write_label_curve_page(files["page"], head, points, RANDOM)
        write_label_curve_png(files["figure"], points)
        return files


@dataclass(frozen=True)
class LabelCurveFigures:
    """What a label curve shows."""

    points: list[CurvePoint]
    exams: int
    """That were evaluated."""
    positives: int
    """Of these."""


def name_starts(runs: list[Path], weights: Path | None) -> dict[str, Words]:
    """The arms, and the words that tell `kneessl finetune` where each starts.

    Raises:
        UserError: two of them bear one name.
    """
    starts: dict[str, Words] = {RANDOM: []}
    if weights is not None:
        starts[WEIGHTS] = ["--weights", str(weights)]
    for run in runs:
        name = run.absolute().name  # a link may give it a better one
        if name in starts:
            raise UserError(f"{run}: there is a start called {name} already; rename the folder, so that names differ")
        starts[name] = ["--from", str(run)]
    return starts


def check_starts(starts: Mapping[str, Words], values: FinetuneSettings) -> tuple[NetworkName, Recipe]:
    """Load every start once, so that one that does not fit ends here; the network and recipe that they all have.

    Raises:
        UserError: a run or file that is missing or of another network than the others, or a setting out of range.
    """
    network = chosen_network(values.network, values.head, values.frozen, {})
    if network not in NETWORKS or NETWORKS[network].frozen or network == "sslm_linear":
        raise UserError(f"network {network} cannot start from random weights, with which a label curve compares")
    recipe = adapt(network, of_recipe(values), values.size, 1)
    for arm, start in starts.items():
        if not start:
            continue
        path = Path(start[1])
        run, file = (path, None) if start[0] == "--from" else (None, path)
        record = read_start(run)
        if chosen_network(values.network, values.head, values.frozen, record) != network:
            raise UserError(
                f"{path} is of network {record['network']}, and random weights are of {network}; a label curve "
                "compares starts of one network"
            )
        if taken := start_classifier(network, values.head, 1, run, file)[1]:
            print(f"{arm}: {taken}")
    return network, recipe


def count_labels(fractions: list[float], labelled: int) -> list[int]:
    """Numbers of labels for shares of those that there are: rounded, and at least 4.

    Raises:
        UserError: the shares are not above 0, rising and up to 1, or two of them come to the same number.
    """
    shares = list(fractions)
    if not shares or not all(0 < share <= 1 for share in shares) or shares != sorted(set(shares)):
        raise UserError(f"fractions is {shares}; they must be above 0, rising, and up to 1, such as [0.1,0.25,1]")
    counts = [max(FEWEST, round(share * labelled)) for share in shares]
    for k in range(1, len(counts)):
        if counts[k] == counts[k - 1]:
            raise UserError(
                f"fractions {shares[k - 1]} and {shares[k]} of {labelled} labelled exams are both {counts[k]} labels; "
                "leave one out"
            )
    return counts


def epochs_for(recipe: Recipe, labels: int, least_steps: int) -> int:
    """The recipe's epochs, or as many more as make `least_steps` batches."""
    return max(recipe.epochs, math.ceil(least_steps / math.ceil(labels / recipe.batch)))
