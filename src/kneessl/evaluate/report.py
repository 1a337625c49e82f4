"""The report of an evaluation: gathers what models, their run folders and the exam folder tell, and has it laid out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.special import expit

from kneessl.evaluate.characteristics import characteristics_of
from kneessl.evaluate.mistakes import heat_text, worst_mistakes
from kneessl.evaluate.task_result import TaskResult
from kneessl.evaluation import THRESHOLD
from kneessl.evaluation.auc import auc_interval
from kneessl.exams.folder import PLANES, SPLITS, ExamFolder, Plane
from kneessl.exams.summary import data_note, data_rows
from kneessl.model.locked import plane_folders, read_decisions
from kneessl.model.model import Model
from kneessl.report.content import Arm, Curve, Evaluated, EvaluatedFinding, Place, Views
from kneessl.report.evaluation_page import write_evaluation_page
from kneessl.report.page import PageHead
from kneessl.training.augmented import augmented_exam
from kneessl.training.runs import data_hash, read_config, read_metrics, read_record
from kneessl.views.augment import View

SHOWN_EXAMS = 2
"""Exams shown as augmentation changes them."""
PREVALENCES = (0.05, 0.2, 0.4)
"""For which predictive values are worked out, beside MRNet's own."""
MRNET = {"abnormal": 1104 / 1370, "acl": 319 / 1370, "meniscus": 508 / 1370}
"""Share of positives in MRNet's 1,370 exams (Bien et al., PLOS Medicine 15, 2018)."""


def write_evaluation_report(
    paths: Mapping[str, Path],
    models: Mapping[str, Model],
    folder: ExamFolder,
    split: str,
    results: Sequence[TaskResult],
    path: Path,
    by: Sequence[str] = (),
) -> None:
    """Write the page of an evaluation.

    Args:
        paths: Run folders by model; the first is the index model's.
        models: By the same names.
        folder: What they were evaluated on.
        split: The split of it.
        results: One a task; at least one.
        path: The HTML file.
        by: Characteristics that subgroups are wanted of; none for all that are known.
    """
    runs = runs_behind(paths, models)
    settings = {name: read_config(run) for name, run in runs.items()}
    findings = [finding_of(models, folder, split, result, by) for result in results]
    planes = [plane for plane in PLANES if any(plane in model.planes for model in models.values())]
    place, place_text = where_tested(next(iter(paths.items())), folder, split)
    write_evaluation_page(
        path,
        PageHead(
            title=f"{', '.join(result.task for result in results)} from {', '.join(planes)} MRI of the knee: "
            "diagnostic accuracy of a deep learning model",
            lead=lead_of(results, next(iter(models)), split),
            warnings=warnings_of(paths, folder, split),
            data_note=data_note(folder),
            settings=settings,
        ),
        evaluated=Evaluated(
            place=place,
            place_text=place_text,
            counts=count_rows(folder, split, planes, results),
            counts_text=count_text(folder, split, results),
            models=[row for name, model in models.items() for row in model_rows(name, paths[name], model)],
            fixed=fixed_texts(models, results),
            hashes=[(name, model.decisions.sha256) for name, model in models.items() if model.decisions],
        ),
        data=data_table(folder, planes, [result.task for result in results]),
        findings=findings,
        curves=[Curve(name, rows) for name, run in runs.items() if (rows := read_metrics(run))],
        views=views_of(settings.values(), next(iter(models.values())), folder, split),
    )


def lead_of(results: Sequence[TaskResult], name: str, split: str) -> str:
    """The index model's AUC on each task, in sentences."""
    sentences = []
    for result in results:
        auc = auc_interval(result.labels, result.answers[name].probabilities, scale="logit")
        sentences.append(
            f"On {len(result.labels):,} {split} exams, {int(result.labels.sum()):,} of them positive, {name} finds "
            f"{result.task} with an AUROC of {auc.auc:.3f} (95 % DeLong interval {auc.low:.3f} to {auc.high:.3f})."
        )
    return " ".join(sentences)


def warnings_of(paths: Mapping[str, Path], folder: ExamFolder, split: str) -> list[str]:
    """What makes all figures worthless as evidence: a model asked about its own training exams."""
    return [
        f"{name} was trained on exams of this very split: its figures say how well it remembers, not how well it tells."
        for name, path in paths.items()
        if split == "train" and trained_on(path, folder) is not False
    ] + [
        f"{name} was recalibrated on exams of this very split: its calibration and points are not tested here."
        for name, path in paths.items()
        if recalibrated_on(path, folder, split)
    ]


def where_tested(index: tuple[str, Path], folder: ExamFolder, split: str) -> tuple[Place, str]:
    """Whether the index model was tested internally or externally, or that this cannot be told; and why."""
    name, path = index
    same = trained_on(path, folder)
    if same is None:
        return "unknown", (
            f"It is not recorded which exam folder {name} was trained on, so this report cannot tell whether these "
            "exams are of the same origin."
        )
    if same:
        return "internal", (
            f"The exams come from the exam folder that {name} was trained on, from its split “{split}”: of the same "
            "origin, so the figures may not hold elsewhere."
        )
    return "external", (
        f"The exam folder is not the one that {name} was trained on. Whether its exams come from other people, "
        "scanners and readers, a person has to say."
    )


