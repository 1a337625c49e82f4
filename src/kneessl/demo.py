"""The whole way in minutes: the commands a user would type, on synthetic knees."""

import csv
import json
import shlex
import shutil
import time
from pathlib import Path

import numpy as np

from kneessl import cli
from kneessl.errors import UserError
from kneessl.evaluation import auc_interval, compare_auc
from kneessl.files import occupied, write_text

MARKER = "demo.json"
STARTS = {
    "pretrained": "from what {training} knees without labels taught",
    "from-nothing": "from random weights",
}
"""Folder of each model, and what it is."""
PER_LABEL = 4
"""Training exams for each label: pre-training sees them all."""
EVALUATED = 1 / 3
"""Share of the exams."""


def demo(out: Path = Path("runs/demo"), exams: int = 504, seed: int = 0) -> None:
    """Phantom, check, pre-train, learn from the same few labels with and without pre-training, evaluate, report.

    One plane, the joint alone on small slices, and more ACL tears than MRNet has (40 %), so that minutes are enough to
    see what pre-training gives. The labels are dealt evenly over tears and sequences. From the pre-trained encoder a
    line is fitted first, so that the few labels do not spoil it (--linear-first); --folds locks the model's operating
    points, so that it can answer studies.

    Args:
        out: Folder for everything; a demo that stands there already is replaced.
        exams: Synthetic exams to make: two in three to train on, a quarter of those with a label, and the rest to
            evaluate on.
        seed: Of the phantom and of all training.
    """
    if occupied(out) and not (out / MARKER).is_file():
        raise UserError(f"{out} exists and is not an earlier demo; choose another --out")
    shutil.rmtree(out, ignore_errors=True)
    started = time.monotonic()
    write_text(out / MARKER, json.dumps({"exams": exams, "seed": seed}) + "\n")
    knees, encoder = str(out / "knees"), str(out / "encoder")
    pretrained, scratch = (str(out / name) for name in STARTS)
    training = exams - round(exams * EVALUATED)
    labels = str(round(training / PER_LABEL))
    common = ["--preset", "quick", "--seed", str(seed)]
    tune = ["finetune", knees, "--task", "acl", *common]
    phantom = ["phantom", knees, "--exams", str(exams), "--valid-fraction", str(EVALUATED), "--planes", "[sagittal]"]
    for words in (
        [*phantom, "--acl", "0.4", "--labelled", labels, "--seed", str(seed)],
        ["check", knees],
        ["pretrain", knees, "--out", encoder, *common],
        [*tune, "--from", encoder, "--linear-first", "--folds", "2", "--out", pretrained],
        [*tune, "--out", scratch],
        ["evaluate", pretrained, knees, "--against", scratch, "--out", str(out)],
    ):
        print(f"\n$ kneessl {shlex.join(words)}", flush=True)
        cli.run(words[0], words[1:])
    print(f"\nDone in {(time.monotonic() - started) / 60:.1f} minutes.\n")
    print(what_was_shown(out, training))
    print(f"\nreport: {out / 'report.html'}")
    print(f"next:   kneessl predict {pretrained} STUDY --out answer, or kneessl serve {pretrained}")


def what_was_shown(out: Path, training: int) -> str:
    """The demo's last words: both AUCs, what pre-training made of it, and what that says and does not say.

    Args:
        out: With the evaluation's `predictions.csv`.
        training: Number of training exams.
    """
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    labels = np.array([int(row["label"]) for row in rows])
    scores = {name: np.array([float(row[name]) for row in rows]) for name in STARTS}
    lines = [f"ACL tears on {len(rows)} synthetic knees that no model has seen, {round(training / PER_LABEL)} labels:"]
    for name, start in STARTS.items():
        auc = auc_interval(labels, scores[name], scale="logit")  # as in the report
        interval = f"95 % interval {auc.low:.3f} to {auc.high:.3f}"
        lines.append(f"  AUC {auc.auc:.3f} ({interval})  {start.format(training=training)}")
    d = compare_auc(labels, *scores.values())
    verdict = "helps" if d.low > 0 else "harms" if d.high < 0 else "is not shown to help or harm"
    interval = f"95 % interval {d.low:+.3f} to {d.high:+.3f}"
    lines.append(f"Here pre-training {verdict}: difference {d.difference:+.3f} ({interval}).")
    lines.append("It says nothing about patients: all of these knees are synthetic.")
    return "\n".join(lines)
