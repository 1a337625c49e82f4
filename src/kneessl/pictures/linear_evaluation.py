"""`kneessl probe`: linear evaluation of frozen features on any folder of images by class (thesis, table 2.1)."""

import csv
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kneessl.errors import UserError
from kneessl.evaluation.feature_probe import linear_readout, neighbour_readout
from kneessl.evaluation.metrics import Proportion
from kneessl.files import new_folder, replacing, write_text
from kneessl.nets.encoder import ClipEncoder, SliceEncoder, load_encoder
from kneessl.nets.features import recalibrate as recalibrate_norms
from kneessl.nets.weights import load_weights
from kneessl.pictures.folder import Images, ImageSet, find_images, read_images
from kneessl.progress import progress
from kneessl.settings import Settings, require_not_negative, takes
from kneessl.training.machine import describe_machine
from kneessl.training.runs import open_run, plain, read_record
from kneessl.views.preprocess import Preprocessing

BATCH = 64
CALIBRATION_IMAGES = 2048
"""Random training images that batch-norm statistics are estimated on, or all where there are fewer."""
TOP = 5


@dataclass(frozen=True)
class Channels:
    """How red, green and blue are standardised.

    Args:
        mean: Of the values from 0 to 1, channel by channel.
        std: Their standard deviations, channel by channel.
        source: Whose they are, in words.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    source: str

    def __call__(self, pictures: np.ndarray, device: torch.device) -> Tensor:
        """uint8 `(n, H, W, 3)` -> float32 `(n, 3, H, W)` on `device`."""
        values = torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(x, device=device)[:, None, None] for x in (self.mean, self.std))
        return (values - mean) / std


IMAGENET = Channels((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "as for ImageNet")


class Start(NamedTuple):
    """The encoder to evaluate."""

    name: str
    encoder: SliceEncoder
    channels: Channels


@dataclass(frozen=True, eq=False)
class Features:
    """What the encoder makes of images."""

    values: np.ndarray
    """float64 `(n, 512)`."""
    digests: list[bytes]
    """SHA-256 of each image's pixels, as the encoder saw them."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What the two readouts say of the test images."""

    ranked: np.ndarray
    """int64 `(m, classes)`: the classes of the linear readout, most probable first."""
    neighbours: np.ndarray
    """int64 `(m,)`: the class that the nearest neighbours vote for."""
    strength: float
    """The inverse L2 regularisation that was chosen."""


@dataclass(frozen=True)
class ProbeSettings(Settings):
    """What `kneessl probe` is asked for.

    Args:
        data: Folder of images, `train/CLASS/` and `test/CLASS/` (or `valid`, `val`) or just `CLASS/`, then split 80/20.
        out: Folder to write, not there yet: result.json, predictions.csv, run.json.
        from_run: Run folder of `kneessl pretrain` to evaluate. Also spelled --from.
        weights: File of ResNet-18 weights with torchvision's names instead; without either, random weights, the floor.
        size: Side of an image in pixels: the middle of the image, seven eighths of its shorter side.
        recalibrate: Estimate batch-norm statistics anew on training images; for random weights always done.
        seed: Of the 80/20 split, of random weights, and of the images to recalibrate on.
    """

    data: Path
    out: Path
    from_run: Path | None = None
    weights: Path | None = None
    size: int = 224
    recalibrate: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.from_run is not None and self.weights is not None:
            raise UserError("--from and --weights both name an encoder; give one of them")
        if self.size < 32:
            raise UserError(f"size is {self.size}; ResNet-18 needs images of at least 32 pixels")
        require_not_negative(vars(self), "seed")

    @property
    def recalibrated(self) -> bool:
        """Whether batch-norm statistics are estimated anew; those of random weights always are."""
        return self.recalibrate or (self.from_run is None and self.weights is None)


