"""What frozen features are worth: linear classifiers from balanced labels, from long-tailed ones, and out of domain."""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import nn

from kneessl.classifier.classifier import Classifier
from kneessl.evaluation.metrics import Proportion
from kneessl.evaluation.readout import Readout
from kneessl.nets.encoder import ClipEncoder
from kneessl.nets.features import recalibrate
from kneessl.pictures.arms import CIFAR
from kneessl.pictures.cifar10 import Pictures
from kneessl.pictures.folder import Images
from kneessl.pictures.linear import SoftmaxRegression
from kneessl.pictures.linear_evaluation import Channels, Start, image_features
from kneessl.pictures.sets import Sets
from kneessl.progress import progress

FORWARD = 500
"""Pictures in a forward pass."""
CALIBRATION = 2000
"""Random training pictures, whose labels are not seen, that batch norm's statistics are taken from."""


def read_cell(
    encoder: ClipEncoder, classifier: Classifier | None, sets: Sets, classes: list[str], elsewhere: Images | None
) -> dict[str, Any]:
    """All readouts of a cell, as `result.json` has them.

    Batch norm's statistics are taken anew from the cell's training images as they are, for every arm alike: those of
    training are of distorted views.

    Args:
        encoder: As trained; its batch norm is changed.
        classifier: The supervised network around it, whose own answers are read first.
        sets: The cell's images.
        classes: Their names.
        elsewhere: Images of another data set, whose classes are read off the features as well.
    """

    def readout(predicted: np.ndarray) -> dict[str, Any]:
        return asdict(Readout.of(sets.test.labels, predicted, classes, sets.counts))

    readouts: dict[str, Any] = {}
    if classifier is not None:
        readouts["trained"] = readout(outputs(classifier, sets.test, "own answers").argmax(1))
    order = np.random.default_rng(0).permutation(len(sets.train))[:CALIBRATION]
    some = torch.from_numpy(sets.train.pixels[order])
    device = next(encoder.parameters()).device
    recalibrate(encoder, (CIFAR(x[:, None].to(device)) for x in some.split(min(FORWARD, len(some)))))
    test = outputs(encoder, sets.test, "test features")
    for name, source in (("linear_balanced", sets.labelled), ("linear", sets.train)):
        features = outputs(encoder, source, "training features")
        readouts[name] = readout(SoftmaxRegression(device).fit(features, source.labels).predict(test))
    return {"readouts": readouts, "ood": None if elsewhere is None else read_elsewhere(encoder, elsewhere)}


@torch.no_grad()
def outputs(network: nn.Module, pictures: Pictures, title: str) -> np.ndarray:
    """What a network in evaluation mode makes of pictures as they are: float32 `(n, features or classes)`."""
    network.eval()
    device, rows = next(network.parameters()).device, []
    blocks = torch.from_numpy(pictures.pixels)[:, None].split(FORWARD)
    for block in progress(blocks, title=title, unit="batch", keep=False):
        clips = CIFAR(block.to(device))
        where = torch.full(clips.shape[:2], 0.5, device=device)
        rows.append(network(clips, where) if isinstance(network, Classifier) else network(clips))
    return torch.cat(rows).float().cpu().numpy()


def read_elsewhere(encoder: ClipEncoder, images: Images) -> dict[str, Any]:
    """A linear classifier of another data set's classes, on the same frozen features; figures without its path."""
    start = Start("this encoder", encoder.slices, Channels((CIFAR.mean,) * 3, (CIFAR.std,) * 3, "as in training"))
    train, test = (
        image_features(part, CIFAR.size, start, title).values
        for part, title in ((images.train, "training, elsewhere"), (images.test, "test, elsewhere"))
    )
    device = next(encoder.parameters()).device
    fitted = SoftmaxRegression(device).fit(train.astype(np.float32), images.train.labels)
    right = int((fitted.predict(test.astype(np.float32)) == images.test.labels).sum())
    return {
        "classes": len(images.classes),
        "train_images": len(images.train.files),
        "linear": asdict(Proportion.of(right, len(images.test.files))),
    }
