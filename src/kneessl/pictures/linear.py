"""Linear evaluation of many features and classes: softmax regression on the training device.

scikit-learn's solver, with which exams are read, is too slow for 50,000 pictures of 512 features and six penalties.
"""

from collections.abc import Iterator
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""Weights of |W|^2 / 2 beside the mean cross-entropy, from which one is chosen; the strongest first."""
HELD_OUT = 5
"""One in so many of each class tells which."""
ITERATIONS = 100
"""Steps of L-BFGS for each penalty, from where the last one ended."""


class SoftmaxRegression:
    """Standardised features -> classes, by mean cross-entropy and an L2 penalty on the weights, not on the biases.

    Args:
        device: Where to compute.
    """

    penalty: float
    """The one that was chosen, by accuracy on a fifth of the training features; of equals the strongest."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def fit(self, features: NDArray[np.float32], labels: NDArray[np.int64]) -> "SoftmaxRegression":
        """Fit to features `(n, dim)` and labels `(n,)`, 0 to classes - 1; nothing else is looked at."""
        x, y = torch.from_numpy(features).to(self.device), torch.from_numpy(labels).to(self.device)
        self.mean, self.std = x.mean(0), x.std(0, correction=0)
        self.std[self.std == 0] = 1
        x = (x - self.mean) / self.std
        held = torch.from_numpy(one_in(labels, HELD_OUT)).to(self.device)
        right = [
            (x[held] @ weights.T + biases).argmax(1).eq(y[held]).sum().item()
            for weights, biases in path(x[~held], y[~held])
        ]
        chosen = int(np.argmax(right))
        self.penalty = PENALTIES[chosen]
        for k, found in zip(count(), path(x, y), strict=False):
            self.weights, self.biases = found
            if k == chosen:
                break
        return self

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.int64]:
        """The most probable class of each row, `(m,)`."""
        x = (torch.from_numpy(features).to(self.device) - self.mean) / self.std
        return (x @ self.weights.T + self.biases).argmax(1).cpu().numpy()


def one_in(labels: NDArray[np.int64], parts: int) -> NDArray[np.bool_]:
    """Which rows are held out: of each class a `parts`-th, rounded down, at random but always the same."""
    held = np.zeros(len(labels), bool)
    for k in np.unique(labels):
        members = np.random.default_rng([0, k]).permutation(np.flatnonzero(labels == k))
        held[members[: len(members) // parts]] = True
    return held


def path(x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Weights `(classes, dim)` and biases `(classes,)` under each of `PENALTIES`, each fit starting from the last."""
    classes = int(y.max()) + 1
    weights = torch.zeros(classes, x.shape[1], device=x.device, dtype=x.dtype, requires_grad=True)
    biases = torch.zeros(classes, device=x.device, dtype=x.dtype, requires_grad=True)
    for penalty in PENALTIES:
        optimizer = torch.optim.LBFGS(
            [weights, biases], max_iter=ITERATIONS, history_size=10, line_search_fn="strong_wolfe"
        )

        def closure(penalty: float = penalty, optimizer: torch.optim.LBFGS = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(x @ weights.T + biases, y) + penalty / 2 * weights.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        yield weights.detach().clone(), biases.detach().clone()