@takes(ProbeSettings)
def probe(settings: ProbeSettings) -> None:
    """Evaluate an encoder by a linear classifier, and by nearest neighbours, on its frozen features of images by class.

    The settings are those of `ProbeSettings`.
    """
    images = find_images(settings.data, settings.seed)
    torch.manual_seed(settings.seed)
    start = make_start(settings.from_run, settings.weights, settings.size)
    start.encoder.to("cuda" if torch.cuda.is_available() else "cpu")
    with new_folder(settings.out) as run:
        open_run(run, settings.asked(), resume=False)
        if settings.recalibrated:
            files = calibration_files(images.train.files, settings.seed)
            recalibrate_norms(start.encoder, image_batches(files, settings.size, start, "batch norm"))
        train = image_features(images.train, settings.size, start, "training images")
        test = image_features(images.test, settings.size, start, "test images")
        answers = read_out(train.values, images.train.labels, test.values)
        result = summarise_answers(images, answers)
        record = describe_run(settings, images, start, pixel_hash(images, train, test))
        write_text(run / "run.json", json.dumps(plain(record), indent=2) + "\n")
        write_text(run / "result.json", json.dumps(plain(result), indent=2) + "\n")
        write_predictions(run / "predictions.csv", settings.data, images, answers)
    print(describe(images, start, settings.recalibrated, result))
    known = set(train.digests)
    if repeated := sum(digest in known for digest in test.digests):
        print(f"note: {repeated} test images equal a training image, pixel for pixel", file=sys.stderr)
    print(f"result: {settings.out / 'result.json'}")


def describe_run(settings: ProbeSettings, images: Images, start: Start, data_sha256: str) -> dict[str, Any]:
    """What `run.json` says."""
    return {
        "kind": "probe",
        "start": start.name,
        "channels": asdict(start.channels),
        "size": settings.size,
        "recalibrated": settings.recalibrated,
        "seed": settings.seed,
        "split": images.split,
        "left_out": images.left_out.left_out,
        "data_sha256": data_sha256,
        "versions": {name: version(name) for name in ("kneessl", "torch", "scikit-learn", "numpy", "pillow")},
        "machine": describe_machine(),
    }


def make_start(from_run: Path | None, weights: Path | None, size: int) -> Start:
    """The encoder of a run, or of a file, or with random weights from PyTorch's global generator, on the CPU.

    An encoder of kneessl has learnt from one channel; three are standardised by that channel's mean and standard
    deviation each, so that a grey image is to it what a slice was. All others get ImageNet's.

    Raises:
        UserError: the weights cannot be read.
    """
    encoder = ClipEncoder("none")
    if weights is not None:
        print(load_weights(encoder.trunk, weights))
        return Start(f"weights {weights}", encoder.slices, IMAGENET)
    if from_run is None:
        return Start("random weights", encoder.slices, IMAGENET)
    record = read_record(from_run)
    if record.get("kind") != "pretrain":
        raise UserError(f"{from_run} is not a pre-training run; --from wants what `kneessl pretrain` has written")
    load_encoder(encoder, from_run / "encoder.safetensors")
    try:
        preprocessing = Preprocessing(**record["preprocessing"])
        mean, std = float(preprocessing.mean), float(preprocessing.std)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{from_run / 'run.json'} does not say how slices were standardised; it is damaged") from error
    if preprocessing.size != size:
        print(
            f"note: {from_run} was pre-trained on {preprocessing.size} pixels, this is {size}; --size changes it",
            file=sys.stderr,
        )
    return Start(str(from_run), encoder.slices, Channels((mean,) * 3, (std,) * 3, "as in pre-training"))


def calibration_files(files: Sequence[Path], seed: int) -> list[Path]:
    """Images to estimate batch-norm statistics on: at random, so that a batch mixes classes, in batches of one size."""
    count = min(len(files), CALIBRATION_IMAGES)
    if count > BATCH:
        count -= count % BATCH
    return [files[i] for i in np.random.default_rng(seed).permutation(len(files))[:count]]


def picture_batches(files: Sequence[Path], size: int, title: str) -> Iterator[np.ndarray]:
    """uint8 `(n, size, size, 3)`, up to `BATCH` at a time, with a progress bar."""
    with progress(total=len(files), title=title, unit="image") as bar:
        for first in range(0, len(files), BATCH):
            pictures = read_images(files[first : first + BATCH], size)
            yield pictures
            bar.update(len(pictures))


def image_batches(files: Sequence[Path], size: int, start: Start, title: str) -> Iterator[Tensor]:
    """Images as the encoder takes them: float32 `(n, 3, size, size)` on its device."""
    device = next(start.encoder.parameters()).device
    return (start.channels(pictures, device) for pictures in picture_batches(files, size, title))


