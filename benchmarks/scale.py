"""How pre-training scales on this machine: start, epoch time, memory.

    python benchmarks/scale.py [--exams 1130] [--base 1130] [--repeats 3] [--rounds 100] [--limit 2]

Three Markdown tables. Start: seconds from the start of the process to the end of the first optimiser step, by phase.
Epoch: at 1, 2 and 4 times as many exams, how fast the real command is beside bare steps that take turns with it
(`kneessl bench`), since the machine is faster in one minute than in the next; and how much longer an epoch takes than
so many times the first, but for its end. Memory: most bytes of its own that a process under a limit holds, at growing
sizes of folder.
Series are sparse files: as large as real ones, black, and nothing on disk; batches are drawn and read as ever.
"""

import argparse
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from functools import wraps
from itertools import pairwise
from pathlib import Path

import numpy as np

GB = 10**9
SMALL = "--slices=4 --size=64 --batch=8 --warmup_epochs=0 --precision=float32 --settings.hidden=64 --settings.dim=32"
PRETRAIN = [sys.executable, "-m", "kneessl", "pretrain"]


def make_folder(root: Path, exams: int, slices: int) -> Path:
    """An exam folder of sparse series."""
    (root / "train" / "sagittal").mkdir(parents=True)
    for i in range(exams):
        path = root / "train" / "sagittal" / f"{i:06d}.npy"
        np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(slices, 256, 256))
    return root


def start_child(data: str, out: str, began: str) -> None:
    """In a process of its own: pre-train until the first optimiser step is done, and print when each phase ended."""
    marks = [("interpreter", time.monotonic())]
    from kneessl import cli, process_tuning

    process_tuning.keep_freed_memory()
    with process_tuning.fast_imports():
        import torch

        marks.append((f"import PyTorch {torch.__version__}", time.monotonic()))
        import lightning

        marks.append((f"import Lightning {lightning.__version__}", time.monotonic()))
        from kneessl.training import pretrain

    marks.append(("import kneessl", time.monotonic()))

    def mark(owner: object, name: str, label: str, at_entry: bool = False) -> None:
        function = getattr(owner, name)

        @wraps(function)
        def marking(*args, **kwargs):
            if at_entry:
                marks.append((label, time.monotonic()))
            result = function(*args, **kwargs)
            if not at_entry:
                marks.append((label, time.monotonic()))
            if name == "optimizer_step":
                print(json.dumps([("", float(began)), *marks]), flush=True)
                os._exit(0)
            return result

        setattr(owner, name, marking)

    mark(pretrain.ExamFolder, "require_readable", "look at every series")
    mark(pretrain, "ExamFolder", "command line", at_entry=True)
    mark(pretrain, "make_method", "network")
    mark(pretrain, "data_hash", "hash of the data")
    mark(pretrain.Pretraining, "training_step", "Lightning's set-up, first batch", at_entry=True)
    mark(pretrain.Pretraining, "optimizer_step", "first step")
    cli.run("pretrain", [data, "--out", out, *SMALL.split()])


def start_table(work: Path, exams: int, repeats: int) -> None:
    data = make_folder(work / "start", exams, 30)
    runs = []
    for k in range(repeats):
        words = [__file__, "start-child", str(data), str(work / f"start-run{k}"), str(time.monotonic())]
        done = subprocess.run([sys.executable, *words], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        runs.append(json.loads(done.stdout))
    print(f"| phase, {exams} exams | median s of {repeats} | range |\n|---|---|---|")
    phases = [[(b[0], b[1] - a[1]) for a, b in pairwise(marks)] for marks in runs]
    for phase in phases:
        *before, step = [s for _, s in phase]
        phase += [("**first step begins after**", sum(before)), ("**it is done after**", sum(before) + step)]
    for same in zip(*phases, strict=True):
        seconds = [s for _, s in same]
        print(f"| {same[0][0]} | {statistics.median(seconds):.2f} | {min(seconds):.2f} to {max(seconds):.2f} |")


def epoch_table(work: Path, base: int, rounds: int) -> None:
    print(f"| exams | ratio of pipeline to ceiling, {rounds} rounds | range | an epoch, from linear |\n|{'---|' * 4}")
    ratios: list[float] = []
    for k in (1, 2, 4):
        data = make_folder(work / f"epoch{k}", k * base, 30)
        settings = (word.replace("--", "--pretrain.", 1) for word in SMALL.split())
        words = [str(data), f"--rounds={rounds}", "--seconds=0.1", "--json", *settings]
        done = subprocess.run(
            [sys.executable, "-m", "kneessl", "bench", *words],
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        found = json.loads(done.stdout)
        ratios.append(found["ratio"])
        low, high = found["ratio_range"]
        print(f"| {k * base:,} | {ratios[-1]:.3f} | {low:.3f} to {high:.3f} | {ratios[0] / ratios[-1] - 1:+.1%} |")


def memory_table(work: Path, limit: float) -> None:
    bytes_ = int(limit * 2**30)
    print(
        f"| folder, GB | limit of own memory, GB | own memory at most, GB | mapped files at most, GB |\n|{'---|' * 4}"
    )
    for k in (0.25, 1, 4, 16):
        slices = int(k * bytes_ / 32 / 256**2)
        data = make_folder(work / f"memory{k}", 32, slices)
        command = [*PRETRAIN, str(data), "--out", str(work / f"memory{k}-run"), "--epochs=2", *SMALL.split()]
        own, mapped = peaks(command, bytes_)
        size = sum(p.stat().st_size for p in data.rglob("*.npy"))
        print(f"| {size / GB:.1f} | {bytes_ / GB:.1f} | {own / GB:.2f} | {mapped / GB:.2f} |")


def peaks(command: list[str], limit: int) -> tuple[int, int]:
    """Run under a limit of anonymous memory: most bytes of it that were there at once, and of mapped files."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
    )  # fmt: skip
    most = {"RssAnon": 0, "RssFile": 0}
    while process.poll() is None:
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in most:
                most[name] = max(most[name], 1024 * int(value.split()[0]))
        time.sleep(0.02)
    if process.returncode:
        sys.exit(process.stderr.read())
    return most["RssAnon"], most["RssFile"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exams", type=int, default=1130, help="of the table of the start")
    parser.add_argument("--base", type=int, default=1130, help="exams at 1x, of the table of epochs")
    parser.add_argument("--repeats", type=int, default=3, help="of the table of the start")
    parser.add_argument("--rounds", type=int, default=100, help="of the table of epochs")
    parser.add_argument("--limit", type=float, default=2, help="own memory of a process in GiB, of the table of memory")
    parser.add_argument("--work", type=Path, help="where to put folders and runs, by default a temporary folder")
    given = parser.parse_args()
    from kneessl.training.machine import describe_machine

    print(f"`python {shlex.join(sys.argv)}`, {describe_machine()}, {os.cpu_count()} cores, {date.today()}\n")
    with tempfile.TemporaryDirectory(dir=given.work) as work:
        start_table(Path(work), given.exams, given.repeats)
        print(flush=True)
        epoch_table(Path(work), given.base, given.rounds)
        print(flush=True)
        memory_table(Path(work), given.limit)


if __name__ == "__main__":
    if sys.argv[1:2] == ["start-child"]:
        start_child(*sys.argv[2:])
    else:
        main()
