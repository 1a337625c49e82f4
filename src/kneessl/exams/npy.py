"""`.npy` files from anywhere, mapped or only looked at; pickled objects are refused."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError

import numpy as np
from numpy.lib import format as npy

from kneessl.errors import UserError


def open_npy(path: Path) -> np.ndarray:
    """Memory-map a `.npy` file, whatever its dtype and shape; the map is gone with the array.

    Raises:
        UserError: the file is missing, unreadable, cut short, or holds Python objects.
    """
    with _naming(path):
        return npy.open_memmap(path, mode="r")


def read_header(path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of a `.npy` file that `open_npy` would map, in less than half of the time.

    Raises:
        UserError: as `open_npy`.
    """
    with _naming(path), path.open("rb") as file:
        read = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(file)
        if dtype.hasobject or min(shape, default=0) < 0:
            raise ValueError(f"{dtype} {shape}")
        if file.tell() + math.prod(shape) * dtype.itemsize > os.fstat(file.fileno()).st_size:
            raise ValueError("cut short")
        return shape, dtype


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """What may go wrong with a file from outside, as a user error that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing") from error
    except (ValueError, OSError, EOFError, SyntaxError, TypeError, OverflowError, TokenError) as error:
        raise UserError(f"{path} is not a readable .npy file: damaged, cut short, or holding Python objects") from error
