"""Minimal filtering beside PyTorch's convolutions, layer by layer: `python benchmarks/winograd.py [--rounds 9]`.

ResNet-18's convolutions of 3 x 3 at stride 1, on maps of 224-pixel slices, as many together as prediction takes. Both
take turns in one process; medians, in milliseconds a slice; errors, of the largest result, from float64.
"""

import argparse
import datetime
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

from kneessl.nets.fast_maps import TOGETHER
from kneessl.nets.resnet import WIDTHS
from kneessl.nets.winograd import Winograd
from kneessl.training.machine import describe_machine

SIDES = (56, 28, 14, 7)


def in_turns(ways: dict[str, Callable[[], object]], rounds: int) -> list[float]:
    """Medians, in milliseconds a slice."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    return [1000 * statistics.median(times[1:]) / TOGETHER for times in seconds.values()]


@torch.no_grad()
def row(channels: int, side: int, rounds: int) -> str:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(TOGETHER, channels, side, side, generator=draw).relu_().to(memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3, generator=draw).to(memory_format=torch.channels_last)
    bias = torch.randn(channels, generator=draw)
    filtering = Winograd(weight, bias)
    right = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)

    ways = {"direct": lambda: F.conv2d(x, weight, bias, padding=1), "filtering": lambda: filtering(x)}
    cells = [f"{ms:.2f}" for ms in in_turns(ways, rounds)]
    cells += [f"{float((way() - right).abs().max() / right.abs().max()):.0e}" for way in ways.values()]
    return f"| {channels} x {side} x {side} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    print(f"| maps | PyTorch, ms | filtering, ms | error | filtering's |\n|{'---|' * 5}")
    for channels, side in zip(WIDTHS, SIDES, strict=True):
        print(row(channels, side, given.rounds + 1), flush=True)
    print(f"\n{TOGETHER} slices together; {describe_machine()}, {given.rounds} rounds, {datetime.date.today()}")


if __name__ == "__main__":
    main()
