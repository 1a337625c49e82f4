"""What a user sees of an error: one sentence instead of a traceback."""

import errno
import traceback
from pathlib import Path

OUT_OF_SPACE = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than is allowed here",
}
"""Why no more can be written, by the operating system's number."""

_SQLITE_FULL = ("SQLITE_FULL", "SQLITE_IOERR_WRITE")
_PYTORCH_WRITER_FAILED = ("PytorchStreamWriter failed writing", "inline_container.cc")


class UserError(Exception):
    """Something the user can put right; the message says what is wrong, where, and what to do.

    `kneessl.cli.main` prints it as one line and exits with status 2. It never names a patient.
    """


def out_of_space(error: BaseException) -> str | None:
    """Why no more could be written, where that is what an error says; None for any other error.

    Libraries that write by themselves lose the number of the error: Rust's safetensors keeps it in its text, NumPy
    counts what it could not write, PyTorch says that its writer failed, or is not where it should be, SQLite has
    names of its own, and pydicom raises another error of the same type from it.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return OUT_OF_SPACE.get(error.errno)
    for number, reason in OUT_OF_SPACE.items():
        if f"(os error {number})" in str(error):
            return reason
    if getattr(error, "sqlite_errorname", "") in _SQLITE_FULL:
        return OUT_OF_SPACE[errno.ENOSPC]
    short_write = isinstance(error, OSError) and "requested and" in str(error)
    writer_failed = isinstance(error, RuntimeError) and any(words in str(error) for words in _PYTORCH_WRITER_FAILED)
    full_list = getattr(error, "sqlite_errorname", "") == "SQLITE_FULL"
    if short_write or writer_failed or full_list:
        return OUT_OF_SPACE[errno.ENOSPC]
    return out_of_space(error.__cause__) if error.__cause__ else None


def sentence(error: BaseException) -> str | None:
    """What to tell the user of an error that is none of the program: wrong input, or a system that refuses.

    Returns:
        One sentence; None for a fault of the program, which needs its traceback.
    """
    if isinstance(error, UserError):
        return str(error)
    if reason := out_of_space(error):
        doing = getattr(error, "__notes__", None) or [f"writing {getattr(error, 'filename', None) or 'the output'}"]
        return f"{doing[-1]}: {reason}; make room, or choose a folder on another disk"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{(error.strerror or type(error).__name__).lower()}"
    return None


def fault_text(error: BaseException) -> str:
    """What may be said of an error that nobody foresaw, such as `KeyError at structured.py:90`.

    Its kind and place alone, since its text can quote a patient's data.

    Args:
        error: The error as it was caught, with its traceback.
    """
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return type(error).__name__ + place
