"""Deterministic prediction: all slices of a series, float32, no random draw."""

from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from kneessl.diagnosis.classifier import Model
from kneessl.exams.folder import ExamFolder


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of one exam."""

    exam: str
    probability: float
    contributions: np.ndarray
    """float32 `(slices,)`: each slice's part of the logit."""


def predict_exam(model: Model, exam: str, series: np.ndarray) -> Prediction:
    """Predict from one series, uint8 `(slices, 256, 256)`."""
    device = model.classifier.head.weight.device
    clip = torch.from_numpy(np.array(series))[None].to(device)
    logit, contributions = model.classifier.slice_contributions(model.preprocessing(clip))
    return Prediction(exam, float(torch.sigmoid(torch.tensor(logit, dtype=torch.float64))), contributions.cpu().numpy())


def predict_split(model: Model, folder: ExamFolder, split: str, exams: list[str], title: str) -> list[Prediction]:
    """Predict `exams` of one split in the model's plane, with a progress bar."""
    return [
        predict_exam(model, exam, folder.series(split, model.plane, exam))
        for exam in tqdm(exams, desc=title, unit="exam", dynamic_ncols=True)
    ]
