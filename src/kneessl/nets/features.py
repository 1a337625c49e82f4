"""Frozen features of whole exams: every slice, no randomness, batch norm in evaluation mode."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from kneessl.exams.folder import ExamFolder
from kneessl.progress import progress
from kneessl.views.preprocess import Preprocessing

CALIBRATION_EXAMS = 64


def whole_exams(
    folder: ExamFolder, split: str, plane: str, exams: Sequence[str], preprocessing: Preprocessing, device: torch.device
) -> Iterator[Tensor]:
    """Each exam as a network sees it at prediction: float32 `(1, slices, size, size)` on `device`."""
    for exam in exams:
        series = folder.series(split, plane, exam)
        kept = np.array(series[preprocessing.middle(len(series))])
        yield preprocessing(torch.from_numpy(kept)[None].to(device))


@torch.no_grad()
def exam_features(encoder: nn.Module, exams: Iterable[Tensor], total: int, title: str | None = None) -> np.ndarray:
    """Features of each exam under the maximum over all of its slices, or whatever the encoder pools by.

    Args:
        encoder: A clip encoder; one that keeps slices apart gives the average of its slices' features.
        exams: float32 `(1, slices, size, size)` each, as `whole_exams` yields them.
        total: How many there are.
        title: Title of a progress bar; None shows none.

    Returns:
        float32 `(total, features)`.
    """
    training = encoder.training
    encoder.eval()
    bar = progress(exams, total=total, title=title or "", unit="exam", hidden=title is None, keep=False)
    rows = [encoder(exam).float().mean(0).cpu().numpy() for exam in bar]
    encoder.train(training)
    return np.stack(rows)


@torch.no_grad()
def recalibrate(encoder: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace batch-norm statistics by plain averages over `batches`, each as the encoder takes it.

    Without it random weights are a straw man, weights from elsewhere know another scanner's contrast, and pre-trained
    ones know the statistics of augmented views only. No label is involved.
    """
    norms = [m for m in encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [m.momentum for m in norms]
    training = encoder.training
    encoder.train()
    for m in norms:
        m.reset_running_stats()
        m.momentum = None  # PyTorch's word for a cumulative average
    for batch in batches:
        encoder(batch)
    for m, momentum in zip(norms, momenta, strict=True):
        m.momentum = momentum
    encoder.train(training)


def calibrate(encoder: nn.Module, folder: ExamFolder, plane: str, preprocessing: Preprocessing) -> None:
    """`recalibrate` on the first 64 training exams of a folder, as they are."""
    device = next(encoder.parameters()).device
    exams = whole_exams(folder, "train", plane, folder.require("train", plane), preprocessing, device)
    recalibrate(encoder, islice(exams, CALIBRATION_EXAMS))
