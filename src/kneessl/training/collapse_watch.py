"""The collapse watch: figures of the last clips of an epoch, as the encoder and the projector see them in training."""

from typing import Any

import torch
from torch import Tensor, nn

from kneessl.distributed import gather, global_rows
from kneessl.evaluation.collapse import alignment, alpha_req, effective_rank, feature_std, lidar, uniformity
from kneessl.methods import Outcome

WATCHED = 1024
"""Clips kept: the last ones of an epoch."""


class CollapseWatch:
    """Keeps what the encoder and the method made of the last clips, which costs no further pass.

    Args:
        encoder: Whose features are kept, of every pass with a gradient; copies of it are not watched.
    """

    def __init__(self, encoder: nn.Module) -> None:
        self.passes: list[Tensor] = []
        self.steps: list[tuple[Tensor, Tensor | None, list[Tensor]]] = []
        encoder.register_forward_hook(self)

    def __call__(self, encoder: nn.Module, inputs: Any, features: Tensor) -> None:
        """Keep the features `(N, features)` of one pass."""
        if encoder.training and torch.is_grad_enabled():
            self.passes.append(features.detach())

    def __deepcopy__(self, memo: dict[int, Any]) -> "Unwatched":
        return Unwatched()

    def keep(self, outcome: Outcome) -> None:
        """Keep what a method made of a batch, beside the features of its passes; forget what is too long ago."""
        self.steps.append((outcome.embeddings, outcome.partners, self.passes))
        self.passes = []
        if sum(global_rows(len(embeddings)) for embeddings, *_ in self.steps[1:]) >= WATCHED:
            self.steps.pop(0)

    def facts(self) -> dict[str, float]:
        """The figures over the clips kept, of all processes, which are then forgotten."""
        embeddings, partners, passes = zip(*self.steps, strict=True)
        self.steps = []
        projected = _rows(embeddings)
        rank = effective_rank(projected)
        facts = {
            "feature_std": feature_std(projected),
            "effective_rank": rank,
            "rank_share": rank / min(projected.shape),
            "uniformity": uniformity(projected),
        }
        if partners[0] is not None:
            facts["alignment"] = alignment(projected, _rows(partners))
        if passes[0]:
            features = _rows([views[0] for views in passes])
            facts |= {
                "encoder_std": feature_std(features),
                "encoder_rank": effective_rank(features),
                "encoder_alpha": alpha_req(features),
            }
            if {len(views) for views in passes} == {2} and len(passes[0][0]) == len(passes[0][1]):
                others = _rows([views[1] for views in passes])
                facts["encoder_lidar"] = lidar(torch.stack([features, others], 1))
        return facts


class Unwatched:
    """What a copy of a watched encoder has in the watch's place: it keeps nothing."""

    def __call__(self, encoder: nn.Module, inputs: Any, features: Tensor) -> None:
        """Leave the pass as it is."""


def _rows(batches: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    """Of all batches and processes, float32 `(N, dim)`."""
    return gather(torch.cat(batches).float())
