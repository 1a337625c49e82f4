"""The two arms: a method that sees no labels, and a supervised network, from the same start on the same images."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from kneessl.classifier.classifier import Classifier
from kneessl.classifier.heads import MaxHead
from kneessl.errors import UserError
from kneessl.finetuning.recipes import Recipe
from kneessl.finetuning.tuning import FineTuning
from kneessl.methods import METHODS, MethodSettings, make_method
from kneessl.nets.encoder import FEATURES, ClipEncoder
from kneessl.pictures.cifar10 import Pictures
from kneessl.settings import require_positive
from kneessl.training.optimizers import OPTIMIZERS, Optimization, OptimizerName
from kneessl.training.pretraining import Pretraining
from kneessl.views.augment import View
from kneessl.views.inputs import ViewMaker
from kneessl.views.preprocess import Preprocessing

SUPERVISED = "supervised"
NETWORK = "resnet18_cifar"
CIFAR = Preprocessing(size=32, mean=0.4734, std=0.2516)
"""All three channels alike, by mean and standard deviation of CIFAR-10's training values from 0 to 1."""
DISTORTED = View(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grayscale=0.2, blur=0.0)
"""SimCLR's view for CIFAR-10 (Chen et al. 2020, appendix B.9): colour distortion of half strength, no blur."""
CROPPED = View(crop_area=(0.25, 1.0), jitter=0.0, blur=0.0)
"""A crop and a flip."""


@dataclass(frozen=True)
class Training:
    """How an arm is trained.

    Args:
        epochs: Passes over the images.
        batch: Images in a batch, or all of them where there are fewer.
        optimizer: AdamW (with weight_decay 0 it is Adam), SGD with Nesterov's momentum, or LARS.
        lr: Highest learning rate; it rises from 0 and falls along a cosine.
        weight_decay: Of the weights.
        warmup_epochs: Epochs over which the rate of pre-training rises; of supervised training it is a tenth.
        view1: What the first view may do; in supervised training, the only one.
        view2: What the second view may do.
    """

    epochs: int = 200
    batch: int = 512
    optimizer: OptimizerName = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.0
    warmup_epochs: int = 10
    view1: View = field(default_factory=lambda: DISTORTED)
    view2: View = field(default_factory=lambda: DISTORTED)

    def __post_init__(self) -> None:
        require_positive(vars(self), "batch")
        _ = self.optimization  # checks its own values

    @property
    def optimization(self) -> Optimization:
        """How weights are moved."""
        return Optimization(self.epochs, self.optimizer, self.lr, self.weight_decay, self.warmup_epochs)


PRETRAINED = Training()
"""How a self-supervised arm is trained unless told otherwise."""
LABELLED = Training(view1=CROPPED)
"""The same of the supervised arm."""


class Arm(NamedTuple):
    """What the training loop trains, and what of it is read afterwards."""

    module: Pretraining | FineTuning
    encoder: ClipEncoder
    classifier: Classifier | None
    """Of the supervised arm."""


def require_arm(name: str) -> None:
    """Raise a user error unless there is such an arm."""
    known = [method for method, spec in METHODS.items() if spec.two_views]
    if name != SUPERVISED and name not in known:
        raise UserError(f"method is {name}; pictures are learnt from by {', '.join(known)}, or {SUPERVISED}")


def make_arm(
    name: str,
    training: Training,
    settings: MethodSettings,
    train: Pictures,
    classes: int,
    seed: int,
    out: Path,
) -> Arm:
    """An arm with random weights from the seed: in the encoder, the same for every arm.

    Args:
        name: As `require_arm`.
        training: How.
        settings: The method's own; a supervised network has none, and takes no notice.
        train: Images, and the labels that a supervised network sees.
        classes: How many.
        seed: Of weights and views.
        out: Run folder.

    Raises:
        UserError: the method has no such setting, or it is out of its range.
    """
    torch.manual_seed(seed)
    if name != SUPERVISED:
        method = make_method(name, "none", METHODS[name].adapt(settings, len(train)), network=NETWORK)
        views = ViewMaker(CIFAR, training.view1, training.view2)
        return Arm(Pretraining(method, views, False, training.optimization, seed, out), method.encoder, None)
    encoder = ClipEncoder("none", "cifar")
    classifier = Classifier(encoder, MaxHead(FEATURES, classes))
    recipe = Recipe(
        lr=training.lr, epochs=training.epochs, schedule="cosine",
        optimizer=partial(OPTIMIZERS[training.optimizer], weight_decay=training.weight_decay),
    )  # fmt: skip
    tuning = FineTuning(classifier, train.labels, nn.CrossEntropyLoss(), CIFAR, recipe, training.view1, seed)
    return Arm(tuning, encoder, classifier)
