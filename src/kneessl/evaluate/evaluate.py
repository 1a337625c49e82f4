"""Evaluation of fine-tuned models on exams that they have not seen: figures, predictions, report."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from kneessl.errors import UserError
from kneessl.evaluate.report import write_evaluation_report
from kneessl.evaluate.task_result import TaskResult
from kneessl.evaluation import Summary, summarise
from kneessl.evaluation.decisions import StateTable, count_states
from kneessl.exams.folder import ExamFolder, Plane, Split, Unlabelled
from kneessl.exams.splits import patient_groups
from kneessl.files import replacing, write_text
from kneessl.model.card import MODEL_CARD, model_card
from kneessl.model.model import Model, load_model
from kneessl.model.predict import Predictions, predict_split


def evaluate(
    model: Path,
    data: Path,
    split: Split = "valid",
    task: list[str] | str | None = None,
    planes: list[Plane] | None = None,
    against: Path | None = None,
    out: Path | None = None,
    unlabelled: Unlabelled = "refuse",
) -> None:
    """Evaluate a fine-tuned model: AUC with interval, sensitivity, specificity, calibration, and a report.

    What was locked with the model (recalibration, fusion, operating points) is applied as it is: nothing is fitted to,
    or chosen on, the evaluated exams.

    Args:
        model: Run folder of `kneessl finetune` or `kneessl fuse`.
        data: Exam folder.
        split: The split to evaluate on.
        task: One of the model's tasks, or some of them; by default all that are labelled in the split.
        planes: Use only these of a fused model's planes, such as [sagittal,coronal].
        against: Another model of the same task, to compare on the same exams.
        out: Where result.json, predictions.csv and report.html go; by default into MODEL.
        unlabelled: Labels whose exam has no series are refused; ok leaves them aside.
    """
    models = {path.resolve().name: path for path in (model, against) if path is not None}
    if against is not None and len(models) == 1:
        raise UserError(
            f"{model} and {against} bear the same folder name; rename one, so that the report can name both"
        )
    asked = [task] if isinstance(task, str) else task
    for name, tasks in evaluate_models(models, data, split, out or model, asked, planes, unlabelled).items():
        for task_name, summary in tasks.items():
            print(f"{name}, {task_name}\n{summary_text(summary)}")
    print(f"report: {(out or model) / 'report.html'}")


def summary_text(summary: Summary) -> str:
    """The figures in a few lines of text."""
    lines = [f"AUC          {summary.auc.auc:.3f}  (95 % DeLong {summary.auc.low:.3f} to {summary.auc.high:.3f})"]
    for name in ("accuracy", "sensitivity", "specificity"):
        p = getattr(summary, name)
        lines.append(f"{name:<12} {p.value:.3f}  (95 % Wilson {p.low:.3f} to {p.high:.3f}; {p.successes} of {p.n})")
    return "\n".join(lines)


def evaluate_models(
    models: Mapping[str, Path],
    data: Path,
    split: Split,
    out: Path,
    tasks: Sequence[str] | None = None,
    planes: Sequence[Plane] | None = None,
    unlabelled: Unlabelled = "refuse",
) -> dict[str, dict[str, Summary]]:
    """Evaluate models, by name, on the same exams, and write one report of all.

    Returns:
        By model, then by task.

    Raises:
        UserError: a model cannot be loaded, the models have no task or no plane of those asked for, or the split lacks
            labels.
    """
    folder = ExamFolder(data, unlabelled)
    loaded = {name: load_model(path) for name, path in models.items()}
    for name, model in loaded.items():
        if planes is not None and not set(planes) & set(model.planes):
            raise UserError(f"{name} has the planes {', '.join(model.planes)}, none of {', '.join(planes)}")
    common = shared_tasks(loaded, folder, split, tasks)
    used = {name: [p for p in model.planes if planes is None or p in planes] for name, model in loaded.items()}
    answered = [set().union(*(folder.exams(split, plane) for plane in planes)) for planes in used.values()]
    labels_of = {task: folder.labels(split, task) for task in common}
    exams = sorted(set.intersection(*answered, set().union(*labels_of.values())))
    for task, labels in labels_of.items():
        require_both_classes([labels[exam] for exam in exams if exam in labels], data, task, split)
    groups = dict(zip(exams, patient_groups(folder, split, exams), strict=True))
    answers = {
        name: predict_split(model, folder, split, exams, f"evaluate {name}", used[name])
        for name, model in loaded.items()
    }
    results = []
    for task in common:
        labels = labels_of[task]
        # A set of planes that too few training exams had has nothing locked, and so no answer.
        unanswered = np.isnan(np.stack([by_task[task].probabilities for by_task in answers.values()])).any(axis=0)
        rows = [i for i, exam in enumerate(exams) if exam in labels and not unanswered[i]]
        truth = np.array([labels[exams[i]] for i in rows], dtype=np.int64)
        require_both_classes(truth, data, task, split)
        results.append(
            TaskResult(
                task, [exams[i] for i in rows], truth, [groups[exams[i]] for i in rows],
                {name: by_task[task].rows(rows) for name, by_task in answers.items()},
            )
        )  # fmt: skip
    summaries = {name: {r.task: summarise(r.labels, r.answers[name].probabilities) for r in results} for name in loaded}
    write_predictions(out / "predictions.csv", results)
    write_evaluation_report(models, loaded, folder, split, results, out / "report.html")
    write_results(out / "result.json", loaded, results, summaries)  # last: whoever finds it finds all
    for run in models.values():
        if run.resolve() == out.resolve():
            write_text(run / MODEL_CARD, model_card(run))
    return summaries


def require_both_classes(labels: Sequence[int] | np.ndarray, data: Path, task: str, split: str) -> None:
    """Refuse exams of which fewer than two have a label: they allow no interval.

    Raises:
        UserError: so it is.
    """
    if np.bincount(np.asarray(labels, dtype=np.int64), minlength=2).min() < 2:
        raise UserError(
            f"an interval needs at least 2 exams of each label, and {data} has fewer for {task} in {split} that "
            "have the planes asked for"
        )


def shared_tasks(models: Mapping[str, Model], folder: ExamFolder, split: str, asked: Sequence[str] | None) -> list[str]:
    """The tasks that every model answers: those asked for, or all that the split has labels for.

    Raises:
        UserError: there is none, or one that is asked for is not among them.
    """
    common = [t for t in next(iter(models.values())).tasks if all(t in model.tasks for model in models.values())]
    if asked is not None:
        unknown = [task for task in asked if task not in common]
        if unknown or not asked:
            raise UserError(f"task names {', '.join(unknown) or 'nothing'}; the models answer {', '.join(common)}")
        return list(asked)
    labelled = [task for task in common if task in folder.tasks(split)]
    if not labelled:
        raise UserError(
            f"{folder.root} has no {split} labels for what the models answer: {', '.join(common) or 'no common task'}"
        )
    return labelled


def states_of(model: Model, answers: Predictions, labels: np.ndarray) -> StateTable | None:
    """The locked operating points on these exams, where all were answered from the same planes."""
    if model.decisions is None or len(set(answers.planes)) > 1:
        return None
    return count_states(labels, [state for state in answers.states if state is not None])


def write_results(
    path: Path,
    models: Mapping[str, Model],
    results: Sequence[TaskResult],
    summaries: Mapping[str, Mapping[str, Summary]],
) -> None:
    """By model, then by task: the summary, the operating points' figures, and the hash of what was locked."""
    content = {
        name: {
            result.task: summaries[name][result.task].to_dict()
            | {
                "decisions_sha256": model.decisions.sha256 if model.decisions else None,
                "states": asdict(states) if (states := states_of(model, result.answers[name], result.labels)) else None,
            }
            for result in results
        }
        for name, model in models.items()
    }
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_predictions(path: Path, results: Sequence[TaskResult]) -> None:
    """One line for each task and exam: label, and the probability under each model, unrounded: rounding makes ties."""
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["exam", "task", "label", *results[0].answers])
        for result in results:
            for i, exam in enumerate(result.exams):
                scores = [float(answers.probabilities[i]) for answers in result.answers.values()]
                writer.writerow([exam, result.task, result.labels[i], *scores])
