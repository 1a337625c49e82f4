"""Pre-training: one Lightning module that trains any method on clips that nobody labelled."""

import math
import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from tqdm import tqdm

from kneessl.distributed import gather, global_rows
from kneessl.errors import UserError
from kneessl.evaluation.collapse import alignment, collapse_warning, effective_rank, feature_std, uniformity
from kneessl.exams.folder import ExamFolder, Plane
from kneessl.methods import METHODS, Method, MethodName, make_method, with_queue
from kneessl.nets.encoder import Pool, save_weights
from kneessl.report.content import Curve
from kneessl.report.describe import data_note, data_rows, show_views
from kneessl.training.fit import fit, seeded
from kneessl.training.machine import Precision
from kneessl.training.optimizers import OptimizerName, default_lr, make_optimizer, warmup_cosine
from kneessl.training.probing import Probe
from kneessl.training.processes import Processes
from kneessl.training.runs import data_hash, open_run, plain, require_positive, write_record
from kneessl.views.augment import T_PRIME, T, View
from kneessl.views.clips import Clips, clip_loader
from kneessl.views.inputs import ViewMaker
from kneessl.views.preprocess import Preprocessing

WATCHED = 1024
"""Projections kept for the collapse watch: the last ones of an epoch."""


class Pretraining(L.LightningModule):
    """Trains a method: views on the device, loss, EMA after each optimiser step, collapse watch each epoch."""

    def __init__(
        self,
        method: Method,
        make_view: ViewMaker,
        by_slice: bool,
        optimizer: OptimizerName,
        lr: float,
        weight_decay: float,
        warmup_epochs: int,
        seed: int,
        out: Path,
        probe: Probe | None = None,
    ) -> None:
        super().__init__()
        self.method = method
        self.make_view, self.by_slice = make_view, by_slice
        self.optimizer, self.lr = optimizer, lr
        self.weight_decay, self.warmup_epochs = weight_decay, warmup_epochs
        self.seed, self.out, self.probe = seed, out, probe
        self.watched: list[tuple[Tensor, Tensor | None]] = []
        self.warned = False

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        """uint8 clips `(B, S, 256, 256)` -> loss."""
        return self.loss(*self.prepare(batch, batch_idx))

    def prepare(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> tuple[Tensor, ...]:
        """Clips -> what the method takes, such as two views; they depend on seed, epoch and batch alone."""
        clips, _, _ = batch
        if self.by_slice:  # without pooling, a slice is a clip of one
            clips = clips.flatten(0, 1)[:, None]
        generator = seeded(self.seed, self.current_epoch, batch_idx)
        with torch.autocast(clips.device.type, enabled=False):
            return self.method.inputs(clips, self.make_view, generator)

    def loss(self, *inputs: Tensor) -> Tensor:
        """The method's, of what `prepare` made; its embeddings are kept for the collapse watch."""
        loss, embeddings, partners = self.method(*inputs)
        self.watched.append((embeddings, partners))
        if sum(global_rows(len(e)) for e, _ in self.watched[1:]) >= WATCHED:
            self.watched.pop(0)
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """After a real optimiser step, never after a mere micro-batch, the method follows up."""
        super().optimizer_step(*args, **kwargs)
        self.after_step()

    def after_step(self) -> None:
        """What the method does once its weights have moved."""
        self.method.after_step(self.trainer.global_step / self.trainer.estimated_stepping_batches)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Optimiser with warm-up and cosine, stepped with the optimiser."""
        optimizer = make_optimizer(self.optimizer, self, self.lr, self.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        warmup = round(steps * self.warmup_epochs / (self.trainer.max_epochs or 1))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: warmup_cosine(k, steps, warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def epoch_facts(self) -> dict[str, float]:
        """Collapse watch over the epoch's last embeddings, of all processes; the first one probes, where asked to."""
        features = gather(torch.cat([e for e, _ in self.watched]).float())
        partners = [p for _, p in self.watched if p is not None]
        self.watched = []
        facts = {
            "feature_std": feature_std(features),
            "effective_rank": effective_rank(features),
            "uniformity": uniformity(features),
        }
        if partners:
            facts["alignment"] = alignment(features, gather(torch.cat(partners)))
        if self.probe is not None and self.trainer.is_global_zero:
            facts |= self.probe(self.method.encoder, self.current_epoch + 1)
        warning = collapse_warning(facts["feature_std"], facts["effective_rank"])
        if warning and not self.warned and self.trainer.is_global_zero:
            tqdm.write(f"warning: epoch {self.current_epoch + 1}: {warning}", file=sys.stderr)
        self.warned = warning is not None
        return facts

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave a usable encoder beside every checkpoint."""
        if self.trainer.is_global_zero:
            save_weights(self.method.encoder.trunk, self.out / "encoder.safetensors")


def pretrain(
    data: Path,
    out: Path,
    method: MethodName = "byolmed2d",
    plane: Plane = "sagittal",
    slices: int = 16,
    size: int = 224,
    field: float = 1.0,
    depth: float = 1.0,
    epochs: int = 100,
    batch: int = 8,
    accumulate: int = 1,
    optimizer: OptimizerName = "adamw",
    lr: float | None = None,
    weight_decay: float = 1e-6,
    warmup_epochs: int = 10,
    pool: Pool | None = None,
    settings: dict[str, int | float] | None = None,
    view1: View = T,
    view2: View = T_PRIME,
    weights: Path | None = None,
    probe: str | None = None,
    probes: int = 4,
    precision: Precision = "auto",
    seed: int = 0,
    devices: int = 1,
    num_nodes: int = 1,
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
        field: Share of a slice's side that is looked at, about its centre; 1 is the whole field of view.
        depth: Share of a series' slices that is looked at, about its middle; 1 is all of them.
        epochs: Passes over the exams.
        batch: Exams in a batch, those of all processes together.
        accumulate: Batches whose gradients are added up before each optimiser step.
        optimizer: LARS, AdamW, or SGD with Nesterov's momentum.
        lr: Highest learning rate; by default the optimiser's own rule for this batch.
        weight_decay: Of weight matrices; biases and batch norm are never decayed.
        warmup_epochs: Epochs of linear warm-up, before the cosine.
        pool: Over the slices of a clip: none, max or mean; by default what the method is known for.
        settings: The method's own settings, such as --settings.tau 0.996; what it does not have is refused by name.
        view1: What the first view T may do.
        view2: What the second view T' may do.
        weights: File with torchvision's ResNet-18 keys (.safetensors or .pth) to start from, instead of random weights.
        probe: Task to probe the frozen features for, such as acl; training itself never sees these labels.
        probes: How often to probe over the training, the last time at its end.
        precision: auto takes bf16 where the hardware multiplies it fast.
        seed: Same seed and machine, same weights (on the CPU).
        devices: Processes on each machine, one a GPU, that share every batch; may change on resuming.
        num_nodes: Machines; start the same command on each by torchrun or srun.
        resume: Continue the run in OUT from its last checkpoint.
    """
    asked = {k: v for k, v in locals().items() if k not in {"out", "devices", "num_nodes", "resume"}}
    processes = Processes(devices, num_nodes)
    folder = ExamFolder(data)
    exams = folder.require("train", plane)
    if batch < 2 or len(exams) < batch:
        raise UserError(
            f"batch is {batch}, and {data} has {len(exams)} {plane} training exams; "
            "batch normalisation needs at least 2 exams a batch, and a batch no more than there are"
        )
    processes.require(batch)
    require_positive(asked, "slices", "epochs", "accumulate", "probes")
    for name in ("seed", "weight_decay"):
        if not 0 <= asked[name] < math.inf:
            raise UserError(f"{name} is {asked[name]}; it must be 0 or more")
    if lr is not None:
        require_positive(asked, "lr")
    if not 0 <= warmup_epochs < epochs:
        raise UserError(f"warmup_epochs is {warmup_epochs}; it must be from 0 to less than epochs, which is {epochs}")
    preprocessing = Preprocessing(size, field, depth)
    clips = Clips(folder, "train", plane, exams, slices, seed, preprocessing)
    folder.require_readable("train", plane, exams)
    by_slice = (pool or METHODS[method].pools[0]) == "none"
    chosen = with_queue(method, settings or {}, len(exams) * (slices if by_slice else 1))
    if processes.total > 1 and chosen.get("split_bn", 1) > 1:
        raise UserError("settings.split_bn imitates several GPUs on one; leave it out with several processes")
    watch = Probe(folder, plane, probe, preprocessing, epochs, probes) if probe else None
    torch.manual_seed(seed)
    with nullcontext() if processes.first else redirect_stdout(None):  # one says which weights were taken
        built = make_method(method, pool, chosen, weights)
    checkpoint = open_run(out, asked, resume, processes.first)
    if lr is None:
        lr = default_lr(optimizer, batch * accumulate, epochs)
    module = Pretraining(
        built, ViewMaker(preprocessing, view1, view2), by_slice, optimizer, lr, weight_decay, warmup_epochs, seed, out,
        watch,
    )  # fmt: skip
    data_sha256 = data_hash(folder, "train", plane, exams)
    processes.take_gpu()
    loader = clip_loader(clips, range(len(exams)), batch, drop_last=True, processes=processes.total)
    rows = fit(
        module, loader, out, title=f"pre-train {method}", epochs=epochs, precision=precision, data=data_sha256,
        accumulate=accumulate, checkpoint=checkpoint, processes=processes,
    )  # fmt: skip
    if not processes.first:
        return
    warning = collapse_warning(rows[-1]["feature_std"], rows[-1]["effective_rank"])
    write_record(
        out, preprocessing, rows, kind="pretrain", method=method, network=METHODS[method].network, plane=plane,
        settings=METHODS[method].settings() | chosen, seed=seed, epochs=epochs, lr=lr, exams=len(exams),
        data_sha256=data_sha256, collapsed=warning is not None, processes=processes.total,
    )  # fmt: skip
    from kneessl.report.page import write_report  # it imports matplotlib, for which no first step need wait

    write_report(
        out / "report.html",
        title=f"Pre-training: {method}",
        lead=(
            f"{len(exams)} unlabelled {plane} exams, {epochs} epochs. "
            f"The last epoch's loss was {rows[-1]['loss']:.3f}; embeddings of different clips had "
            f"standard deviation {rows[-1]['feature_std']:.2f} of 1 "
            f"and effective rank {rows[-1]['effective_rank']:.1f}."
        ),
        facts=[("method", method), ("plane", plane), ("exams", str(len(exams))), ("seed", str(seed))],
        data=data_rows(folder, plane, task=None),
        data_note=data_note(folder),
        settings={"pre-training": plain({**asked, "lr": lr})},
        curves=[Curve(method, rows)],
        warnings=[warning] if warning else [],
        views=[
            show_views(folder, "train", plane, exam, {"view T": view1, "view T'": view2}, preprocessing, seed)
            for exam in exams[:2]
        ],
        task="",
        plane=plane,
    )
    if warning:
        print(f"warning: {warning}")
    print(f"encoder: {out / 'encoder.safetensors'}\nreport:  {out / 'report.html'}")
