"""Linear evaluation: a logistic regression on frozen features, as a classifier like any other."""

import time
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from kneessl.classifier.classifier import Classifier
from kneessl.evaluation.feature_probe import linear_weights, require_probe_labels
from kneessl.exams.folder import ExamFolder
from kneessl.model.labels import UNKNOWN
from kneessl.nets.features import calibrate, exam_features, whole_exams
from kneessl.views.preprocess import Preprocessing


class Pooled(nn.Module):
    """A classifier up to its linear layer: clips `(B, S, H, W)` -> pooled features `(B, C)`."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, clips: Tensor) -> Tensor:
        """Clips `(B, S, H, W)` -> pooled features `(B, C)`."""
        return self.classifier.head.pool(self.classifier.maps(clips))  # type: ignore[operator]


def fit_head(
    classifier: Classifier,
    folder: ExamFolder,
    plane: str,
    exams: list[str],
    labels: np.ndarray,
    preprocessing: Preprocessing,
) -> float:
    """Fit the head to the frozen encoder's features of whole exams; the encoder's batch norm is recalibrated first.

    Args:
        classifier: With a `MaxHead` or a `MeanHead`, whose weights are replaced; its encoder's are not touched.
        folder: Exam folder.
        plane: The plane.
        exams: Labelled training exams.
        labels: int `(n, tasks)`, theirs: 0, 1 or `UNKNOWN`.
        preprocessing: The encoder's.

    Returns:
        Seconds that it took.

    Raises:
        UserError: fewer than 2 exams of a class.
    """
    known = [task != UNKNOWN for task in labels.T]
    for task, where in zip(labels.T, known, strict=True):
        require_probe_labels(task[where])
    start = time.monotonic()
    calibrate(classifier.encoder, folder, plane, preprocessing)
    head = cast(nn.Linear, classifier.head)
    whole = whole_exams(folder, "train", plane, exams, preprocessing, head.weight.device)
    features = exam_features(Pooled(classifier), whole, len(exams), "frozen features")
    for k, where in enumerate(known):
        weights, bias = linear_weights(features[where], labels[where, k])
        with torch.no_grad():
            head.weight[k] = torch.from_numpy(weights)
            head.bias[k] = bias
    return time.monotonic() - start
