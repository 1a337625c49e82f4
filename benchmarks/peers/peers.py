"""Pre-training throughput beside its peers: kneessl, lightly's BYOL, and plain torchvision + PIL.

    make peers                  (sets up .venv-peers, then runs the line below)
    python benchmarks/peers/peers.py [--data EXAMS] [--batch 2] [--slices 8] [--size 224] [--rounds 3] [--steps 2]

Every arm trains BYOL with a ResNet-18 on the same random slices of the same exams, in batches of as many slices, in the
same precision, with the same threads, and with heads of the same widths. Each brings its own views, loading and
optimiser (kneessl AdamW, lightly SGD, torchvision Adam). kneessl's `byol` makes every slice a sample, as lightly does;
`byolmed2d` takes the maximum over an exam's slices, as the torchvision arm does.

The arms take turns in one process: in each round every arm trains some steps, then makes views alone, read, augmented
and brought to the device. Each time worker processes start afresh; their start and the first steps are not measured.
Figures are medians over the rounds (smallest to largest). On a GPU ask for more, such as
`--batch 16 --slices 16 --steps 100`.
"""

import argparse
import datetime
import os
import statistics
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torchvision_on_cpu  # noqa: F401  (before whatever imports torchvision, as Lightning does)
from with_kneessl import kneessl_arm
from with_lightly import lightly_arm
from with_torchvision import torchvision_arm
from workload import Arm, Workload

from kneessl.errors import UserError
from kneessl.phantom.command import phantom
from kneessl.settings import require_positive
from kneessl.training.machine import describe_machine, lightning_precision

KINDS = ("training", "views alone")
REFERENCE = "lightly, BYOL"
PACKAGES = ("kneessl", "torch", "torchvision", "lightly", "pillow")
PHANTOM_EXAMS = 8

Speeds = dict[tuple[str, str], list[float]]
"""Exams/s in each round, by kind and arm."""


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data", type=Path, help="exam folder; by default, phantoms are made")
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--steps", type=int, default=2, help="measured in each round")
    words.add_argument("--batch", type=int, default=2, help="exams")
    words.add_argument("--slices", type=int, default=8, help="of an exam")
    words.add_argument("--size", type=int, default=224, help="side of a view in pixels")
    words.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    words.add_argument("--precision", choices=["auto", "float32", "bf16"], default="auto", help="of all arms")
    args = words.parse_args()
    try:
        with TemporaryDirectory() as scratch:
            workload = workload_of(args, Path(scratch))
            torch.manual_seed(0)
            arms = [
                kneessl_arm(workload, "byol"),
                kneessl_arm(workload, "byolmed2d"),
                lightly_arm(workload),
                torchvision_arm(workload),
            ]
            speeds = measure(arms, workload, args.rounds)
            print(as_markdown(speeds, workload.slices), description(workload, args), sep="\n\n")
    except UserError as error:
        sys.exit(f"peers: {error}")


def workload_of(args: argparse.Namespace, scratch: Path) -> Workload:
    """What the arguments ask for; phantoms are made where no data is named."""
    require_positive(vars(args), "rounds", "steps", "slices")
    if args.batch < 2:
        raise UserError(f"batch is {args.batch}; batch normalisation needs at least 2 exams a batch")
    if args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # kneessl takes a GPU wherever it sees one
    gpu = torch.cuda.is_available()
    if args.device == "cuda" and not gpu:
        raise UserError("device is cuda, but PyTorch sees no GPU; leave out --device")
    data = args.data
    if data is None:
        data = scratch / "phantoms"
        phantom(data, exams=PHANTOM_EXAMS, valid_fraction=0, planes=("sagittal",))
    return Workload(
        data=data,
        scratch=scratch,
        device=torch.device("cuda" if gpu else "cpu"),
        precision="bf16" if lightning_precision(args.precision) == "bf16-mixed" else "float32",
        batch=args.batch,
        slices=args.slices,
        size=args.size,
        steps=args.steps,
        workers=len(os.sched_getaffinity(0)),
    )


def measure(arms: list[Arm], workload: Workload, rounds: int) -> Speeds:
    """All arms' speeds; every round measures each arm once."""
    speeds: Speeds = {(kind, arm.name): [] for kind in KINDS for arm in arms}
    for number in range(1, rounds + 1):
        for arm in arms:
            clocks = workload.training_clock(), workload.loading_clock()
            for kind, run, clock in zip(KINDS, (arm.train, arm.load), clocks, strict=True):
                run(clock)
                speed = workload.batch / clock.step_seconds
                speeds[kind, arm.name].append(speed)
                print(f"round {number} of {rounds}: {arm.name}, {kind}: {speed:.3g} exams/s", file=sys.stderr)
    return speeds


def as_markdown(speeds: Speeds, slices: int) -> str:
    """A line for each kind and arm."""
    lines = ["| | arm | exams/s | slice views/s | times lightly |", "|---|---|---|---|---|"]
    for (kind, arm), values in speeds.items():
        middle = statistics.median(values)
        ratio = middle / statistics.median(speeds[kind, REFERENCE])
        spread = f"{middle:.3g} ({min(values):.3g} to {max(values):.3g})"
        lines.append(f"| {kind} | {arm} | {spread} | {2 * slices * middle:.3g} | {ratio:.2f} |")
    return "\n".join(lines)


def description(workload: Workload, args: argparse.Namespace) -> str:
    """What was measured, with what, where and when."""
    facts = (
        f"`{args.data}`" if args.data else f"{PHANTOM_EXAMS} phantoms",
        f"batches of {args.batch} exams x {args.slices} slices",
        f"{args.size} px",
        workload.precision,
        f"in each of {args.rounds} rounds {args.steps} training steps after {workload.warmup}",
        f"and {workload.loaded} batches of views after {workload.ahead}",
        describe_machine(),
        f"{workload.workers} worker processes for each peer",
        str(datetime.date.today()),
        *(f"{name} {version(name)}" for name in PACKAGES),
    )
    return ", ".join(facts)


if __name__ == "__main__":
    main()
