"""What every training run shares: its folder, its trainer, progress, checkpoints, and the log of its epochs."""

import csv
import hashlib
import json
import logging
import math
import platform
import resource
import signal
import threading
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
import yaml
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor
from tqdm import tqdm

from kneessl.errors import UserError
from kneessl.exams.folder import ExamFolder
from kneessl.files import replacing, write_text
from kneessl.views.preprocess import Preprocessing

Precision = Literal["auto", "float32", "bf16"]
LAST = Path("checkpoints") / "last.ckpt"


def open_run(out: Path, settings: Mapping[str, Any], resume: bool) -> Path | None:
    """Make the run folder, or go on with one.

    Args:
        out: The run folder.
        settings: What was asked for; written to `config.yaml`, and must be the same again on resuming.
        resume: Continue from the last checkpoint, if there is one.

    Returns:
        The checkpoint to continue from, or None for a new run.

    Raises:
        UserError: the folder is in use and `resume` is off, or the settings differ from the run's.
    """
    config = yaml.safe_dump(plain(settings), sort_keys=False)
    path, checkpoint = out / "config.yaml", out / LAST
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a folder for the run")
    if path.is_file():
        if not resume:
            raise UserError(f"{out} already holds a run; add --resume to continue it, or choose another --out")
        before, now = yaml.safe_load(path.read_text(encoding="utf-8")), yaml.safe_load(config)
        differing = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
        if differing:
            raise UserError(
                f"{path} has other settings than now asked for ({', '.join(differing)}); "
                "a run resumes only as it began, so use the same settings or another --out"
            )
    elif out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out} is not empty and holds no run; choose another --out")
    else:
        write_text(path, config)
    return checkpoint if checkpoint.is_file() else None


def require_positive(settings: Mapping[str, Any], *names: str) -> None:
    """Raise a user error for the first of these settings that is not above 0."""
    for name in names:
        if not 0 < settings[name] < math.inf:  # also where it is not a number
            raise UserError(f"{name} is {settings[name]}; it must be above 0")


