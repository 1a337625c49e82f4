"""The classifiers by name: slices of one series -> one logit; and how one comes back from its run folder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from kneessl.diagnosis.mrnet import MRNet, parts_of_maximum
from kneessl.errors import UserError
from kneessl.nets.alexnet import MAPS, AlexNet
from kneessl.nets.encoder import FEATURES, ClipEncoder, SliceEncoder
from kneessl.nets.sslm import SSLMEncoder, SSLMHead
from kneessl.training import read_record
from kneessl.views.preprocess import Preprocessing

NetworkName = Literal["resnet18", "mrnet_alexnet", "mrnet_resnet18", "sslm", "sslm_linear"]


class Classifier(nn.Module):
    """An encoder that takes the maximum over slices, BYOLMed2D's unless another is given, with a linear head.

    Thesis, 4.2.
    """

    def __init__(self, encoder: ClipEncoder | SSLMEncoder | None = None) -> None:
        super().__init__()
        self.encoder = encoder or ClipEncoder("max")
        self.head = nn.Linear(self.encoder.features, 1)

    def forward(self, clips: Tensor) -> Tensor:
        """float `(B, S, H, W)` -> logits `(B,)`."""
        return self.head(self.encoder(clips))[:, 0]

    @torch.no_grad()
    def slice_contributions(self, clip: Tensor) -> tuple[float, Tensor]:
        """The logit of one exam, and how much of it each slice contributed; exact (see `parts_of_maximum`).

        Args:
            clip: float `(1, S, H, W)`.

        Returns:
            The logit, and float `(S,)` that sum to it less the bias.
        """
        parts = parts_of_maximum(self.encoder.maps(clip[0][:, None]), self.head.weight[0])
        return float(parts.sum() + self.head.bias[0]), parts


class SSLMClassifier(nn.Module):
    """SSLM downstream: whole slices through all nine frozen branches -> ConvLSTM over the slices, in order -> logit.

    The authors predict from 16 slices, averaged over 8 random draws of them; here prediction takes all slices, once.

    Args:
        width: Of the encoder.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder = SSLMEncoder(width).requires_grad_(False)
        self.head = SSLMHead(self.encoder.features)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """The head alone is ever in training mode: a frozen encoder keeps its batch-norm statistics."""
        super().train(mode)
        self.encoder.eval()
        return self

    @torch.no_grad()
    def maps(self, clips: Tensor) -> Tensor:
        """float `(B, S, H, W)` -> the encoder's maps `(B, S, features, h, w)`."""
        return self.encoder.maps(clips.flatten(0, 1)[:, None]).unflatten(0, clips.shape[:2])

    def forward(self, clips: Tensor) -> Tensor:
        """float `(B, S, H, W)` -> logits `(B,)`."""
        return self.head(self.maps(clips))

    @torch.no_grad()
    def slice_contributions(self, clip: Tensor) -> tuple[float, Tensor]:
        """The logit of one exam, and for each slice the logit less that of the series without it.

        Not exact: a ConvLSTM is no sum over slices, so these do not sum to the logit. It takes as many passes of the
        head as there are slices.

        Args:
            clip: float `(1, S, H, W)`, S at least 1; without its only slice, a series has the bias as its logit.

        Returns:
            The logit, and float `(S,)`.
        """
        maps = self.maps(clip)
        logit, count = self.head(maps)[0], maps.shape[1]
        if count == 1:
            return float(logit), (logit - self.head.linear.bias[0])[None]
        without = [self.head(torch.cat([maps[:, :s], maps[:, s + 1 :]], dim=1)) for s in range(count)]
        return float(logit), logit - torch.cat(without)


def sslm_width(tensors: Mapping[str, Tensor]) -> int:
    """How wide the SSLM encoder among `tensors` is.

    Raises:
        UserError: there is none.
    """
    first = [v for k, v in tensors.items() if k.endswith("branches.0.0.0.weight")]
    if not first:
        raise UserError(
            "network sslm has no SSLM encoder to start from; name a run of `kneessl pretrain --method sslm` with --from"
        )
    return len(first[0])


AnyClassifier = Classifier | MRNet | SSLMClassifier
"""Each has `encoder`, `forward(clips (B, S, H, W)) -> logits (B,)` and `slice_contributions(clip (1, S, H, W))`."""

NETWORKS: dict[NetworkName, Callable[[Mapping[str, Tensor]], AnyClassifier]] = {
    "resnet18": lambda _: Classifier(),
    "mrnet_alexnet": lambda _: MRNet(AlexNet(), MAPS),
    "mrnet_resnet18": lambda _: MRNet(SliceEncoder(), FEATURES),
    "sslm": lambda tensors: SSLMClassifier(sslm_width(tensors)),
    "sslm_linear": lambda tensors: Classifier(SSLMEncoder(sslm_width(tensors))),
}
"""Makes a classifier with random weights, given the tensors that will go into it: they tell how wide an SSLM is."""


@dataclass(frozen=True)
class Model:
    """A fine-tuned classifier with all it takes to use it."""

    classifier: AnyClassifier
    task: str
    plane: str
    preprocessing: Preprocessing


def load_model(run: Path) -> Model:
    """Load a run folder that `kneessl finetune` has written, ready to predict, on the GPU where there is one.

    Raises:
        UserError: not such a folder, damaged, or preprocessed otherwise than this version does.
    """
    record = read_record(run)
    if record.get("kind") != "finetune":
        raise UserError(f"{run} is not a fine-tuned model; run `kneessl finetune DATA --from {run} --out MODEL` first")
    path = run / "model.safetensors"
    try:
        preprocessing = Preprocessing(**record["preprocessing"])
        if preprocessing.fingerprint() != record["fingerprint"]:
            raise UserError(
                f"{run} was trained under preprocessing {record['fingerprint']}, and this version of kneessl does "
                f"{preprocessing.fingerprint()}; predict with the version that trained it, or fine-tune again"
            )
        tensors = load_file(path)
        classifier = NETWORKS[record.get("network", "resnet18")](tensors)  # runs of version 0.1 do not name theirs
        classifier.load_state_dict(tensors)
        classifier.to("cuda" if torch.cuda.is_available() else "cpu")
        return Model(classifier.eval(), record["task"], record["plane"], preprocessing)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; the run has not finished: resume it with `kneessl finetune`") from error
    except (SafetensorError, RuntimeError, KeyError, TypeError) as error:
        raise UserError(f"{run} is damaged: run.json and model.safetensors do not fit together") from error
