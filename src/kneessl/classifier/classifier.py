"""The classifiers by name: slices of one series -> a logit for each task."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor, nn

from kneessl.classifier.heads import HEADS, HeadName
from kneessl.errors import UserError
from kneessl.nets.alexnet import MAPS, AlexNet
from kneessl.nets.encoder import FEATURES, ClipEncoder, SliceEncoder, each_slice
from kneessl.nets.sslm import SSLMEncoder

NetworkName = Literal["resnet18", "mrnet_alexnet", "mrnet_resnet18", "sslm", "sslm_linear"]


class Classifier(nn.Module):
    """An encoder of single slices, and a head over the feature maps of an exam's slices.

    Args:
        encoder: Has `maps`: float `(N, 1, H, W)` -> `(N, C, h, w)`.
        head: Made by `HEADS`.
        frozen: The encoder is never trained, nor its batch norm in training mode.
    """

    def __init__(self, encoder: nn.Module, head: nn.Module, frozen: bool = False) -> None:
        super().__init__()
        self.encoder = encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.head, self.frozen = head, frozen
        if frozen:
            self.encoder.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; a frozen encoder stays in evaluation mode and keeps its statistics."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def maps(self, clips: Tensor) -> Tensor:
        """float `(B, S, H, W)`, or `(B, S, 3, H, W)` in colour -> feature maps of every slice, `(B, S, C, h, w)`."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            maps = self.encoder.maps(each_slice(clips))  # type: ignore[operator]
        return maps.unflatten(0, clips.shape[:2])

    def forward(self, clips: Tensor, where: Tensor) -> Tensor:
        """Clips as for `maps`, and the slices' places in their series, `(B, S)` from 0 to 1 -> logits `(B, tasks)`."""
        return self.head(self.maps(clips), where)


def sslm_width(tensors: Mapping[str, Tensor]) -> int:
    """The width of the SSLM encoder whose weights are among `tensors`.

    Raises:
        UserError: there is no SSLM encoder among them.
    """
    first = [v for k, v in tensors.items() if k.endswith("branches.0.0.0.weight")]
    if not first:
        raise UserError(
            "network sslm has no SSLM encoder to start from; name a run of `kneessl pretrain --method sslm` with --from"
        )
    return len(first[0])


def matching_sslm_encoder(tensors: Mapping[str, Tensor]) -> tuple[nn.Module, int]:
    """An SSLM encoder of the width of the one in `tensors`, and the number of channels of its maps."""
    encoder = SSLMEncoder(sslm_width(tensors))
    return encoder, encoder.features


@dataclass(frozen=True)
class Network:
    """What a network's name stands for.

    Args:
        encoder: Makes it with random weights, and says how many channels its maps have, given the tensors that will go
            into it: they tell how wide an SSLM is.
        head: Its head, unless another is asked for.
        frozen: Only its head is trained.
    """

    encoder: Callable[[Mapping[str, Tensor]], tuple[nn.Module, int]]
    head: HeadName
    frozen: bool = False


NETWORKS: dict[NetworkName, Network] = {
    "resnet18": Network(lambda _: (ClipEncoder("max"), FEATURES), "max"),
    "mrnet_alexnet": Network(lambda _: (AlexNet(), MAPS), "slice_max"),
    "mrnet_resnet18": Network(lambda _: (SliceEncoder(), FEATURES), "slice_max"),
    "sslm": Network(matching_sslm_encoder, "conv_lstm", frozen=True),
    "sslm_linear": Network(matching_sslm_encoder, "max"),
}


def build_classifier(
    network: NetworkName, head: HeadName | None, tasks: int, tensors: Mapping[str, Tensor]
) -> Classifier:
    """A classifier with random weights, from PyTorch's global generator.

    Args:
        network: Name of the encoder.
        head: Name of the head; None for the network's default.
        tasks: Number of logits.
        tensors: Weights that will be loaded, of the encoder or of all; they determine the width of an SSLM.
    """
    parts = NETWORKS[network]
    encoder, channels = parts.encoder(tensors)
    return Classifier(encoder, HEADS[head or parts.head](channels, tasks), parts.frozen)
