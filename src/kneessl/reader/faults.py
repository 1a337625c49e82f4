"""How a fault of the program itself is told: by its kind and place alone, since its text can quote a patient's data."""

import traceback
from pathlib import Path


def fault_text(error: BaseException) -> str:
    """What may be said of an error that nobody foresaw, such as `KeyError at structured.py:90`.

    Args:
        error: The error as it was caught, with its traceback.
    """
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return type(error).__name__ + place
