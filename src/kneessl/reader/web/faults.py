"""How errors are told: one that a user can put right as a sentence, any other by its kind and place alone."""

import logging
import traceback
from pathlib import Path

LOG = logging.getLogger("kneessl.serve")


def log_fault(doing: str, error: BaseException) -> None:
    """Log an error of the program itself.

    Its message is left out: a message can quote a header, and so a patient.

    Args:
        doing: What was being done.
        error: As it was caught.
    """
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    LOG.error("%s: %s%s", doing, type(error).__name__, place)


def sentence(text: str) -> str:
    """What a `UserError` says, with a capital and a full stop."""
    text = text.rstrip(".")
    return f"{text[:1].upper()}{text[1:]}."