def recalibrated_on(path: Path, folder: ExamFolder, split: str) -> bool:
    """Whether a model was recalibrated on exams of this split, by the hash of their series."""
    locked = read_decisions(path)
    if locked is None or locked.local is None or locked.local.split != split:
        return False
    for plane, digest in locked.local.data_sha256.items():
        there = set(folder.exams(split, plane))
        exams = [exam for exam in locked.local.exams if exam in there]
        if exams and data_hash(folder, split, plane, exams) == digest:
            return True
    return False


def trained_on(path: Path, folder: ExamFolder) -> bool | None:
    """Whether a model was trained on exams of this folder, by its path or by the series' hash; None if not recorded."""
    known = False
    for run in plane_folders(path):
        record, config = read_record(run), read_config(run)
        exams, plane, digest = (record.get(name) for name in ("labelled_exams", "plane", "data_sha256"))
        if config.get("data"):
            known = True
            if Path(config["data"]).resolve() == folder.root.resolve():
                return True
        if exams and plane and digest:
            known = True
            there = set(exams) <= set(folder.exams("train", plane))
            if there and data_hash(folder, "train", plane, exams) == digest:
                return True
    return False if known else None


def count_rows(
    folder: ExamFolder, split: str, planes: Sequence[Plane], results: Sequence[TaskResult]
) -> list[dict[str, str | int]]:
    """One row a task: how many exams there are, were left out, and were evaluated, of how many patients."""
    there = set().union(*(folder.exams(split, plane) for plane in planes))
    rows: list[dict[str, str | int]] = []
    for result in results:
        labelled = there & folder.labels(split, result.task).keys()
        positives = int(result.labels.sum())
        rows.append(
            {
                "finding": result.task,
                f"{split} exams": len(there),
                "not labelled for it": len(there) - len(labelled),
                "lack a model's planes": len(labelled) - len(result.exams),
                "evaluated": len(result.exams),
                "positive": f"{positives:,} ({100 * positives / len(result.exams):.1f} %)",
                "negative": len(result.exams) - positives,
                "patients": len(set(result.groups)),
            }
        )
    return rows


def count_text(folder: ExamFolder, split: str, results: Sequence[TaskResult]) -> str:
    """How patients were told apart, and from which planes exams were answered."""
    lines = {line.exam for line in folder.provenance() if line.split == split and line.patient_group}
    evaluated = {exam for result in results for exam in result.exams}
    patients = (
        "Patients are told apart by the groups in exams.csv."
        if evaluated <= lines
        else "Where exams.csv names no patient, exams with the same pixels count as one patient's, and all others as "
        "different people's."
    )
    texts = []
    for name in results[0].answers:
        planes = {exam: key for r in results for exam, key in zip(r.exams, r.answers[name].planes, strict=True)}
        keys = list(planes.values())
        texts.append(f"{name} from " + ", ".join(f"{key} ({keys.count(key):,})" for key in sorted(set(keys))))
    return (
        f"{patients} Planes that answers came from, with the number of exams: {'; '.join(texts)}. An exam without one "
        "of a model's planes is answered from its others."
    )


def model_rows(name: str, path: Path, model: Model) -> Iterator[dict[str, str | int]]:
    """One row for each plane's network of a model: what it is, what it learned from, and how it was prepared."""
    for run, plane in zip(plane_folders(path), model.planes.values(), strict=True):
        record = read_record(run)
        versions = record.get("versions", {})
        kept = plane.preprocessing
        yield {
            "model": name,
            "plane": plane.plane,
            "network": f"{record.get('network', 'resnet18')}, head {record.get('head') or 'max'}",
            "parameters": sum(weights.numel() for weights in plane.classifier.parameters()),
            "started from": Path(str(record.get("start", "not recorded"))).name,
            "training exams": record.get("exams", "not recorded"),
            "looks at": f"{kept.size} pixels, share {kept.field:g} of the picture, {kept.depth:g} of the slices",
            "preprocessing": kept.fingerprint(),
            "trained with": ", ".join(f"{package} {version}" for package, version in versions.items())
            or "not recorded",
        }


