"""Deterministic prediction: all slices that the preprocessing keeps, float32, no random draw."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from kneessl.diagnosis.classifier import Model
from kneessl.exams.folder import ExamFolder


@dataclass(frozen=True)
class Prediction:
    """What a model says of one exam."""

    exam: str
    probability: float


def predict_exam(model: Model, exam: str, series: np.ndarray) -> Prediction:
    """Predict from one series, uint8 `(slices, 256, 256)`."""
    with torch.no_grad():
        logit = model.classifier(whole_clip(model, series))
    return Prediction(exam, float(torch.sigmoid(logit[0].double())))


def slice_contributions(model: Model, series: np.ndarray) -> np.ndarray:
    """Each slice's part of the logit of one series, uint8 `(slices, 256, 256)`: float32 `(slices,)`.

    Slices that the preprocessing leaves out have no part. Exact or not as the model's network has it, and for SSLM as
    slow as predicting anew without each slice in turn.
    """
    parts = np.zeros(len(series), np.float32)
    kept = model.preprocessing.middle(len(series))
    parts[kept] = model.classifier.slice_contributions(whole_clip(model, series))[1].cpu().numpy()
    return parts


def whole_clip(model: Model, series: np.ndarray) -> Tensor:
    """What the model sees of one series: all slices that it keeps, `(1, slices, size, size)` on the model's device."""
    device = next(model.classifier.parameters()).device
    kept = np.array(series[model.preprocessing.middle(len(series))])
    return model.preprocessing(torch.from_numpy(kept)[None].to(device))


def predict_split(model: Model, folder: ExamFolder, split: str, exams: list[str], title: str) -> list[Prediction]:
    """Predict `exams` of one split in the model's plane, with a progress bar."""
    return [
        predict_exam(model, exam, folder.series(split, model.plane, exam))
        for exam in tqdm(exams, desc=title, unit="exam", dynamic_ncols=True)
    ]
