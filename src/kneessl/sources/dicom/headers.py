"""The headers of many DICOM files; what is no part of a knee MR series is noted."""

from collections.abc import Iterable
from pathlib import Path

from kneessl.sources.dicom.image import Image, images
from kneessl.sources.notes import Notes


def read_headers(files: Iterable[tuple[Path, str]], notes: Notes) -> list[Image]:
    """Read the headers of all images in some files.

    Args:
        files: Each with the name that an error gives it, such as `file 3 of 192`.
        notes: Collects what is left out, and why.

    Raises:
        UserError: a damaged file, unless `notes` skips faults.
    """
    return [image for file, name in files for image in images(file, name, notes)]
