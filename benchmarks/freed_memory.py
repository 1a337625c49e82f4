"""A training step with freed memory kept, and given back: `python benchmarks/freed_memory.py [--rounds 6]`.

What one step leaves in a process changes the next one's page faults, so each way has processes of its own, in turns: a
bare step of `speed_ablation.py`, three times after two that are not counted. Medians over the processes.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from datetime import date

import torch

from kneessl.process_tuning import keep_freed_memory
from kneessl.training.machine import describe_machine

STEPS = 3


def child(keep: bool, slices: int) -> None:
    """Print seconds, seconds of the processor and page faults of a step, and the most memory held, in bytes."""
    if keep:
        keep_freed_memory()
    from speed_ablation import Training

    step = Training(2, slices, torch.device("cpu"))
    step()
    step()
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for _ in range(STEPS):
        step()
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    faults = after.ru_minflt - before.ru_minflt
    print(json.dumps([seconds / STEPS, processor / STEPS, faults / STEPS, after.ru_maxrss * 1024]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--slices", type=int, default=8)
    given = parser.parse_args()
    found: dict[str, list[list[float]]] = {"given back": [], "kept": []}
    for _ in range(given.rounds):
        for way, runs in found.items():
            words = [__file__, "child", way, str(given.slices)]
            done = subprocess.run(
                [sys.executable, *words], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            runs.append(json.loads(done.stdout))
    print("| freed memory | s a step (range) | processor, s | page faults | peak, GiB |\n|---|---|---|---|---|")
    for way, runs in found.items():
        step, processor, faults, peak = (statistics.median(column) for column in zip(*runs, strict=True))
        seconds = [run[0] for run in runs]
        print(f"| {way} | {step:.2f} ({min(seconds):.2f} to {max(seconds):.2f}) | {processor:.2f} | {faults:,.0f} "
              f"| {peak / 2**30:.2f} |")  # fmt: skip
    print(f"\n2 x {given.slices} slices; {describe_machine()}, {given.rounds} processes a way, {date.today()}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(sys.argv[2] == "kept", int(sys.argv[3]))
    else:
        main()
