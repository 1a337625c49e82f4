"""Ten thousand odd, contradictory, damaged or hostile inputs through kneessl's doors: is any answer wrong, unsaid?

    python benchmarks/reliability.py [--inputs 10000] [--seed 0] [--work runs/reliability] [--kinds dicom-bytes ...]
    python benchmarks/reliability.py --replay KIND NUMBER [--seed 0]

Each input follows from the seed, its kind and its number alone. What comes out is held against a plain reading of the
same files (`campaign/reading.py`), and is one of: right; right, and every difference said; refused with one sentence
and nothing written; or a fault, which is anything else: a traceback, something half-written, a patient's identity in
what is said, images dropped, mixed, out of order, on the wrong side, of the wrong person, or with other grey values,
unsaid. Each outcome is a line in WORK/outcomes-SEED.csv; inputs that have one are not tried again. Ends with the table,
and with status 1 where there is a fault; `--replay` tries one input with its traceback and keeps its files in
WORK/replay. `run-folders` damages copies of the model of `make demo`.
"""

import argparse
import csv
import shutil
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
from campaign import (
    dicom_inputs,
    encoding_inputs,
    folder_inputs,
    model_inputs,
    relation_inputs,
    sent_inputs,
    volume_inputs,
)
from campaign.judge import FAULT, OUTCOMES, Wrong

Kind = Callable[[np.random.Generator, Path], str]
KINDS: dict[str, tuple[int, Kind]] = {
    "dicom-bytes": (14, dicom_inputs.bytes_damaged),
    "dicom-attributes": (14, dicom_inputs.attribute_odd),
    "dicom-relations": (16, relation_inputs.relations),
    "dicom-encodings": (6, encoding_inputs.encodings),
    "nifti": (6, volume_inputs.nifti),
    "npy": (6, volume_inputs.arrays),
    "labels": (12, folder_inputs.labels),
    "exam-series": (5, folder_inputs.series),
    "exams-csv": (6, folder_inputs.provenance),
    "zips": (3, sent_inputs.zips),
    "uploads": (7, sent_inputs.uploads),
    "configs": (4, sent_inputs.configs),
    "run-folders": (1, model_inputs.run_folder),
    "weights": (2, model_inputs.weights),
}
"""How many of each hundred, and what makes one, puts it through a door and judges it."""
COLUMNS = ("kind", "number", "outcome", "why", "seconds")


def attempt(kind: str, number: int, seed: int, work: Path) -> tuple[str, str]:
    """The outcome of one input, and what is wrong with a fault."""
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode()), number])
    try:
        return KINDS[kind][1](rng, work), ""
    except Wrong as wrong:
        return FAULT, str(wrong)
    except Exception as error:  # kneessl took what the plain reading could not make out
        return FAULT, f"the plain reading fails: {type(error).__name__}: {error}"[:200]


def campaign(inputs: int, seed: int, work: Path, kinds: list[str]) -> Path:
    """Try every input that has no outcome yet; returns the file of outcomes."""
    path = work / f"outcomes-{seed}.csv"
    work.mkdir(parents=True, exist_ok=True)
    done = {(row["kind"], int(row["number"])) for row in outcomes(path)}
    hundreds = -(-inputs // 100)
    wanted = [
        (kind, hundred * KINDS[kind][0] + number)
        for hundred in range(hundreds)
        for kind in kinds
        for number in range(KINDS[kind][0])
    ]
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if not done:
            writer.writerow(COLUMNS)
        for kind, number in wanted:
            if (kind, number) in done:
                continue
            began = time.process_time()
            with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
                outcome, why = attempt(kind, number, seed, Path(folder))
            writer.writerow([kind, number, outcome, why, f"{time.process_time() - began:.4f}"])
            file.flush()
    return path


def outcomes(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def table(rows: list[dict[str, str]]) -> str:
    """Kinds of input and what came out, in Markdown; then each kind of fault with the number of the first."""
    lines = [
        f"| input | tried | {' | '.join(OUTCOMES)} | ms each (processor) |",
        "|---|" + "---:|" * (len(OUTCOMES) + 2),
    ]
    for kind in [*dict.fromkeys(row["kind"] for row in rows), ""]:
        mine = [row for row in rows if kind in {row["kind"], ""}]
        counts = Counter(row["outcome"] for row in mine)
        each = 1000 * sum(float(row["seconds"]) for row in mine) / len(mine)
        cells = [f"{counts[outcome]:,}" for outcome in OUTCOMES]
        lines.append(f"| {kind or 'all'} | {len(mine):,} | {' | '.join(cells)} | {each:.0f} |")
    faults: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["outcome"] == FAULT:
            faults.setdefault((row["kind"], row["why"]), []).append(row["number"])
    lines += [f"fault: {kind} {numbers[0]} ({len(numbers)} alike): {why}" for (kind, why), numbers in faults.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs/reliability"))
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--replay", nargs=2, metavar=("KIND", "NUMBER"))
    args = parser.parse_args()
    if args.replay:
        kind, number = args.replay[0], int(args.replay[1])
        shutil.rmtree(args.work / "replay", ignore_errors=True)
        (args.work / "replay").mkdir(parents=True)
        rng = np.random.default_rng([args.seed, zlib.crc32(kind.encode()), number])
        print(KINDS[kind][1](rng, args.work / "replay"))
        return
    rows = outcomes(campaign(args.inputs, args.seed, args.work, args.kinds))
    print(table(rows))
    cpu = next(
        (line.split(": ")[1] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ""
    )
    minutes = sum(float(row["seconds"]) for row in rows) / 60
    print(f"seed {args.seed}, {date.today()}, {cpu}, {minutes:.1f} minutes of the processor")
    sys.exit(any(row["outcome"] == FAULT for row in rows))


if __name__ == "__main__":
    main()
