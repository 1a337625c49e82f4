"""The classifier: slices -> encoder -> max over slices -> average -> one linear layer, one logit an exam."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from kneessl.errors import UserError
from kneessl.nets.encoder import FEATURES, ClipEncoder
from kneessl.training import read_record
from kneessl.views.preprocess import Preprocessing


class Classifier(nn.Module):
    """BYOLMed2D's encoder with a linear head (thesis, 4.2)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = ClipEncoder("max")
        self.head = nn.Linear(FEATURES, 1)

    def forward(self, clips: Tensor) -> Tensor:
        """float `(B, S, H, W)` -> logits `(B,)`."""
        return self.head(self.encoder(clips))[:, 0]

    @torch.no_grad()
    def slice_contributions(self, clip: Tensor) -> tuple[float, Tensor]:
        """The logit of one exam, and how much of it each slice contributed; exact, for this architecture.

        logit = bias + sum over channels and positions of weight * max over slices / (h w): every term belongs to the
        slice that attains the maximum (the first one, on a tie).

        Args:
            clip: float `(1, S, H, W)`.

        Returns:
            The logit, and float `(S,)` that sum to it less the bias.
        """
        maps = self.encoder.slices(clip[0][:, None])
        highest, slice_of = maps.max(0)
        terms = self.head.weight[0, :, None, None] * highest / highest[0].numel()
        contributions = torch.zeros(len(maps), device=maps.device)
        contributions.scatter_add_(0, slice_of.flatten(), terms.flatten())
        return float(contributions.sum() + self.head.bias[0]), contributions


@dataclass(frozen=True)
class Model:
    """A fine-tuned classifier with all it takes to use it."""

    classifier: Classifier
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
        classifier = Classifier()
        classifier.load_state_dict(load_file(path))
        classifier.to("cuda" if torch.cuda.is_available() else "cpu")
        return Model(classifier.eval(), record["task"], record["plane"], preprocessing)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; the run has not finished: resume it with `kneessl finetune`") from error
    except (SafetensorError, RuntimeError, KeyError, TypeError) as error:
        raise UserError(f"{run} is damaged: run.json and model.safetensors do not fit together") from error
