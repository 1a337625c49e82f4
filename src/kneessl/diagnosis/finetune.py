"""Fine-tuning with the thesis's downstream recipe."""

import sys
from pathlib import Path

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional as F

from kneessl.diagnosis.classifier import Classifier
from kneessl.errors import UserError
from kneessl.exams.folder import ExamFolder, Plane
from kneessl.nets.encoder import load_encoder, save_weights
from kneessl.training import Precision, data_hash, fit, open_run, read_record, require_positive, seeded, write_record
from kneessl.views.augment import View, augment
from kneessl.views.clips import Clips, clip_loader
from kneessl.views.preprocess import Preprocessing


class FineTuning(L.LightningModule):
    """Binary cross-entropy with logits, Adam, learning rate cut to a tenth at 60 % and 80 % of the epochs."""

    labels: Tensor

    def __init__(
        self,
        classifier: Classifier,
        labels: Tensor,
        preprocessing: Preprocessing,
        view: View | None,
        lr: float,
        seed: int,
    ) -> None:
        super().__init__()
        self.classifier, self.preprocessing, self.view, self.lr, self.seed = (
            classifier,
            preprocessing,
            view,
            lr,
            seed,
        )
        self.register_buffer("labels", labels, persistent=False)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """uint8 clips `(B, S, 256, 256)` and their indices -> loss."""
        clips, index = batch
        with torch.autocast(clips.device.type, enabled=False):
            if self.view is None:
                inputs = self.preprocessing(clips)
            else:
                generator = seeded(self.seed, self.current_epoch, batch_idx)
                views = augment(clips, self.view, self.preprocessing.size, generator)
                inputs = self.preprocessing.standardise(views)
        return F.binary_cross_entropy_with_logits(self.classifier(inputs).float(), self.labels[index])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam, its learning rate falling by `step_decay`."""
        optimizer = torch.optim.Adam(self.classifier.parameters(), lr=self.lr, fused=True)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: step_decay(k, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def epoch_facts(self) -> dict[str, float]:
        """Nothing beyond loss and learning rate: the valid split is not looked at during training."""
        return {}


def step_decay(step: int, steps: int) -> float:
    """Factor of the learning rate: x 0.1 after 18 and again after 24 of the thesis's 30 epochs, at any length."""
    return 0.1 ** ((5 * step >= 3 * steps) + (5 * step >= 4 * steps))


def oversample(labels: np.ndarray) -> np.ndarray:
    """Indices in which the rarer class is repeated until both are equally many (thesis, 4.2).

    Args:
        labels: int `(n,)`, 0 or 1, both present.
    """
    groups = sorted((np.flatnonzero(labels == value) for value in (0, 1)), key=len)
    return np.concatenate([np.resize(groups[0], len(groups[1])), groups[1]])


def finetune(
    data: Path,
    task: str,
    out: Path,
    from_run: Path | None = None,
    plane: Plane = "sagittal",
    slices: int = 16,
    size: int = 224,
    epochs: int = 30,
    batch: int = 1,
    lr: float = 1e-4,
    view: View | None = None,
    precision: Precision = "auto",
    seed: int = 0,
    resume: bool = False,
) -> None:
    """Train a classifier for one task on the labelled exams of one plane.

    Args:
        data: Exam folder; its `train` split is used, `valid` is not looked at.
        task: acl, meniscus, abnormal, or any other with a label file.
        out: Run folder to write: model.safetensors, metrics.csv, checkpoints.
        from_run: Run folder of `kneessl pretrain` to start from; without it, from random weights. Also spelled --from.
        plane: The plane to learn from.
        slices: Slices in a training clip; prediction uses all of a series.
        size: Side of a slice in pixels.
        epochs: Passes over the oversampled exams.
        batch: Exams in a batch.
        lr: Learning rate of Adam, cut to a tenth at 60 % and 80 % of the epochs.
        view: Random changes during training; without it, none.
        precision: auto takes bf16 where the hardware multiplies it fast.
        seed: Same seed and machine, same weights (on the CPU).
        resume: Continue the run in OUT from its last checkpoint.
    """
    settings = {k: v for k, v in locals().items() if k not in {"out", "resume"}}
    folder = ExamFolder(data)
    known = folder.labels("train", task)
    exams = [exam for exam in folder.require("train", plane) if exam in known]
    labels = np.array([known[exam] for exam in exams])
    if len(set(labels)) < 2:
        raise UserError(
            f"{data} has {len(exams)} {plane} training exams labelled for {task}, not some of 0 and some of 1; "
            "a classifier needs both"
        )
    require_positive(settings, "slices", "epochs", "batch", "lr")
    if seed < 0:
        raise UserError(f"seed is {seed}; it must be 0 or more")
    if slices < 2:
        raise UserError(f"slices is {slices}; batch normalisation needs at least 2, since a batch may be one exam")
    preprocessing = Preprocessing(size)
    loader = clip_loader(Clips(folder, "train", plane, exams, slices, seed), oversample(labels).tolist(), batch)
    torch.manual_seed(seed)
    classifier = Classifier()
    if from_run is not None:
        start = read_record(from_run)
        if start.get("kind") != "pretrain":
            raise UserError(f"{from_run} is not a pre-training run; --from wants what `kneessl pretrain` has written")
        load_encoder(classifier.encoder, from_run / "encoder.safetensors")
        if (start["plane"], start["fingerprint"]) != (plane, preprocessing.fingerprint()):
            print(f"note: {from_run} was pre-trained on {start['plane']} slices, preprocessing {start['fingerprint']}; "
                  f"this is {plane}, {preprocessing.fingerprint()}", file=sys.stderr)  # fmt: skip
    checkpoint = open_run(out, settings, resume)
    module = FineTuning(classifier, torch.from_numpy(labels).float(), preprocessing, view, lr, seed)
    data_sha256 = data_hash(folder, "train", plane, exams)
    fit(
        module, loader, out, title=f"fine-tune {task}", epochs=epochs, precision=precision, data=data_sha256,
        checkpoint=checkpoint,
    )  # fmt: skip
    save_weights(classifier, out / "model.safetensors")
    write_record(
        out, preprocessing, kind="finetune", task=task, plane=plane, seed=seed, epochs=epochs,
        start=str(from_run) if from_run else "random weights", exams=len(exams), positives=int(labels.sum()),
        data_sha256=data_sha256,
    )  # fmt: skip
    print(f"model: {out}\nnext:  kneessl evaluate {out} {data}")
