"""What each choice of preset best is worth: one setting of `kneessl finetune` at a time, three seeds each, by AUC.

    python benchmarks/ablation.py KNEES --from ENCODER --out runs/ablation --seeds 3 --jobs 2

KNEES is an exam folder made for choosing, never one that other figures of the docs are read on. Every variant differs
from the base (the thesis's recipe at preset quick's size, 300 labels) by what its row says. Runs that are there already
are not done again. Prints a Markdown table: mean AUC over the seeds with DeLong's interval, each seed's, and the paired
difference to the base.
"""

import argparse
import csv
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from kneessl.evaluation import auc_interval, compare_auc
from kneessl.report.wording import p_text

VIEW = "{crop_area: [0.6, 1.0], brightness: 0.2, contrast: 0.2, blur: 0.0}"
BASE = {
    "labels": "300",
    "slices": "4", "size": "64", "field": "0.45", "depth": "0.25", "epochs": "6", "batch": "4", "lr": "3e-4",
    "view": VIEW, "balance": "oversample", "schedule": "step",
}  # fmt: skip
FIRST = "base: the thesis's recipe"
VARIANTS: dict[str, dict[str, str | None]] = {
    FIRST: {},
    "random start": {"from": None},
    "linear (frozen)": {"frozen": "true"},
    "head mean": {"head": "mean"},
    "head slice_max": {"head": "slice_max"},
    "head attention": {"head": "attention"},
    "head transformer": {"head": "transformer"},
    "layer decay 0.7": {"layer_decay": "0.7"},
    "frozen BN statistics": {"freeze_bn": "true"},
    "EMA of weights 0.99": {"ema": "0.99"},
    "cosine": {"schedule": "cosine"},
    "class weights": {"balance": "weights"},
    "no balancing": {"balance": "none"},
    "focal loss, gamma 2": {"balance": "none", "focal": "2"},
    "test-time augmentation": {"tta": "true"},
    "lr 1e-3": {"lr": "1e-3"},
    "lr 1e-4": {"lr": "1e-4"},
    "12 epochs": {"epochs": "12"},
    "best: cosine, 12 epochs, attention, layer decay 0.7": {
        "schedule": "cosine",
        "epochs": "12",
        "head": "attention",
        "layer_decay": "0.7",
    },
}


def run(data: Path, out: Path, start: Path, changes: dict[str, str | None], seed: int) -> None:
    """Fine-tune and evaluate one variant under one seed, unless that is done."""
    if (out / "result.json").is_file():
        return
    settings = {"from": str(start)} | BASE | changes
    words = [word for name, value in settings.items() if value is not None for word in (f"--{name}", value)]
    tune = ["finetune", str(data), "--task", "acl", "--seed", str(seed), "--out", str(out), "--resume", *words]
    with (out.parent / f"{out.name}.log").open("a") as log:
        for command in (tune, ["evaluate", str(out), str(data)]):
            subprocess.run([sys.executable, "-m", "kneessl", *command], check=True, stdout=log, stderr=log)


def scores(out: Path) -> tuple[np.ndarray, np.ndarray]:
    with (out / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return np.array([int(r["label"]) for r in rows]), np.array([float(r[out.name]) for r in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--from", dest="start", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    folders = {name: [args.out / f"{k:02}-seed{seed}" for seed in range(args.seeds)] for k, name in enumerate(VARIANTS)}
    with ThreadPoolExecutor(args.jobs) as pool:
        jobs = [
            pool.submit(run, args.data, folders[name][seed], args.start, changes, seed)
            for seed in range(args.seeds)
            for name, changes in VARIANTS.items()
        ]
        for job in jobs:
            job.result()
    print("| change | AUC (95 % over exams) | seeds | difference to base (95 %) | p |\n|---|---|---|---|---|")
    found = {name: [scores(out) for out in outs] for name, outs in folders.items()}
    labels, base = found[FIRST][0][0], np.stack([s for _, s in found[FIRST]])
    for name, pairs in found.items():
        rows = np.stack([s for _, s in pairs])
        auc, d = auc_interval(labels, rows, scale="logit"), compare_auc(labels, rows, base)
        seeds = ", ".join(f"{auc_interval(labels, row).auc:.3f}" for row in rows)
        against = f"{d.difference:+.3f} ({d.low:+.3f} to {d.high:+.3f}) | {p_text(d.p)}" if name != FIRST else " | "
        print(f"| {name} | {auc.auc:.3f} ({auc.low:.3f} to {auc.high:.3f}) | {seeds} | {against} |")


if __name__ == "__main__":
    main()
