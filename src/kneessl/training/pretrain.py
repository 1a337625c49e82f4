"""`kneessl pretrain`: learn an encoder from the series of an exam folder, without labels."""

from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch

from kneessl.errors import UserError
from kneessl.evaluation.collapse import collapse_of, watch_warnings
from kneessl.exams.folder import ExamFolder, Plane
from kneessl.exams.summary import data_note, data_rows
from kneessl.methods import METHODS, MethodName, MethodSettings, make_method, settings_help
from kneessl.nets.encoder import Pool
from kneessl.report.content import Curve
from kneessl.settings import Settings, require_not_negative, require_positive, takes
from kneessl.training.augmented import augmented_exam
from kneessl.training.fit import fit
from kneessl.training.machine import Precision
from kneessl.training.online_probe import OnlineProbe
from kneessl.training.optimizers import Optimization, OptimizerName, default_lr
from kneessl.training.pretraining import Pretraining
from kneessl.training.processes import Processes
from kneessl.training.runs import data_hash, open_run, plain, write_record
from kneessl.views.augment import T_PRIME, T, View
from kneessl.views.clips import Clips, clip_loader
from kneessl.views.inputs import ViewMaker
from kneessl.views.preprocess import Preprocessing


@dataclass(frozen=True)
class PretrainSettings(Settings):
    """What `kneessl pretrain` is asked for.

    Args:
        data: Exam folder; its `train` split is used, labels are never read.
        out: Run folder to write: encoder.safetensors, metrics.csv, report.html, checkpoints.
        method: How to learn.
        plane: The plane to learn from.
        slices: Slices in a clip.
        draws: 1 shows both views the same slices of an exam, 2 draws slices for each view.
        size: Side of a view in pixels.
        field: Share of a slice's side that is looked at, about its centre; 1 is the whole field of view.
        depth: Share of a series' slices that is looked at, about its middle; 1 is all of them.
        epochs: Passes over the exams.
        batch: Exams in a batch, those of all processes together.
        accumulate: Batches whose gradients are added up before each optimiser step.
        optimizer: LARS, AdamW, or SGD with Nesterov's momentum.
        lr: Highest learning rate; by default the optimiser's own rule for this batch.
        weight_decay: Of weight matrices; biases and batch norm are never decayed.
        warmup_epochs: Epochs of linear warm-up, before the cosine; by default a tenth of all optimiser steps.
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

    data: Path
    out: Path
    method: MethodName = "byolmed2d"
    plane: Plane = "sagittal"
    slices: int = 16
    draws: int = 1
    size: int = 224
    field: float = 1.0
    depth: float = 1.0
    epochs: int = 100
    batch: int = 8
    accumulate: int = 1
    optimizer: OptimizerName = "adamw"
    lr: float | None = None
    weight_decay: float = 1e-6
    warmup_epochs: int | None = None
    pool: Pool | None = None
    settings: dict[str, int | float] | None = None
    view1: View = T
    view2: View = T_PRIME
    weights: Path | None = None
    probe: str | None = None
    probes: int = 4
    precision: Precision = "auto"
    seed: int = 0
    devices: int = 1
    num_nodes: int = 1
    resume: bool = False
    free_on_resuming: ClassVar[frozenset[str]] = frozenset({"out", "devices", "num_nodes", "resume"})
    help_sections: ClassVar[dict[str, str]] = {"settings of each method, with their defaults": settings_help()}

    def __post_init__(self) -> None:
        require_positive(vars(self), "slices", "epochs", "batch", "accumulate", "probes")
        if self.draws not in (1, 2):
            raise UserError(f"draws is {self.draws}; it must be 1, the same slices for both views, or 2, each its own")
        if self.draws == 2 and not METHODS[self.method].two_views:
            raise UserError(f"method {self.method} does not learn from two views, so leave draws at 1")
        require_not_negative(vars(self), "seed")
        _ = self.preprocessing, self.optimization  # they check their own values

    @property
    def preprocessing(self) -> Preprocessing:
        """What every slice goes through."""
        return Preprocessing(self.size, self.field, self.depth)

    @property
    def optimization(self) -> Optimization:
        """How weights are moved, the learning rate by the optimiser's own rule where none is given."""
        lr = self.lr
        if lr is None:
            lr = default_lr(self.optimizer, self.batch * self.accumulate, self.epochs)
        return Optimization(self.epochs, self.optimizer, lr, self.weight_decay, self.warmup_epochs)

    @property
    def processes(self) -> Processes:
        """Who trains."""
        return Processes(self.devices, self.num_nodes)

    @property
    def by_slice(self) -> bool:
        """Whether every slice is a sample of its own: nothing is pooled."""
        return (self.pool or METHODS[self.method].pools[0]) == "none"


@takes(PretrainSettings)
def pretrain(settings: PretrainSettings) -> None:
    """Learn an encoder from the unlabelled series of one plane; the settings are those of `PretrainSettings`."""
    training = UnlabelledTraining(settings, ExamFolder(settings.data))
    processes = settings.processes
    module = training.module()
    checkpoint = open_run(
        settings.out, settings.asked(), settings.resume, processes.first, defaults=settings.defaults()
    )
    processes.take_gpu()
    rows = fit(
        module, training.loader(), settings.out, title=f"pre-train {settings.method}", epochs=settings.epochs,
        precision=settings.precision, data=training.data_sha256, accumulate=settings.accumulate, checkpoint=checkpoint,
        processes=processes,
    )  # fmt: skip
    if processes.first:
        warnings = watch_warnings(rows[-1])
        record(training, rows)
        report(training, rows, warnings)


