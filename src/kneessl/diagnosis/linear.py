"""Linear evaluation: a logistic regression on frozen features, as a classifier like any other."""

import time

import numpy as np
import torch

from kneessl.diagnosis.classifier import Classifier
from kneessl.evaluation.probe import linear_weights, require_probe_labels
from kneessl.exams.folder import ExamFolder
from kneessl.nets.features import calibrate, exam_features, whole_exams
from kneessl.views.preprocess import Preprocessing


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
        classifier: Its head is replaced; its encoder's weights are not touched.
        folder: Exam folder.
        plane: The plane.
        exams: Labelled training exams.
        labels: int `(n,)`, theirs.
        preprocessing: The encoder's.

    Returns:
        Seconds that it took.

    Raises:
        UserError: fewer than 10 exams of a class.
    """
    require_probe_labels(labels)
    start = time.monotonic()
    calibrate(classifier.encoder, folder, plane, preprocessing)
    device = classifier.head.weight.device
    whole = whole_exams(folder, "train", plane, exams, preprocessing, device)
    features = exam_features(classifier.encoder, whole, len(exams), "frozen features")
    weights, bias = linear_weights(features, labels)
    with torch.no_grad():
        classifier.head.weight.copy_(torch.from_numpy(weights)[None])
        classifier.head.bias.fill_(bias)
    return time.monotonic() - start
