"""The watch over an encoder while it learns: what a probe reads off its frozen features, and how spread they are."""

from copy import deepcopy

import numpy as np
from torch import nn

from kneessl.evaluation.auc import auc_interval
from kneessl.evaluation.feature_probe import SCORED, out_of_fold, require_probe_labels
from kneessl.exams.folder import ExamFolder
from kneessl.nets.features import calibrate, exam_features, whole_exams
from kneessl.nets.synced_norm import alone
from kneessl.views.preprocess import Preprocessing


class OnlineProbe:
    """Probes the frozen features of labelled training exams, each scored by a probe that has not seen it.

    Neither the `valid` split nor the weights that are being trained are touched: features are those of a copy.

    Args:
        folder: Exam folder.
        plane: Which plane the encoder sees.
        task: Whose labels to read, of the `train` split.
        preprocessing: The encoder's.
        epochs: Epochs of the training.
        times: How often to probe over the training; the last time after its last epoch.
        untrained: The encoder as it starts, which is probed too: what training has to beat.

    Raises:
        UserError: the task has no labels, or too few.
    """

    def __init__(
        self,
        folder: ExamFolder,
        plane: str,
        task: str,
        preprocessing: Preprocessing,
        epochs: int,
        times: int,
        untrained: nn.Module,
    ) -> None:
        labels = folder.labels("train", task)
        self.folder, self.plane, self.preprocessing = folder, plane, preprocessing
        self.exams = [exam for exam in folder.require("train", plane) if exam in labels]
        self.labels = np.array([labels[exam] for exam in self.exams])
        require_probe_labels(self.labels, SCORED)
        self.epochs = {round(epochs * k / times) for k in range(1, times + 1)}
        self.untrained = deepcopy(untrained)
        self.untrained_auc: float | None = None

    def __call__(self, encoder: nn.Module, epoch: int) -> dict[str, float]:
        """Figures after `epoch` (counted from 1): NaN where it is not one of those to probe after."""
        if epoch not in self.epochs:
            return dict.fromkeys(("linear_auc", "knn_auc", "untrained_auc"), float("nan"))
        linear, neighbours = self.read(encoder)
        if self.untrained_auc is None:
            self.untrained_auc = self.read(self.untrained.to(next(encoder.parameters()).device))[0]
        return {"linear_auc": linear, "knn_auc": neighbours, "untrained_auc": self.untrained_auc}

    def read(self, encoder: nn.Module) -> tuple[float, float]:
        """AUC of a linear and of a nearest-neighbour probe, out of fold, on frozen features."""
        frozen = alone(deepcopy(encoder))  # one process probes
        frozen.pool = "max"  # type: ignore[assignment]  # as diagnosis pools, whatever it is trained with
        calibrate(frozen, self.folder, self.plane, self.preprocessing)
        device = next(frozen.parameters()).device
        whole = whole_exams(self.folder, "train", self.plane, self.exams, self.preprocessing, device)
        features = exam_features(frozen, whole, len(self.exams))
        linear, neighbours = (auc_interval(self.labels, scores).auc for scores in out_of_fold(features, self.labels))
        return linear, neighbours
