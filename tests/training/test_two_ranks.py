"""Two processes with half a batch each learn what one process learns from the whole batch.

Run as a script, this file is one of the two processes.
"""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn

from kneessl.distributed import gather
from kneessl.methods.barlow_twins import BarlowTwins
from kneessl.methods.byol import BYOL
from kneessl.methods.dino import DINO
from kneessl.methods.method import Method
from kneessl.methods.moco import MoCo
from kneessl.methods.puzzle_contrast import MoCoV2Jigsaw, SimCLRJigsaw
from kneessl.methods.simclr import SimCLR
from kneessl.methods.simsiam import SimSiam
from kneessl.methods.vicreg import VICReg
from kneessl.nets.synced_norm import synced

RANKS, BATCH, STEPS = 2, 6, 2
METHODS = {
    "simclr": lambda e: SimCLR(e, hidden=8, dim=4),
    "moco_v1": lambda e: MoCo(e, dim=4, queue=16, temperature=0.07, mlp=False),
    "moco_v2": lambda e: MoCo(e, dim=4, queue=8),
    "barlow_twins": lambda e: BarlowTwins(e, hidden=8),
    "vicreg": lambda e: VICReg(e, hidden=8),
    "dino": lambda e: DINO(e, hidden=8, bottleneck=4, prototypes=6, freeze=0),
    "byol": lambda e: BYOL(e, hidden=8, dim=4),
    "simsiam": lambda e: SimSiam(e, dim=8, hidden=4),
    "simclr_jigsaw": lambda e: SimCLRJigsaw(e, hidden=8, dim=4),
    "moco_v2_jigsaw": lambda e: MoCoV2Jigsaw(e, dim=4, queue=8),
}
CLIP, TILES = (4, 2, 2), (9, 4, 4)
TAKES = {"dino": (CLIP,) * 4, "simclr_jigsaw": (CLIP, TILES), "moco_v2_jigsaw": (CLIP, CLIP, TILES)}
"""Shapes of a sample's inputs, where they are not two views."""


class TinyEncoder(nn.Module):
    """Clips -> eight features."""

    features = 8

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(16, 8)

    def forward(self, clips: Tensor) -> Tensor:
        return torch.tanh(self.trunk(clips.flatten(1)))


def learn(name: str, rank: int, ranks: int) -> dict[str, dict[str, Tensor]]:
    """Losses, gradients averaged over ranks as DDP averages them, and the buffers, after a few steps."""
    torch.manual_seed(0)
    method: Method = METHODS[name](TinyEncoder()).double()
    if ranks > 1:
        synced(method)
    data = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(STEPS):
        inputs = [
            torch.randn(BATCH, *shape, dtype=torch.float64, generator=data) for shape in TAKES.get(name, (CLIP, CLIP))
        ]
        loss = method(*(x.chunk(ranks)[rank] for x in inputs)).loss
        loss.backward()
        losses.append(loss.detach())
    found = {"loss": torch.stack(losses), **{k: p.grad for k, p in method.named_parameters() if p.requires_grad}}
    for value in found.values() if ranks > 1 else ():
        distributed.all_reduce(value)
        value /= ranks
    return {"learnt": found, "buffers": dict(method.named_buffers())}


NORMS = {
    "maps": lambda: nn.BatchNorm2d(3),
    "vectors": lambda: nn.BatchNorm1d(3, eps=1e-3, momentum=0.3),
    "no scale": lambda: nn.BatchNorm1d(3, affine=False),
}


