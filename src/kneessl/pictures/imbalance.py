"""`kneessl imbalance`: one training on long-tailed CIFAR-10, and what its features are worth (thesis, chapter 3)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kneessl.files import write_text
from kneessl.nets.encoder import save_weights
from kneessl.pictures.arms import CIFAR, LABELLED, NETWORK, PRETRAINED, SUPERVISED, Arm, Training, make_arm, require_arm
from kneessl.pictures.cifar10 import Pictures, picture_hash, read_cifar10
from kneessl.pictures.clips import picture_loader
from kneessl.pictures.folder import find_images
from kneessl.pictures.readouts import read_cell
from kneessl.pictures.sets import Sets, choose_sets
from kneessl.report.confusion import write_confusion_png
from kneessl.settings import Settings, require_not_negative, takes
from kneessl.training.fit import fit
from kneessl.training.machine import Precision
from kneessl.training.runs import open_run, plain, write_record

PAUSE = 60.0
"""Seconds from one checkpoint to the next: an epoch of a few thousand small pictures is short."""
TITLES = {
    "trained": "own answers",
    "linear_balanced": "linear, balanced labels",
    "linear": "linear, labels as trained on",
}


@dataclass(frozen=True)
class ImbalanceSettings(Settings):
    """What `kneessl imbalance` is asked for.

    Args:
        data: CIFAR-10 in its official binary layout: the folder cifar-10-batches-bin, or the one that holds it.
        out: Run folder to write: result.json, confusion.png, encoder.safetensors, metrics.csv, checkpoints.
        method: How to learn: simclr, byol, moco_v2 or any other method of two views; or supervised.
        ratio: Of the rarest class to the commonest; 1 is balanced.
        images: Training images in all; by default the most that the ratio allows.
        labels: Images of each class whose labels the linear classifier learns from; by default all.
        test: Test images of each class; by default all.
        held_out: Test on so many training images of each class instead, kept out of all else: to choose settings by.
        ood: Folder of images by class, as for `kneessl probe`, to read the features on as well (out of domain).
        pretrain: How a self-supervised method is trained.
        supervised: How the supervised network is trained, from the same random weights.
        settings: The method's own settings, such as --settings.temperature 0.5; `kneessl pretrain --help` lists them.
        precision: auto takes bf16 where the hardware multiplies it fast.
        seed: Of the weights, the choice of images, their order and views.
        resume: Continue the run in OUT from its last checkpoint.
    """

    data: Path
    out: Path
    method: str = "simclr"
    ratio: float = 0.01
    images: int | None = None
    labels: int | None = None
    test: int | None = None
    held_out: int = 0
    ood: Path | None = None
    pretrain: Training = PRETRAINED
    supervised: Training = LABELLED
    settings: dict[str, int | float] | None = None
    precision: Precision = "auto"
    seed: int = 0
    resume: bool = False

    def __post_init__(self) -> None:
        require_arm(self.method)
        require_not_negative(vars(self), "seed")

    @property
    def training(self) -> Training:
        """How this arm is trained."""
        return self.supervised if self.method == SUPERVISED else self.pretrain


@takes(ImbalanceSettings)
def imbalance(settings: ImbalanceSettings) -> None:
    """Train on a long-tailed part of CIFAR-10, with labels or without, and read the frozen features linearly.

    The settings are those of `ImbalanceSettings`.
    """
    cifar = read_cifar10(settings.data)
    sets = choose_sets(
        cifar, settings.ratio, settings.images, settings.labels, settings.test, settings.held_out, settings.seed
    )
    elsewhere = None if settings.ood is None else find_images(settings.ood, 0)
    arm = make_arm(
        settings.method, settings.training, settings.settings or {}, sets.train, len(cifar.classes), settings.seed,
        settings.out,
    )  # fmt: skip
    train(settings, arm, sets.train)
    arm.module.to("cuda" if torch.cuda.is_available() else "cpu")
    figures = read_cell(arm.encoder, arm.classifier, sets, cifar.classes, elsewhere)
    write_result(settings, sets, cifar.classes, figures)


def train(settings: ImbalanceSettings, arm: Arm, images: Pictures) -> None:
    """Train an arm, or go on with it, and write its encoder and record."""
    out, training = settings.out, settings.training
    checkpoint = open_run(out, settings.asked(), settings.resume, defaults=settings.defaults())
    data_sha256 = picture_hash(images)
    loader = picture_loader(images.pixels, min(training.batch, len(images)), settings.seed, drop_last=True)
    rows = fit(
        arm.module, loader, out, title=f"{settings.method}, ratio {settings.ratio:g}", epochs=training.epochs,
        precision=settings.precision, data=data_sha256, checkpoint=checkpoint, pause=PAUSE, unit="picture",
    )  # fmt: skip
    save_weights(arm.encoder.trunk, out / "encoder.safetensors")
    write_record(
        out, CIFAR, rows, kind="imbalance", method=settings.method, network=NETWORK, seed=settings.seed,
        epochs=training.epochs, lr=training.lr, images=len(images), data_sha256=data_sha256,
    )  # fmt: skip


def write_result(settings: ImbalanceSettings, sets: Sets, classes: list[str], figures: Mapping[str, Any]) -> None:
    """Write `result.json` and `confusion.png`, and print the figures.

    Args:
        settings: What was asked for.
        sets: The images that were trained and tested on.
        classes: Their names.
        figures: Made by `read_cell`.
    """
    out = settings.out
    result = {
        "method": settings.method,
        "supervised": settings.method == SUPERVISED,
        "ratio": settings.ratio,
        "images": len(sets.train),
        "seed": settings.seed,
        "classes": classes,
        "counts": sets.counts,
        "test_images": len(sets.test),
        "tested_on": "training images held out" if settings.held_out else "test images",
        **figures,
    }
    first, readout = next(iter(result["readouts"].items()))
    write_confusion_png(
        out / "confusion.png", readout["confusion"], classes, sets.counts,
        title=f"{settings.method}, ratio {settings.ratio:g}: {TITLES[first]}",
    )  # fmt: skip
    write_text(out / "result.json", json.dumps(plain(result), indent=2) + "\n")
    print(describe(result))
    print(f"result:  {out / 'result.json'}\nfigure:  {out / 'confusion.png'}")


def describe(result: dict[str, Any]) -> str:
    """A cell's figures as a table: in all, by group of classes, and by class."""
    readouts = result["readouts"]
    lines = [
        f"{result['method']}, seed {result['seed']}: {result['images']} training images, ratio {result['ratio']:g} "
        f"({', '.join(map(str, result['counts']))}); {result['test_images']} {result['tested_on']}"
    ]
    for name, readout in readouts.items():
        a = readout["accuracy"]
        lines.append(f"{TITLES[name]:<28} {a['value']:.4f}  (95 % Wilson {a['low']:.4f} to {a['high']:.4f})")
    if result["ood"]:
        a = result["ood"]["linear"]
        lines.append(f"{'linear, out of domain':<28} {a['value']:.4f}  (95 % Wilson {a['low']:.4f} to {a['high']:.4f})")
    lines.append(f"{'':<24}" + "".join(f"{TITLES[name]:>30}" for name in readouts))
    for group in readouts["linear_balanced"]["groups"]:
        shares = "".join(f"{readout['groups'][group]['value']:>30.3f}" for readout in readouts.values())
        lines.append(f"{group:<24}{shares}")
    for name, count in zip(result["classes"], result["counts"], strict=True):
        shares = "".join(f"{readout['per_class'][name]['value']:>30.3f}" for readout in readouts.values())
        lines.append(f"{name + f' ({count})':<24}{shares}")
    return "\n".join(lines)
