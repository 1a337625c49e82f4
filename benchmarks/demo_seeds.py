"""Whether the demo shows its difference on other seeds than its own.

    python benchmarks/demo_seeds.py --work runs/demo_seeds [--seeds 1 2 3 4 5 6 7 8 9 10]

Runs `kneessl demo` once for each seed, phantom and training alike, and prints a line for each: both AUCs, the paired
difference with its 95 % interval (DeLong), and minutes. Seeds that are done are not run again. Of a demo that is done
only its predictions are kept.
"""

import argparse
import csv
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from kneessl.demo import STARTS
from kneessl.evaluation import compare_auc
from kneessl.evaluation.bootstrap import roc_area


def run(seed: int, work: Path) -> Path:
    """The demo's predictions for a seed, which are made where they are missing."""
    kept, out = work / f"{seed}.csv", work / f"demo-{seed}"
    if not kept.exists():
        started = time.monotonic()
        with (work / f"{seed}.txt").open("w") as log:
            command = [sys.executable, "-m", "kneessl", "demo", "--out", str(out), "--seed", str(seed)]
            subprocess.run(command, check=True, stdout=log, stderr=log)
        (work / f"{seed}.json").write_text(json.dumps({"minutes": (time.monotonic() - started) / 60}))
        shutil.move(out / "predictions.csv", kept)
        shutil.rmtree(out)
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=range(1, 11))
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    print("| seed | pre-trained | from nothing | difference (95 %) | minutes |\n|---|---|---|---|---|", flush=True)
    shown = 0
    for seed in args.seeds:
        with run(seed, args.work).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        labels = np.array([int(row["label"]) for row in rows])
        scores = [np.array([float(row[name]) for row in rows]) for name in STARTS]
        d = compare_auc(labels, *scores)
        shown += d.low > 0
        aucs = " | ".join(f"{roc_area(labels, of):.3f}" for of in scores)
        minutes = json.loads((args.work / f"{seed}.json").read_text())["minutes"]
        cells = f"{aucs} | {d.difference:+.3f} ({d.low:+.3f} to {d.high:+.3f}) | {minutes:.1f}"
        print(f"| {seed} | {cells} |", flush=True)
    print(f"\n{shown} of {len(args.seeds)} intervals lie above 0")


if __name__ == "__main__":
    main()
