"""kneessl as `kneessl pretrain` runs it: its loader, views, methods, Lightning module and trainer."""

from functools import partial
from typing import Any

import torch
from workload import DIM, HIDDEN, Arm, Clock, Workload, drive

from kneessl.methods import METHODS, MethodName, make_method
from kneessl.training.fit import fit
from kneessl.training.optimizers import Optimization, default_lr
from kneessl.training.pretraining import Pretraining
from kneessl.views.augment import T_PRIME, T
from kneessl.views.inputs import ViewMaker


class Timed(Pretraining):
    """Pre-training that tells a clock of each step, and ends the epoch when the clock is done."""

    clock: Clock

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        return -1 if self.clock.done else None  # -1 leaves out the rest of the epoch

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.clock.tick()


def kneessl_arm(workload: Workload, method: MethodName) -> Arm:
    """Any method that learns from two views, with AdamW, as `pretrain` has it by default."""
    by_slice = METHODS[method].pools[0] == "none"
    module = Timed(
        make_method(method, None, {"hidden": HIDDEN, "dim": DIM}),
        ViewMaker(workload.preprocessing, T, T_PRIME), by_slice,
        Optimization(1, "adamw", default_lr("adamw", workload.batch, 100), weight_decay=1e-6, warmup_epochs=0),
        seed=0, out=workload.scratch / method,
    )  # fmt: skip
    return Arm(f"kneessl, {method}", partial(train, workload, module), partial(load, workload, module))


def train(workload: Workload, module: Timed, clock: Clock) -> None:
    module.clock = clock
    fit(
        module, workload.loader, module.out, title=f"pre-train {module.out.name}", epochs=1,
        precision=workload.precision, data="",
    )  # fmt: skip


def load(workload: Workload, module: Timed, clock: Clock) -> None:
    def make_views(batch: tuple[torch.Tensor, ...]) -> None:
        clips, *rest = (part.to(workload.device, non_blocking=True) for part in batch)
        module.prepare((clips, *rest), 0)

    drive(workload.loader, make_views, clock)
