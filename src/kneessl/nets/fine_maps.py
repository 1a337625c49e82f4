"""A ResNet's maps with smaller steps between their cells, by dilation instead of stride, to show where it looks.

Of slices of 64 pixels a map has 2 x 2 cells, which can say left or right and no more. Where a stage's stride is left
out and every kernel after it is spread by as much, the same weights see the same things at the places between: the
"algorithme a trous" of DeepLab (Chen et al. 2018, section 3.1), or shift-and-stitch (Long et al. 2015, section 3.2).
"""

import copy

import torch
from torch import nn

from kneessl.nets.encoder import slice_encoder
from kneessl.nets.resnet import ResNet18

ENOUGH = 7
"""Cells along a side from which on a map is fine enough: as many as slices of 224 pixels give."""
MOST = 4
"""Times as many cells at most; more would take longer than the answer, for cells smaller than a ligament is thick."""


def finer_by(encoder: nn.Module, side: int) -> int:
    """How many times as many cells along a side maps of slices of `side` pixels need: 1, 2 or 4; 1 if no ResNet."""
    slices = slice_encoder(encoder)
    if slices is None:
        return 1
    return next((k for k in (1, 2) if side * k >= ENOUGH * slices.grid.step), MOST)


def fine_encoder(encoder: nn.Module, times: int) -> ResNet18 | None:
    """A copy of an encoder's trunk with `times` as many cells along a side of its maps; None for 1, or no ResNet."""
    slices = slice_encoder(encoder)
    return None if slices is None or times == 1 else dilated(slices.trunk, times.bit_length() - 1)


@torch.no_grad()
def dilated(trunk: ResNet18, stages: int) -> ResNet18:
    """A copy whose maps have 2 ** stages times as many cells along a side; every 2 ** stages-th is the trunk's own.

    Args:
        trunk: Its weights are copied.
        stages: How many of the last stages lose their stride, 1 to 3.
    """
    fine, spread = copy.deepcopy(trunk), 1
    for stage in fine.layers[-stages:]:
        for conv in (module for module in stage.modules() if isinstance(module, nn.Conv2d)):
            before = conv.stride[0] == 2  # what the stride followed, it does not spread
            conv.stride = (1, 1)
            if conv.kernel_size[0] == 3:
                conv.dilation = conv.padding = (spread, spread) if before else (2 * spread, 2 * spread)
        spread *= 2
    return fine.eval()
