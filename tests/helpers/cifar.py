"""A made CIFAR-10 in its official binary layout."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def write_cifar(folder: Path, of_each: int) -> Path:
    """`of_each` training pictures of each class and 2 test pictures, brighter from class to class."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)

    def records(labels: np.ndarray) -> bytes:
        pixels = rng.integers(0, 120, (len(labels), 3, 32, 32)) + 13 * labels[:, None, None, None]
        return np.concatenate([labels[:, None], pixels.reshape(len(labels), -1)], axis=1).astype(np.uint8).tobytes()

    for number, labels in enumerate(np.array_split(np.arange(10 * of_each) % 10, 5), 1):
        (folder / f"data_batch_{number}.bin").write_bytes(records(labels))
    (folder / "test_batch.bin").write_bytes(records(np.arange(20) % 10))
    (folder / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n")
    return folder


def write_greys(folder: Path, name: str = "{}") -> Path:
    """Ten grey pictures of 8 x 8 in each of three class folders, called by `name` and the class's number."""
    for label in range(3):
        for k in range(10):
            path = folder / name.format(label) / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8), 80 * label + k, np.uint8)).save(path)
    return folder
