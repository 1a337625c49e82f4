"""The exams that a model gets wrong with the most confidence, with the slices behind it and where it looked."""

from collections.abc import Mapping, Sequence

import numpy as np

from kneessl.evaluate.task_result import TaskResult
from kneessl.evaluation import THRESHOLD
from kneessl.exams.folder import PLANES, ExamFolder, Plane
from kneessl.explain.explain import Explanation, explain, heat
from kneessl.model.model import Model, PlaneModel
from kneessl.model.predict import Predictions
from kneessl.report.content import Mistake

SHOWN_MISTAKES = 3
"""False positives, and false negatives, shown as pictures."""
SHOWN_SLICES = 5


def heat_text(exact: bool) -> str:
    """What the colours on a mistake's slices mean."""
    if exact:
        return (
            "Orange is what speaks for the finding, blue what speaks against it: each place's own share of the logit "
            "(class activation maps), strongest where the colour is strongest in that exam. Only the part of a slice "
            "that the model looks at has colour."
        )
    return (
        "Orange is where the answer reacts to the picture (Grad-CAM), strongest where the colour is strongest in that "
        "exam; it shows what the model attends to, not a share of its answer."
    )


def worst_mistakes(
    model: Model, folder: ExamFolder, split: str, result: TaskResult, answers: Predictions
) -> tuple[list[Mistake], bool]:
    """The most confident false positives and false negatives, with the slices that raised the score most.

    Also says whether all heat deals the logit out exactly.
    """
    mistakes, exact = [], True
    called = answers.probabilities >= THRESHOLD
    for label in (0, 1):
        wrong = np.flatnonzero((result.labels == label) & (called != bool(label)))
        order = np.argsort((1 if label else -1) * answers.probabilities[wrong], kind="stable")
        for i in wrong[order][:SHOWN_MISTAKES]:
            exam, planes = result.exams[i], [plane for plane in PLANES if plane in answers.planes[i].split("+")]
            parts = []
            for plane in planes:
                series = np.array(folder.series(split, plane, exam))
                explanation = explain(model.planes[plane], series, result.task)
                exact &= explanation.exact
                weight = plane_weight(model, result.task, answers.planes[i], plane)
                parts.append((plane, series, explanation, weight))
            mistakes.append(mistake_of(model.planes, exam, label, float(answers.probabilities[i]), parts))
    return mistakes, exact


def plane_weight(model: Model, task: str, key: str, plane: Plane) -> float:
    """How much a plane's logit counts in the fused one."""
    stack = model.decisions.stacks.get(task) if model.decisions else None
    return 1.0 if stack is None else float(stack.fusions[key].weights[plane])


def mistake_of(
    planes: Mapping[Plane, PlaneModel],
    exam: str,
    label: int,
    probability: float,
    parts: Sequence[tuple[Plane, np.ndarray, Explanation, float]],
) -> Mistake:
    """The slices of one exam that raised its score most, over all planes, each with what its places speak for."""
    where = [(p, k) for p, (plane, series, _, _) in enumerate(parts) for k in kept_slices(planes[plane], len(series))]
    scores = np.array([parts[p][3] * parts[p][2].slice_scores[k] for p, k in where])
    top = sorted(where[i] for i in np.argsort(-scores, kind="stable")[:SHOWN_SLICES])
    heats = [weight * heat(explanation, planes[plane]) for plane, _, explanation, weight in parts]
    return Mistake(
        exam,
        label,
        probability,
        np.stack([parts[p][1][k] for p, k in top]),
        [f"{parts[p][0]}, slice {k + 1} of {len(parts[p][1])}" for p, k in top],
        np.stack([heats[p][k] for p, k in top]).astype(np.float32),
    )


def kept_slices(model: PlaneModel, total: int) -> range:
    """The slices that a model looks at."""
    middle = model.preprocessing.middle(total)
    return range(middle.start, middle.stop)
