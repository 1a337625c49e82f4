"""How many processes train together, who starts them, and which of them this is."""

import os
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.plugins import LayerSync
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from kneessl.errors import UserError
from kneessl.nets.synced_norm import alone, synced


@dataclass(frozen=True)
class Processes:
    """`devices` processes on each of `num_nodes` machines; one process for each GPU, or any number on CPUs.

    torchrun and srun start all of them; otherwise Lightning runs the same command again for each but the first.
    """

    devices: int = 1
    num_nodes: int = 1

    @property
    def total(self) -> int:
        """All processes."""
        return self.devices * self.num_nodes

    @property
    def first(self) -> bool:
        """Whether this is the process that writes; known before the processes have found each other.

        The number that counts is RANK by torchrun, LOCAL_RANK where Lightning started this process, SLURM_PROCID by
        srun. A process that trains alone is the first, whatever else runs beside it.
        """
        numbers = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
        return self.total == 1 or next((n for n in numbers if n is not None), "0") == "0"

    def take_gpu(self) -> None:
        """Make this process's GPU, where it has one, the one that tensors go to before Lightning begins."""
        if torch.cuda.is_available() and self.total > 1:
            numbers = (os.environ.get(name) for name in ("LOCAL_RANK", "SLURM_LOCALID"))
            torch.cuda.set_device(int(next((n for n in numbers if n is not None), "0")))

    def _started(self) -> int | None:
        """How many processes a launcher has started to work together, where one has."""
        if torch.distributed.is_torchelastic_launched():
            return int(os.environ["WORLD_SIZE"])
        if self.total > 1 and SLURMEnvironment.detect():
            return int(os.environ["SLURM_NTASKS"])
        return None

    def require(self, batch: int) -> None:
        """See that these processes can train together, on such batches.

        Raises:
            UserError: fewer than one, more than there are GPUs, another number than were started, several machines
                but no launcher, or a number that does not divide the batch. (One exam for each is enough: batch norm
                is over all of them.)
        """
        for name in ("devices", "num_nodes"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if torch.cuda.is_available() and self.devices > torch.cuda.device_count():
            raise UserError(
                f"devices is {self.devices}, and this machine shows {torch.cuda.device_count()} GPUs; ask for no more, "
                "and under SLURM let every task see all GPUs of its node"
            )
        started = self._started()
        if started is None and self.num_nodes > 1:
            raise UserError(f"num_nodes is {self.num_nodes}; start the command on every machine by torchrun or srun")
        if started not in {None, self.total}:
            raise UserError(
                f"{started} processes were started, and --devices {self.devices} times --num-nodes {self.num_nodes} "
                f"is {self.total}; make them agree"
            )
        if batch % self.total:
            raise UserError(
                f"batch is {batch}, and is shared by {self.total} processes (devices times num_nodes); "
                f"make it a multiple of {self.total}"
            )

    def plugins(self) -> list[LayerSync]:
        """What Lightning's Trainer needs beside its arguments."""
        return [] if self.total == 1 else [SyncedNorms()]

    def trainer_arguments(self) -> dict[str, Any]:
        """What Lightning's Trainer has to know.

        Buffers need no broadcast: batch norm's, queues and centres come out the same on every process.
        """
        if self.total == 1:
            return {"devices": 1}
        return {
            "devices": self.devices,
            "num_nodes": self.num_nodes,
            "strategy": DDPStrategy(forward_sync_buffers=False),
            "use_distributed_sampler": False,  # the loader deals out each batch itself
        }


class SyncedNorms(LayerSync):
    """Batch norm over all processes while Lightning trains."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Called before training: batch norm takes its statistics over all processes."""
        return synced(model)

    def revert(self, model: nn.Module) -> nn.Module:
        """Called after training: batch norm works on one process again, so that it can be saved and used alone."""
        return alone(model)