@torch.no_grad()
def image_features(images: ImageSet, size: int, start: Start, title: str) -> Features:
    """Frozen features of images: the last feature map's average over the picture, batch norm in evaluation mode.

    Raises:
        UserError: an image cannot be read, or the features are not finite.
    """
    encoder = start.encoder.eval()
    device = next(encoder.parameters()).device
    rows, digests = [], []
    for pictures in picture_batches(images.files, size, title):
        digests += [hashlib.sha256(picture.tobytes()).digest() for picture in pictures]
        rows.append(encoder(start.channels(pictures, device)).mean((2, 3)).cpu().numpy())
    values = np.concatenate(rows).astype(np.float64)
    if not np.isfinite(values).all():
        raise UserError(f"the features under {start.name} are not finite numbers; its weights are damaged")
    return Features(values, digests)


def read_out(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> Answers:
    """Fit both readouts on training features, and answer for test features; nothing is chosen on the test.

    Linear: the strength is chosen by cross-validated top-1 accuracy.

    Args:
        train: float `(n, dim)`.
        labels: int `(n,)`, 0 to classes - 1, each at least twice.
        test: float `(m, dim)`.
    """
    linear = linear_readout(labels, "accuracy").fit(train, labels)
    nearest = neighbour_readout(len(labels)).fit(train, labels)
    ranked = np.argsort(-linear.predict_proba(test), axis=1, kind="stable")
    return Answers(ranked, nearest.predict(test), float(linear[-1].C_))


def summarise_answers(images: Images, answers: Answers) -> dict[str, Any]:
    """Figures of both readouts, with Wilson's intervals; top-5 only where there are more than 5 classes."""
    truth, guess = images.test.labels, answers.ranked[:, 0]
    commonest = int(np.bincount(images.train.labels).argmax())
    per_class = {}
    for label, name in enumerate(images.classes):
        mine = truth == label
        right = int((guess[mine] == label).sum())
        per_class[name] = Proportion.of(right, int(mine.sum())) if mine.any() else None
    top = (answers.ranked[:, :TOP] == truth[:, None]).any(1)
    return {
        "train_images": len(images.train.files),
        "test_images": len(truth),
        "strength": answers.strength,
        "linear_top1": _share(guess == truth),
        "linear_top5": _share(top) if len(images.classes) > TOP else None,
        "knn_top1": _share(answers.neighbours == truth),
        "commonest_class": _share(truth == commonest),
        "linear_top1_of_class": per_class,
    }


def _share(right: np.ndarray) -> Proportion:
    return Proportion.of(int(right.sum()), len(right))


def pixel_hash(images: Images, train: Features, test: Features) -> str:
    """SHA-256 over the pixels that the encoder saw, and the labels, of both parts."""
    digest = hashlib.sha256(b"".join(train.digests + test.digests))
    digest.update(images.train.labels.tobytes() + images.test.labels.tobytes())
    return digest.hexdigest()


def write_predictions(path: Path, data: Path, images: Images, answers: Answers) -> None:
    """One line a test image: file, its class, the class predicted, and the five most probable ones, slashes between."""
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "class", "predicted", "top5"])
        for image, label, ranked in zip(images.test.files, images.test.labels, answers.ranked, strict=True):
            names = [images.classes[k] for k in ranked[:TOP]]
            writer.writerow([image.relative_to(data).as_posix(), images.classes[label], names[0], "/".join(names)])


def describe(images: Images, start: Start, renewed: bool, result: dict[str, Any]) -> str:
    """What was evaluated, and the figures, in a few lines of text."""
    mean, std = (" ".join(f"{x:.3f}" for x in values) for values in (start.channels.mean, start.channels.std))
    lines = [
        f"images        {len(images.classes)} classes, {result['train_images']} images to train, "
        f"{result['test_images']} to test: {images.split}",
        f"encoder       {start.name}, channels standardised {start.channels.source} (mean {mean}, std {std})"
        + (", batch norm recalibrated" if renewed else ""),
    ]
    if images.left_out.left_out:
        lines.insert(1, f"left out      {images.left_out}")
    titles = {"linear_top1": "linear top-1", "linear_top5": "linear top-5", "knn_top1": "kNN top-1"}
    for key, title in (titles | {"commonest_class": "commonest"}).items():
        if (p := result[key]) is not None:
            lines.append(
                f"{title:<13} {p.value:.3f}  (95 % Wilson {p.low:.3f} to {p.high:.3f}; {p.successes} of {p.n})"
            )
    return "\n".join(lines)
