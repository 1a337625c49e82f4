"""`kneessl finetune`: train a classifier on labelled exams, by the recipe that its network was published with."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from kneessl.classifier.classifier import Classifier
from kneessl.evaluation.auc import auc_interval
from kneessl.evaluation.familiarity import Familiarity, Gaussian
from kneessl.exams.folder import ExamFolder
from kneessl.exams.splits import FEWEST
from kneessl.files import write_text
from kneessl.finetuning.linear import fit_head
from kneessl.finetuning.mrnet import WholeSeries
from kneessl.finetuning.settings import FinetuneSettings
from kneessl.finetuning.start import chosen_network, read_start, start_classifier
from kneessl.finetuning.tuning import BinaryLoss, FineTuning, layer_groups
from kneessl.model.card import MODEL_CARD, model_card
from kneessl.model.crossfit import Folds, OutOfFold, deal_folds
from kneessl.model.labels import UNKNOWN, labelled_exams
from kneessl.model.locked import WEIGHTS, lock_plane, write_familiarity
from kneessl.model.model import load_plane
from kneessl.model.predict import forward_passes
from kneessl.nets.encoder import save_weights
from kneessl.nets.features import calibrate
from kneessl.settings import takes
from kneessl.training.callbacks import LAST
from kneessl.training.fit import fit
from kneessl.training.runs import data_hash, open_run, write_record
from kneessl.views.clips import Clips, clip_loader

MOST_LOOKED_AT = 2000
"""Training exams that say what a model is familiar with; of more, so many are drawn by the seed. With each of k folds
this is one more pass through all training exams without any gradient, a few hundredths of the time of training."""


@takes(FinetuneSettings)
def finetune(settings: FinetuneSettings) -> None:
    """Train a classifier for one task or several on labelled exams; the settings are those of `FinetuneSettings`."""
    training, folds = prepare(settings)
    settings, out = training.settings, training.settings.out
    classifier = training.classifier()
    training.folder.require_readable("train", settings.plane, training.exams)
    open_run(out, settings.asked(), settings.resume, defaults=settings.defaults())
    logits, distances = cross_fit(training, folds)
    train(training, classifier, np.arange(len(training.exams)), out, f"fine-tune {', '.join(settings.tasks)}")
    if folds is not None:
        familiar = fit_familiarity(training.folder, out, training.exams, settings.seed)
        write_familiarity(out, Familiarity(familiar, distances))
        seen = OutOfFold(settings.tasks, training.exams, folds.of_exam, training.truth, logits)
        lock_plane(out, settings.plane, seen, folds.rule)
        if isinstance(settings.folds, str):
            print("\n".join(left_out_lines(seen, folds.names)))
    write_text(out / MODEL_CARD, model_card(out))
    print(f"model: {out}\nnext:  kneessl evaluate {out} {settings.data}")


@dataclass(frozen=True, eq=False)
class LabelledTraining:
    """What is trained on what.

    Args:
        settings: Resolved for their network.
        folder: Exam folder.
        exams: Labelled training exams.
        truth: int64 `(exams, tasks)`: 0, 1 or `UNKNOWN`.
    """

    settings: FinetuneSettings
    folder: ExamFolder
    exams: list[str]
    truth: np.ndarray

    def classifier(self) -> Classifier:
        """A new one, all of it that no run or file holds from the seed; see `start_classifier`."""
        wanted = self.settings
        torch.manual_seed(wanted.seed)
        classifier, taken = start_classifier(
            wanted.chosen_network, wanted.head, len(wanted.tasks), wanted.from_run, wanted.weights
        )
        if taken:
            print(taken)
        layer_groups(classifier, wanted.recipe.lr, wanted.recipe.layer_decay)  # it says so where there are no layers
        return classifier


def prepare(asked: FinetuneSettings) -> tuple[LabelledTraining, Folds | None]:
    """Resolve the settings, and read which exams are labelled.

    Returns:
        What is to be trained, and how its exams were dealt into folds; None without folds.

    Raises:
        UserError: a setting that does not go with the network or the exams.
    """
    start = read_start(asked.from_run)
    settings = asked.resolved(chosen_network(asked.network, asked.head, asked.frozen, start))
    plane, fingerprint = settings.plane, settings.preprocessing.fingerprint()
    if start and (start["plane"], start["fingerprint"]) != (plane, fingerprint):
        print(f"note: {asked.from_run} was pre-trained on {start['plane']} slices, preprocessing "
              f"{start['fingerprint']}; this is {plane}, {fingerprint}", file=sys.stderr)  # fmt: skip
    folder, seed = ExamFolder(settings.data, settings.unlabelled), settings.seed
    labels_seed = seed if settings.labels_seed is None else settings.labels_seed
    exams, truth = labelled_exams(folder, settings.tasks, plane, settings.labels, labels_seed)
    folds = deal_folds(folder, plane, exams, truth, settings.folds, seed) if settings.folds else None
    return LabelledTraining(settings, folder, exams, truth), folds


def train(training: LabelledTraining, classifier: Classifier, chosen: np.ndarray, out: Path, title: str) -> None:
    """Train on some of the exams, by index, and write the model; from the last checkpoint where there is one."""
    settings, folder, recipe = training.settings, training.folder, training.settings.recipe
    exams, truth = [training.exams[i] for i in chosen], training.truth[chosen]
    data_sha256 = data_hash(folder, "train", settings.plane, exams)
    if settings.frozen:
        rows = [{"seconds": fit_head(classifier, folder, settings.plane, exams, truth, settings.preprocessing)}]
    else:
        checkpoint = out / LAST
        if recipe.linear_first:
            fit_head(classifier, folder, settings.plane, exams, truth, settings.preprocessing)
        elif recipe.freeze_bn:
            calibrate(classifier.encoder, folder, settings.plane, settings.preprocessing)
        objective = BinaryLoss(truth, recipe)
        module = FineTuning(classifier, truth, objective, settings.preprocessing, recipe, settings.view, settings.seed)
        clips = training_clips(settings, folder, exams)
        rows = fit(
            module, clip_loader(clips, recipe.draws(truth).tolist(), recipe.batch), out, title=title,
            epochs=recipe.epochs, precision=settings.precision, data=data_sha256,
            checkpoint=checkpoint if checkpoint.is_file() else None,
        )  # fmt: skip
        classifier = module.result
    save_weights(classifier, out / WEIGHTS)
    write_record(
        out, settings.preprocessing, rows, kind="finetune", network=settings.network, head=settings.head,
        tasks=settings.tasks, plane=settings.plane, seed=settings.seed, epochs=recipe.epochs, lr=recipe.lr,
        tta=settings.tta, start=str(settings.from_run or settings.weights or "random weights"),
        parameters=sum(p.numel() for p in classifier.parameters()), exams=len(exams),
        positives=[int((labels == 1).sum()) for labels in truth.T],
        unlabelled=[int((labels == UNKNOWN).sum()) for labels in truth.T],
        labelled_exams=exams, data_sha256=data_sha256, synthetic=folder.synthetic,
    )  # fmt: skip


def training_clips(settings: FinetuneSettings, folder: ExamFolder, exams: list[str]) -> Clips:
    """Clips of so many slices, or of all where the recipe has no number."""
    plane, seed, preprocessing = settings.plane, settings.seed, settings.preprocessing
    if settings.slices is None:
        return WholeSeries(folder, "train", plane, exams, seed, preprocessing)
    return Clips(folder, "train", plane, exams, settings.slices, seed, preprocessing)


def cross_fit(training: LabelledTraining, folds: Folds | None) -> tuple[np.ndarray, np.ndarray]:
    """Train a model without each fold, and predict the fold by it.

    Args:
        training: What is trained on what.
        folds: How its exams were dealt; None without folds.

    Returns:
        Logits `(exams, tasks)`, and how far each exam lies from what the model is familiar with, `(exams,)`; NaN
        without folds.
    """
    settings = training.settings
    logits, distances = np.full(training.truth.shape, np.nan), np.full(len(training.exams), np.nan)
    if folds is None:
        return logits, distances
    for k in range(len(folds.names)):
        fold, run = folds.of_exam == k, settings.out / "folds" / str(k)
        logits[fold], distances[fold] = held_out(training, fold, run, f"fold {k + 1} of {len(folds.names)}")
    return logits, distances


def left_out_lines(seen: OutOfFold, names: Sequence[str]) -> Iterator[str]:
    """For each task and each value that was left out, the AUC of the model that had not seen it."""
    for task, labels, logits in zip(seen.tasks, seen.truth.T, seen.logits.T, strict=True):
        for k, name in enumerate(names):
            here = (seen.fold == k) & (labels != UNKNOWN)
            told = f"{task}, left out {name}: {here.sum()} exams, {(labels[here] == 1).sum()} positive"
            if min((labels[here] == 0).sum(), (labels[here] == 1).sum()) < FEWEST:
                yield f"{told}; too few for an AUC"
                continue
            auc = auc_interval(labels[here], logits[here], scale="logit")
            yield f"{told}; AUC {auc.auc:.3f} (95 % DeLong {auc.low:.3f} to {auc.high:.3f})"


def held_out(training: LabelledTraining, fold: np.ndarray, out: Path, title: str) -> tuple[np.ndarray, np.ndarray]:
    """Train without the exams of a fold, bool `(exams,)`, unless that is done, and predict them.

    Returns:
        Logits `(fold, tasks)`, and how far each exam lies from what this model is familiar with, `(fold,)`.
    """
    if not (out / "run.json").is_file():
        train(training, training.classifier(), np.flatnonzero(~fold), out, title)
    folder, exams = training.folder, np.array(training.exams)
    unseen, trained_on = exams[fold].tolist(), exams[~fold].tolist()
    passes = forward_passes(load_plane(out), folder, "train", unseen, title)
    predicted = [(one.logits, one.features) for one in passes if one]
    logits, features = (np.stack(rows) for rows in zip(*predicted, strict=True))
    return logits, fit_familiarity(folder, out, trained_on, training.settings.seed).distances(features)


def fit_familiarity(folder: ExamFolder, run: Path, exams: Sequence[str], seed: int) -> Gaussian:
    """A Gaussian over the features that a model gives to the exams it was trained on: what it is familiar with.

    Args:
        folder: Exam folder.
        run: Run folder of the model.
        exams: Those that it was trained on; at most `MOST_LOOKED_AT` of them are taken.
        seed: Which of them.
    """
    model = replace(load_plane(run), tta=False)
    if len(exams) > MOST_LOOKED_AT:
        exams = np.random.default_rng(seed).choice(exams, MOST_LOOKED_AT, replace=False).tolist()
    passes = forward_passes(model, folder, "train", exams, "look again")
    return Gaussian.fit([one.features for one in passes if one])
