"""`kneessl label-curve`: what pre-training is worth in labels. AUC against the number of labels, start by start."""

import math
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonargparse
import numpy as np
import yaml

from kneessl.classifier.classifier import NETWORKS, NetworkName
from kneessl.errors import UserError
from kneessl.evaluation.feature_probe import enough_to_probe
from kneessl.evaluation.labels_needed import CurvePoint, Scores, label_curve
from kneessl.exams.folder import ExamFolder, Plane
from kneessl.exams.summary import data_note
from kneessl.experiments.jobs import OWN_OF_FINETUNE, Words, check_settings, done, failure, predictions, run_all
from kneessl.files import write_text
from kneessl.finetuning.recipes import OF_RECIPE, Recipe, adapt
from kneessl.finetuning.start import chosen_network, read_start, start_classifier
from kneessl.model.labels import FEWEST as FEWEST_OF_A_CLASS
from kneessl.model.labels import label_subset, labelled_exams
from kneessl.report.label_curve_page import write_label_curve_page, write_label_curve_png
from kneessl.report.label_curve_table import label_curve_table, write_label_curve_csv
from kneessl.report.page import PageHead
from kneessl.settings import require_positive
from kneessl.training.runs import open_run, plain

RANDOM = "random"
"""The arm that starts from random weights, with which the others are compared."""
WEIGHTS = "weights"
"""The arm that starts from a file, such as ImageNet's weights."""
FRACTIONS = (0.01, 0.05, 0.1, 0.25, 1.0)
FEWEST = 2 * FEWEST_OF_A_CLASS
"""Labels that `label_subset` can still choose enough of each class from."""


@dataclass(frozen=True)
class Job:
    """One start, number of labels and seed: its folder, and its commands."""

    arm: str
    labels: int
    seed: int
    folder: Path
    data: Path
    task: str
    plane: Plane
    start: tuple[str, ...]
    """The words that name what it starts from."""
    epochs: int

    def commands(self) -> Iterator[Words]:
        """Fine-tune, and evaluate on valid."""
        model, data, seed = str(self.folder / "model"), str(self.data), str(self.seed)
        settings = ["--config", str(self.folder / "finetune.yaml"), "--epochs", str(self.epochs)]
        subset = ["--labels", str(self.labels), "--labels_seed", seed, "--seed", seed]
        tune = ["finetune", data, "--task", self.task, "--plane", self.plane, *self.start, *settings, *subset]
        yield [*tune, "--out", model, "--resume"]
        yield ["evaluate", model, data, "--out", str(self.folder)]


