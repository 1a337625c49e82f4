"""How the server tells of errors: in sentences to its user, and by kind and place in its log."""

import logging

from kneessl.errors import fault_text

LOG = logging.getLogger("kneessl.serve")


def log_fault(doing: str, error: BaseException) -> None:
    """Log an error of the program itself.

    Args:
        doing: What was being done.
        error: The error as it was caught, with its traceback.
    """
    LOG.error("%s: %s", doing, fault_text(error))


def as_sentence(text: str) -> str:
    """The text of a `UserError` with a capital letter and a full stop."""
    text = text.rstrip(".")
    return f"{text[:1].upper()}{text[1:]}."
