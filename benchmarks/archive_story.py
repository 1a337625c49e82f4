"""A hospital's story: an archive goes in with its labels, is killed, grown and learnt from; is all of it true?

    python benchmarks/archive_story.py --work runs/story [--studies 2000] [--more 200] [--kills 2] [--seed 0]

The archive is `kneessl phantom --dicom`'s, small pictures, 1 % of the studies damaged. Every step is a command as users
type it; the import is killed (kill -9) at random moments and resumed. In the end each plane of each knee is compared
with `truth.csv`: the series that was taken, its weighting, side and labels. Prints a table of steps (seconds, and the
most memory that any process had so far) and one line for each kind of difference.
"""

import argparse
import csv
import os
import random
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from kneessl.exams.folder import ExamFolder

ARCHIVE = ("--dicom", "--matrix", "64", "--slices", "8", "--knees", "20", "--damaged", "0.01")
TRAINING = ("--plane", "sagittal", "--size", "32", "--slices", "4", "--batch", "32", "--seed", "0")


def kneessl(*words: str) -> list[str]:
    return [sys.executable, "-m", "kneessl", *words]


def step(log: Path, what: str, *words: str) -> None:
    """Run a command to its end, and print its row of the table."""
    started = time.monotonic()
    with log.open("a") as file:
        subprocess.run(kneessl(*words), check=True, stdout=file, stderr=file)
    row(what, words, time.monotonic() - started)


def row(what: str, words: tuple[str, ...], seconds: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"| {what} | `kneessl {shlex.join(words)}` | {seconds:.0f} | {peak:.2f} |", flush=True)


def killed(log: Path, words: list[str], after: float) -> bool:
    """Start a command, and kill it with all its processes after so many seconds; False if it had ended before."""
    with log.open("a") as file:
        process = subprocess.Popen(kneessl(*words), stdout=file, stderr=file, start_new_session=True)
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return True
    if process.returncode:
        sys.exit(f"{shlex.join(words)} ended with status {process.returncode}; see {log}")
    return False


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def differences(archive: Path, knees: Path, keys: Path) -> Counter[str]:
    """How many planes of knees are as `truth.csv` says, and how many differ in what."""
    folder, found = ExamFolder(knees), Counter[str]()
    lines = {(line.exam, line.plane): line for line in folder.provenance()}
    exam_of = {row["SeriesInstanceUID"]: row["exam"] for row in rows_of(keys) if row["exam"]}
    labels = {task: folder.labels("train", task) for task in folder.tasks("train")}
    for truth in rows_of(archive / "truth.csv"):
        exam = exam_of.get(truth["series_uid"])
        line = lines.get((exam or "", truth["plane"]))
        if line is None:
            found["not taken, damaged" if truth["damage"] else "NOT TAKEN"] += 1
            continue
        wrong = [
            name
            for name, has, ought in (
                ("weighting", line.weighting, truth["weighting"]),
                ("fat suppression", str(line.fat_suppressed), truth["fat_suppressed"]),
                (
                    "side",
                    line.laterality or "none",
                    "none" if truth["side_told_by"] == "nothing" else truth["laterality"],
                ),
                ("labels", [str(labels[task].get(exam or "")) for task in labels], [truth[task] for task in labels]),
            )
            if has != ought
        ]
        found["as planted" if not wrong else "WRONG: " + ", ".join(wrong)] += 1
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--more", type=int, default=200)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    work, rng = args.work, random.Random(args.seed)
    work.mkdir(parents=True)
    log, first, later, knees, keys = (work / n for n in ("log.txt", "archive", "later", "knees", "keys.csv"))
    seed = ("--seed", str(args.seed))
    print("| step | command | s | GiB |\n|---|---|---|---|", flush=True)
    step(log, "archive", "phantom", str(first), "--exams", str(args.studies), *ARCHIVE, *seed)
    words = ["import", str(first / "dicom"), str(knees), "--labels", str(first / "labels.csv"), "--keys", str(keys)]
    kills, started = 0, time.monotonic()
    expected = args.studies / 20  # seconds
    while kills < args.kills and killed(
        log, [*words, *(["--resume"] if kills else [])], rng.uniform(0.1, 0.6) * expected
    ):
        kills += 1
    if kills == args.kills:
        killed(log, [*words, "--resume"], 10**6)
    row(f"import, killed {kills} times", tuple(words), time.monotonic() - started)
    step(log, "the archive later", "phantom", str(later), "--exams", str(args.studies + args.more), *ARCHIVE, *seed)
    added = (
        "import",
        str(later / "dicom"),
        str(knees),
        "--labels",
        str(later / "labels.csv"),
        "--keys",
        str(keys),
        "--add",
    )
    step(log, "grown", *added)
    step(log, "check", "check", str(knees))
    encoder, model = str(work / "encoder"), str(work / "acl")
    step(log, "pre-training", "pretrain", str(knees), "--out", encoder, "--epochs", "1", *TRAINING)
    start = ("--task", "acl", "--from", encoder, "--out", model, "--frozen")
    step(log, "fine-tuning", "finetune", str(knees), *start, *TRAINING)
    print("\nplanes of knees, against truth.csv:")
    for kind, count in differences(later, knees, keys).most_common():
        print(f"  {count} {kind}")


if __name__ == "__main__":
    main()
