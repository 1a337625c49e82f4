"""Pre-training: one Lightning module that trains any method on clips that nobody labelled."""

import math
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from tqdm import tqdm

from kneessl.errors import UserError
from kneessl.evaluation.collapse import collapse_warning, effective_rank, feature_std
from kneessl.exams.folder import ExamFolder, Plane
from kneessl.methods import METHODS, Method, MethodName
from kneessl.nets.encoder import ClipEncoder, save_encoder
from kneessl.optimizers import OptimizerName, default_lr, make_optimizer, warmup_cosine
from kneessl.report import Curve, write_report
from kneessl.report.describe import data_note, data_rows, show_views
from kneessl.training import Precision, data_hash, fit, open_run, plain, require_positive, seeded, write_record
from kneessl.views.augment import T_PRIME, T, View, augment
from kneessl.views.clips import Clips, clip_loader
from kneessl.views.preprocess import Preprocessing

WATCHED = 1024
"""Projections kept for the collapse watch: the last ones of an epoch."""


class Pretraining(L.LightningModule):
    """Trains a method: views on the device, loss, EMA after each optimiser step, collapse watch each epoch."""

    def __init__(
        self,
        method: Method,
        preprocessing: Preprocessing,
        view1: View,
        view2: View,
        optimizer: OptimizerName,
        lr: float,
        weight_decay: float,
        warmup_epochs: int,
        seed: int,
        out: Path,
    ) -> None:
        super().__init__()
        self.method = method
        self.preprocessing, self.view1, self.view2 = preprocessing, view1, view2
        self.optimizer, self.lr, self.weight_decay, self.warmup_epochs = (
            optimizer,
            lr,
            weight_decay,
            warmup_epochs,
        )
        self.seed, self.out = seed, out
        self.watched: list[Tensor] = []
        self.warned = False

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """uint8 clips `(B, S, 256, 256)` -> loss; the views depend on seed, epoch and batch alone."""
        clips, _ = batch
        generator = seeded(self.seed, self.current_epoch, batch_idx)
        with torch.autocast(clips.device.type, enabled=False):
            view1, view2 = (
                self.preprocessing.standardise(augment(clips, view, self.preprocessing.size, generator))
                for view in (self.view1, self.view2)
            )
        loss, projections = self.method(view1, view2)
        self.watched.append(projections)
        if sum(map(len, self.watched[1:])) >= WATCHED:
            self.watched.pop(0)
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """After a real optimiser step, never after a mere micro-batch, the method follows up."""
        super().optimizer_step(*args, **kwargs)
        self.method.after_step(self.trainer.global_step / self.trainer.estimated_stepping_batches)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Optimiser with warm-up and cosine, stepped with the optimiser."""
        optimizer = make_optimizer(self.optimizer, self, self.lr, self.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        warmup = round(steps * self.warmup_epochs / (self.trainer.max_epochs or 1))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: warmup_cosine(k, steps, warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def epoch_facts(self) -> dict[str, float]:
        """Collapse watch over the epoch's last projections."""
        features = torch.cat(self.watched).float()
        self.watched = []
        std, rank = feature_std(features), effective_rank(features)
        warning = collapse_warning(std, rank)
        if warning and not self.warned:
            tqdm.write(f"warning: epoch {self.current_epoch + 1}: {warning}", file=sys.stderr)
        self.warned = warning is not None
        return {"feature_std": std, "effective_rank": rank}

    def on_train_epoch_end(self) -> None:
        """Leave a usable encoder after every epoch."""
        save_encoder(self.method.encoder, self.out / "encoder.safetensors")


