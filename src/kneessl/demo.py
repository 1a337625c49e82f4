"""The whole way in minutes: the commands a user would type, on synthetic knees."""

import json
import shlex
import shutil
import time
from pathlib import Path

from kneessl import cli
from kneessl.errors import UserError
from kneessl.files import occupied, write_text

MARKER = "demo.json"


def demo(out: Path = Path("runs/demo"), exams: int = 280, seed: int = 0) -> None:
    """Phantom, check, pre-train, fine-tune with and without pre-training on the same labels, evaluate, report.

    The pre-trained model is fine-tuned with --folds, so that its operating points are locked and it can answer studies.

    One plane, small slices, and more ACL tears than MRNet has (40 %), so that minutes are enough to go the whole way;
    it shows that the way is open, not how well the method does.

    Args:
        out: Folder for everything; a demo that stands there already is replaced.
        exams: Synthetic exams to make, three quarters of them to train on.
        seed: Of the phantom and of all training.
    """
    if occupied(out) and not (out / MARKER).is_file():
        raise UserError(f"{out} exists and is not an earlier demo; choose another --out")
    shutil.rmtree(out, ignore_errors=True)
    started = time.monotonic()
    write_text(out / MARKER, json.dumps({"exams": exams, "seed": seed}) + "\n")
    knees, encoder, pretrained, scratch = (str(out / n) for n in ("knees", "encoder", "pretrained", "from-nothing"))
    common = ["--preset", "quick", "--seed", str(seed)]
    for words in (
        ["phantom", knees, "--exams", str(exams), "--planes", "[sagittal]", "--acl", "0.4", "--seed", str(seed)],
        ["check", knees],
        ["pretrain", knees, "--out", encoder, *common],
        ["finetune", knees, "--task", "acl", "--from", encoder, "--out", pretrained, "--folds", "2", *common],
        ["finetune", knees, "--task", "acl", "--out", scratch, *common],
        ["evaluate", pretrained, knees, "--against", scratch, "--out", str(out)],
    ):
        print(f"\n$ kneessl {shlex.join(words)}", flush=True)
        cli.run(words[0], words[1:])
    print(f"\nDone in {(time.monotonic() - started) / 60:.1f} minutes, on a synthetic phantom.")
    for name, figures in json.loads((out / "result.json").read_text(encoding="utf-8")).items():
        auc = figures["acl"]["auc"]
        print(f"ACL tear, {name:<12}  AUC {auc['auc']:.3f}  (95 % interval {auc['low']:.3f} to {auc['high']:.3f})")
    print(f"report: {out / 'report.html'}")
    print(f"next:   kneessl predict {pretrained} STUDY --out answer, or kneessl serve {pretrained}")
