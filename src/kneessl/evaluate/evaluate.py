"""Evaluation of fine-tuned models on exams that they have not seen: figures, predictions, report."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from kneessl.errors import UserError
from kneessl.evaluate.characteristics import characteristics_of
from kneessl.evaluate.report import write_evaluation_report
from kneessl.evaluate.task_result import TaskResult
from kneessl.evaluation import THRESHOLD, Summary, summarise
from kneessl.evaluation.decisions import StateTable, count_states
from kneessl.evaluation.readers import MAJORITY, AgainstReader, Kappa, against_readers, kappas
from kneessl.evaluation.subgroups import Interaction, Subgroup, interactions, subgroups
from kneessl.exams.folder import PLANES, ExamFolder, Plane, Split, Unlabelled
from kneessl.exams.readers import readers_of
from kneessl.exams.splits import patient_groups
from kneessl.files import replacing, write_text
from kneessl.model.card import MODEL_CARD, model_card
from kneessl.model.model import Model, load_model
from kneessl.model.predict import Predictions, predict_split
from kneessl.report.subgroup_table import UNKNOWN, interaction_text


def evaluate(
    model: Path,
    data: Path,
    split: Split = "valid",
    task: list[str] | str | None = None,
    planes: list[Plane] | None = None,
    against: Path | None = None,
    by: list[str] | str | None = None,
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
        by: Show the figures in groups by these, such as scanner or [field,site,sex,age], with a test for interaction:
            scanner and field as exams.csv has them, others from the exam folder's about.csv (split,exam,site,sex,age);
            by default, in the report, by all that are known.
        out: Where result.json, predictions.csv and report.html go; by default into MODEL.
        unlabelled: Labels whose exam has no series are refused; ok leaves them aside.
    """
    models = {path.resolve().name: path for path in (model, against) if path is not None}
    if against is not None and len(models) == 1:
        raise UserError(
            f"{model} and {against} bear the same folder name; rename one, so that the report can name both"
        )
    asked = [task] if isinstance(task, str) else task
    groups = [by] if isinstance(by, str) else by or []
    for name, tasks in evaluate_models(models, data, split, out or model, asked, planes, unlabelled, groups).items():
        for task_name, figures in tasks.items():
            print(f"{name}, {task_name}\n{summary_text(figures.summary)}")
            if groups:
                print(groups_text(figures))
            for line in reader_lines(figures):
                print(line)
    print(f"report: {(out or model) / 'report.html'}")


def summary_text(summary: Summary) -> str:
    """The figures in a few lines of text."""
    lines = [f"AUC          {summary.auc.auc:.3f}  (95 % DeLong {summary.auc.low:.3f} to {summary.auc.high:.3f})"]
    for name in ("accuracy", "sensitivity", "specificity"):
        p = getattr(summary, name)
        lines.append(f"{name:<12} {p.value:.3f}  (95 % Wilson {p.low:.3f} to {p.high:.3f}; {p.successes} of {p.n})")
    return "\n".join(lines)


@dataclass(frozen=True)
class Figures:
    """One model on one task."""

    summary: Summary
    groups: list[Subgroup]
    """By the characteristics that were asked for."""
    interactions: list[Interaction]
    """Of those whose groups are large enough to be tested."""
    kappas: list[Kappa]
    """Of each two readers, where several readers' labels are given."""
    against_readers: list[AgainstReader]


def groups_text(figures: Figures) -> str:
    """Each group on a line, and below each characteristic whether its groups differ."""
    tests = {test.variable: test for test in figures.interactions}
    lines = []
    for variable in dict.fromkeys(group.variable for group in figures.groups):
        lines.append(f"by {variable}")
        for group in figures.groups:
            if group.variable == variable:
                auc = group.auc
                words = f"{auc.auc:.3f}  ({auc.low:.3f} to {auc.high:.3f})" if auc else group.no_auc
                lines.append(f"  {group.value}: {words}; {group.n} exams, {group.positives} positive")
        lines.append(f"  {interaction_text(tests.get(variable))}")
    return "\n".join(lines)


