"""What every training shares: its trainer, its watchers, and its random draws."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

import lightning as L
import numpy as np
import torch

from kneessl.distributed import close_process_group
from kneessl.errors import UserError
from kneessl.files import writing_to
from kneessl.training.callbacks import EpochLog, ProgressBar, Saver, StopAsked, StopBetweenBatches, WholeCheckpoints
from kneessl.training.machine import Precision, lightning_precision
from kneessl.training.processes import Processes

_watchers: ContextVar[tuple[L.Callback, ...]] = ContextVar("watchers", default=())
ALONE = Processes()


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
    exams_per_epoch = samples(loader) * processes.total
    trainer = L.Trainer(
        max_epochs=epochs,
        precision=lightning_precision(precision),
        accumulate_grad_batches=accumulate,
        callbacks=[stop, log, ProgressBar(title, exams_per_epoch, unit), Saver(out, pause), *_watchers.get()],
        plugins=[WholeCheckpoints(), *processes.plugins()],
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
    with suppress(StopAsked), writing_to(out):
        trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
    close_process_group()
    if stop.asked and not processes.first:
        raise SystemExit  # without an error: Lightning would kill the first process before it has its say
    if stop.asked:
        raise KeyboardInterrupt("the same command with --resume goes on after the last whole epoch")
    return log.rows


def samples(loader: torch.utils.data.DataLoader) -> int:
    """What an epoch of a loader counts; its last batch need not be full."""
    return min(len(loader.sampler), len(loader) * (loader.batch_size or 1))  # type: ignore[arg-type]
