"""Heads: feature maps of an exam's slices -> one logit for each task; and, where a head is linear enough, why.

Every head takes maps `(B, S, C, h, w)` and `where` `(B, S)`, the place of each slice in its series from 0 to 1, and
gives logits `(B, tasks)`. A head with `evidence` attributes its logits to slices and positions, exactly.
"""

import math
from collections.abc import Callable
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from kneessl.nets.sslm import SSLMHead

HeadName = Literal["max", "mean", "slice_max", "attention", "transformer", "conv_lstm"]


@runtime_checkable
class Explained(Protocol):
    """A head whose logits are sums over slices and positions."""

    def evidence(self, maps: Tensor) -> Tensor:
        """float `(S, C, h, w)` of one exam -> `(tasks, S, h, w)`, which sum to the logits less the bias."""


def attributed(terms: Tensor, slice_of: Tensor, slices: int) -> Tensor:
    """Sum `terms` `(tasks, C, h, w)` over channels, each on the slice that `slice_of` `(C, h, w)` names."""
    parts = terms.new_zeros(len(terms), slices, *terms.shape[2:])
    return parts.scatter_add_(1, slice_of.expand_as(terms), terms)


class MaxHead(nn.Linear):
    """Maximum over the slices at every position, average over the picture, one linear layer (thesis, 4.2)."""

    def pool(self, maps: Tensor) -> Tensor:
        """`(B, S, C, h, w)` -> `(B, C)`."""
        return maps.amax(1).mean((2, 3))

    def forward(self, maps: Tensor, where: Tensor) -> Tensor:  # type: ignore[override]
        """Maps `(B, S, C, h, w)`, places `(B, S)` from 0 to 1 -> logits `(B, tasks)`."""
        return super().forward(self.pool(maps))

    def evidence(self, maps: Tensor) -> Tensor:
        """float `(S, C, h, w)` -> `(tasks, S, h, w)`; a maximum counts for the (first) slice that attains it."""
        highest, slice_of = maps.max(0)
        return attributed(self.weight[:, :, None, None] * highest / highest[0].numel(), slice_of, len(maps))


class MeanHead(nn.Linear):
    """Average over slices and picture, one linear layer."""

    def pool(self, maps: Tensor) -> Tensor:
        """`(B, S, C, h, w)` -> `(B, C)`."""
        return maps.mean((1, 3, 4))

    def forward(self, maps: Tensor, where: Tensor) -> Tensor:  # type: ignore[override]
        """Maps `(B, S, C, h, w)`, places `(B, S)` from 0 to 1 -> logits `(B, tasks)`."""
        return super().forward(self.pool(maps))

    def evidence(self, maps: Tensor) -> Tensor:
        """float `(S, C, h, w)` -> `(tasks, S, h, w)`: every position counts alike."""
        return torch.einsum("tc,schw->tshw", self.weight, maps) / (len(maps) * maps[0, 0].numel())


class SliceMaxHead(nn.Linear):
    """Average over the picture, then maximum over the slices, one linear layer: MRNet's (Bien et al. 2018)."""

    def forward(self, maps: Tensor, where: Tensor) -> Tensor:  # type: ignore[override]
        """Maps `(B, S, C, h, w)`, places `(B, S)` from 0 to 1 -> logits `(B, tasks)`."""
        return super().forward(maps.mean((3, 4)).amax(1))

    def evidence(self, maps: Tensor) -> Tensor:
        """float `(S, C, h, w)` -> `(tasks, S, h, w)`; a channel counts for the slice of its highest average."""
        slice_of = maps.mean((2, 3)).max(0).indices
        chosen = maps[slice_of, torch.arange(maps.shape[1], device=maps.device)]
        terms = self.weight[:, :, None, None] * chosen / chosen[0].numel()
        return attributed(terms, slice_of[:, None, None].expand_as(chosen), len(maps))


class AttentionHead(nn.Module):
    """Gated attention over all positions of all slices, its own for every finding (Ilse et al. 2018, equation 9).

    The features at a position of a slice are one instance of the bag that is the exam: a tear is smaller than a slice.

    Args:
        features: Channels of the maps.
        tasks: Logits.
    """

    width = 128

    def __init__(self, features: int, tasks: int) -> None:
        super().__init__()
        self.content, self.gate = nn.Linear(features, self.width), nn.Linear(features, self.width)
        self.attention = nn.Linear(self.width, tasks, bias=False)
        self.linear = nn.Linear(features, tasks)

    def shares(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """`(B, S, C, h, w)` -> instances `(B, N, C)`, and each finding's attention to them `(B, tasks, N)`."""
        instances = maps.permute(0, 1, 3, 4, 2).flatten(1, 3)
        scores = self.attention(self.content(instances).tanh() * self.gate(instances).sigmoid())
        return instances, scores.float().softmax(1).transpose(1, 2)

    def forward(self, maps: Tensor, where: Tensor) -> Tensor:
        """Maps `(B, S, C, h, w)`, places `(B, S)` from 0 to 1 -> logits `(B, tasks)`."""
        instances, shares = self.shares(maps)
        means = shares.to(instances.dtype) @ instances
        return (means * self.linear.weight).sum(2) + self.linear.bias

    def evidence(self, maps: Tensor) -> Tensor:
        """float `(S, C, h, w)` -> `(tasks, S, h, w)`: what each position adds, at the attention that it gets."""
        instances, shares = self.shares(maps[None])
        slices, _, height, width = maps.shape
        return (shares[0] * (instances[0] @ self.linear.weight.T).T).reshape(-1, slices, height, width)


class TransformerHead(nn.Module):
    """Each slice's average is a word, its place in the series its position; two layers, read at a word of their own.

    Places are sines and cosines of the share of the series (Vaswani et al. 2017, 3.5, on 0 to 1), so that series of any
    number of slices fit. No dropout: training then depends on its seed alone, resumed or not.

    Args:
        features: Channels of the maps.
        tasks: Logits.
    """

    width, heads, layers = 128, 4, 2

    def __init__(self, features: int, tasks: int) -> None:
        super().__init__()
        self.embed = nn.Linear(features, self.width)
        self.reader = nn.Parameter(torch.randn(self.width) / math.sqrt(self.width))
        layer = nn.TransformerEncoderLayer(
            self.width, self.heads, 2 * self.width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(
            layer, self.layers, nn.LayerNorm(self.width), enable_nested_tensor=False
        )
        self.linear = nn.Linear(self.width, tasks)

    def forward(self, maps: Tensor, where: Tensor) -> Tensor:
        """Maps `(B, S, C, h, w)`, places `(B, S)` from 0 to 1 -> logits `(B, tasks)`."""
        frequencies = math.pi * 2 ** torch.arange(self.width // 2, device=maps.device).remainder(8)
        angles = where[..., None] * frequencies
        places = torch.cat([angles.sin(), angles.cos()], dim=2)
        words = self.embed(maps.mean((3, 4))) + places
        words = torch.cat([self.reader.expand(len(words), 1, -1), words], dim=1)
        return self.linear(self.transformer(words)[:, 0])


HEADS: dict[HeadName, Callable[[int, int], nn.Module]] = {
    "max": MaxHead,
    "mean": MeanHead,
    "slice_max": SliceMaxHead,
    "attention": AttentionHead,
    "transformer": TransformerHead,
    "conv_lstm": SSLMHead,
}
"""Makes a head for maps of so many channels and so many tasks."""
