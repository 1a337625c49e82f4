"""What is locked with a model before any test: recalibration, fusion of planes and operating points.

All of it is set on out-of-fold predictions of the training exams, written to `decisions.json` beside the weights with a
hash over itself, the weights and the familiarity, and applied unchanged from then on. Nothing here reads another split.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from kneessl.errors import UserError
from kneessl.evaluation.calibration import Recalibration
from kneessl.evaluation.decisions import OperatingPoints, lock
from kneessl.evaluation.familiarity import Familiarity
from kneessl.evaluation.stacking import Stack
from kneessl.exams.folder import PLANES, Plane
from kneessl.files import replacing, write_text
from kneessl.model.crossfit import OutOfFold
from kneessl.model.labels import UNKNOWN

DECISIONS = "decisions.json"
OUT_OF_FOLD = "out_of_fold.csv"
WEIGHTS = "model.safetensors"
FAMILIARITY = "familiarity.safetensors"
SET_ON = "out-of-fold predictions of training exams"


@dataclass(frozen=True)
class Decision:
    """For one task and one set of planes: logit -> probability -> yes, doubt or no."""

    recalibration: Recalibration
    points: OperatingPoints


@dataclass(frozen=True)
class LocalExams:
    """Exams of some hospital that a model was recalibrated on: never a test of it again."""

    split: str
    exams: tuple[str, ...]
    data_sha256: Mapping[str, str]
    """By plane, over their series (`kneessl.training.runs.data_hash`)."""
    before: str
    """Hash of what was locked before."""


@dataclass(frozen=True)
class Decisions:
    """What is locked with a model: by task, then by set of planes, such as axial+sagittal."""

    decisions: Mapping[str, Mapping[str, Decision]]
    stacks: Mapping[str, Stack]
    """By task; empty for a model of one plane, whose logit is the answer's."""
    sha256: str
    set_on: str
    """In words: which predictions of which exams it was set on."""
    local: LocalExams | None = None
    """The exams that it was recalibrated on later, where it was."""


def lock_plane(model: Path, plane: Plane, predictions: OutOfFold, rule: str) -> Decisions:
    """Lock a model of one plane on its out-of-fold predictions, and keep those beside it.

    Args:
        model: Its run folder.
        plane: Its plane.
        predictions: Of its training exams.
        rule: How they were dealt into folds, in words.

    Raises:
        UserError: a task is not labelled in both classes.
    """
    predictions.write(model / OUT_OF_FOLD)
    decisions: dict[str, dict[str, Decision]] = {}
    for k, task in enumerate(predictions.tasks):
        known = predictions.truth[:, k] != UNKNOWN
        decisions[task] = {plane: decide_on(predictions.truth[known, k], predictions.logits[known, k])}
    return write_decisions(model, decisions, {}, f"{SET_ON}, {rule}")


def decide_on(labels: np.ndarray, logits: np.ndarray) -> Decision:
    """Recalibration and operating points on out-of-fold logits `(n,)` with labels 0 and 1."""
    recalibration = Recalibration.fit(labels, logits)
    return Decision(recalibration, lock(labels, recalibration.apply(logits)))


def lock_fused(model: Path, predictions: Mapping[str, OutOfFold]) -> Decisions:
    """Fit the fusion of planes on their models' out-of-fold predictions, and lock it for every set of planes.

    The stack that is kept is fitted on all of them. Recalibration and operating points of a set of planes are set on
    stacks that were each fitted without one fold and applied to it, so that they too judge exams that they were not
    fitted on.

    Args:
        model: The fused model's folder, its planes' models already in it.
        predictions: Out-of-fold predictions by plane, of the same tasks.
    """
    tasks = next(iter(predictions.values())).tasks
    decisions: dict[str, dict[str, Decision]] = {}
    stacks: dict[str, Stack] = {}
    for k, task in enumerate(tasks):
        exams, fold, labels, logits = labelled_logits(predictions, k)
        stacks[task] = Stack.fit(logits, labels)
        fused = {key: np.full(len(exams), np.nan) for key in stacks[task].fusions}
        for held in np.unique(fold):
            here, rest = fold == held, fold != held
            others = Stack.fit({plane: values[rest] for plane, values in logits.items()}, labels[rest])
            for key, values in fused.items():
                part = {plane: logits[plane] for plane in key.split("+")}
                both = here & ~np.isnan(list(part.values())).any(0)
                values[both] = others.apply({plane: logit[both] for plane, logit in part.items()})
        known = {key: ~np.isnan(values) for key, values in fused.items()}
        decisions[task] = {key: decide_on(labels[known[key]], values[known[key]]) for key, values in fused.items()}
    of_planes = [locked for plane in predictions if (locked := read_decisions(model / plane))]
    set_on = "; ".join(dict.fromkeys(locked.set_on for locked in of_planes)) or SET_ON
    return write_decisions(model, decisions, stacks, set_on)


