"""The training of a classifier: loss, random changes, learning rates by layer, and the average of its weights."""

from copy import deepcopy
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from kneessl.classifier.classifier import Classifier
from kneessl.errors import UserError
from kneessl.finetuning.mrnet import Plateau
from kneessl.finetuning.recipes import SCHEDULES, Recipe
from kneessl.model.labels import UNKNOWN
from kneessl.nets.momentum import ema_update
from kneessl.training.fit import seeded
from kneessl.views.augment import View, augment
from kneessl.views.preprocess import Preprocessing

STAGES = ("layer4", "layer3", "layer2", "layer1")
"""A ResNet's, from the head backwards; what is left, its stem, comes last."""


def binary_loss(logits: Tensor, labels: Tensor, weights: Tensor, focal: float) -> Tensor:
    """Mean over what is labelled of weight * (1 - p_t)^focal * cross-entropy, p_t the probability of the label.

    Lin et al. 2017, equations 3 to 5; with focal 0 it is the weighted cross-entropy.

    Args:
        logits: float `(B, tasks)`.
        labels: int64 `(B, tasks)`: 0, 1 or `UNKNOWN`.
        weights: float `(tasks, 2)`, of a negative and of a positive exam.
        focal: Gamma, 0 or more.

    Returns:
        Scalar; 0 where nothing is labelled.
    """
    known = labels != UNKNOWN
    target = labels.clamp(min=0)
    losses = F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")
    if focal:
        losses = losses * (-torch.expm1(-losses)) ** focal
    losses = losses * weights.gather(1, target.T).T
    return (losses * known).sum() / known.sum().clamp(min=1)


class BinaryLoss(nn.Module):
    """`binary_loss` under a recipe, with the weights that it draws from the training labels.

    Args:
        labels: int64 `(n, tasks)`: 0, 1 or `UNKNOWN`.
        recipe: Its balance, weights and focal.
    """

    weights: Tensor

    def __init__(self, labels: np.ndarray, recipe: Recipe) -> None:
        super().__init__()
        even = [(1.0, 1.0)] * labels.shape[1]
        weights = [recipe.weights(task[task != UNKNOWN]) for task in labels.T] if recipe.balance == "weights" else even
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32), persistent=False)
        self.focal = recipe.focal

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """float and int64 `(B, tasks)` -> scalar."""
        return binary_loss(logits, labels, self.weights, self.focal)


def layer_groups(classifier: Classifier, lr: float, decay: float) -> list[dict[str, Any]]:
    """Parameters that are trained, by stage, each at its learning rate: head `lr`, the last stage `lr * decay`, ...

    Raises:
        UserError: `decay` is not 1 and the encoder is no ResNet.
    """
    trained = [p for p in classifier.parameters() if p.requires_grad]
    if decay == 1:
        return [{"params": trained, "lr": lr}]
    trunk = getattr(classifier.encoder, "trunk", None)
    if not all(hasattr(trunk, stage) for stage in STAGES):
        raise UserError("layer_decay needs the stages of a ResNet; leave it out, or take --network resnet18")
    stages = [list(classifier.head.parameters()), *(list(getattr(trunk, stage).parameters()) for stage in STAGES)]
    taken = {id(p) for stage in stages for p in stage}
    stages.append([p for p in trained if id(p) not in taken])
    return [{"params": stage, "lr": lr * decay**depth} for depth, stage in enumerate(stages)]


class FineTuning(L.LightningModule):
    """Trains a classifier by a recipe.

    Args:
        classifier: Is trained.
        labels: int64 `(n, ...)`, a row for each clip of the loader, by its index.
        objective: Logits of a batch and its labels -> loss: a `BinaryLoss`, or cross-entropy over classes.
        preprocessing: Of the clips.
        recipe: Optimiser, schedule, rates, random changes.
        view: Random changes in place of the recipe's.
        seed: Of every draw.
    """

    labels: Tensor

    def __init__(
        self,
        classifier: Classifier,
        labels: np.ndarray,
        objective: nn.Module,
        preprocessing: Preprocessing,
        recipe: Recipe,
        view: View | None,
        seed: int,
    ) -> None:
        super().__init__()
        self.classifier, self.objective = classifier, objective
        self.preprocessing, self.recipe, self.view, self.seed = preprocessing, recipe, view, seed
        self.register_buffer("labels", torch.from_numpy(labels), persistent=False)
        self.averaged = deepcopy(classifier).requires_grad_(False) if recipe.ema else None

    @property
    def result(self) -> Classifier:
        """What was trained: the average of the weights where one is kept, else the last ones."""
        return self.averaged or self.classifier

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        """uint8 clips `(B, S, 256, 256)`, their indices and places -> loss."""
        return self.loss(*self.prepare(batch, batch_idx))

    def prepare(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> tuple[Tensor, Tensor, Tensor]:
        """Clips, indices, places -> the network's inputs, places, labels; random by seed, epoch and batch alone."""
        clips, index, where = batch
        with torch.autocast(clips.device.type, enabled=False):
            return self.inputs(clips, seeded(self.seed, self.current_epoch, batch_idx)), where, self.labels[index]

    def loss(self, inputs: Tensor, where: Tensor, labels: Tensor) -> Tensor:
        """Of what `prepare` made."""
        return self.objective(self.classifier(inputs, where).float(), labels)

    def inputs(self, clips: Tensor, generator: torch.Generator) -> Tensor:
        """uint8 `(B, S, 256, 256)` -> what the network sees, `(B, S, size, size)`: a view, or the recipe's changes."""
        if self.view is not None:
            slices = augment(self.preprocessing.crop(clips), self.view, self.preprocessing.size, generator)
        else:
            slices = self.recipe.change(self.preprocessing.resize(clips), generator)
        return self.preprocessing.standardise(slices)

    def on_train_epoch_start(self) -> None:
        """Batch norm out of training mode, where its statistics are to stay."""
        if self.recipe.freeze_bn:
            for module in self.classifier.encoder.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """A batch is an optimiser step here."""
        self.after_step()

    def after_step(self) -> None:
        """Move the average, by more at first, so that it forgets where it began; batch-norm statistics are the last."""
        if self.averaged is not None:
            step = self.trainer.global_step
            ema_update(self.averaged, self.classifier, min(self.recipe.ema, step / (step + 9)))
            for mean, last in zip(self.averaged.buffers(), self.classifier.buffers(), strict=True):
                mean.copy_(last)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The recipe's optimiser over what is not frozen, and its schedule."""
        recipe, steps = self.recipe, int(self.trainer.estimated_stepping_batches)
        optimizer = recipe.optimizer(layer_groups(self.classifier, recipe.lr, recipe.layer_decay), lr=recipe.lr)
        if recipe.schedule == "plateau":
            return {"optimizer": optimizer}
        factor = SCHEDULES[recipe.schedule]
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: factor(k, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_callbacks(self) -> list[Callback]:
        """What lowers the rate on a plateau, where the recipe asks for it."""
        return [Plateau()] if self.recipe.schedule == "plateau" else []

    def epoch_facts(self) -> dict[str, float]:
        """Nothing beyond loss and learning rate: the valid split is not looked at during training."""
        return {}
