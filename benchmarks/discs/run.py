"""What self-supervision gives on real MR with labels: lumbar discs of `../shared/tools/discs.py`, read with few labels.

    python ../shared/tools/discs.py runs/discs/data
    python benchmarks/discs/run.py --work runs/discs --split train [--seeds 3] [--jobs 2]

Pre-trains every start of starts.yaml on the training discs without labels (`kneessl pretrain`, resumable), then reads
the frozen features, with T1 and T2 pooled as diagnosis pools them, by `kneessl finetune --frozen`'s logistic regression
from 12, 24, 48, 96 and all labels, 20 draws of labels each; beside them features of random weights, and the same
regression on 32 x 32 pixels. `--split train` is for choosing: each draw is scored on the training discs of patients
that it has no label of. `--split valid` is the table's, to be run once. Intervals are by patient (1,000 bootstrap
replicates of the mean AUC over seeds and draws). Lines of the table are added to results.csv, beside this file.
"""

import argparse
import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from kneessl.evaluation.bootstrap import checked_patients, resample, roc_area
from kneessl.evaluation.feature_probe import linear_probe
from kneessl.exams.folder import ExamFolder
from kneessl.model.labels import label_subset
from kneessl.nets.encoder import ClipEncoder, load_encoder
from kneessl.nets.features import calibrate, exam_features, whole_exams
from kneessl.views.preprocess import Preprocessing

HERE = Path(__file__).parent
TASKS = ("degenerated", "advanced")
COUNTS = (12, 24, 48, 96, 0)
"""Numbers of labels; 0 is all of them."""
DRAWS = 20
PIXELS = "32 x 32 pixels"
RANDOM = "random weights"


def pretrain(name: str, settings: dict[str, Any], seed: int, work: Path) -> None:
    """Pre-train a start, unless that is done."""
    run = run_folder(work, name, seed)
    run.parent.mkdir(parents=True, exist_ok=True)
    config = run.with_suffix(".yaml")
    config.write_text(yaml.safe_dump(settings))
    words = ["pretrain", work / "data", "--config", config, "--out", run, "--seed", seed, "--resume"]
    with run.with_suffix(".txt").open("a") as log:
        subprocess.run(
            [sys.executable, "-m", "kneessl", *map(str, words)],
            check=True, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip


def run_folder(work: Path, name: str, seed: int) -> Path:
    """Where a start's pre-training lies."""
    return work / "runs" / f"{name.replace(' ', '-')}-{seed}"


def features(work: Path, name: str, seed: int, split: str, exams: list[str]) -> NDArray[np.float32]:
    """What a start makes of discs, `(discs, dim)`, with the encoder's batch norm recalibrated on `train`."""
    folder = ExamFolder(work / "data")
    if name == PIXELS:
        series = np.stack([folder.series(split, "sagittal", exam) for exam in exams])
        small = series.reshape(len(exams), 2, 32, 8, 32, 8).mean((3, 5), dtype=np.float32)
        return small.reshape(len(exams), -1)
    kept = run_folder(work, name, seed).with_suffix(f".{split}.npy")
    if not kept.exists():
        preprocessing = Preprocessing(64)
        torch.manual_seed(seed)
        encoder = ClipEncoder("max")
        if name != RANDOM:
            load_encoder(encoder, run_folder(work, name, seed) / "encoder.safetensors")
        calibrate(encoder, folder, "sagittal", preprocessing)
        whole = whole_exams(folder, split, "sagittal", exams, preprocessing, torch.device("cpu"))
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, exam_features(encoder, whole, len(exams)))
    return np.load(kept)


class Discs:
    """The discs that are read: all training discs, and those that are scored.

    Args:
        work: Its `data` is the exam folder.
        split: `train` or `valid`, where the scored ones lie.
        task: Whose labels.
    """

    def __init__(self, work: Path, split: str, task: str) -> None:
        folder = ExamFolder(work / "data")
        groups = {(line.split, line.exam): line.patient_group for line in folder.provenance()}
        self.split = split
        self.train, self.scored = (list(folder.require(s, "sagittal")) for s in ("train", split))
        self.labels = np.array([folder.labels("train", task)[exam] for exam in self.train])
        self.truth = np.array([folder.labels(split, task)[exam] for exam in self.scored])
        self.train_patients, self.patients = (
            np.array([groups[s, exam] for exam in exams]) for s, exams in (("train", self.train), (split, self.scored))
        )

    def draws(self, count: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.bool_]]]:
        """Labelled training discs of each draw, and which of the scored discs are of none of their patients."""
        for draw in range(DRAWS if count else 1):
            chosen = label_subset(self.labels, count or len(self.labels), draw)
            yield chosen, ~np.isin(self.patients, self.train_patients[chosen])


