"""The ablation of the pre-training recipe on phantoms made for choosing, as a queue that can be stopped at any moment.

    python benchmarks/recipe/run.py --work runs/recipe [--jobs 2] [--rows 10]

Runs the rows of rows.yaml in their order, `--jobs` at a time, one thread each: `kneessl pretrain`, `finetune` with the
whole network and with --frozen, and `evaluate` on 1,000 phantoms. A row that has ended is a line of results.csv, beside
this file: its AUCs, and the collapse watch's figures after the first and after the last epoch. Rows that have a line
are not run again; a row that was stopped goes on. Then it prints the table, and how well each figure of the watch
foretells the AUCs (Spearman's rank correlation over the rows, 95 % interval by bootstrap).
"""

import argparse
import csv
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import yaml
from scipy.stats import spearmanr

HERE = Path(__file__).parent
RESULTS = HERE / "results.csv"
TRAIN, VALID = 480, 1000
WATCHED = (
    *("loss", "feature_std", "effective_rank", "rank_share", "uniformity", "alignment"),
    *("encoder_std", "encoder_rank", "encoder_alpha", "encoder_lidar"),
)
COLUMNS = ("name", "phantom", "seed", "fine-tuned", "frozen", *(f"{w} {e}" for e in ("first", "last") for w in WATCHED))
writing = Lock()


def kneessl(log: Path, *words: object) -> None:
    """Run a command as a user would, on one thread, with its output added to `log`."""
    with log.open("a") as file:
        subprocess.run(
            [sys.executable, "-m", "kneessl", *map(str, words)],
            check=True, stdout=file, stderr=file, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip


def knees(work: Path, phantom: int) -> Path:
    """The phantom of a seed, made where it is missing."""
    folder = work / f"phantom-{phantom}"
    if not folder.exists():
        exams = TRAIN + VALID
        kneessl(
            work / "phantom.log", "phantom", folder, "--exams", exams, "--valid-fraction", VALID / exams, "--planes",
            "[sagittal]", "--acl", "0.4", "--seed", phantom,
        )  # fmt: skip
    return folder


def run(row: dict[str, Any], base: dict[str, Any], work: Path) -> dict[str, Any]:
    """Train and read one row: a line of results.csv."""
    phantom, seed = row.get("phantom", 11), row.get("seed", 0)
    folder, data = work / "".join(c if c.isalnum() else "-" for c in row["name"]), work / f"phantom-{phantom}"
    folder.mkdir(parents=True, exist_ok=True)
    log, common = folder / "log.txt", ["--plane", "sagittal", "--seed", seed]
    start: list[object] = []
    if row.get("pretrain", {}) is not None:
        (folder / "pretrain.yaml").write_text(yaml.safe_dump(base["pretrain"] | row.get("pretrain", {})))
        encoder = folder / "encoder"
        kneessl(log, "pretrain", data, "--config", folder / "pretrain.yaml", "--out", encoder, "--resume", *common)
        start = ["--from", encoder]
    (folder / "finetune.yaml").write_text(yaml.safe_dump(base["finetune"]))
    for kind in ("fine-tuned", "frozen"):
        frozen = ["--frozen"] if kind == "frozen" else []
        tune = ["--config", folder / "finetune.yaml", "--out", folder / kind, "--resume", *frozen, *start, *common]
        kneessl(log, "finetune", data, "--task", "acl", *tune)
    out = folder / "evaluation"
    kneessl(log, "evaluate", folder / "fine-tuned", data, "--against", folder / "frozen", "--out", out)
    line = {"name": row["name"], "phantom": phantom, "seed": seed} | aucs(out / "predictions.csv")
    if start:
        with (folder / "encoder" / "metrics.csv").open(newline="") as file:
            epochs = list(csv.DictReader(file))
        for when, metrics in (("first", epochs[0]), ("last", epochs[-1])):
            line |= {f"{name} {when}": metrics.get(name, "") for name in WATCHED}
    return line


def aucs(path: Path) -> dict[str, str]:
    """AUC of both readouts, to four digits."""
    from sklearn.metrics import roc_auc_score

    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    labels = [int(r["label"]) for r in rows]
    return {kind: f"{roc_auc_score(labels, [float(r[kind]) for r in rows]):.4f}" for kind in ("fine-tuned", "frozen")}


def results() -> list[dict[str, str]]:
    """The rows that have ended."""
    if not RESULTS.is_file():
        return []
    with RESULTS.open(newline="") as file:
        return list(csv.DictReader(file))


def keep(line: dict[str, Any]) -> None:
    """Add a line to results.csv."""
    with writing:
        lines = [*results(), line]
        with RESULTS.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)


def correlations(lines: list[dict[str, str]]) -> None:
    """Print how the watch's figures go with the AUCs, over the rows that were pre-trained."""
    trained = [line for line in lines if line["loss last"]]
    rng = np.random.default_rng(0)
    print(f"\n| figure ({len(trained)} rows) | frozen AUC: Spearman (95 %) | fine-tuned AUC |\n|---|---|---|")
    for column in COLUMNS[5:]:
        known = [line for line in trained if line[column] not in {"", "nan"}]
        if len(known) < 5:
            continue
        cells = []
        for auc in ("frozen", "fine-tuned"):
            x, y = (np.array([float(line[c]) for line in known]) for c in (column, auc))
            draws = [rng.integers(0, len(x), len(x)) for _ in range(2000)]
            spread = [spearmanr(x[d], y[d]).statistic for d in draws if len(set(x[d])) > 1 and len(set(y[d])) > 1]
            low, high = np.nanquantile(spread, [0.025, 0.975])
            cells.append(f"{spearmanr(x, y).statistic:+.2f} ({low:+.2f} to {high:+.2f})")
        print(f"| {column} epoch | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rows", type=int, help="stop after the first so many rows of rows.yaml")
    args = parser.parse_args()
    table = yaml.safe_load((HERE / "rows.yaml").read_text())
    ended = {line["name"] for line in results()}
    waiting = [row for row in table["rows"][: args.rows] if row["name"] not in ended]
    args.work.mkdir(parents=True, exist_ok=True)
    for phantom in dict.fromkeys(row.get("phantom", 11) for row in waiting):
        knees(args.work, phantom)
    with ThreadPoolExecutor(args.jobs) as pool:
        for job in [pool.submit(lambda row=row: keep(run(row, table["base"], args.work))) for row in waiting]:
            job.result()
    print("| row | phantom, seed | fine-tuned AUC | frozen AUC | rank of projections | of features |")
    print("|---|---|---|---|---|---|")
    for line in results():
        ranks = [f"{float(line[c]):.0f}" if line[c] else "" for c in ("effective_rank last", "encoder_rank last")]
        cells = [line["name"], f"{line['phantom']}, {line['seed']}", line["fine-tuned"], line["frozen"], *ranks]
        print(f"| {' | '.join(cells)} |")
    correlations(results())


if __name__ == "__main__":
    main()
