"""What every training run shares: its folder, its trainer, and its record."""

import csv
import hashlib
import json
import logging
import math
import platform
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
import yaml

from kneessl.callbacks import LAST, EpochLog, ProgressBar, Saver, StopAsked, StopBetweenBatches
from kneessl.distributed import leave
from kneessl.errors import UserError
from kneessl.exams.folder import ExamFolder
from kneessl.files import write_text
from kneessl.machine import describe_machine, peak_memory
from kneessl.processes import Processes
from kneessl.views.preprocess import Preprocessing

Precision = Literal["auto", "float32", "bf16"]
LightningPrecision = Literal["32-true", "bf16-mixed"]
_watchers: ContextVar[tuple[L.Callback, ...]] = ContextVar("watchers", default=())
ALONE = Processes()


def open_run(out: Path, settings: Mapping[str, Any], resume: bool, processes: Processes = ALONE) -> Path | None:
    """Make the run folder, or go on with one.

    Args:
        out: The run folder.
        settings: What was asked for; written to `config.yaml`, and must be the same again on resuming.
        resume: Continue from the last checkpoint, if there is one.
        processes: Of those that train together, the first makes the folder; the others find it made, or not yet.

    Returns:
        The checkpoint to continue from, or None for a new run.

    Raises:
        UserError: the folder is in use and `resume` is off, or the settings differ from the run's.
    """
    if processes.first:
        _claim(out, settings, resume)
    checkpoint = out / LAST
    return checkpoint if checkpoint.is_file() else None


def _claim(out: Path, settings: Mapping[str, Any], resume: bool) -> None:
    """See that the folder is free for this run, or is this run's, and write `config.yaml`."""
    config = yaml.safe_dump(plain(settings), sort_keys=False)
    path = out / "config.yaml"
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
    packages = ("kneessl", "torch", "lightning", "numpy")
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


def lightning_precision(precision: Precision) -> LightningPrecision:
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


@contextmanager
def watched(*callbacks: L.Callback) -> Iterator[None]:
    """Let callbacks go along with every training that begins inside: so that `kneessl bench` times the real one."""
    token = _watchers.set(callbacks)
    try:
        yield
    finally:
        _watchers.reset(token)


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
    processes: Processes = ALONE,
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
        processes: That train together; the loader gives each its share of every batch.

    Returns:
        The lines of `metrics.csv`.

    Raises:
        UserError: the loss diverged, the checkpoint cannot be read, or the data has changed since.
        KeyboardInterrupt: Ctrl-C was pressed, or SIGTERM came; SystemExit, with status 0, on other processes than the
            first, which alone says so.
    """
    for part in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(part).setLevel(logging.ERROR)
    warnings.filterwarnings(
        "ignore", module="lightning", message=".*(num_workers|exists and is not empty|LeafSpec|in eval mode).*"
    )
    log, stop = EpochLog(out, data), StopBetweenBatches()
    exams_per_epoch = len(loader) * (loader.batch_size or 1) * processes.total
    trainer = L.Trainer(
        max_epochs=epochs,
        precision=lightning_precision(precision),
        accumulate_grad_batches=accumulate,
        callbacks=[stop, log, ProgressBar(title, exams_per_epoch, unit), Saver(out, pause), *_watchers.get()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=out,
        **processes.trainer_arguments(),
    )
    if checkpoint is not None:
        try:
            done = torch.load(checkpoint, map_location="meta", weights_only=True)["epoch"] + 1
        except Exception as error:
            raise UserError(f"{checkpoint} cannot be read; remove the run folder and start again") from error
        loader.sampler.set_epoch(done)  # type: ignore[attr-defined]
    with suppress(StopAsked):
        trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
    leave()
    if stop.asked and not processes.first:
        raise SystemExit  # without an error: Lightning would kill the first process before it has its say
    if stop.asked:
        raise KeyboardInterrupt("the same command with --resume goes on after the last whole epoch")
    return log.rows