def scores(discs: Discs, count: int, known: NDArray[np.float32], new: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log odds of every draw's regression, `(draws, discs)`; NaN for discs of patients that it has labels of."""
    rows = []
    for chosen, unseen in discs.draws(count):
        row = np.full(len(new), np.nan)
        row[unseen] = linear_probe(known[chosen], discs.labels[chosen], new[unseen])
        rows.append(row)
    return np.array(rows)


def mean_auc(truth: NDArray[np.int64], rows: NDArray[np.float64], at: NDArray[np.intp]) -> float:
    """Mean AUC over the rows, on these discs."""
    areas = []
    for row in rows[:, at]:
        known = ~np.isnan(row)
        areas.append(roc_area(truth[at][known], row[known]))
    return float(np.mean(areas))


class Reading:
    """A start's mean AUC over seeds and draws with so many labels, and its bootstrap over patients.

    Args:
        discs: What is scored.
        rows: Log odds of every seed and draw, as from `scores`.
    """

    def __init__(self, discs: Discs, rows: NDArray[np.float64]) -> None:
        patients = checked_patients(discs.truth == 1, discs.patients)
        self.auc = mean_auc(discs.truth, rows, np.arange(len(discs.scored)))
        self.spread = resample(lambda at: mean_auc(discs.truth, rows, at), patients, 1000, 0)

    def said(self) -> str:
        """AUC and interval."""
        return f"{self.auc:.3f} ({limits(self.spread, '.3f')})"

    def above(self, floor: "Reading") -> str:
        """The difference to another reading of the same discs, and its interval."""
        return f"{self.auc - floor.auc:+.3f} ({limits(self.spread - floor.spread, '+.3f')})"


def table(work: Path, split: str, names: list[str], seeds: int) -> list[dict[str, Any]]:
    """Every start with every number of labels: mean AUC, and by how much it is above two floors."""
    lines = []
    for task in TASKS:
        discs = Discs(work, split, task)
        for count in COUNTS if split == "valid" else COUNTS[:-1]:
            floors: dict[str, Reading] = {}
            for name in (PIXELS, RANDOM, *names):
                sets = [
                    [
                        features(work, name, seed, of, exams)
                        for of, exams in (("train", discs.train), (split, discs.scored))
                    ]
                    for seed in range(1 if name == PIXELS else seeds)
                ]
                reading = Reading(discs, np.concatenate([scores(discs, count, *pair) for pair in sets]))
                line = {"split": split, "task": task, "labels": count or len(discs.labels), "start": name}
                line |= {"auc": reading.said()} | {f"above {floor}": reading.above(r) for floor, r in floors.items()}
                if name in (PIXELS, RANDOM):
                    floors[name] = reading
                lines.append(line)
                print(line, flush=True)
    return lines


def limits(spread: NDArray[np.float64], style: str) -> str:
    """A 95 % interval."""
    low, high = np.quantile(spread, [0.025, 0.975])
    return f"{low:{style}} to {high:{style}}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--split", choices=("train", "valid"), required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--starts", nargs="*", help="only these of starts.yaml")
    args = parser.parse_args()
    asked = yaml.safe_load((HERE / "starts.yaml").read_text())
    starts = {
        name: asked["base"] | own for name, own in asked["starts"].items() if name in (args.starts or asked["starts"])
    }
    with ThreadPoolExecutor(args.jobs) as pool:
        jobs = [
            pool.submit(pretrain, name, settings, seed, args.work)
            for seed in range(args.seeds)
            for name, settings in starts.items()
        ]
        for job in jobs:
            job.result()
    lines = table(args.work, args.split, list(starts), args.seeds)
    with (HERE / "results.csv").open("a", newline="") as file:
        columns = ["split", "task", "labels", "start", "auc", f"above {PIXELS}", f"above {RANDOM}"]
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if not file.tell():
            writer.writeheader()
        writer.writerows(lines)


if __name__ == "__main__":
    main()
