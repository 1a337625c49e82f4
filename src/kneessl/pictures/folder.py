"""Folders of pictures by class: finding them, splitting them, and reading them safely, all to one size."""

import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from kneessl.errors import UserError
from kneessl.sources.notes import Notes

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
TEST_FOLDERS = ("test", "valid", "val")
"""Where the test images of a folder with `train` may be; the first that there is."""
HELD_OUT = 0.2
"""Share of each class kept for the test where the folder has no split of its own."""
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}
"""Pillow's modes with 8 bits a channel or fewer: elsewhere it is a guess which value is white."""
CENTRE = 224 / 256
"""Side of the centre crop over the shorter side of the image, as in evaluations on ImageNet."""
THREADS = 8


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images and their classes, class by class, sorted by name within each."""

    files: list[Path]
    labels: np.ndarray
    """int64 `(n,)`, indices into the classes."""


@dataclass(frozen=True, eq=False)
class Images:
    """A folder of images by class, in two parts."""

    classes: list[str]
    train: ImageSet
    test: ImageSet
    split: str
    """Where the two parts come from, in words."""
    left_out: Notes


def find_images(root: Path, seed: int) -> Images:
    """Find the images of `{train,test|valid|val}/CLASS/` or, split 80/20 in each class, of `CLASS/`, at any depth.

    Args:
        root: The folder. Links are followed, hidden files are not read.
        seed: Of the split, where the folder has none; the same seed and file names give the same split.

    Raises:
        UserError: no such folder, no images, fewer than 2 classes, a class of the test that training lacks, or fewer
            than 2 training images in a class.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; name a folder with one subfolder of images for each class")
    notes = Notes()
    held = [name for name in TEST_FOLDERS if (root / name).is_dir()]
    if (root / "train").is_dir():
        if not held:
            raise UserError(
                f"{root} has train but none of {', '.join(TEST_FOLDERS)}; add one, or name {root / 'train'}"
            )
        train, test = _by_class(root / "train", notes), _by_class(root / held[0], notes)
        unread = f"; {' and '.join(held[1:])} not read" if held[1:] else ""
        split = f"folders train and {held[0]}{unread}"
    elif held:
        raise UserError(f"{root} has {held[0]} but no train; add the folder with the training images")
    else:
        train, test = _split(_by_class(root, notes), seed)
        split = f"split {1 - HELD_OUT:.0%}/{HELD_OUT:.0%} in each class, image by image, seed {seed}"
    classes = sorted(train)
    if unknown := sorted(set(test) - set(train)):
        raise UserError(f"{root / held[0]} has the class {unknown[0]}, which {root / 'train'} lacks; add or remove it")
    if len(classes) < 2:
        raise UserError(f"{root} has images of one class only, {classes[0]}; a classifier needs at least 2")
    if few := [name for name in classes if len(train[name]) < 2]:
        raise UserError(
            f"{root} leaves {len(train[few[0]])} training images of the class {few[0]}; "
            "a probe is cross-validated, so it needs at least 2 of each"
        )
    return Images(classes, _image_set(classes, train), _image_set(classes, test), split, notes)


def _image_set(classes: Sequence[str], files: Mapping[str, Sequence[Path]]) -> ImageSet:
    pairs = [(file, label) for label, name in enumerate(classes) for file in files.get(name, ())]
    return ImageSet([file for file, _ in pairs], np.array([label for _, label in pairs], dtype=np.int64))


def _by_class(folder: Path, notes: Notes) -> dict[str, list[Path]]:
    """Images of each subfolder that has any."""
    found = {}
    resolved = folder.resolve()
    above = {_identity(place) for place in (resolved, *resolved.parents)}
    for entry in sorted(folder.iterdir()):
        if _hidden(entry.name):
            notes.leave_out("hidden")
        elif not entry.is_dir():
            notes.leave_out("outside the class folders")
        elif files := _images_in(entry, set(above), notes):
            found[entry.name] = files
        else:
            notes.leave_out("class folder without images")
    if not found:
        raise UserError(f"{folder} has no subfolders with images ({' '.join(SUFFIXES)}); name one subfolder a class")
    return found


def _images_in(folder: Path, seen: set[tuple[int, int]], notes: Notes) -> list[Path]:
    """Images in a folder and below; a link back to a folder in `seen`, or already walked, is left out."""
    found = []
    for place, folders, files in os.walk(folder, onerror=_fail, followlinks=True):
        if _identity(Path(place)) in seen:
            notes.leave_out("link back to a folder")
            folders.clear()
            continue
        seen.add(_identity(Path(place)))
        if hidden := sum(map(_hidden, folders + files)):
            notes.leave_out("hidden", hidden)
        folders[:] = sorted(name for name in folders if not _hidden(name))
        for file in (Path(place, name) for name in files if not _hidden(name)):
            if file.suffix.lower() not in SUFFIXES:
                notes.leave_out("not an image")
            elif not file.is_file():
                notes.leave_out("not a file")
            else:
                found.append(file)
    return sorted(found)


def _hidden(name: str) -> bool:
    return name.startswith(".")


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _fail(error: OSError) -> None:
    raise error


def _split(found: Mapping[str, list[Path]], seed: int) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """A fifth of each class, and at least one image, for the test."""
    train, test = {}, {}
    for label, (name, files) in enumerate(sorted(found.items())):
        order = np.random.default_rng([seed, label]).permutation(len(files))
        count = max(1, round(len(files) * HELD_OUT))
        test[name] = [files[i] for i in sorted(order[:count])]
        train[name] = [files[i] for i in sorted(order[count:])]
    return train, test


def read_images(files: Sequence[Path], size: int) -> np.ndarray:
    """Read images by several threads, each turned as its EXIF orientation says, to one size.

    The shorter side becomes size * 256 / 224 pixels (antialiased bicubic), and the middle is cut out; one resampling of
    the middle does both. Grey is made three equal channels. Transparency and colour profiles are ignored.

    Args:
        files: At least one.
        size: Side in pixels.

    Returns:
        uint8 `(n, size, size, 3)`.

    Raises:
        UserError: a file is damaged, cut short, not in one of `FORMATS`, or has several frames, more than 8 bits a
            channel, or more pixels than Pillow's limit.
    """
    with warnings.catch_warnings(), ThreadPoolExecutor(THREADS) as pool:
        warnings.simplefilter("ignore")  # of damaged metadata, which nothing here depends on
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return np.stack(list(pool.map(lambda file: _read(file, size), files)))


def _read(file: Path, size: int) -> np.ndarray:
    try:
        with Image.open(file, formats=FORMATS) as image:
            # A JPEG with a second picture (MPO), such as a telephone's depth map, counts as its first.
            if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
                raise UserError(f"{file} has several frames; save each as an image of its own")
            if image.mode not in MODES:
                raise UserError(f"{file} has pixels of type {image.mode}, not 8 bits a channel; convert it to 8 bits")
            upright = ImageOps.exif_transpose(image)
    except UserError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UserError(f"{file} has more than {Image.MAX_IMAGE_PIXELS} pixels; make it smaller") from error
    except Exception as error:  # Pillow's readers raise whatever their parsing meets
        raise UserError(
            f"{file} is not a readable image: damaged, cut short, or in another format than its name says; "
            "remove it or save it again"
        ) from error
    side = min(upright.size) * CENTRE
    x, y = ((length - side) / 2 for length in upright.size)
    middle = (x, y, x + side, y + side)
    return np.asarray(upright.convert("RGB").resize((size, size), Image.Resampling.BICUBIC, middle))
