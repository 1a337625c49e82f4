"""What every series goes through before a network sees it, and the fingerprint that a model carries of it."""

import hashlib
import json
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from kneessl.errors import UserError
from kneessl.views.resample import resize_matrix, separable

VERSION = 1
"""Raised whenever the same series would come out differently: old models then refuse to predict."""


@dataclass(frozen=True)
class Preprocessing:
    """uint8 slices of 256 x 256 -> resized (antialiased bicubic, whole field) -> standardised, one channel.

    Args:
        size: Side in pixels.
        mean: Of the values from 0 to 1; MRNet's published 58.09 / 255.
        std: Likewise; 49.73 / 255.
    """

    size: int = 224
    mean: float = 58.09 / 255
    std: float = 49.73 / 255

    def __post_init__(self) -> None:
        if self.size < 32:
            raise UserError(f"size is {self.size}; ResNet-18 needs slices of at least 32 pixels")

    def __call__(self, slices: Tensor) -> Tensor:
        """uint8 `(n, s, H, W)` -> what the network sees, float32 `(n, s, size, size)`, without any randomness."""
        return self.standardise(self.resize(slices))

    def resize(self, slices: Tensor) -> Tensor:
        """uint8 `(n, s, H, W)` -> float32 `(n, s, size, size)` from 0 to 1: the whole field of view."""
        n, _, height, width = slices.shape
        start = torch.zeros(n, dtype=torch.int64, device=slices.device)
        rows = resize_matrix(start, start + height, height, self.size)
        columns = resize_matrix(start, start + width, width, self.size)
        return separable(slices.float() / 255, rows, columns).clamp_(0, 1)

    def standardise(self, views: Tensor) -> Tensor:
        """Values from 0 to 1 -> mean 0 and standard deviation 1 over MRNet."""
        return (views - self.mean) / self.std

    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that change with any setting here, or with `VERSION`."""
        facts = json.dumps({"version": VERSION, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(facts.encode()).hexdigest()[:12]