def labelled_logits(
    predictions: Mapping[str, OutOfFold], k: int
) -> tuple[list[str], np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Exams labelled for task `k` in any plane: names, folds, labels, and logits by plane, NaN where there is none."""
    fold: dict[str, int] = {}
    label: dict[str, int] = {}
    logit: dict[str, dict[str, float]] = {plane: {} for plane in predictions}
    for plane, table in predictions.items():
        for i in np.flatnonzero(table.truth[:, k] != UNKNOWN):
            exam = table.exams[int(i)]
            fold.setdefault(exam, int(table.fold[i]))
            label[exam] = int(table.truth[i, k])
            logit[plane][exam] = float(table.logits[i, k])
    exams = sorted(label)
    values = {plane: np.array([known.get(exam, np.nan) for exam in exams]) for plane, known in logit.items()}
    return exams, np.array([fold[e] for e in exams]), np.array([label[e] for e in exams]), values


def plane_folders(model: Path) -> list[Path]:
    """The run folder of each plane's model: a fused model's subfolders, or the folder itself."""
    return [model / plane for plane in PLANES if (model / plane / "run.json").is_file()] or [model]


def files_sha256(model: Path) -> dict[str, str]:
    """SHA-256 of every file of weights or familiarity of a model folder, by its path in it, without those of folds."""
    files = [path / name for path in plane_folders(model) for name in (WEIGHTS, FAMILIARITY)]
    return {
        str(file.relative_to(model)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()
    }


def write_familiarity(model: Path, familiarity: Familiarity) -> None:
    """Write `familiarity.safetensors` into a plane's model folder; before `lock_plane`, which takes its hash."""
    with replacing(model / FAMILIARITY) as partial:
        save_file(familiarity.to_arrays(), partial)


def read_familiarity(model: Path) -> Familiarity | None:
    """What `write_familiarity` wrote; None where there is nothing.

    Raises:
        UserError: the file is damaged.
    """
    path = model / FAMILIARITY
    if not path.is_file():
        return None
    try:
        return Familiarity.from_arrays(load_file(path))
    except SafetensorError as error:
        raise UserError(f"{path} is damaged; fine-tune again with --folds") from error


def write_decisions(
    model: Path,
    decisions: Mapping[str, Mapping[str, Decision]],
    stacks: Mapping[str, Stack],
    set_on: str = SET_ON,
    local: LocalExams | None = None,
) -> Decisions:
    """Write `decisions.json` with the hash over its content and the weights."""
    content: dict[str, Any] = {
        "set on": set_on,
        **({"local": asdict(local) | {"exams": list(local.exams)}} if local else {}),
        "weights": files_sha256(model),
        "decisions": {
            task: {
                key: {"recalibration": asdict(d.recalibration), "points": d.points.to_dict()} for key, d in sets.items()
            }
            for task, sets in decisions.items()
        },
        "stacks": {task: stack.to_dict() for task, stack in stacks.items()},
    }
    digest = digest_of(content)
    write_text(model / DECISIONS, json.dumps(content | {"sha256": digest}, indent=2) + "\n")
    return Decisions(decisions, stacks, digest, set_on, local)


def digest_of(content: Mapping[str, Any]) -> str:
    """SHA-256 over JSON with sorted keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_decisions(model: Path) -> Decisions | None:
    """What is locked with a model; None where nothing is.

    Raises:
        UserError: the file, the weights or the familiarity are not what they were when it was written.
    """
    path = model / DECISIONS
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        digest = content.pop("sha256")
        unchanged = digest == digest_of(content) and content["weights"] == files_sha256(model)
        decisions = {
            task: {
                key: Decision(Recalibration(**d["recalibration"]), OperatingPoints.from_dict(d["points"]))
                for key, d in sets.items()
            }
            for task, sets in content["decisions"].items()
        }
        stacks = {task: Stack.from_dict(stack) for task, stack in content["stacks"].items()}
        local = (
            LocalExams(**content["local"] | {"exams": tuple(content["local"]["exams"])}) if "local" in content else None
        )
        set_on = str(content["set on"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged; fine-tune again with --folds, or fuse again") from error
    if not unchanged:
        raise UserError(
            f"{path}, or a .safetensors file beside it, have changed since it was locked; fine-tune again with --folds"
        )
    return Decisions(decisions, stacks, digest, set_on, local)
