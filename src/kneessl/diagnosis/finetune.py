"""Training a classifier on labelled exams, by the recipe that its network was published with."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional as F

from kneessl.diagnosis.classifier import NETWORKS, AnyClassifier, Classifier, NetworkName
from kneessl.diagnosis.linear import fit_head
from kneessl.diagnosis.mrnet import WholeSeries
from kneessl.diagnosis.recipes import RECIPES, Recipe
from kneessl.errors import UserError
from kneessl.exams.folder import ExamFolder, Plane
from kneessl.nets.encoder import load_encoder, save_weights
from kneessl.nets.weights import load_weights, read_tensors
from kneessl.training import Precision, data_hash, fit, open_run, read_record, require_positive, seeded, write_record
from kneessl.views.augment import View, augment
from kneessl.views.clips import Clips, clip_loader
from kneessl.views.preprocess import Preprocessing

FEWEST = 2
"""Exams of each class in a subset of the labels."""


class FineTuning(L.LightningModule):
    """Weighted binary cross-entropy with logits; all else as the recipe has it."""

    labels: Tensor
    weights: Tensor

    def __init__(
        self,
        classifier: AnyClassifier,
        labels: np.ndarray,
        preprocessing: Preprocessing,
        recipe: Recipe,
        view: View | None,
        seed: int,
    ) -> None:
        super().__init__()
        self.classifier, self.preprocessing, self.recipe, self.view, self.seed = (
            classifier,
            preprocessing,
            recipe,
            view,
            seed,
        )
        self.register_buffer("labels", torch.from_numpy(labels), persistent=False)
        self.register_buffer("weights", torch.tensor(recipe.weights(labels)), persistent=False)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """uint8 clips `(B, S, 256, 256)` and their indices -> loss; changes depend on seed, epoch and batch alone."""
        clips, index = batch
        labels = self.labels[index]
        with torch.autocast(clips.device.type, enabled=False):
            inputs = self.inputs(clips, seeded(self.seed, self.current_epoch, batch_idx))
        logits = self.classifier(inputs).float()
        return F.binary_cross_entropy_with_logits(logits, labels.float(), self.weights[labels])

    def inputs(self, clips: Tensor, generator: torch.Generator) -> Tensor:
        """uint8 `(B, S, 256, 256)` -> what the network sees, `(B, S, size, size)`: a view, or the recipe's changes."""
        if self.view is not None:
            slices = augment(self.preprocessing.crop(clips), self.view, self.preprocessing.size, generator)
        else:
            slices = self.recipe.change(self.preprocessing.resize(clips), generator)
        return self.preprocessing.standardise(slices)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The recipe's optimiser over what is not frozen, and its schedule."""
        parameters = [p for p in self.classifier.parameters() if p.requires_grad]
        optimizer = self.recipe.optimizer(parameters, lr=self.recipe.lr)
        decay, steps = self.recipe.decay, int(self.trainer.estimated_stepping_batches)
        if decay is None:
            return {"optimizer": optimizer}
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: decay(k, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_callbacks(self) -> list[Callback]:
        """The recipe's."""
        return list(self.recipe.callbacks())

    def epoch_facts(self) -> dict[str, float]:
        """Nothing beyond loss and learning rate: the valid split is not looked at during training."""
        return {}


def label_subset(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Choose `count` exams in the classes' proportion, so that a smaller choice is part of every larger one.

    Each class is shuffled once, by `seed` alone, and its first exams are taken: as many as its share of `count`,
    rounded, but at least 2.

    Args:
        labels: int `(n,)`, 0 or 1.
        count: How many.
        seed: Another one shuffles otherwise.

    Returns:
        int `(count,)`, indices in rising order.

    Raises:
        UserError: `count` is under 4 or over n, or a class has fewer than 2 exams.
    """
    positives, total = int(labels.sum()), len(labels)
    if not 2 * FEWEST <= count <= total or min(positives, total - positives) < FEWEST:
        raise UserError(
            f"labels is {count}, of {total} labelled exams with {positives} positive; it must be from {2 * FEWEST} to "
            f"{total}, and needs {FEWEST} exams of each class"
        )
    share = (2 * count * positives + total) // (2 * total)  # rounded half up, in whole numbers
    share = min(max(share, FEWEST), count - FEWEST)
    chosen = [
        np.random.default_rng([seed, value]).permutation(np.flatnonzero(labels == value))[:wanted]
        for value, wanted in ((0, count - share), (1, share))
    ]
    return np.sort(np.concatenate(chosen))


def finetune(
    data: Path,
    task: str,
    out: Path,
    network: NetworkName | None = None,
    from_run: Path | None = None,
    weights: Path | None = None,
    plane: Plane = "sagittal",
    labels: int | None = None,
    labels_seed: int | None = None,
    slices: int | None = None,
    size: int = 224,
    field: float = 1.0,
    depth: float = 1.0,
    frozen: bool = False,
    epochs: int | None = None,
    batch: int | None = None,
    lr: float | None = None,
    view: View | None = None,
    precision: Precision = "auto",
    seed: int = 0,
    resume: bool = False,
) -> None:
    """Train a classifier for one task on the labelled exams of one plane.

    Args:
        data: Exam folder; its `train` split is used, `valid` is not looked at.
        task: acl, meniscus, abnormal, or any other with a label file.
        out: Run folder to write: model.safetensors, metrics.csv, checkpoints.
        network: resnet18 is the thesis's, mrnet_alexnet is MRNet as published, mrnet_resnet18 the same on ResNet-18,
            sslm a ConvLSTM on SSLM's frozen encoder; by default that of the run named by --from, else resnet18.
        from_run: Run folder of `kneessl pretrain` to start from; without it, from random weights. Also spelled --from.
        weights: File (.safetensors, .pth) to start the encoder from instead, with torchvision's names.
        plane: The plane to learn from.
        labels: Use only so many labelled exams, in the classes' proportion; by default all.
        labels_seed: Which ones; by default the seed. A smaller number of labels is part of a larger one.
        slices: Slices in a training clip; by default 16, for mrnet_* all. Prediction uses all that depth keeps.
        size: Side of a slice in pixels.
        field: Share of a slice's side that is looked at, about its centre; MRNet's authors look at 0.875.
        depth: Share of a series' slices that is looked at, about its middle; 1 is all of them.
        frozen: Linear evaluation: leave the encoder as it is, and fit a logistic regression to its features.
        epochs: Passes over the exams; by default 30, for mrnet_* and sslm 50.
        batch: Exams in a batch; by default 1.
        lr: Learning rate; by default 1e-4, for mrnet_* and sslm 1e-5.
        view: Random changes during training; by default those of the network's recipe (mrnet_*: shift, turn, flip).
        precision: auto takes bf16 where the hardware multiplies it fast.
        seed: Same seed and machine, same weights (on the CPU).
        resume: Continue the run in OUT from its last checkpoint.
    """
    asked = {k: v for k, v in locals().items() if k not in {"out", "resume"}}
    start = read_start(from_run, weights)
    network = network or start.get("network", "resnet18")
    if frozen:
        network = linear_network(network)
    recipe = adapt(network, {"slices": slices, "epochs": epochs, "batch": batch, "lr": lr}, size)
    settings = asked | {"network": network, **{k: getattr(recipe, k) for k in ("slices", "epochs", "batch", "lr")}}
    for name in ("seed", "labels_seed"):
        if (asked[name] or 0) < 0:
            raise UserError(f"{name} is {asked[name]}; it must be 0 or more")
    folder = ExamFolder(data)
    exams, truth = labelled_exams(folder, task, plane, labels, seed if labels_seed is None else labels_seed)
    preprocessing = Preprocessing(size, field, depth)
    if recipe.slices is None:
        clips: Clips = WholeSeries(folder, "train", plane, exams, seed, preprocessing)
    else:
        clips = Clips(folder, "train", plane, exams, recipe.slices, seed, preprocessing)
    loader = clip_loader(clips, recipe.draws(truth).tolist(), recipe.batch)
    torch.manual_seed(seed)
    classifier = make_classifier(network, from_run, weights)
    if start and (start["plane"], start["fingerprint"]) != (plane, preprocessing.fingerprint()):
        print(f"note: {from_run} was pre-trained on {start['plane']} slices, preprocessing {start['fingerprint']}; "
              f"this is {plane}, {preprocessing.fingerprint()}", file=sys.stderr)  # fmt: skip
    checkpoint = open_run(out, settings, resume)
    data_sha256 = data_hash(folder, "train", plane, exams)
    if isinstance(classifier, Classifier) and frozen:
        rows = [{"seconds": fit_head(classifier, folder, plane, exams, truth, preprocessing)}]
    else:
        module = FineTuning(classifier, truth, preprocessing, recipe, view, seed)
        rows = fit(
            module, loader, out, title=f"fine-tune {task}", epochs=recipe.epochs, precision=precision,
            data=data_sha256, checkpoint=checkpoint,
        )  # fmt: skip
    save_weights(classifier, out / "model.safetensors")
    write_record(
        out, preprocessing, rows, kind="finetune", network=network, task=task, plane=plane, seed=seed,
        epochs=recipe.epochs, lr=recipe.lr, start=str(from_run or weights or "random weights"),
        parameters=sum(p.numel() for p in classifier.parameters()), exams=len(exams), positives=int(truth.sum()),
        labelled_exams=exams, data_sha256=data_sha256,
    )  # fmt: skip
    print(f"model: {out}\nnext:  kneessl evaluate {out} {data}")


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


def linear_network(network: NetworkName) -> NetworkName:
    """The classifier for linear evaluation of a network.

    Raises:
        UserError: there is none.
    """
    if network not in LINEAR:
        raise UserError(f"network {network} has no linear evaluation; leave out --frozen, or take --network resnet18")
    return LINEAR[network]


def adapt(network: NetworkName, given: Mapping[str, Any], size: int) -> Recipe:
    """The recipe of a network, with what is `given` (not None) in place of its own.

    Raises:
        UserError: a setting is out of its range for this network.
    """
    own = {k: v for k, v in given.items() if v is not None}
    require_positive(own, *own)
    recipe = replace(RECIPES[network], **own)
    if recipe.slices == 1:
        raise UserError("slices is 1; batch normalisation needs at least 2, since a batch may be one exam")
    if recipe.slices is None and recipe.batch > 1:
        raise UserError(
            f"batch is {recipe.batch}, but {network} takes all slices of an exam, so one exam; give --slices"
        )
    if size < recipe.smallest:
        raise UserError(f"size is {size}; network {network} needs slices of at least {recipe.smallest} pixels")
    return recipe


def labelled_exams(
    folder: ExamFolder, task: str, plane: Plane, count: int | None, seed: int
) -> tuple[list[str], np.ndarray]:
    """The training exams of one plane with a label for `task`, or `count` of them, and their labels, int64 `(n,)`.

    Raises:
        UserError: no labels, not of both classes, or not so many.
    """
    known = folder.labels("train", task)
    exams = [exam for exam in folder.require("train", plane) if exam in known]
    labels = np.array([known[exam] for exam in exams], dtype=np.int64)
    if len(set(labels)) < 2:
        raise UserError(
            f"{folder.root} has {len(exams)} {plane} training exams labelled for {task}, not some of 0 and some of 1; "
            "a classifier needs both"
        )
    if count is None:
        return exams, labels
    chosen = label_subset(labels, count, seed)
    return [exams[i] for i in chosen], labels[chosen]


def make_classifier(network: NetworkName, from_run: Path | None, weights: Path | None) -> AnyClassifier:
    """A classifier with random weights (from PyTorch's global generator), its encoder from a run or a file if named.

    Raises:
        UserError: the weights cannot be read, or are of another network.
    """
    path = None if from_run is None else from_run / "encoder.safetensors"
    classifier = NETWORKS[network]({} if path is None else read_tensors(path))
    if path is not None:
        load_encoder(classifier.encoder, path)
    if weights is not None:
        print(load_weights(classifier.encoder.trunk, weights))
    return classifier
