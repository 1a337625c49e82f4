"""The settings of `kneessl finetune`, as asked for and as resolved for its network."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kneessl.classifier.classifier import NETWORKS, NetworkName
from kneessl.classifier.heads import HeadName
from kneessl.errors import UserError
from kneessl.exams.folder import Plane, Unlabelled
from kneessl.finetuning.recipes import OF_RECIPE, Balance, Recipe, Schedule, adapt
from kneessl.model.crossfit import BY
from kneessl.settings import Settings, require_not_negative
from kneessl.training.machine import Precision
from kneessl.views.augment import View
from kneessl.views.preprocess import Preprocessing


@dataclass(frozen=True)
class FinetuneSettings(Settings):
    """What `kneessl finetune` is asked for.

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
            and what it is familiar with on how these exams look to them. by:scanner leaves out one scanner after the
            other in place of random patients (by:field, or by: and a column of about.csv, such as by:site), which
            flatters less.
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
        linear_first: Fit the head to the frozen features first, as frozen does, then train everything with the
            statistics of batch norm kept: for few labels, at a low learning rate (LP-FT, Kumar et al. 2022).
        ema: Train as ever, and keep a moving average of the weights with this factor a step, such as 0.99.
        tta: Predict by the average over small shifts of the picture and by a slice (test-time augmentation).
        view: Random changes during training; by default those of the network's recipe (mrnet_*: shift, turn, flip).
        precision: auto takes bf16 where the hardware multiplies it fast.
        seed: Same seed and machine, same weights (on the CPU).
        resume: Continue the run in OUT from its last checkpoint.
        unlabelled: Labels whose exam has no series are refused; ok leaves them aside.
    """

    data: Path
    task: list[str] | str
    out: Path
    network: NetworkName | None = None
    head: HeadName | None = None
    from_run: Path | None = None
    weights: Path | None = None
    plane: Plane = "sagittal"
    labels: int | None = None
    labels_seed: int | None = None
    folds: int | str = 0
    slices: int | None = None
    size: int = 224
    field: float = 1.0
    depth: float = 1.0
    frozen: bool = False
    epochs: int | None = None
    batch: int | None = None
    lr: float | None = None
    schedule: Schedule | None = None
    balance: Balance | None = None
    focal: float | None = None
    layer_decay: float | None = None
    freeze_bn: bool = False
    linear_first: bool = False
    ema: float | None = None
    tta: bool = False
    view: View | None = None
    precision: Precision = "auto"
    seed: int = 0
    resume: bool = False
    unlabelled: Unlabelled = "refuse"

    def __post_init__(self) -> None:
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise UserError(f"task is {self.task}; name one, or several different ones such as [acl,meniscus]")
        if self.from_run is not None and self.weights is not None:
            raise UserError("--from and --weights both name an encoder to start from; give one of them")
        if isinstance(self.folds, str) and (not self.folds.startswith(BY) or self.folds == BY):
            raise UserError(
                f"folds is {self.folds}; give a number such as 5, or by: and a characteristic such as by:scanner"
            )
        require_not_negative(vars(self), "seed", *(["labels_seed"] if self.labels_seed is not None else []))
        _ = self.preprocessing  # checks its own values

    @property
    def tasks(self) -> list[str]:
        """The task or tasks, in order."""
        return [self.task] if isinstance(self.task, str) else list(self.task)

    @property
    def preprocessing(self) -> Preprocessing:
        """What every slice goes through."""
        return Preprocessing(self.size, self.field, self.depth)

    def resolved(self, network: NetworkName) -> "FinetuneSettings":
        """The settings with this network, and with its head and recipe wherever nothing else is asked for.

        Raises:
            UserError: a setting is out of its range for this network, or for so many tasks.
        """
        asked = replace(self, network=network, head=self.head or NETWORKS[network].head)
        if self.linear_first and self.frozen:
            raise UserError("linear_first trains everything after the head, and frozen nothing; give one of them")
        if self.linear_first and (network != "resnet18" or asked.head not in {"max", "mean"}):
            raise UserError(
                f"linear_first needs a head of one linear layer, and {network} with head {asked.head} has none; take "
                "--network resnet18 and --head max or mean, or leave it out"
            )
        return replace(asked, **of_recipe(asked.recipe))

    @property
    def chosen_network(self) -> NetworkName:
        """The network of resolved settings."""
        if self.network is None:
            raise ValueError("the network is not chosen yet: resolve the settings first")
        return self.network

    @property
    def recipe(self) -> Recipe:
        """How the classifier is trained; of resolved settings."""
        return adapt(self.chosen_network, of_recipe(self), self.size, len(self.tasks))

    def defaults(self) -> dict[str, Any]:
        """As `Settings.defaults`; those of resolved settings are the network's head and recipe."""
        values = super().defaults()
        if self.network is None:
            return values
        recipe = adapt(self.network, {}, self.size, len(self.tasks))
        return values | {"network": self.network, "head": NETWORKS[self.network].head} | of_recipe(recipe)


def of_recipe(settings: FinetuneSettings | Recipe) -> dict[str, Any]:
    """What of these settings takes the place of a recipe's own, by name."""
    return {name: getattr(settings, name) for name in OF_RECIPE}
