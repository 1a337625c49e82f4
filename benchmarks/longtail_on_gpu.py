"""Chapter 3 at full size on a lent GPU: carries CIFAR-10 there, and runs `kneessl imbalance` until a deadline.

    python benchmarks/longtail_on_gpu.py pack CIFAR PARTS     # here: lossless, 100 MB in six files instead of 184
    python benchmarks/longtail_on_gpu.py unpack PARTS CIFAR   # there; a part of the files at a time will do
    python benchmarks/longtail_on_gpu.py run CIFAR RUNS --seconds 560 --summary summary.json

`run` types the commands of `JOBS` in order, `--at-once` of them at a time, stops them between two batches when time is
up, and goes on where it stopped when it is typed again. More than two or three at a time share the GPU by turns, which
the many small steps of the linear classifier do not bear. `chosen-*` are tested on training images held out: by them,
and never by the test images, the settings of preset `best` were chosen.
"""

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

SHEET = 500
"""Pictures one under another in a WebP image."""
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
FACTS = ("result.json", "metrics.csv", "run.json", "config.yaml")
MILD = ["--pretrain.view1.crop_area=[0.2,1.0]", "--pretrain.view2.crop_area=[0.2,1.0]"]
SGD = ["--pretrain.optimizer=sgd", "--pretrain.lr=0.24", "--pretrain.weight_decay=5e-4"]
CHOSEN = ["--ratio=.01", "--held_out=500", "--pretrain.epochs=80", "--pretrain.warmup_epochs=5", *MILD]
JOBS: dict[str, list[str]] = {
    "best-simclr-r0.01-n12406": ["--preset=best", "--ratio=.01"],
    "best-supervised-r1-n50000": ["--preset=best", "--method=supervised", "--ratio=1", "--supervised.epochs=80"],
    "thesis-simclr-r1-n12406": ["--preset=thesis", "--ratio=1", "--images=12406"],
    "thesis-simclr-r0.01-n12406": ["--preset=thesis", "--ratio=.01"],
    "thesis-supervised-r1-n50000": ["--preset=thesis", "--method=supervised", "--ratio=1"],
    "thesis-supervised-r0.01-n12406": ["--preset=thesis", "--method=supervised", "--ratio=.01"],
    "thesis-supervised-r1-n12406": ["--preset=thesis", "--method=supervised", "--ratio=1", "--images=12406"],
    "best-supervised-r0.01-n12406": ["--preset=best", "--method=supervised", "--ratio=.01"],
    "chosen-simclr-sgd": ["--method=simclr", "--settings.temperature=0.5", *CHOSEN, *SGD],
    "chosen-simclr-adam": [
        *(
            "--method=simclr",
            "--settings.temperature=0.2",
            *CHOSEN,
            "--pretrain.lr=1e-3",
            "--pretrain.weight_decay=1e-4",
        )
    ],
    "chosen-byol-sgd": ["--method=byol", "--settings.hidden=1024", *CHOSEN, *SGD],
    "chosen-moco-sgd": [*("--method=moco_v2", "--settings.momentum=0.99", "--settings.temperature=0.1", *CHOSEN, *SGD)],
}


def pack(cifar: Path, parts: Path) -> None:
    parts.mkdir(exist_ok=True)
    for path in sorted(cifar.glob("*.bin")):
        records = np.fromfile(path, np.uint8).reshape(-1, 3073)
        pictures = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)

        def sheet(first: int, pictures: np.ndarray = pictures) -> bytes:
            content = io.BytesIO()
            image = Image.fromarray(pictures[first : first + SHEET].reshape(-1, 32, 3))
            image.save(content, "WEBP", lossless=True, quality=20, method=1)
            return content.getvalue()

        with ThreadPoolExecutor() as pool:
            sheets = list(pool.map(sheet, range(0, len(pictures), SHEET)))
        data = np.frombuffer(b"".join(sheets), np.uint8)
        np.savez(parts / f"{path.stem}.npz", labels=records[:, 0], sizes=[len(s) for s in sheets], data=data)


def unpack(parts: Path, cifar: Path) -> None:
    cifar.mkdir(parents=True, exist_ok=True)
    for path in sorted(parts.glob("*.npz")):
        with np.load(path) as content:
            labels, sizes, data = content["labels"], content["sizes"], content["data"]
        sheets = np.split(data, np.cumsum(sizes)[:-1])
        pictures = [np.asarray(Image.open(io.BytesIO(sheet.tobytes())).convert("RGB")) for sheet in sheets]
        pixels = np.concatenate(pictures).reshape(-1, 1024, 3).transpose(0, 2, 1).reshape(-1, 3072)
        np.concatenate([labels[:, None], pixels], axis=1).tofile(cifar / f"{path.stem}.bin")
    (cifar / "batches.meta.txt").write_text("\n".join(NAMES) + "\n")


def run(
    cifar: Path, runs: Path, seconds: float, at_once: int, ood: Path | None, only: list[str], summary: Path
) -> None:
    start, runs = time.monotonic(), runs.resolve()
    runs.mkdir(parents=True, exist_ok=True)

    def done(name: str) -> bool:
        return (runs / name / "result.json").is_file()

    waiting = [name for name in only or JOBS if not done(name)]
    running: dict[str, subprocess.Popen[bytes]] = {}
    environment = os.environ | {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // (at_once + 1)))}
    while (waiting or running) and time.monotonic() - start < seconds:
        while waiting and len(running) < at_once:
            name = waiting.pop(0)
            own = [*JOBS[name], *(["--ood", str(ood)] if ood and not name.startswith("chosen") else [])]
            words = [
                sys.executable,
                "-m",
                "kneessl",
                "imbalance",
                str(cifar),
                *own,
                "--out",
                str(runs / name),
                "--resume",
            ]
            with (runs / f"{name}.log").open("a") as log:
                running[name] = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
            print(f"{time.monotonic() - start:4.0f} s  start {name}", flush=True)
        for name in [name for name, process in running.items() if process.poll() is not None]:
            print(f"{time.monotonic() - start:4.0f} s  end   {name} {running.pop(name).returncode}", flush=True)
        time.sleep(0.2)
    for process in running.values():
        process.send_signal(signal.SIGTERM)
    for process in running.values():
        process.wait()
    folders = [folder for folder in sorted(runs.iterdir()) if folder.is_dir()]
    facts = {folder.name: {f: (folder / f).read_text() for f in FACTS if (folder / f).is_file()} for folder in folders}
    summary.write_text(json.dumps(facts))
    for name, files in facts.items():
        result = json.loads(files.get("result.json", "null"))
        found = {kind: r["accuracy"]["value"] for kind, r in result["readouts"].items()} if result else "not done"
        print(name, found, result and result["ood"] and result["ood"]["linear"]["value"], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, first, second in (("pack", "cifar", "parts"), ("unpack", "parts", "cifar"), ("run", "cifar", "runs")):
        command = commands.add_parser(name)
        command.add_argument(first, type=Path)
        command.add_argument(second, type=Path)
    command.add_argument("--seconds", type=float, default=560)
    command.add_argument("--at-once", type=int, default=2)
    command.add_argument("--ood", type=Path)
    command.add_argument("--only", nargs="*", choices=JOBS, default=[])
    command.add_argument("--summary", type=Path, default=Path("summary.json"))
    arguments = vars(parser.parse_args())
    {"pack": pack, "unpack": unpack, "run": run}[arguments.pop("command")](**arguments)


if __name__ == "__main__":
    main()