def normalise(name: str, rank: int, ranks: int) -> dict[str, Tensor]:
    """What batch norm makes of this rank's rows of two batches, the gradients of the ranks' mean loss, its buffers."""
    norm = NORMS[name]().double()
    for i, p in enumerate(norm.parameters()):
        nn.init.uniform_(p, generator=torch.Generator().manual_seed(i))
    data = torch.Generator().manual_seed(2)
    if ranks > 1:
        synced(norm)
    for _ in range(2):
        x, weights = torch.randn(2, BATCH, 3, *((4, 5) if name == "maps" else ()), dtype=torch.float64, generator=data)
        x, weights = ((v + 3).chunk(ranks)[rank].requires_grad_() for v in (x, weights))
        y = norm(x)
        (y.sigmoid() * weights).mean().backward()
    shared = {k: p.grad for k, p in norm.named_parameters()}
    for value in shared.values() if ranks > 1 else ():
        distributed.all_reduce(value)
        value /= ranks
    return {"y": y.detach(), "x.grad": x.grad / ranks} | shared | dict(norm.named_buffers())


def gathered(rank: int) -> dict[str, Tensor]:
    """`gather` and its gradient, by a loss that weighs each rank's rows otherwise on each rank."""
    x = (torch.arange(4.0).view(2, 2) + 10 * rank).requires_grad_()
    rows = gather(x)
    ((1 + rank) * rows * torch.arange(8.0).view(4, 2)).sum().backward()
    return {"rows": rows.detach(), "gradient": x.grad}


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("ranks")
    processes = [
        subprocess.Popen([sys.executable, __file__, str(rank), str(folder)], stderr=subprocess.PIPE, text=True)
        for rank in range(RANKS)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]


@pytest.mark.parametrize("name", METHODS)
def test_two_halves_teach_what_the_whole_batch_teaches(two, name):
    whole = learn(name, 0, 1)
    for rank in range(RANKS):
        for part in ("learnt", "buffers"):
            assert two[rank][name][part].keys() == whole[part].keys()
            for key, expected in whole[part].items():
                torch.testing.assert_close(two[rank][name][part][key], expected, msg=lambda m, k=key: f"{k}: {m}")
    gradients = [g for key, g in whole["learnt"].items() if key != "loss"]
    assert gradients
    assert all(g.abs().sum() > 0 for g in gradients)


@pytest.mark.parametrize(
    ("name", "buffer"),
    [(n, "queue.keys") for n in ("moco_v1", "moco_v2", "moco_v2_jigsaw")] + [("dino", "centre")],
)
def test_queue_and_centre_are_the_same_everywhere_and_have_moved(two, name, buffer):
    first, second = (two[rank][name]["buffers"][buffer] for rank in range(RANKS))
    assert torch.equal(first, second)
    torch.manual_seed(0)
    assert not torch.equal(first, METHODS[name](TinyEncoder()).double().get_buffer(buffer))


@pytest.mark.parametrize("name", NORMS)
def test_batch_norm_over_two_halves_is_that_of_the_whole(two, name):
    whole = normalise(name, 0, 1)
    assert whole["x.grad"].abs().sum() > 0
    for key, expected in whole.items():
        for rank in range(RANKS):
            want = expected.chunk(RANKS)[rank] if key in {"y", "x.grad"} else expected
            torch.testing.assert_close(two[rank][name][key], want, msg=lambda m, k=key: f"{k}: {m}")


def test_gather_puts_rows_in_order_and_adds_up_their_gradients(two):
    for rank in range(RANKS):
        assert two[rank]["gather"]["rows"].tolist() == [[0, 1], [2, 3], [10, 11], [12, 13]]
        expected = (1 + 2) * torch.arange(8.0).view(4, 2)[2 * rank : 2 * rank + 2]
        assert torch.equal(two[rank]["gather"]["gradient"], expected)


def test_alone_gather_hands_back_what_it_got():
    x = torch.randn(3, 2, requires_grad=True)
    assert gather(x) is x


if __name__ == "__main__":
    number, where = int(sys.argv[1]), Path(sys.argv[2])
    distributed.init_process_group(
        "gloo", init_method=f"file://{where / 'store'}", rank=number, world_size=RANKS, timeout=timedelta(seconds=60)
    )
    results = {name: learn(name, number, RANKS) for name in METHODS} | {"gather": gathered(number)}
    results |= {name: normalise(name, number, RANKS) for name in NORMS}
    torch.save(results, where / f"{number}.pt")
    distributed.destroy_process_group()