class UnlabelledTraining:
    """A pre-training: what was asked for, and the exams that it learns from.

    Args:
        settings: What was asked for.
        folder: Exam folder.

    Raises:
        UserError: a setting that does not go with the method, these exams, or this machine; or unreadable exams.
    """

    def __init__(self, settings: PretrainSettings, folder: ExamFolder) -> None:
        self.settings, self.folder = settings, folder
        self.exams = folder.require("train", settings.plane)
        if settings.batch < 2 or len(self.exams) < settings.batch:
            raise UserError(
                f"batch is {settings.batch}, and {settings.data} has {len(self.exams)} {settings.plane} training "
                "exams; batch normalisation needs at least 2 exams a batch, and a batch no more than there are"
            )
        settings.processes.require(settings.batch)
        folder.require_readable("train", settings.plane, self.exams)
        if settings.draws == 2:
            self.require_slices_for_two_draws()
        samples = len(self.exams) * (settings.slices if settings.by_slice else 1)
        self.method_settings: MethodSettings = METHODS[settings.method].adapt(
            settings.settings or {}, samples, settings.processes.total
        )

    def require_slices_for_two_draws(self) -> None:
        """Raise a user error for the first exam of which two draws would be the same slices."""
        wanted = self.settings
        for exam in self.exams:
            total = len(self.folder.series("train", wanted.plane, exam))
            kept = wanted.preprocessing.middle(total)
            if kept.stop - kept.start <= wanted.slices:
                raise UserError(
                    f"draws is 2, and exam {exam} has {kept.stop - kept.start} {wanted.plane} slices to draw "
                    f"{wanted.slices} from, so that both views would see the same; lower slices, or leave draws at 1"
                )

    def module(self) -> Pretraining:
        """The method, with weights from the seed or a file, ready to be trained."""
        wanted, probe = self.settings, None
        torch.manual_seed(wanted.seed)
        with nullcontext() if wanted.processes.first else redirect_stdout(None):  # one says which weights were taken
            method = make_method(wanted.method, wanted.pool, self.method_settings, wanted.weights)
        if wanted.probe:
            probe = OnlineProbe(
                self.folder, wanted.plane, wanted.probe, wanted.preprocessing, wanted.epochs, wanted.probes,
                method.encoder,
            )  # fmt: skip
        views = ViewMaker(wanted.preprocessing, wanted.view1, wanted.view2)
        return Pretraining(
            method, views, wanted.by_slice, wanted.optimization, wanted.seed, wanted.out, probe, wanted.draws
        )

    def loader(self) -> torch.utils.data.DataLoader:
        """This process's share of every batch of clips."""
        wanted = self.settings
        clips = Clips(
            self.folder, "train", wanted.plane, self.exams, wanted.slices, wanted.seed, wanted.preprocessing,
            wanted.draws,
        )  # fmt: skip
        return clip_loader(
            clips, range(len(self.exams)), wanted.batch, drop_last=True, processes=wanted.processes.total
        )

    @cached_property
    def data_sha256(self) -> str:
        """Hash of the training data."""
        return data_hash(self.folder, "train", self.settings.plane, self.exams)


def record(training: UnlabelledTraining, rows: list[dict[str, float]]) -> None:
    """Write `run.json`.

    Args:
        training: What was trained.
        rows: The lines of `metrics.csv`.
    """
    settings, spec = training.settings, METHODS[training.settings.method]
    write_record(
        settings.out, settings.preprocessing, rows, kind="pretrain", method=settings.method, network=spec.network,
        plane=settings.plane, settings=spec.settings() | dict(training.method_settings), seed=settings.seed,
        epochs=settings.epochs, lr=settings.optimization.lr, exams=len(training.exams),
        data_sha256=training.data_sha256, collapsed=collapse_of(rows[-1]) is not None,
        processes=settings.processes.total,
    )  # fmt: skip


def report(training: UnlabelledTraining, rows: list[dict[str, float]], warnings: list[str]) -> None:
    """Write `report.html`, and say where everything is; `warnings` are what the watch says of the last epoch."""
    from kneessl.report.page import PageHead  # these import matplotlib, for which no first step need wait
    from kneessl.report.run_page import write_run_page

    settings, folder, exams = training.settings, training.folder, training.exams
    method, plane, out = settings.method, settings.plane, settings.out
    views = {"view T": settings.view1, "view T'": settings.view2}
    write_run_page(
        out / "report.html",
        PageHead(
            title=f"Pre-training: {method}",
            lead=(
                f"{len(exams)} unlabelled {plane} exams, {settings.epochs} epochs. "
                f"The last epoch's loss was {rows[-1]['loss']:.3f}; embeddings of different clips had "
                f"standard deviation {rows[-1]['feature_std']:.2f} of 1 "
                f"and effective rank {rows[-1]['effective_rank']:.1f}."
            ),
            warnings=warnings,
            data_note=data_note(folder),
            facts=[("method", method), ("plane", plane), ("exams", str(len(exams))), ("seed", str(settings.seed))],
            settings={"pre-training": plain({**settings.asked(), "lr": settings.optimization.lr})},
            plane=plane,
        ),
        data_rows(folder, plane),
        [Curve(method, rows)],
        [
            augmented_exam(folder, "train", plane, exam, views, settings.preprocessing, settings.seed)
            for exam in exams[:2]
        ],
    )
    for warning in warnings:
        print(f"warning: {warning}")
    print(f"encoder: {out / 'encoder.safetensors'}\nreport:  {out / 'report.html'}")
