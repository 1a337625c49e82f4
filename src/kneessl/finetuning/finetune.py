"""Training a classifier on labelled exams, by the recipe that its network was published with."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from kneessl.classifier.classifier import NETWORKS, Classifier, NetworkName, build_classifier
from kneessl.classifier.heads import HeadName
from kneessl.errors import UserError
from kneessl.evaluation.familiarity import Familiarity, Gaussian
from kneessl.exams.folder import ExamFolder, Plane
from kneessl.files import write_text
from kneessl.finetuning.linear import fit_head
from kneessl.finetuning.mrnet import WholeSeries
from kneessl.finetuning.recipes import OF_RECIPE, RECIPES, Balance, Recipe, Schedule
from kneessl.finetuning.tuning import BinaryLoss, FineTuning, layer_groups
from kneessl.model.card import MODEL_CARD, model_card
from kneessl.model.crossfit import OutOfFold, deal_folds
from kneessl.model.labels import UNKNOWN, labelled_exams
from kneessl.model.locked import WEIGHTS, lock_plane, write_familiarity
from kneessl.model.model import load_plane
from kneessl.model.predict import forward_passes
from kneessl.nets.encoder import load_encoder, save_weights
from kneessl.nets.features import calibrate
from kneessl.nets.weights import load_weights, read_tensors
from kneessl.training.callbacks import LAST
from kneessl.training.fit import fit
from kneessl.training.machine import Precision
from kneessl.training.runs import data_hash, open_run, read_record, require_positive, write_record
from kneessl.views.augment import View
from kneessl.views.clips import Clips, clip_loader
from kneessl.views.preprocess import Preprocessing

MOST_LOOKED_AT = 2000
"""Training exams that say what a model is familiar with; of more, so many are drawn by the seed. With each of k folds
this is one more pass through all training exams without any gradient, a few hundredths of the time of training."""


def finetune(
    data: Path,
    task: list[str] | str,
    out: Path,
    network: NetworkName | None = None,
    head: HeadName | None = None,
    from_run: Path | None = None,
    weights: Path | None = None,
    plane: Plane = "sagittal",
    labels: int | None = None,
    labels_seed: int | None = None,
    folds: int = 0,
    slices: int | None = None,
    size: int = 224,
    field: float = 1.0,
    depth: float = 1.0,
    frozen: bool = False,
    epochs: int | None = None,
    batch: int | None = None,
    lr: float | None = None,
    schedule: Schedule | None = None,
    balance: Balance | None = None,
    focal: float | None = None,
    layer_decay: float | None = None,
    freeze_bn: bool = False,
    ema: float | None = None,
    tta: bool = False,
    view: View | None = None,
    precision: Precision = "auto",
    seed: int = 0,
    resume: bool = False,
) -> None:
    """Train a classifier for one task or several on the labelled exams of one plane.

    Args:
        data: Exam folder; its `train` split is used, `valid` is not looked at.
        task: acl, meniscus, abnormal, or any other with labels; or several, such as [acl,meniscus].
        out: Run folder to write: model.safetensors, metrics.csv, checkpoints.
        network: resnet18 is the thesis's, mrnet_alexnet is MRNet as published, mrnet_resnet18 the same on ResNet-18,
            sslm a ConvLSTM on SSLM's frozen encoder; by default that of the run named by --from, else resnet18.
        head: What is made of the slices: max over them at each position (thesis), mean, slice_max (MRNet's), gated
            attention for each finding, a small transformer with slice positions, conv_lstm; by default the network's.
        from_run: Run folder of `kneessl pretrain` to start from; without it, from random weights. Also spelled --from.
        weights: File (.safetensors, .pth) to start the encoder from instead, with torchvision's names.
        plane: The plane to learn from.
        labels: Use only so many labelled exams, in the classes' proportion of the first task; by default all.
        labels_seed: Which ones; by default the seed. A smaller number of labels is part of a larger one.
        folds: Also train so many models, each without one fold of the exams (by patient and finding), and set the
            recalibration and both operating points of the model on what they say of the exams that they have not seen,
            and what it is familiar with on how these exams look to them.
        slices: Slices in a training clip; by default 16, for mrnet_* all. Prediction uses all that depth keeps.
        size: Side of a slice in pixels.
        field: Share of a slice's side that is looked at, about its centre; MRNet's authors look at 0.875.
        depth: Share of a series' slices that is looked at, about its middle; 1 is all of them.
        frozen: Linear evaluation: leave the encoder as it is, and fit a logistic regression to its features.
        epochs: Passes over the exams; by default 30, for mrnet_* and sslm 50.
        batch: Exams in a batch; by default 1.
        lr: Learning rate; by default 1e-4, for mrnet_* and sslm 1e-5.
        schedule: Of the learning rate: constant, step (thesis), cosine after a warm-up, plateau (MRNet); by default
            the network's own.
        balance: oversample the rarer class (thesis), weights in the loss, or none; by default the network's own, and
            weights in place of oversample where there are several tasks.
        focal: Gamma of the focal loss in place of cross-entropy; 2 is its authors'.
        layer_decay: Factor of the learning rate from each stage of a ResNet to the one before it, such as 0.7.
        freeze_bn: Keep the statistics of batch norm, taken from the training exams as they are.
        ema: Train as ever, and keep a moving average of the weights with this factor a step, such as 0.99.
        tta: Predict by the average over small shifts of the picture and by a slice (test-time augmentation).
        view: Random changes during training; by default those of the network's recipe (mrnet_*: shift, turn, flip).
        precision: auto takes bf16 where the hardware multiplies it fast.
        seed: Same seed and machine, same weights (on the CPU).
        resume: Continue the run in OUT from its last checkpoint.
    """
    asked = {k: v for k, v in locals().items() if k not in {"out", "resume"}}
    tasks = [task] if isinstance(task, str) else list(task)
    if not tasks or len(set(tasks)) < len(tasks):
        raise UserError(f"task is {task}; name one, or several different ones such as [acl,meniscus]")
    start = read_start(from_run, weights)
    network = chosen_network(network, head, frozen, start)
    given = {name: asked[name] for name in OF_RECIPE}
    recipe = adapt(network, given, size, len(tasks))
    own = {k: getattr(recipe, k) for k in given}
    settings = asked | {"network": network, "head": head or NETWORKS[network].head} | own
    for name in ("seed", "labels_seed"):
        if (asked[name] or 0) < 0:
            raise UserError(f"{name} is {asked[name]}; it must be 0 or more")
    folder = ExamFolder(data)
    exams, truth = labelled_exams(folder, tasks, plane, labels, seed if labels_seed is None else labels_seed)
    fold_of = deal_folds(folder, exams, truth, folds, seed) if folds else np.zeros(0, int)
    job = Job(
        folder, tasks, plane, exams, truth, network, head, from_run, weights, Preprocessing(size, field, depth), recipe,
        view, precision, frozen, tta, seed,
    )  # fmt: skip
    classifier = job.classifier()
    fingerprint = job.preprocessing.fingerprint()
    if start and (start["plane"], start["fingerprint"]) != (plane, fingerprint):
        print(f"note: {from_run} was pre-trained on {start['plane']} slices, preprocessing {start['fingerprint']}; "
              f"this is {plane}, {fingerprint}", file=sys.stderr)  # fmt: skip
    folder.require_readable("train", plane, exams)
    open_run(out, settings, resume)
    logits, distances = np.full(truth.shape, np.nan), np.full(len(exams), np.nan)
    for k in range(folds):
        held, run = fold_of == k, out / "folds" / str(k)
        logits[held], distances[held] = held_out(job, held, run, f"fold {k + 1} of {folds}")
    train(job, classifier, np.arange(len(exams)), out, f"fine-tune {', '.join(tasks)}")
    if folds:
        write_familiarity(out, Familiarity(looks(job, out, exams), distances))
        lock_plane(out, plane, OutOfFold(tasks, exams, fold_of, truth, logits))
    write_text(out / MODEL_CARD, model_card(out))
    print(f"model: {out}\nnext:  kneessl evaluate {out} {data}")


@dataclass(frozen=True, eq=False)
class Job:
    """What is trained on what; `truth` is int64 `(exams, tasks)`."""

    folder: ExamFolder
    tasks: list[str]
    plane: Plane
    exams: list[str]
    truth: np.ndarray
    network: NetworkName
    head: HeadName | None
    from_run: Path | None
    weights: Path | None
    preprocessing: Preprocessing
    recipe: Recipe
    view: View | None
    precision: Precision
    frozen: bool
    tta: bool
    seed: int

    def classifier(self) -> Classifier:
        """A new one, all of it that no run or file holds from the seed; see `start_classifier`."""
        torch.manual_seed(self.seed)
        classifier, taken = start_classifier(self.network, self.head, len(self.tasks), self.from_run, self.weights)
        if taken:
            print(taken)
        layer_groups(classifier, self.recipe.lr, self.recipe.layer_decay)  # it says so where there are no layers
        return classifier


def start_classifier(
    network: NetworkName, head: HeadName | None, tasks: int, from_run: Path | None, weights: Path | None
) -> tuple[Classifier, str]:
    """A classifier with random weights, its encoder's from a run or a file if named, and what was taken of the file.

    Raises:
        UserError: the weights cannot be read, or are of another network.
    """
    path = None if from_run is None else from_run / "encoder.safetensors"
    classifier = build_classifier(network, head, tasks, {} if path is None else read_tensors(path))
    if path is not None:
        load_encoder(classifier.encoder, path)
    return classifier, "" if weights is None else load_weights(cast(nn.Module, classifier.encoder.trunk), weights)


def train(job: Job, classifier: Classifier, chosen: np.ndarray, out: Path, title: str) -> None:
    """Train on some of a job's exams, by index, and write the model; from the last checkpoint where there is one."""
    exams, truth, recipe = [job.exams[i] for i in chosen], job.truth[chosen], job.recipe
    if recipe.slices is None:
        clips: Clips = WholeSeries(job.folder, "train", job.plane, exams, job.seed, job.preprocessing)
    else:
        clips = Clips(job.folder, "train", job.plane, exams, recipe.slices, job.seed, job.preprocessing)
    data_sha256 = data_hash(job.folder, "train", job.plane, exams)
    if job.frozen:
        rows = [{"seconds": fit_head(classifier, job.folder, job.plane, exams, truth, job.preprocessing)}]
    else:
        checkpoint = out / LAST
        if recipe.freeze_bn:
            calibrate(classifier.encoder, job.folder, job.plane, job.preprocessing)
        objective = BinaryLoss(truth, recipe)
        module = FineTuning(classifier, truth, objective, job.preprocessing, recipe, job.view, job.seed)
        loader = clip_loader(clips, recipe.draws(truth).tolist(), recipe.batch)
        rows = fit(
            module, loader, out, title=title, epochs=recipe.epochs, precision=job.precision, data=data_sha256,
            checkpoint=checkpoint if checkpoint.is_file() else None,
        )  # fmt: skip
        classifier = module.result
    save_weights(classifier, out / WEIGHTS)
    write_record(
        out, job.preprocessing, rows, kind="finetune", network=job.network, head=job.head or NETWORKS[job.network].head,
        tasks=job.tasks, plane=job.plane, seed=job.seed, epochs=recipe.epochs, lr=recipe.lr, tta=job.tta,
        start=str(job.from_run or job.weights or "random weights"),
        parameters=sum(p.numel() for p in classifier.parameters()), exams=len(exams),
        positives=[int((labels == 1).sum()) for labels in truth.T],
        unlabelled=[int((labels == UNKNOWN).sum()) for labels in truth.T],
        labelled_exams=exams, data_sha256=data_sha256, synthetic=job.folder.synthetic,
    )  # fmt: skip


def held_out(job: Job, fold: np.ndarray, out: Path, title: str) -> tuple[np.ndarray, np.ndarray]:
    """Train without the exams of a fold, bool `(exams,)`, unless that is done, and look at them.

    Returns:
        Logits `(fold, tasks)`, and how far each exam lies from what this model is familiar with, `(fold,)`.
    """
    if not (out / "run.json").is_file():
        train(job, job.classifier(), np.flatnonzero(~fold), out, title)
    unseen, seen = ([exam for exam, held in zip(job.exams, fold, strict=True) if held == wanted] for wanted in (1, 0))
    found = [
        (one.logits, one.features) for one in forward_passes(load_plane(out), job.folder, "train", unseen, title) if one
    ]
    logits, features = (np.stack(rows) for rows in zip(*found, strict=True))
    return logits, looks(job, out, seen).distances(features)


def looks(job: Job, run: Path, exams: Sequence[str]) -> Gaussian:
    """What the exams that a model was trained on look like to it; at most `MOST_LOOKED_AT` of them."""
    model = replace(load_plane(run), tta=False)
    if len(exams) > MOST_LOOKED_AT:
        exams = np.random.default_rng(job.seed).choice(exams, MOST_LOOKED_AT, replace=False).tolist()
    return Gaussian.fit(
        [one.features for one in forward_passes(model, job.folder, "train", exams, "look again") if one]
    )


def read_start(from_run: Path | None, weights: Path | None) -> dict[str, Any]:
    """The record of the run to start from; empty where there is none.

    Raises:
        UserError: both a run and a file are named, or the run is none of pre-training, or of an unknown network.
    """
    if from_run is None:
        return {}
    if weights is not None:
        raise UserError("--from and --weights both name an encoder to start from; give one of them")
    start = read_record(from_run)
    if start.get("kind") != "pretrain":
        raise UserError(f"{from_run} is not a pre-training run; --from wants what `kneessl pretrain` has written")
    if start.get("network", "resnet18") not in NETWORKS:
        raise UserError(f"{from_run} is of network {start['network']}; known are {', '.join(NETWORKS)}")
    return start


LINEAR: dict[str, NetworkName] = {"resnet18": "resnet18", "sslm": "sslm_linear", "sslm_linear": "sslm_linear"}
"""Which classifier reads a network's frozen features by one linear layer."""


def chosen_network(
    network: NetworkName | None, head: HeadName | None, frozen: bool, start: Mapping[str, Any]
) -> NetworkName:
    """The network asked for, or that of the run whose record is `start`; to read frozen features, its linear one.

    Raises:
        UserError: as `linear_network`.
    """
    network = network or start.get("network", "resnet18")
    return linear_network(network, head) if frozen else network


def linear_network(network: NetworkName, head: HeadName | None) -> NetworkName:
    """The classifier for linear evaluation of a network.

    Raises:
        UserError: there is none.
    """
    if network not in LINEAR:
        raise UserError(f"network {network} has no linear evaluation; leave out --frozen, or take --network resnet18")
    if head not in {None, "max", "mean"}:
        raise UserError(f"head {head} is no linear layer; leave out --frozen, or take --head max or mean")
    return LINEAR[network]


def adapt(network: NetworkName, given: Mapping[str, Any], size: int, tasks: int) -> Recipe:
    """The recipe of a network, with what is `given` (not None) in place of its own.

    Raises:
        UserError: a setting is out of its range for this network, or for so many tasks.
    """
    own = {k: v for k, v in given.items() if v is not None}
    require_positive(own, *own.keys() & {"slices", "epochs", "batch", "lr", "layer_decay"})
    recipe = replace(RECIPES[network], **own)
    if recipe.slices == 1:
        raise UserError("slices is 1; batch normalisation needs at least 2, since a batch may be one exam")
    if recipe.slices is None and recipe.batch > 1:
        raise UserError(
            f"batch is {recipe.batch}, but {network} takes all slices of an exam, so one exam; give --slices"
        )
    if size < recipe.smallest:
        raise UserError(f"size is {size}; network {network} needs slices of at least {recipe.smallest} pixels")
    if recipe.layer_decay > 1:
        raise UserError(f"layer_decay is {recipe.layer_decay}; it is a factor above 0 and up to 1")
    if not 0 <= recipe.ema < 1:
        raise UserError(f"ema is {recipe.ema}; it is the share that the average keeps at a step, from 0 to below 1")
    if not 0 <= recipe.focal <= 10:
        raise UserError(f"focal is {recipe.focal}; it is the focal loss's exponent, from 0 to 10")
    if recipe.balance == "oversample" and tasks > 1:
        if "balance" in own:
            raise UserError(f"balance oversample evens the classes of one task, not of {tasks}; take --balance weights")
        recipe = replace(recipe, balance="weights")
    return recipe
