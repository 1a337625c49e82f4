"""Evaluation of fine-tuned models on exams that they have not seen: figures, predictions, report."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from kneessl.diagnosis.classifier import Model, load_model
from kneessl.diagnosis.predict import Prediction, predict_split, slice_contributions
from kneessl.errors import UserError
from kneessl.evaluation import THRESHOLD, Summary, summarise
from kneessl.exams.folder import ExamFolder, Split
from kneessl.files import replacing, write_text
from kneessl.report import Arm, Curve, Mistake, write_report
from kneessl.report.describe import data_note, data_rows, show_views
from kneessl.views.augment import View

SHOWN_MISTAKES = 3
"""False positives, and false negatives, shown as pictures."""
SHOWN_SLICES = 5


def evaluate(
    model: Path, data: Path, split: Split = "valid", against: Path | None = None, out: Path | None = None
) -> None:
    """Evaluate a fine-tuned model: AUC with interval, accuracy, sensitivity, specificity, and a report.

    Args:
        model: Run folder of `kneessl finetune`.
        data: Exam folder.
        split: The split to evaluate on.
        against: Another model of the same task and plane, to compare on the same exams.
        out: Where result.json, predictions.csv and report.html go; by default into MODEL.
    """
    models = {path.resolve().name: path for path in (model, against) if path is not None}
    if against is not None and len(models) == 1:
        raise UserError(
            f"{model} and {against} bear the same folder name; rename one, so that the report can name both"
        )
    for name, summary in evaluate_models(models, data, split, out or model).items():
        print(f"{name}\n{describe(summary)}")
    print(f"report: {(out or model) / 'report.html'}")


def describe(summary: Summary) -> str:
    """The figures in a few lines of text."""
    lines = [f"AUC          {summary.auc.auc:.3f}  (95 % DeLong {summary.auc.low:.3f} to {summary.auc.high:.3f})"]
    for name in ("accuracy", "sensitivity", "specificity"):
        p = getattr(summary, name)
        lines.append(f"{name:<12} {p.value:.3f}  (95 % Wilson {p.low:.3f} to {p.high:.3f}; {p.successes} of {p.n})")
    return "\n".join(lines)


def evaluate_models(models: dict[str, Path], data: Path, split: Split, out: Path) -> dict[str, Summary]:
    """Evaluate models, by name, of one task and plane on the same exams, and write one report of all.

    Raises:
        UserError: a model cannot be loaded, the models differ in task or plane, or the split lacks labels.
    """
    folder = ExamFolder(data)
    loaded = {name: load_model(path) for name, path in models.items()}
    first = next(iter(loaded.values()))
    if any((m.task, m.plane) != (first.task, first.plane) for m in loaded.values()):
        raise UserError(f"the models {', '.join(models)} differ in task or plane; evaluate them one by one")
    labels = folder.labels(split, first.task)
    exams = [exam for exam in folder.require(split, first.plane) if exam in labels]
    truth = np.array([labels[exam] for exam in exams])
    if np.bincount(truth, minlength=2).min() < 2:
        raise UserError(
            f"an interval needs at least 2 exams of each label; {split}-{first.task}.csv of {data} has fewer"
        )
    runs = runs_behind(models)
    settings = {name: read_config(run) for name, run in runs.items()}
    curves = [Curve(name, rows) for name, run in runs.items() if (rows := read_metrics(run))]

    arms: list[Arm] = []
    summaries: dict[str, Summary] = {}
    for name, model in loaded.items():
        predictions = predict_split(model, folder, split, exams, f"evaluate {name}")
        scores = np.array([p.probability for p in predictions])
        arms.append(Arm(name, exams, truth, scores, worst_mistakes(model, folder, split, predictions, labels)))
        summaries[name] = summarise(truth, scores)
    write_text(out / "result.json", json.dumps({name: s.to_dict() for name, s in summaries.items()}, indent=2) + "\n")
    write_predictions(out / "predictions.csv", arms)
    write_evaluation_report(settings, curves, folder, split, first, arms, summaries, out / "report.html")
    return summaries


def worst_mistakes(
    model: Model, folder: ExamFolder, split: Split, predictions: list[Prediction], labels: dict[str, int]
) -> list[Mistake]:
    """The most confident false positives and false negatives, each with the slices that raised its score most."""
    mistakes = []
    for label in (0, 1):
        wrong = [p for p in predictions if labels[p.exam] == label and (p.probability >= THRESHOLD) != bool(label)]
        wrong.sort(key=lambda p: p.probability, reverse=label == 0)
        for p in wrong[:SHOWN_MISTAKES]:
            series = folder.series(split, model.plane, p.exam)
            seen = np.arange(len(series))[model.preprocessing.middle(len(series))]
            parts = slice_contributions(model, series)[seen]
            top = np.sort(seen[np.argsort(-parts, kind="stable")[:SHOWN_SLICES]])
            captions = [f"slice {k + 1} of {len(series)}" for k in top]
            mistakes.append(Mistake(p.exam, label, p.probability, np.array(series[top]), captions))
    return mistakes


def write_predictions(path: Path, arms: list[Arm]) -> None:
    """One line an exam: exam, label, probability under each model, unrounded: rounding makes ties."""
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["exam", "label", *(arm.name for arm in arms)])
        for i, exam in enumerate(arms[0].exams):
            writer.writerow([exam, arms[0].labels[i], *(float(arm.scores[i]) for arm in arms)])


def write_evaluation_report(
    settings: dict[str, dict[str, Any]],
    curves: list[Curve],
    folder: ExamFolder,
    split: Split,
    model: Model,
    arms: list[Arm],
    summaries: dict[str, Summary],
    path: Path,
) -> None:
    """Lay out the report: the data, the runs behind the models, their figures and mistakes."""
    labels = arms[0].labels
    views: dict[str, View] = {}
    for values in settings.values():
        for key, label in (("view1", "view T"), ("view2", "view T'"), ("view", "fine-tuning view")):
            if values.get(key):
                changes: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values[key].items()}
                views[label] = View(**changes)
    shown = folder.exams(split, model.plane)[:2]
    write_report(
        path,
        title=f"{model.task} from {model.plane} slices",
        lead=" ".join(
            f"{name}: AUC {s.auc.auc:.3f} (95 % interval {s.auc.low:.3f} to {s.auc.high:.3f})."
            for name, s in summaries.items()
        ),
        facts=[("task", model.task), ("plane", model.plane), ("evaluated on", f"{split}, {len(labels)} exams"),
               ("of which positive", str(int(labels.sum())))],
        data=data_rows(folder, model.plane, model.task),
        data_note=data_note(folder),
        settings=settings,
        curves=curves,
        warnings=[],
        views=[
            show_views(folder, split, model.plane, exam, views, model.preprocessing, seed=0) for exam in shown
        ]
        if views
        else [],
        arms=arms,
        task=model.task,
        plane=model.plane,
    )  # fmt: skip


def runs_behind(models: dict[str, Path]) -> dict[str, Path]:
    """Every training run that went into `models`: pre-training runs first, where they still exist."""
    runs = {}
    for name, path in models.items():
        start = read_config(path).get("from_run")
        if start and (Path(start) / "metrics.csv").is_file():
            runs[f"pre-training of {name}"] = Path(start)
    return runs | {f"fine-tuning of {name}": path for name, path in models.items()}


def read_config(run: Path) -> dict[str, Any]:
    """The settings of a run, from its `config.yaml`; none where a model travels without it."""
    path = run / "config.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}


def read_metrics(run: Path) -> list[dict[str, float]]:
    """The lines of a run's `metrics.csv`; none where a model travels without it."""
    if not (run / "metrics.csv").is_file():
        return []
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
