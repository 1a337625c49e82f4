"""How each network is trained, as its authors published it: rate, epochs, balance of classes, random changes."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from kneessl.classifier.classifier import NetworkName
from kneessl.errors import UserError
from kneessl.finetuning.mrnet import class_weights, shift_turn_flip
from kneessl.nets.alexnet import SMALLEST_SIDE
from kneessl.settings import require_positive

Balance = Literal["none", "oversample", "weights"]
Schedule = Literal["constant", "step", "cosine", "plateau"]
WARM_UP = 0.1
"""Share of the steps over which the rate of schedule cosine rises from 0."""


def oversample(labels: np.ndarray) -> np.ndarray:
    """Indices in which the rarer class is repeated until both are equally many (thesis, 4.2).

    Args:
        labels: int `(n,)`, 0 or 1, both present.
    """
    groups = sorted((np.flatnonzero(labels == value) for value in (0, 1)), key=len)
    return np.concatenate([np.resize(groups[0], len(groups[1])), groups[1]])


def inverse_frequency(labels: np.ndarray) -> tuple[float, float]:
    """Weights of the loss of a negative and of a positive exam: n / (2 n_c), which is 1 where both are equally many."""
    negatives, positives = np.bincount(labels, minlength=2)
    return len(labels) / (2 * negatives), len(labels) / (2 * positives)


def unchanged(slices: Tensor, generator: torch.Generator) -> Tensor:
    """No random change."""
    return slices


def constant(step: int, steps: int) -> float:
    """Factor of the learning rate: 1."""
    return 1.0


def step_decay(step: int, steps: int) -> float:
    """Factor of the learning rate: x 0.1 after 18 and again after 24 of the thesis's 30 epochs, at any length."""
    return 0.1 ** ((5 * step >= 3 * steps) + (5 * step >= 4 * steps))


def cosine(step: int, steps: int) -> float:
    """Factor of the learning rate: rises from 0 over the first tenth, then falls to 0 along half a cosine."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


SCHEDULES: dict[Schedule, Callable[[int, int], float]] = {
    "constant": constant,
    "step": step_decay,
    "cosine": cosine,
    "plateau": constant,  # and `kneessl.finetuning.mrnet.Plateau` lowers it
}
"""Factor of the learning rate at a step of so many."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, unless told otherwise.

    Args:
        lr: Learning rate at the start.
        epochs: Passes over the exams.
        optimizer: Makes one, given parameters and learning rate.
        slices: In a training clip; None for all of a series, and then a batch is one exam.
        batch: Exams in a batch.
        balance: How the rarer class is made to count: not at all, by drawing its exams more often, or in the loss.
        weights: Labels -> weights of the loss of a negative and of a positive exam, for balance weights.
        focal: Gamma of the focal loss (Lin et al. 2017, equation 4); 0 is cross-entropy.
        change: Random changes of slices `(B, S, size, size)` from 0 to 1.
        schedule: Of the learning rate.
        layer_decay: Factor of the learning rate from each stage of a ResNet to the one before it.
        freeze_bn: Batch norm keeps its statistics, taken from the training exams as they are.
        linear_first: The head is fitted to the frozen features before everything is trained (LP-FT, Kumar et al. 2022).
        ema: Most that the moving average of the weights keeps at a step; 0 takes the last weights instead.
        smallest: The least side of a slice, in pixels.
    """

    lr: float
    epochs: int
    optimizer: Callable[..., torch.optim.Optimizer]
    slices: int | None = 16
    batch: int = 1
    balance: Balance = "none"
    weights: Callable[[np.ndarray], tuple[float, float]] = inverse_frequency
    focal: float = 0.0
    change: Callable[[Tensor, torch.Generator], Tensor] = unchanged
    schedule: Schedule = "constant"
    layer_decay: float = 1.0
    freeze_bn: bool = False
    linear_first: bool = False
    ema: float = 0.0
    smallest: int = 32

    def draws(self, labels: np.ndarray) -> np.ndarray:
        """The exams of an epoch, by index, given int `(n, tasks)`: each once, or `oversample` by the only task."""
        return oversample(labels[:, 0]) if self.balance == "oversample" else np.arange(len(labels))


OF_RECIPE = (
    *("slices", "epochs", "batch", "lr", "schedule"),
    *("balance", "focal", "layer_decay", "freeze_bn", "linear_first", "ema"),
)
"""Settings of `kneessl finetune` that take the place of a recipe's own."""

THESIS = Recipe(
    lr=1e-4, epochs=30, optimizer=partial(torch.optim.Adam, fused=True), balance="oversample", schedule="step"
)
"""The thesis's downstream recipe (4.2)."""
MRNET = Recipe(
    lr=1e-5,
    epochs=50,
    optimizer=partial(torch.optim.Adam, weight_decay=0.01, fused=True),
    slices=None,
    balance="weights",
    weights=class_weights,
    change=shift_turn_flip,
    schedule="plateau",
)
"""MRNet's, from its authors' code."""
SSLM = Recipe(lr=1e-5, epochs=50, optimizer=torch.optim.RMSprop, balance="weights")
"""SSLM's downstream recipe; 50 epochs, as in its pre-training, and a constant rate are our reading."""

RECIPES: dict[NetworkName, Recipe] = {
    "resnet18": THESIS,
    "mrnet_alexnet": replace(MRNET, smallest=SMALLEST_SIDE),
    "mrnet_resnet18": MRNET,
    "sslm": SSLM,
    "sslm_linear": THESIS,
}


def adapt(network: NetworkName, given: Mapping[str, Any], size: int, tasks: int) -> Recipe:
    """The recipe of a network, with what is `given` (not None) in place of its own.

    Raises:
        UserError: a setting is out of its range for this network, or for so many tasks.
    """
    asked = {k: v for k, v in given.items() if v is not None}
    require_positive(asked, *asked.keys() & {"slices", "epochs", "batch", "lr", "layer_decay"})
    recipe = replace(RECIPES[network], **asked)
    if recipe.linear_first:
        recipe = replace(recipe, freeze_bn=True)  # or the head would see other features than it was fitted to
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
        if "balance" in asked:
            raise UserError(f"balance oversample evens the classes of one task, not of {tasks}; take --balance weights")
        recipe = replace(recipe, balance="weights")
    return recipe
