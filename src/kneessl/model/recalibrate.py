"""`kneessl recalibrate`: a locked model's probabilities and operating points put right on a hospital's few exams."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from kneessl.errors import UserError
from kneessl.evaluation.local_labels import LocalPoint, recalibration_curve
from kneessl.exams.folder import PLANES, ExamFolder, Split, Unlabelled
from kneessl.files import new_folder, write_text
from kneessl.model.card import MODEL_CARD, model_card
from kneessl.model.locked import FAMILIARITY, WEIGHTS, Decision, LocalExams, decide_on, write_decisions
from kneessl.model.model import Model, load_model
from kneessl.model.predict import Predictions, predict_split
from kneessl.training.runs import data_hash, read_record

FEWEST = 5
"""Positives, and negatives, that a recalibration takes (our choice)."""
COUNTS = (10, 20, 30, 50, 75, 100, 150, 200, 300, 500)
"""Of the learning curve, as far as the labels go."""
COPIED = (WEIGHTS, FAMILIARITY, "run.json", "config.yaml", "metrics.csv")
"""Of each plane; not the out-of-fold predictions, on which `kneessl fuse` would lock the model as it was."""


def recalibrate(
    model: Path,
    data: Path,
    out: Path,
    labels: int = 50,
    split: Split = "train",
    seed: int = 0,
    unlabelled: Unlabelled = "refuse",
) -> None:
    """Set a model's recalibration and operating points anew on a few labelled exams of this hospital.

    The networks and the fusion of planes stay as they are, and so does the AUC. The result is a model of its own under
    a new lock and hash, which names the exams that it was set on; `kneessl evaluate` says so where they are evaluated.
    The learning curve (recalibration.json) says whether fewer labels would have done, and whether it helps at all: in
    it, some of these exams are drawn again and again, and the others judge.

    Args:
        model: Run folder of `kneessl finetune --folds` or `kneessl fuse`.
        data: Exam folder of this hospital.
        out: Folder to write.
        labels: How many labelled exams to use, drawn at random.
        split: The split that they are drawn from; evaluate on another.
        seed: Which exams are drawn.
        unlabelled: Labels whose exam has no series are refused; ok leaves them aside.
    """
    folder, loaded = ExamFolder(data, unlabelled), load_model(model)
    if loaded.decisions is None:
        raise UserError(f"{model} has nothing locked to set anew; fine-tune with --folds")
    known = {task: folder.labels(split, task) for task in loaded.tasks if task in folder.tasks(split)}
    if not known:
        raise UserError(f"{data} has no {split} labels for {', '.join(loaded.tasks)}")
    exams = chosen_exams(loaded, folder, split, known, labels, seed)
    for task, of_task in known.items():
        values = [of_task[exam] for exam in exams if exam in of_task]
        if min(values.count(0), values.count(1)) < FEWEST:
            raise UserError(
                f"of {len(exams)} exams {values.count(1)} are positive and {values.count(0)} negative for {task}, "
                f"and it takes {FEWEST} of each: raise --labels"
            )
    answers = predict_split(loaded, folder, split, exams, "recalibrate")
    decisions, curves = {}, {}
    for task in loaded.tasks:
        decisions[task] = dict(loaded.decisions.decisions[task])
        if task not in known:
            print(f"{task}: no labels here; as it was locked")
            continue
        rows = [i for i, exam in enumerate(exams) if exam in known[task]]
        truth = np.array([known[task][exams[i]] for i in rows], dtype=np.int64)
        new, curves[task] = of_one_task(truth, answers[task].rows(rows), decisions[task], seed)
        decisions[task] |= new
        kept = sorted(set(decisions[task]) - set(new))
        print(
            f"{task}: set on {', '.join(sorted(new)) or 'nothing'}"
            + (f"; as locked: {', '.join(kept)}" if kept else "")
        )
    with new_folder(out) as partial:
        copy_model(model, partial, loaded)
        hashes: dict[str, str] = {
            plane: data_hash(folder, split, plane, [e for e in exams if e in set(folder.exams(split, plane))])
            for plane in loaded.planes
        }
        local = LocalExams(split, tuple(exams), hashes, loaded.decisions.sha256)
        words = f"{len(exams)} labelled exams of another exam folder, drawn at random (seed {seed}), after training"
        locked = write_decisions(partial, decisions, loaded.decisions.stacks, words, local)
        curve = {task: {key: [asdict(p) for p in points] for key, points in c.items()} for task, c in curves.items()}
        write_text(partial / "recalibration.json", json.dumps(curve, indent=2) + "\n")
    write_text(out / MODEL_CARD, model_card(out))
    print("\n".join(curve_lines(curves)))
    print(f"model: {out}, locked as {locked.sha256[:12]}, before as {loaded.decisions.sha256[:12]}")


def chosen_exams(
    model: Model, folder: ExamFolder, split: str, known: Mapping[str, Mapping[str, int]], count: int, seed: int
) -> list[str]:
    """Exams with a label and a plane of the model's, drawn at random as a hospital's next ones would be, sorted.

    Raises:
        UserError: there are fewer.
    """
    there = set().union(*(folder.exams(split, plane) for plane in model.planes))
    labelled = sorted(there & set().union(*known.values()))
    if not 0 < count <= len(labelled):
        raise UserError(f"labels is {count}; {folder.root} has {len(labelled)} labelled {split} exams for this model")
    return sorted(np.random.default_rng(seed).permutation(labelled)[:count].tolist())


def of_one_task(
    truth: np.ndarray, answers: Predictions, locked: Mapping[str, Decision], seed: int
) -> tuple[dict[str, Decision], dict[str, list[LocalPoint]]]:
    """New decisions for each set of planes that enough of the exams were answered from, and their learning curves."""
    new, curves = {}, {}
    for key in sorted(set(answers.planes) & locked.keys()):
        here = np.array([planes == key for planes in answers.planes])
        positives = int(truth[here].sum())
        if min(positives, int(here.sum()) - positives) < FEWEST:
            continue
        new[key] = decide_on(truth[here], answers.logits[here])
        counts = [count for count in COUNTS if count < here.sum()]
        before = locked[key].recalibration.apply(answers.logits[here])
        curves[key] = recalibration_curve(truth[here], answers.logits[here], before, counts, seed)
    return new, curves


def copy_model(source: Path, target: Path, model: Model) -> None:
    """What a model is, but for what is locked with it."""
    fused = read_record(source).get("kind") == "fuse"
    for plane in [plane for plane in PLANES if plane in model.planes] if fused else [""]:
        (target / plane).mkdir(exist_ok=True)
        for name in COPIED:
            if (source / plane / name).is_file():
                shutil.copyfile(source / plane / name, target / plane / name)
    if fused:
        shutil.copyfile(source / "run.json", target / "run.json")


def curve_lines(curves: Mapping[str, Mapping[str, Sequence[LocalPoint]]]) -> list[str]:
    """The learning curves as text."""
    lines = []
    for task, by_planes in curves.items():
        for key, points in by_planes.items():
            lines.append(f"{task} from {key}, log loss on labelled exams not drawn, and in how many draws it is worse:")
            lines += [
                f"  {p.labels} labels: {p.log_loss:.3f}, as locked {p.locked:.3f} (worse in {100 * p.worse:.0f} %); "
                f"expected / observed {p.expected_observed:.2f}"
                for p in points
            ]
            if not points:
                lines[-1] += " too few for a curve"
    return lines