def reader_lines(figures: Figures) -> Iterator[str]:
    """How well readers agree with one another, and the model with each of them and with most."""
    for pair in figures.kappas:
        if pair.kappa is None:
            yield f"readers {pair.first} and {pair.second}: no kappa, {pair.n} exams read by both"
            continue
        yield (
            f"readers {pair.first} and {pair.second}: kappa {pair.kappa:.2f} (95 % {pair.low:.2f} to {pair.high:.2f}), "
            f"{100 * pair.agreement:.0f} % alike of {pair.n} exams"
        )
    for one in figures.against_readers:
        who = "most readers" if one.reader == MAJORITY else f"reader {one.reader}"
        auc = f"AUC {one.auc.auc:.3f} ({one.auc.low:.3f} to {one.auc.high:.3f})" if one.auc else "too few for an AUC"
        yield f"against {who}: {auc}; {one.n} exams, {one.positives} positive"


def evaluate_models(
    models: Mapping[str, Path],
    data: Path,
    split: Split,
    out: Path,
    tasks: Sequence[str] | None = None,
    planes: Sequence[Plane] | None = None,
    unlabelled: Unlabelled = "refuse",
    by: Sequence[str] = (),
) -> dict[str, dict[str, Figures]]:
    """Evaluate models, by name, on the same exams, and write one report of all.

    Returns:
        By model, then by task.

    Raises:
        UserError: a model cannot be loaded, the models have no task or no plane of those asked for, or the split lacks
            labels, or groups are asked for that cannot be told.
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
    if by:
        there = {plane: set(folder.exams(split, plane)) for plane in PLANES if any(plane in u for u in used.values())}
        keys = ["+".join(plane for plane, known in there.items() if exam in known) for exam in exams]
        characteristics_of(keys, folder, split, exams, by)  # what is not known ends here, before anything is predicted
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
    figures = {name: {r.task: figures_of(r, name, folder, split, by) for r in results} for name in loaded}
    write_predictions(out / "predictions.csv", results)
    write_evaluation_report(models, loaded, folder, split, results, out / "report.html", by)
    write_results(out / "result.json", loaded, results, figures)  # last: whoever finds it finds all
    for run in models.values():
        if run.resolve() == out.resolve():
            write_text(run / MODEL_CARD, model_card(run))
    return figures


def figures_of(result: TaskResult, name: str, folder: ExamFolder, split: str, by: Sequence[str]) -> Figures:
    """One model's figures on one task, also in the groups that are asked for."""
    answers = result.answers[name]
    summary = summarise(result.labels, answers.probabilities)
    readers = readers_of(folder, split, result.task, result.exams)
    agreement = kappas(readers) if readers else []
    against = against_readers(answers.probabilities, readers) if readers else []
    if not by:
        return Figures(summary, [], [], agreement, against)
    known = characteristics_of(answers.planes, folder, split, result.exams, by)
    membership = {variable: np.array([value or UNKNOWN for value in values]) for variable, values in known.items()}
    groups = subgroups(result.labels, answers.probabilities, membership, THRESHOLD)
    tests = interactions([group for group in groups if group.value != UNKNOWN])
    return Figures(summary, groups, tests, agreement, against)


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
    figures: Mapping[str, Mapping[str, Figures]],
) -> None:
    """By model, then by task: the summary, groups, the operating points' figures, and the hash of what was locked."""
    content = {
        name: {
            result.task: figures[name][result.task].summary.to_dict()
            | {
                "groups": [asdict(group) for group in figures[name][result.task].groups],
                "interactions": [asdict(test) for test in figures[name][result.task].interactions],
                "kappas": [asdict(kappa) for kappa in figures[name][result.task].kappas],
                "readers": [asdict(reader) for reader in figures[name][result.task].against_readers],
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
