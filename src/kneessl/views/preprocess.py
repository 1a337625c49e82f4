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


def central(total: int, share: float) -> slice:
    """The middle `share` (0 to 1) of `total` items, at least one of them."""
    kept = max(1, round(total * share))
    return slice((total - kept) // 2, (total - kept) // 2 + kept)


@dataclass(frozen=True)
class Preprocessing:
    """uint8 slices of 256 x 256 -> central part -> resized (antialiased bicubic) -> standardised, grey or in colour.

    Args:
        size: Side in pixels.
        field: Share of a slice's side that is kept, about its centre: 1 is the whole field of view.
        depth: Share of a series' slices that is kept, about its middle: 1 is all of them.
        mean: Mean of the values (0 to 1) of all channels; MRNet's published 58.09 / 255.
        std: Their standard deviation; MRNet's published 49.73 / 255.
    """

    size: int = 224
    field: float = 1.0
    depth: float = 1.0
    mean: float = 58.09 / 255
    std: float = 49.73 / 255

    def __post_init__(self) -> None:
        if self.size < 32:
            raise UserError(f"size is {self.size}; ResNet-18 needs slices of at least 32 pixels")
        for name, what in (("field", "a slice's side"), ("depth", "a series' slices")):
            if not 0.1 <= getattr(self, name) <= 1:
                raise UserError(f"{name} is {getattr(self, name)}; it is the share of {what} that is kept, 0.1 to 1")

    def __call__(self, slices: Tensor) -> Tensor:
        """uint8 `(n, ..., H, W)` -> what the network sees, float32 `(n, ..., size, size)`, without any randomness."""
        return self.standardise(self.resize(slices))

    def middle(self, total: int) -> slice:
        """Which of a series' `total` slices are kept, at least one."""
        return central(total, self.depth)

    def crop(self, slices: Tensor) -> Tensor:
        """The central part `(..., round(field * H), round(field * W))` of slices `(..., H, W)`, not copied."""
        height, width = slices.shape[-2:]
        return slices[..., central(height, self.field), central(width, self.field)]

    def resize(self, slices: Tensor) -> Tensor:
        """uint8 `(n, ..., H, W)`, grey or colour clips -> float32 `(n, ..., size, size)` from 0 to 1."""
        slices = self.crop(slices)
        height, width = slices.shape[-2:]
        start = torch.zeros(len(slices), dtype=torch.int64, device=slices.device)
        rows = resize_matrix(start, start + height, height, self.size)
        columns = resize_matrix(start, start + width, width, self.size)
        return separable(slices.to(torch.float32, copy=True).div_(255), rows, columns).clamp_(0, 1)

    def standardise(self, views: Tensor) -> Tensor:
        """Values from 0 to 1 -> mean 0 and standard deviation 1 over MRNet."""
        return (views - self.mean).div_(self.std)

    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that change with any setting here, or with `VERSION`."""
        facts = json.dumps({"version": VERSION, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(facts.encode()).hexdigest()[:12]
