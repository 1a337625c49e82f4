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
    "pretrained": "a line through features that pre-training learnt from {training} knees without labels",
    "untrained": "a line through features of the same network with random weights",
    "from-nothing": "the same network trained as a whole, from random weights",
}
"""Folder of each model, and what it is."""
PER_LABEL = 2.5
"""Training exams for each label: pre-training sees them all."""


def demo(out: Path = Path("runs/demo"), exams: int = 400, seed: int = 0) -> None:
    """Phantom, check, pre-train, a classifier on few labels with and without pre-training, evaluate, report.

    One plane, the joint alone on small slices, and more ACL tears than MRNet has (40 %), so that minutes are enough to
    see what pre-training gives. The pre-trained model is trained with --folds, so that its operating points are locked
    and it can answer studies.

    Args:
        out: Folder for everything; a demo that stands there already is replaced.
        exams: Synthetic exams to make: half to train on, two fifths of those with a label, and half to evaluate on.
        seed: Of the phantom and of all training.
    """
    if occupied(out) and not (out / MARKER).is_file():
        raise UserError(f"{out} exists and is not an earlier demo; choose another --out")
    shutil.rmtree(out, ignore_errors=True)
    started = time.monotonic()
    write_text(out / MARKER, json.dumps({"exams": exams, "seed": seed}) + "\n")
    knees, encoder = str(out / "knees"), str(out / "encoder")
    pretrained, untrained, scratch = (str(out / name) for name in STARTS)
    training = exams - round(exams / 2)
    common = ["--preset", "quick", "--seed", str(seed)]
    tune = ["finetune", knees, "--task", "acl", "--labels", str(round(training / PER_LABEL)), *common]
    phantom = ["phantom", knees, "--exams", str(exams), "--valid-fraction", "0.5", "--planes", "[sagittal]"]
    for words in (
        [*phantom, "--acl", "0.4", "--seed", str(seed)],
        ["check", knees],
        ["pretrain", knees, "--out", encoder, *common],
        [*tune, "--frozen", "--from", encoder, "--folds", "2", "--out", pretrained],
        [*tune, "--frozen", "--out", untrained],
        [*tune, "--out", scratch],
        ["evaluate", pretrained, knees, "--against", untrained, "--out", str(out)],
        ["evaluate", scratch, knees],
    ):
        print(f"\n$ kneessl {shlex.join(words)}", flush=True)
        cli.run(words[0], words[1:])
    print(f"\nDone in {(time.monotonic() - started) / 60:.1f} minutes.\n")
    print(what_was_shown(out, training))
    print(f"\nreport: {out / 'report.html'}")
    print(f"next:   kneessl predict {pretrained} STUDY --out answer, or kneessl serve {pretrained}")


def what_was_shown(out: Path, training: int) -> str:
    """The demo's last words: every model's AUC, what pre-training made of it, and what that says and does not say."""
    truth, scores = read_scores(out / "predictions.csv")
    scores |= read_scores(out / "from-nothing" / "predictions.csv")[1]
    lines = [f"ACL tears on {len(truth)} synthetic knees that no model has seen, {round(training / PER_LABEL)} labels:"]
    for name, what in STARTS.items():
        auc = auc_interval(truth, scores[name], scale="logit")  # as in the report
        lines.append(
            f"  AUC {auc.auc:.3f} (95 % interval {auc.low:.3f} to {auc.high:.3f})  {what.format(training=training)}"
        )
    verdicts = []
    for name, other in (("untrained", "random weights"), ("from-nothing", "training the whole network from nothing")):
        d = compare_auc(truth, scores["pretrained"], scores[name])
        verdict = "better than" if d.low > 0 else "worse than" if d.high < 0 else "not told apart from"
        interval = f"95 % interval {d.low:+.3f} to {d.high:+.3f}"
        verdicts.append(f"Pre-training is {verdict} {other}: difference {d.difference:+.3f} ({interval}).")
    return "\n".join([*lines, *verdicts, "Nothing is shown about patients: all of these knees are synthetic."])


def read_scores(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Labels `(n,)` of the exams of an evaluation's `predictions.csv`, and each model's probabilities."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    models = [name for name in STARTS if name in rows[0]]
    return (
        np.array([int(row["label"]) for row in rows]),
        {name: np.array([float(row[name]) for row in rows]) for name in models},
    )