def fixed_texts(models: Mapping[str, Model], results: Sequence[TaskResult]) -> list[str]:
    """What stood before these exams were read, in paragraphs."""
    texts = []
    for name, model in models.items():
        if model.decisions is None:
            texts.append(
                f"{name} decides at a threshold of {THRESHOLD}, fixed beforehand; its probabilities are as the network "
                "gives them, and it has no locked operating points."
            )
            continue
        parts = []
        for result in results:
            for key in sorted(set(result.answers[name].planes)):
                points = model.decisions.decisions[result.task][key].points
                parts.append(f"{result.task} from {key}: {points.n:,} training exams, {points.positives:,} positive")
        first = next(iter(model.decisions.decisions[results[0].task].values())).points
        texts.append(
            f"{name}: the recalibration and both operating points (rule-out for a sensitivity of "
            f"{100 * first.target_sensitivity:g} %, rule-in for a specificity of {100 * first.target_specificity:g} %) "
            f"were set on {model.decisions.set_on} ({'; '.join(parts)}), sealed with the weights by "
            f"the hash below, and applied here unchanged. The threshold of {THRESHOLD} was fixed beforehand as well."
        )
        if len(model.planes) > 1:
            texts.append(f"{name} fuses its planes by logistic stacking, its weights set on the same predictions.")
    texts.append(
        "This evaluation fitted nothing to the evaluated exams and chose nothing on them. The models were given the "
        "images alone: neither the reference standard nor anything else about the patient. Every probability is kept "
        "in predictions.csv, and the main figures in result.json, beside this report."
    )
    return texts


def data_table(folder: ExamFolder, planes: Sequence[Plane], tasks: Sequence[str]) -> list[dict[str, str | int | float]]:
    """One row for each split and plane: exams, slices, and positives of each task among the labelled."""
    labels: dict[tuple[str, str], dict[str, int]] = {
        (split, task): folder.labels(split, task) for split in SPLITS for task in tasks if task in folder.tasks(split)
    }
    rows: list[dict[str, str | int | float]] = []
    for plane in planes:
        for counted in data_rows(folder, plane):
            split = str(counted["split"])
            row = {
                "split": split,
                "plane": plane,
                "exams": counted[f"{plane} exams"],
                "slices": counted["slices an exam"],
            }
            exams = folder.exams(split, plane)
            for task in tasks:
                known = [labels[split, task][exam] for exam in exams if exam in labels.get((split, task), {})]
                share = f" ({100 * sum(known) / len(known):.1f} %)" if known else ""
                row[f"{task}, positive"] = f"{sum(known):,} of {len(known):,}{share}" if known else "none labelled"
            rows.append(row)
    return sorted(rows, key=lambda row: SPLITS.index(row["split"]))  # type: ignore[arg-type]


def finding_of(
    models: Mapping[str, Model], folder: ExamFolder, split: str, result: TaskResult, by: Sequence[str] = ()
) -> EvaluatedFinding:
    """One task as the page wants it."""
    return EvaluatedFinding(
        task=result.task,
        exams=result.exams,
        labels=result.labels,
        groups=result.groups,
        arms=[arm_of(name, model, folder, split, result) for name, model in models.items()],
        subgroups=characteristics_of(result.answers[next(iter(models))].planes, folder, split, result.exams, by),
        prevalences=prevalences_for(result.task),
    )


def prevalences_for(task: str) -> dict[str, float]:
    """Shares of positives, from low to high, in words and as numbers."""
    shares = {f"{100 * share:g} %": share for share in PREVALENCES}
    if task in MRNET:
        shares[f"{100 * MRNET[task]:.1f} %, as in MRNet"] = MRNET[task]
    return dict(sorted(shares.items(), key=lambda item: item[1]))


def arm_of(name: str, model: Model, folder: ExamFolder, split: str, result: TaskResult) -> Arm:
    """One model's answers on one task."""
    answers = result.answers[name]
    locked = {} if model.decisions is None else model.decisions.decisions[result.task]
    mistakes, exact = worst_mistakes(model, folder, split, result, answers)
    return Arm(
        name=name,
        probabilities=answers.probabilities,
        before=expit(answers.logits) if locked else None,
        states=[state for state in answers.states if state is not None],
        points={key: locked[key].points for key in sorted(set(answers.planes)) if key in locked},
        mistakes=mistakes,
        heat=heat_text(exact),
    )


def views_of(settings: Iterable[Mapping[str, Any]], model: Model, folder: ExamFolder, split: str) -> list[Views]:
    """Two exams as training changed them, in the index model's first plane."""
    views: dict[str, View] = {}
    for values in settings:
        for key, label in (("view1", "view T"), ("view2", "view T'"), ("view", "fine-tuning view")):
            if values.get(key):
                changes: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values[key].items()}
                views[label] = View(**changes)
    plane, one = next(iter(model.planes.items()))
    exams = folder.exams(split, plane)[:SHOWN_EXAMS]
    if not views:
        return []
    return [augmented_exam(folder, split, plane, exam, views, one.preprocessing, seed=0) for exam in exams]


def runs_behind(paths: Mapping[str, Path], models: Mapping[str, Model]) -> dict[str, Path]:
    """Every training run that went into `models`: pre-training runs first, where they still exist."""
    before, after = {}, {}
    for name, path in paths.items():
        runs = plane_folders(path)
        for run, plane in zip(runs, models[name].planes, strict=True):
            what = name if len(runs) == 1 else f"{name}, {plane}"
            start = read_config(run).get("from_run")
            if start and (Path(start) / "metrics.csv").is_file():
                before[f"pre-training of {what}"] = Path(start)
            after[f"fine-tuning of {what}"] = run
    return before | after
