"""SparK (Tian et al. 2023, "Designing BERT for convolutional networks"): hide patches of a slice and paint them in."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from kneessl import objectives
from kneessl.distributed import global_rows, local_rows
from kneessl.errors import UserError
from kneessl.methods.method import Encoder, Method, Outcome
from kneessl.methods.settings import require_share, require_whole
from kneessl.nets.decoder import LightDecoder
from kneessl.nets.masked import PATCH, enlarge, masked_maps, masked_norm, split_patches
from kneessl.views.inputs import ViewMaker
from kneessl.views.resample import to_device_of

CHANNELS = (512, 256, 128, 64)
"""Of ResNet-18's feature maps, from coarse to fine."""
MILD_AREA = (0.67, 1.0)


class SparK(Method):
    """The encoder sees the visible patches only; a light decoder paints the hidden ones from its four feature maps.

    Each slice stands for itself, so pooling over slices changes nothing. The decoder's default width is ours, for one
    channel and ResNet-18; the authors have 768.

    Args:
        encoder: Its trunk is a ResNet-18; the layers above it are not used.
        mask_ratio: Share of patches to hide, from 0 to 1; at least one is hidden, and one stays visible.
        width: Channels of the decoder at its coarsest, a multiple of 32.
    """

    def __init__(self, encoder: Encoder, mask_ratio: float = 0.6, width: int = 256) -> None:
        super().__init__()
        require_share(mask_ratio=mask_ratio)
        require_whole(width=width)
        if width % PATCH:
            raise UserError(f"settings.width is {width}; it must be a multiple of 32, since the decoder halves it")
        self.encoder = encoder
        self.mask_ratio = mask_ratio
        self.decoder = LightDecoder(width)
        widths = list(zip(CHANNELS, self.decoder.widths, strict=False))
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for channels in CHANNELS)
        self.mask_embeddings = nn.ParameterList(nn.init.trunc_normal_(torch.empty(c), std=0.02) for c in CHANNELS)
        self.bridges = nn.ModuleList(
            nn.Conv2d(a, b, kernel_size=k, padding=k // 2) for (a, b), k in zip(widths, (1, 3, 3, 3), strict=True)
        )

    def inputs(self, clips: Tensor, make: ViewMaker, generator: torch.Generator) -> tuple[Tensor, ...]:
        """One view, flipped as T is, and which patches are visible: bool `(B * S, H / 32, W / 32)`, on the CPU.

        Raises:
            UserError: the view's side is no multiple of 32, or below 64.
        """
        size = make.preprocessing.size
        if size % PATCH or size < 2 * PATCH:
            raise UserError(f"size is {size}; SparK hides patches of 32 pixels and needs a multiple of 32 from 64 on")
        mild = replace(make.first, crop_area=MILD_AREA, jitter=0.0, blur=0.0, solarize=0.0)
        view = make(clips, mild, generator)
        n, side = view.shape[0] * view.shape[1], size // PATCH
        keep = min(max(round(side**2 * (1 - self.mask_ratio)), 1), side**2 - 1)
        order = torch.rand(global_rows(n), side**2, generator=generator)[local_rows(n)].argsort(1)
        visible = (order < keep).unflatten(1, (side, side))  # order is a random permutation of the patches' numbers
        return view, visible

    def forward(self, view: Tensor, visible: Tensor) -> Outcome:
        """View `(B, S, H, W)` -> error of the hidden patches, and `(B * S, 512)` mean features of the visible ones."""
        slices = view.flatten(0, 1)[:, None]
        maps = masked_maps(self.encoder.trunk, slices, visible)[::-1]
        whole = [
            bridge(torch.where(enlarge(visible, x), masked_norm(norm, x, visible), filler[:, None, None].to(x.dtype)))
            for x, norm, filler, bridge in zip(maps, self.norms, self.mask_embeddings, self.bridges, strict=True)
        ]
        shape, grid = (len(slices), -1, PATCH * PATCH), visible.shape[1:]
        painted, patches = (split_patches(x, *grid).reshape(shape) for x in (self.decoder(whole), slices))
        visible = to_device_of(visible.flatten(1), view)
        loss = objectives.masked_mse(painted, patches, ~visible)
        embeddings = maps[0].detach().sum((2, 3)) / visible.sum(1, keepdim=True)
        return Outcome(loss, embeddings)