def run_label_curve(
    data: Path,
    task: str,
    out: Path,
    plane: Plane = "sagittal",
    from_run: list[Path] | Path | None = None,
    weights: Path | None = None,
    fractions: list[float] | None = None,
    seeds: int = 3,
    least_steps: int = 0,
    finetune: dict[str, Any] | None = None,
    jobs: int = 1,
    resume: bool = False,
) -> None:
    """Fine-tune from random weights and from pre-trained ones with few labels and with more: how many are saved.

    Every start has the same labels, seeds and settings, and is evaluated on the `valid` exams once. Beside each AUC
    stands how many labels random weights need for the same, by linear interpolation in the logarithm of labels on their
    curve, made never-falling; its interval is a bootstrap's over exams and seeds.

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
        resume: Go on where OUT stopped; what failed is tried again.
    """
    asked = {k: v for k, v in locals().items() if k not in {"out", "resume", "jobs"}}
    require_positive({"seeds": seeds, "jobs": jobs}, "seeds", "jobs")
    if least_steps < 0:
        raise UserError(f"least_steps is {least_steps}; it must be 0 or more")
    folder = ExamFolder(data)
    judged = folder.labels("valid", task)
    if min(np.bincount([judged[e] for e in folder.require("valid", plane) if e in judged], minlength=2)) < 2:
        raise UserError(
            f"{data} has too few valid {plane} exams labelled for {task}: an interval needs 2 of each label"
        )
    starts = name_starts([from_run] if isinstance(from_run, Path) else from_run or [], weights)
    values = check_settings("finetune", finetune or {}, (*OWN_OF_FINETUNE, "weights", "labels", "labels_seed"))
    network, recipe = check_starts(starts, values)
    labelled, truth = labelled_exams(folder, [task], plane, None, 0)
    counts = count_labels(fractions or list(FRACTIONS), len(labelled))
    for count in counts:
        chosen = label_subset(truth[:, 0], count, 0)
        if values.frozen:
            enough_to_probe(truth[chosen, 0], count)
    todo = [
        Job(
            arm, count, seed, out / "runs" / f"{arm}-{count}-seed{seed}", data, task, plane, tuple(start),
            epochs_for(recipe, count, least_steps),
        )
        for count in counts
        for seed in range(seeds)
        for arm, start in starts.items()
    ]  # fmt: skip
    open_run(out, asked, resume)
    for job in todo:
        write_text(job.folder / "finetune.yaml", yaml.safe_dump(plain(finetune or {})))
    run_all(todo, jobs, "label curve")
    points, exams, positives = collect(todo, counts, list(starts), task)
    failures = [f"{job.folder.name} failed: {failure(job)}" for job in todo if not done(job)]
    print(label_curve_table(points, RANDOM))
    write_label_curve_csv(out / "label_curve.csv", points, len(labelled))
    write_label_curve_page(
        out / "label_curve.html",
        PageHead(
            title=f"What pre-training is worth in labels: {task} from {plane} slices",
            lead=f"Starts: {len(starts)}, numbers of labels: {len(counts)}, seeds: {seeds}; evaluated on {exams} exams "
            f"of the valid split, {positives} of them positive.",
            warnings=failures,
            data_note=data_note(folder),
            facts=[
                ("task", task), ("plane", plane), ("labelled training exams", f"{len(labelled):,}"),
                ("labels trained with", ", ".join(map(str, counts))), ("seeds", str(seeds)),
            ],
            settings={
                "starts": {arm: " ".join(start) or "random weights" for arm, start in starts.items()},
                "fine-tuning": plain(finetune or {}) | {"network": network},
                "epochs by labels": {str(count): epochs_for(recipe, count, least_steps) for count in counts},
            },
            commands=[shlex.join(["kneessl", *sys.argv[1:]])],
            task=task,
            plane=plane,
        ),
        points,
        RANDOM,
    )  # fmt: skip
    write_label_curve_png(out / "label_curve.png", points)
    print(f"table:  {out / 'label_curve.csv'}\npage:   {out / 'label_curve.html'}\nfigure: {out / 'label_curve.png'}")


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


def check_starts(starts: Mapping[str, Words], values: jsonargparse.Namespace) -> tuple[NetworkName, Recipe]:
    """Load every start once, so that one that does not fit ends here; the network and recipe that they all have.

    Raises:
        UserError: a run or file that is missing or of another network than the others, or a setting out of range.
    """
    network = chosen_network(values.network, values.head, values.frozen, {})
    if network not in NETWORKS or NETWORKS[network].frozen or network == "sslm_linear":
        raise UserError(f"network {network} cannot start from random weights, with which a label curve compares")
    recipe = adapt(network, {name: values[name] for name in OF_RECIPE}, values.size, 1)
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


def collect(todo: list[Job], counts: list[int], arms: list[str], task: str) -> tuple[list[CurvePoint], int, int]:
    """The curves' points of what the jobs have left behind, and how many exams they were scored on, and how many of
    these are positive.

    Raises:
        UserError: every job failed.
    """
    cells: dict[str, list[dict[int, np.ndarray]]] = {arm: [{} for _ in counts] for arm in arms}
    truth: np.ndarray | None = None
    for job in todo:
        if done(job):
            rows = predictions(job, task)
            truth = np.array([int(row["label"]) for row in rows])
            scores = np.array([float(row["model"]) for row in rows])
            cells[job.arm][counts.index(job.labels)][job.seed] = scores
    if truth is None:
        raise UserError(f"every training failed; the first one because: {failure(todo[0])}")
    curves: dict[str, list[Scores]] = {arm: list(row) for arm, row in cells.items()}
    return label_curve(truth, counts, curves, RANDOM), len(truth), int(truth.sum())
