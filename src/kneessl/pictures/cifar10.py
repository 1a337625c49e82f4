"""CIFAR-10 (Krizhevsky 2009), 60,000 colour photographs in ten classes, in its official binary layout.

The binary version unpacks to `cifar-10-batches-bin`: `data_batch_1.bin` to `data_batch_5.bin` for training,
`test_batch.bin`, and `batches.meta.txt` with a class name a line. A file is nothing but records of 3,073 bytes: the
label, 0 to 9, then 1,024 bytes each of red, green and blue, row by row from the top left. Published files have 10,000
records; here they may have any number.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kneessl.errors import UserError

TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILE = "test_batch.bin"
CLASSES_FILE = "batches.meta.txt"
SHAPE = (3, 32, 32)
"""Of a picture: red, green and blue; rows from the top; columns from the left."""
CLASSES = 10
_RECORD_BYTES = 1 + 3 * 32 * 32
_FOLDER = "cifar-10-batches-bin"
_SOURCE = "the binary version is cifar-10-binary.tar.gz at https://www.cs.toronto.edu/~kriz/cifar.html"
_MOST_NAMES_BYTES = 10_000  # of the class names; the published file has 61


@dataclass(frozen=True, eq=False)
class Pictures:
    """Small colour pictures and their classes."""

    pixels: NDArray[np.uint8]
    """uint8 `(n, 3, 32, 32)`: red, green, blue."""
    labels: NDArray[np.int64]
    """int64 `(n,)`, indices into the classes."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: NDArray[np.int64]) -> "Pictures":
        """Some of them, by index."""
        return Pictures(self.pixels[chosen], self.labels[chosen])


@dataclass(frozen=True, eq=False)
class Cifar10:
    """The data set in its two published parts."""

    classes: list[str]
    train: Pictures
    """The five files one after the other, each in its own order."""
    test: Pictures


def read_cifar10(folder: Path) -> Cifar10:
    """Read CIFAR-10's binary version whole: 184 MB for the published files.

    Args:
        folder: `cifar-10-batches-bin`, or the folder that it was unpacked in.

    Raises:
        UserError: no such folder; a file missing, empty or not of whole records; a label above 9; or class names that
            are not ten different lines of text.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; name the one with CIFAR-10 ({_SOURCE})")
    root = folder / _FOLDER if (folder / _FOLDER).is_dir() else folder
    needed = (*TRAIN_FILES, TEST_FILE, CLASSES_FILE)
    if missing := [name for name in needed if not (root / name).is_file()]:
        raise UserError(f"{root} lacks {', '.join(missing)} of CIFAR-10; unpack it again ({_SOURCE})")
    classes = _classes(root / CLASSES_FILE)
    parts = [_pictures(root / name) for name in TRAIN_FILES]
    train = Pictures(np.concatenate([part.pixels for part in parts]), np.concatenate([part.labels for part in parts]))
    return Cifar10(classes, train, _pictures(root / TEST_FILE))


def picture_hash(pictures: Pictures) -> str:
    """Return the SHA-256, in hexadecimal, of the pictures as records: of all pictures of one file, that file's."""
    labels = pictures.labels.astype(np.uint8)[:, None]
    records = np.concatenate([labels, pictures.pixels.reshape(len(pictures), -1)], axis=1)
    return hashlib.sha256(records.tobytes()).hexdigest()


def _classes(path: Path) -> list[str]:
    """Names of the ten classes; the published file ends in an empty line."""
    with path.open("rb") as file:
        content = file.read(_MOST_NAMES_BYTES)
    names = [name.strip() for name in content.decode(errors="replace").splitlines() if name.strip()]
    if len(set(names)) != CLASSES or len(names) != CLASSES or not all(map(str.isprintable, names)):
        raise UserError(
            f"{path} must hold {CLASSES} different class names, one a line, and holds {len(names)} lines, "
            f"{len(set(names))} of them different; unpack it again ({_SOURCE})"
        )
    return names


def _pictures(path: Path) -> Pictures:
    """The records of one file."""
    content = np.fromfile(path, dtype=np.uint8)
    if not content.size:
        raise UserError(f"{path} is empty; unpack it again ({_SOURCE})")
    if content.size % _RECORD_BYTES:
        raise UserError(
            f"{path} has {content.size:,} bytes, which are not whole records of {_RECORD_BYTES:,}: cut short, or not "
            f"of CIFAR-10's binary version; unpack it again ({_SOURCE})"
        )
    records = content.reshape(-1, _RECORD_BYTES)
    labels = records[:, 0].astype(np.int64)
    if (wrong := np.flatnonzero(labels >= CLASSES)).size:
        raise UserError(
            f"{path}, record {wrong[0] + 1} of {len(records)}, has the label {labels[wrong[0]]}, where CIFAR-10 has 0 "
            f"to {CLASSES - 1}: damaged, or of another data set; unpack it again ({_SOURCE})"
        )
    return Pictures(records[:, 1:].reshape(-1, *SHAPE), labels)
