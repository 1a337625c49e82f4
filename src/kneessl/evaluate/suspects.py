"""`kneessl suspects`: training exams whose label may be wrong, with pictures, to be looked at again."""

from pathlib import Path

import numpy as np

from kneessl.errors import UserError
from kneessl.evaluation.label_errors import Suspect, suspected_errors
from kneessl.exams.folder import ExamFolder, Unlabelled
from kneessl.exams.summary import data_note
from kneessl.model.crossfit import OutOfFold
from kneessl.model.locked import OUT_OF_FOLD, read_decisions
from kneessl.report.page import PageHead, write_page
from kneessl.report.strips import Strip, grey_strip
from kneessl.report.table import write_table
from kneessl.training.runs import read_record

MOST_SHOWN = 30
"""Exams with pictures on the page; the table has all."""
_SIDE = 160


def suspects(model: Path, data: Path, out: Path | None = None, unlabelled: Unlabelled = "refuse") -> None:
    """List the training exams whose label may be wrong, most suspect first, by confident learning (Northcutt 2021).

    It reads what the models of the folds say of exams that they had not seen, so it trains and predicts nothing. A
    suspicion is the model's word against the label's: many are exams that are hard, or that the model gets wrong. Look
    at the pictures, ask a reader, and change no label because it is listed here.

    Args:
        model: Run folder of `kneessl finetune --folds`, of one plane.
        data: The exam folder that it was trained on; its labels as they are now are looked over.
        out: Where suspects.csv and suspects.html go; by default into MODEL.
        unlabelled: Labels whose exam has no series are refused; ok leaves them aside.
    """
    folder, seen, locked = ExamFolder(data, unlabelled), OutOfFold.read(model / OUT_OF_FOLD), read_decisions(model)
    plane = read_record(model).get("plane")
    if locked is None or plane is None:
        raise UserError(f"{model} is no model of one plane with folds; fine-tune with --folds")
    there = set(folder.exams("train", plane))
    rows, strips = [], []
    for k, task in enumerate(seen.tasks):
        labels = folder.labels("train", task)
        known = [i for i, exam in enumerate(seen.exams) if exam in labels and exam in there]
        probabilities = locked.decisions[task][plane].recalibration.apply(seen.logits[known, k])
        found = suspected_errors([labels[seen.exams[i]] for i in known], probabilities)
        names = [seen.exams[known[one.index]] for one in found]
        print(f"{task}: {len(found)} of {len(known)} labels are suspect")
        rows += [_row(task, exam, one) for exam, one in zip(names, found, strict=True)]
        strips += [
            _strip(task, exam, one, np.array(folder.series("train", plane, exam)))
            for exam, one in zip(names[:MOST_SHOWN], found, strict=False)
        ]
    place = out or model
    write_table(place / "suspects.csv", rows)
    head = PageHead(
        title="Labels to look at again",
        lead=f"{len(rows)} labels of training exams disagree with what models say that had not seen "
        "these exams. That is a suspicion and no finding: hard exams and the model's own mistakes are among them.",
        data_note=data_note(folder),
    )
    write_page(place / "suspects.html", "suspects.html", head, strips=strips, left_out=len(rows) - len(strips))
    print(f"page: {place / 'suspects.html'}")


def _row(task: str, exam: str, one: Suspect) -> dict[str, object]:
    return {"task": task, "exam": exam, "label": one.label, "probability": one.probability, "margin": one.margin}


def _strip(task: str, exam: str, one: Suspect, series: np.ndarray) -> Strip:
    labelled = "positive" if one.label else "negative"
    heading = f"{task}, exam {exam}: labelled {labelled}, probability out of fold {one.probability:.3f}"
    return grey_strip(heading, f"exam {exam}", series, (), _SIDE)
