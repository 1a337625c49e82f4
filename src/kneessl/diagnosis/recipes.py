"""How each network is trained, as its authors published it: rate, epochs, balance of classes, random changes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from kneessl.diagnosis.classifier import NetworkName
from kneessl.diagnosis.mrnet import Plateau, class_weights, shift_turn_flip
from kneessl.nets.alexnet import SMALLEST_SIDE


def oversample(labels: np.ndarray) -> np.ndarray:
    """Indices in which the rarer class is repeated until both are equally many (thesis, 4.2).

    Args:
        labels: int `(n,)`, 0 or 1, both present.
    """
    groups = sorted((np.flatnonzero(labels == value) for value in (0, 1)), key=len)
    return np.concatenate([np.resize(groups[0], len(groups[1])), groups[1]])


def each_once(labels: np.ndarray) -> np.ndarray:
    """Indices of all exams, as they are."""
    return np.arange(len(labels))


def equal_weights(labels: np.ndarray) -> tuple[float, float]:
    """Weights of the loss of a negative and of a positive exam: 1 and 1."""
    return 1.0, 1.0


def inverse_frequency(labels: np.ndarray) -> tuple[float, float]:
    """Weights of the loss of a negative and of a positive exam: n / (2 n_c), which is 1 where both are equally many."""
    negatives, positives = np.bincount(labels, minlength=2)
    return len(labels) / (2 * negatives), len(labels) / (2 * positives)


def as_it_is(slices: Tensor, generator: torch.Generator) -> Tensor:
    """No random change."""
    return slices


def step_decay(step: int, steps: int) -> float:
    """Factor of the learning rate: x 0.1 after 18 and again after 24 of the thesis's 30 epochs, at any length."""
    return 0.1 ** ((5 * step >= 3 * steps) + (5 * step >= 4 * steps))


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, unless told otherwise.

    Args:
        lr: Learning rate at the start.
        epochs: Passes over the exams.
        optimizer: Makes one, given parameters and learning rate.
        slices: In a training clip; None for all of a series, and then a batch is one exam.
        batch: Exams in a batch.
        draws: Labels -> the exams of an epoch, by index.
        weights: Labels -> weights of the loss of a negative and of a positive exam.
        change: Random changes of slices `(B, S, size, size)` from 0 to 1.
        decay: Factor of the learning rate at a step of so many; None leaves it to `callbacks`.
        callbacks: Makes what else takes part in the training.
        smallest: The least side of a slice, in pixels.
    """

    lr: float
    epochs: int
    optimizer: Callable[..., torch.optim.Optimizer]
    slices: int | None = 16
    batch: int = 1
    draws: Callable[[np.ndarray], np.ndarray] = each_once
    weights: Callable[[np.ndarray], tuple[float, float]] = equal_weights
    change: Callable[[Tensor, torch.Generator], Tensor] = as_it_is
    decay: Callable[[int, int], float] | None = None
    callbacks: Callable[[], Iterable[Callback]] = tuple
    smallest: int = 32


THESIS = Recipe(lr=1e-4, epochs=30, optimizer=partial(torch.optim.Adam, fused=True), draws=oversample, decay=step_decay)
"""The thesis's downstream recipe (4.2)."""
MRNET = Recipe(
    lr=1e-5,
    epochs=50,
    optimizer=partial(torch.optim.Adam, weight_decay=0.01, fused=True),
    slices=None,
    weights=class_weights,
    change=shift_turn_flip,
    callbacks=lambda: (Plateau(),),
)
"""MRNet's, from its authors' code."""
SSLM = Recipe(lr=1e-5, epochs=50, optimizer=torch.optim.RMSprop, weights=inverse_frequency)
"""SSLM's downstream recipe; 50 epochs, as in its pre-training, and a constant rate are our reading."""

RECIPES: dict[NetworkName, Recipe] = {
    "resnet18": THESIS,
    "mrnet_alexnet": replace(MRNET, smallest=SMALLEST_SIDE),
    "mrnet_resnet18": MRNET,
    "sslm": SSLM,
    "sslm_linear": THESIS,
}