def plain(value: Any) -> Any:
    """Settings as YAML and JSON know them: paths as text, dataclasses as mappings, tuples as lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def write_record(out: Path, preprocessing: Preprocessing, rows: list[dict[str, float]], **facts: Any) -> None:
    """Write `run.json`: versions, machine, time, memory, preprocessing, and the `facts` of this run.

    Args:
        out: The run folder.
        preprocessing: Recorded with its fingerprint.
        rows: The lines of `metrics.csv`.
        facts: What else to record.
    """
    packages = ("kneessl", "torch", "lightning", "monai", "numpy")
    record = {
        **facts,
        "seconds": sum(row["seconds"] for row in rows),
        "peak_memory_bytes": peak_memory(),
        "preprocessing": asdict(preprocessing),
        "fingerprint": preprocessing.fingerprint(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "machine": describe_machine(),
    }
    write_text(out / "run.json", json.dumps(plain(record), indent=2) + "\n")


def read_record(run: Path) -> dict[str, Any]:
    """Read `run.json`, or say that this is no finished run."""
    try:
        record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{run} is not a run folder: it has no run.json") from error
    except ValueError as error:
        raise UserError(f"{run / 'run.json'} is not readable JSON; the run folder is damaged") from error
    if not isinstance(record, dict):
        raise UserError(f"{run / 'run.json'} is not a JSON object; the run folder is damaged")
    return record


def read_config(run: Path) -> dict[str, Any]:
    """The settings of a run, from its `config.yaml`; none where a model travels without it."""
    path = run / "config.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}


def read_metrics(run: Path) -> list[dict[str, float]]:
    """The lines of a run's `metrics.csv`; none where a model travels without it."""
    if not (run / "metrics.csv").is_file():
        return []
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def peak_memory() -> int:
    """Most bytes that this process has held: of the GPU where there is one, else of main memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


def describe_machine() -> str:
    """Processor or GPU, in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def data_hash(folder: ExamFolder, split: str, plane: str, exams: list[str]) -> str:
    """SHA-256 over name, size, first and middle 4 KiB of each series: notices other data without reading all of it."""
    digest = hashlib.sha256()
    for exam in exams:
        path = folder.path(split, plane, exam)
        size = path.stat().st_size
        digest.update(f"{exam} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(4096))
            file.seek(size // 2)
            digest.update(file.read(4096))
    return digest.hexdigest()


def lightning_precision(precision: Precision) -> Literal["32-true", "bf16-mixed"]:
    """Lightning's word for it; "auto" takes bf16 where the hardware multiplies it fast."""
    if precision == "auto":
        cpu = torch.cpu.get_capabilities()
        fast = cpu.get("avx512_bf16", False) or cpu.get("amx_tile", False)
        if torch.cuda.is_available():
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16" if fast else "float32"
    return "bf16-mixed" if precision == "bf16" else "32-true"


def seeded(*numbers: int) -> torch.Generator:
    """A CPU generator whose draws depend on `numbers` (seed, epoch, batch) alone."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


class EpochLog(Callback):
    """One line of `metrics.csv` an epoch: loss, exams/s, learning rate, and what the module's `epoch_facts` adds.

    The lines live in the checkpoint too, so a resumed run's file has no gap and no line twice.
    """

    def __init__(self, out: Path, data: str) -> None:
        self.path, self.data = out / "metrics.csv", data
        self.rows: list[dict[str, float]] = []

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"rows": self.rows, "data": self.data}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint, whose data must be today's."""
        if state_dict["data"] != self.data:
            raise UserError(f"the training data has changed since {self.path.parent} began; choose another --out")
        self.rows = state_dict["rows"]

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self.start, self.exams = time.monotonic(), 0
        self.losses: list[Tensor] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the loss where it is: reading it would make the host wait for the device."""
        self.losses.append(outputs["loss"].detach())
        self.exams += len(batch[0])

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add the line; a loss that is not a number ends the run."""
        loss = torch.stack(self.losses).float().mean().item() * trainer.accumulate_grad_batches
        seconds = time.monotonic() - self.start
        if not math.isfinite(loss):
            raise UserError(
                f"the loss is {loss} in epoch {trainer.current_epoch + 1}: training diverged; "
                "start again with a smaller --lr"
            )
        self.rows.append(
            {
                "epoch": trainer.current_epoch + 1,
                "loss": loss,
                "lr": trainer.optimizers[0].param_groups[0]["lr"],
                **pl_module.epoch_facts(),  # type: ignore[operator]
                "exams_per_s": self.exams / seconds,
                "seconds": seconds,
            }
        )
        with replacing(self.path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(self.rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows({k: f"{v:.6g}" for k, v in row.items()} for row in self.rows)


class ProgressBar(Callback):
    """One bar over all epochs: exams done, exams/s, time left, loss."""

    def __init__(self, title: str, exams_per_epoch: int, unit: str) -> None:
        self.title, self.exams_per_epoch, self.unit = title, exams_per_epoch, unit
        self.looked = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the bar, at the epoch where a resumed run goes on."""
        self.bar = tqdm(
            total=self.exams_per_epoch * (trainer.max_epochs or 0),
            initial=self.exams_per_epoch * trainer.current_epoch,
            desc=self.title,
            unit=self.unit,
            mininterval=0.5,
            dynamic_ncols=True,
        )

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move on; the loss is read at most twice a second, since reading it waits for the device."""
        if time.monotonic() - self.looked > 0.5:
            self.looked = time.monotonic()
            loss = outputs["loss"].item() * trainer.accumulate_grad_batches
            self.bar.set_postfix(epoch=trainer.current_epoch + 1, loss=f"{loss:.3f}", refresh=False)
        self.bar.update(len(batch[0]))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the bar."""
        self.bar.close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Close the bar, so that the message stands on a line of its own."""
        if hasattr(self, "bar"):
            self.bar.close()


class StopAsked(Exception):
    """Ctrl-C was pressed, or the process was asked to end; raised between two batches."""


class StopBetweenBatches(Callback):
    """Ctrl-C and SIGTERM end training between two batches, a second one at once.

    A KeyboardInterrupt raised while a checkpoint is moved into place was swallowed there, and training went on; after a
    SIGTERM Lightning ends as if all were done.
    """

    def __init__(self) -> None:
        self.asked = False
        self.before: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take over both signals, where a signal handler may be set."""
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self.ask) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Note the wish, and leave the next signal to whoever handled it before."""
        self.asked = True
        self.give_back()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stop where it was asked for."""
        if self.asked:
            raise StopAsked

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give the signals back to Lightning, before it gives them back to whoever handled them before the training.

        Later, Lightning's handlers would stay in place, and keep the trainer and the model in memory.
        """
        self.give_back()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """The same where training ends early."""
        self.give_back()

    def give_back(self) -> None:
        """Put back the handlers that stood before."""
        while self.before:
            signal.signal(*self.before.popitem())


class Saver(ModelCheckpoint):
    """Writes `checkpoints/last.ckpt` at the end of an epoch, unless it did less than `pause` seconds ago.

    An epoch of small pictures is over sooner than its checkpoint is written; the last epoch is always saved.
    """

    def __init__(self, out: Path, pause: float) -> None:
        super().__init__(
            dirpath=out / LAST.parent,
            filename=LAST.stem,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        self.pause, self.saved = pause, -math.inf

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save, where it is time."""
        last = trainer.current_epoch + 1 == trainer.max_epochs
        if last or time.monotonic() - self.saved >= self.pause:
            super().on_train_epoch_end(trainer, pl_module)
            self.saved = time.monotonic()


def fit(
    module: L.LightningModule,
    loader: torch.utils.data.DataLoader,
    out: Path,
    *,
    title: str,
    epochs: int,
    precision: Precision,
    data: str,
    accumulate: int = 1,
    checkpoint: Path | None = None,
    pause: float = 0.0,
    unit: str = "exam",
) -> list[dict[str, float]]:
    """Train `module` for `epochs`, saving `checkpoints/last.ckpt` after each; a stop loses at most one, or `pause`.

    Args:
        module: With `training_step`, `configure_optimizers` and `epoch_facts`.
        loader: Its sampler has `set_epoch`.
        out: The run folder.
        title: What the progress bar says.
        epochs: Passes over the loader.
        precision: See `lightning_precision`.
        data: Hash of the training data; a run resumes only on the same.
        accumulate: Batches to an optimiser step.
        checkpoint: What to resume from.
        pause: Least number of seconds from one checkpoint to the next.
        unit: What the progress bar counts.

    Returns:
        The lines of `metrics.csv`.

    Raises:
        UserError: the loss diverged, the checkpoint cannot be read, or the data has changed since.
        KeyboardInterrupt: Ctrl-C was pressed, or SIGTERM came.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings(
        "ignore", module="lightning", message=".*(num_workers|exists and is not empty|LeafSpec|in eval mode).*"
    )
    log, stop = EpochLog(out, data), StopBetweenBatches()
    exams_per_epoch = len(loader) * (loader.batch_size or 1)
    trainer = L.Trainer(
        max_epochs=epochs,
        precision=lightning_precision(precision),
        accumulate_grad_batches=accumulate,
        devices=1,
        callbacks=[stop, log, ProgressBar(title, exams_per_epoch, unit), Saver(out, pause)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=out,
    )
    if checkpoint is not None:
        try:
            done = torch.load(checkpoint, map_location="meta", weights_only=True)["epoch"] + 1
        except Exception as error:
            raise UserError(f"{checkpoint} cannot be read; remove the run folder and start again") from error
        loader.sampler.set_epoch(done)  # type: ignore[attr-defined]
    with suppress(StopAsked):
        trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
    if stop.asked:
        raise KeyboardInterrupt("the same command with --resume goes on after the last whole epoch")
    return log.rows