def pretrain(
    data: Path,
    out: Path,
    method: MethodName = "byolmed2d",
    plane: Plane = "sagittal",
    slices: int = 16,
    size: int = 224,
    epochs: int = 100,
    batch: int = 8,
    accumulate: int = 1,
    optimizer: OptimizerName = "adamw",
    lr: float | None = None,
    weight_decay: float = 1e-6,
    warmup_epochs: int = 10,
    tau: float = 0.99,
    hidden: int = 4096,
    dim: int = 256,
    view1: View = T,
    view2: View = T_PRIME,
    precision: Precision = "auto",
    seed: int = 0,
    resume: bool = False,
) -> None:
    """Learn an encoder from the unlabelled series of one plane.

    Args:
        data: Exam folder; its `train` split is used, labels are never read.
        out: Run folder to write: encoder.safetensors, metrics.csv, report.html, checkpoints.
        method: How to learn.
        plane: The plane to learn from.
        slices: Slices in a clip.
        size: Side of a view in pixels.
        epochs: Passes over the exams.
        batch: Exams in a batch.
        accumulate: Batches whose gradients are added up before each optimiser step.
        optimizer: LARS, or AdamW.
        lr: Highest learning rate; by default the optimiser's own rule for this batch.
        weight_decay: Of weight matrices; biases and batch norm are never decayed.
        warmup_epochs: Epochs of linear warm-up, before the cosine.
        tau: First decay of the target network, rising to 1.
        hidden: Width of the heads.
        dim: Output size of the heads.
        view1: What the first view T may do.
        view2: What the second view T' may do.
        precision: auto takes bf16 where the hardware multiplies it fast.
        seed: Same seed and machine, same weights (on the CPU).
        resume: Continue the run in OUT from its last checkpoint.
    """
    settings = {k: v for k, v in locals().items() if k not in {"out", "resume"}}
    folder = ExamFolder(data)
    exams = folder.require("train", plane)
    if batch < 2 or len(exams) < batch:
        raise UserError(
            f"batch is {batch}, and {data} has {len(exams)} {plane} training exams; "
            "batch normalisation needs at least 2 exams a batch, and a batch no more than there are"
        )
    require_positive(settings, "slices", "epochs", "accumulate", "hidden", "dim")
    for name in ("seed", "weight_decay"):
        if not 0 <= settings[name] < math.inf:
            raise UserError(f"{name} is {settings[name]}; it must be 0 or more")
    if lr is not None:
        require_positive(settings, "lr")
    if not 0 <= tau <= 1:
        raise UserError(f"tau is {tau}; it must be from 0 to 1")
    if not 0 <= warmup_epochs < epochs:
        raise UserError(f"warmup_epochs is {warmup_epochs}; it must be from 0 to less than epochs, which is {epochs}")
    preprocessing = Preprocessing(size)
    clips = Clips(folder, "train", plane, exams, slices, seed)
    loader = clip_loader(clips, range(len(exams)), batch, drop_last=True)
    checkpoint = open_run(out, settings, resume)
    if lr is None:
        lr = default_lr(optimizer, batch * accumulate, epochs)

    torch.manual_seed(seed)
    module = Pretraining(
        METHODS[method](ClipEncoder("max"), hidden=hidden, dim=dim, tau=tau),
        preprocessing, view1, view2, optimizer, lr, weight_decay, warmup_epochs, seed, out,
    )  # fmt: skip
    data_sha256 = data_hash(folder, "train", plane, exams)
    rows = fit(
        module, loader, out, title=f"pre-train {method}", epochs=epochs, precision=precision, data=data_sha256,
        accumulate=accumulate, checkpoint=checkpoint,
    )  # fmt: skip
    write_record(
        out, preprocessing, kind="pretrain", method=method, plane=plane, seed=seed, epochs=epochs, lr=lr,
        exams=len(exams), data_sha256=data_sha256,
    )  # fmt: skip
    warning = collapse_warning(rows[-1]["feature_std"], rows[-1]["effective_rank"])
    write_report(
        out / "report.html",
        title=f"Pre-training: {method}",
        lead=(
            f"{len(exams)} unlabelled {plane} exams, {epochs} epochs. "
            f"The last epoch's loss was {rows[-1]['loss']:.3f} of 8; projections of different exams had "
            f"standard deviation {rows[-1]['feature_std']:.2f} of 1 "
            f"and effective rank {rows[-1]['effective_rank']:.1f}."
        ),
        facts=[("method", method), ("plane", plane), ("exams", str(len(exams))), ("seed", str(seed))],
        data=data_rows(folder, plane, task=None),
        data_note=data_note(folder),
        settings={"pre-training": plain({**settings, "lr": lr})},
        curves=[Curve(method, rows)],
        warnings=[warning] if warning else [],
        views=[
            show_views(folder, "train", plane, exam, {"view T": view1, "view T'": view2}, seed) for exam in exams[:2]
        ],
        arms=[],
        task="",
        plane=plane,
    )
    if warning:
        print(f"warning: {warning}")
    print(f"encoder: {out / 'encoder.safetensors'}\nreport:  {out / 'report.html'}")
