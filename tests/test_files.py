import errno
from pathlib import Path

import pytest

from kneessl.errors import UserError, out_of_space, sentence
from kneessl.files import new_folder, replacing


class SafetensorError(Exception):
    """As safetensors raises it: no `OSError`."""


FULL = [
    (OSError(errno.ENOSPC, "No space left on device"), "no space left on the disk"),
    (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk quota is used up"),
    (OSError(errno.EFBIG, "File too large"), "the file would be larger than is allowed here"),
    (SafetensorError("I/O error: No space left on device (os error 28)"), "no space left on the disk"),
    (OSError("65536 requested and 4096 written"), "no space left on the disk"),
    (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), "no space left on the disk"),
]


@pytest.mark.parametrize(("error", "reason"), FULL)
def test_a_full_disk_is_said_with_the_path_that_the_user_knows(error, reason, tmp_path):
    def write() -> None:
        with new_folder(tmp_path / "knees") as folder, replacing(folder / "a.npy") as partial:
            partial.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert sentence(error) == (f"writing {tmp_path / 'knees'}: {reason}; make room, or choose a folder on another disk")
    assert not list(tmp_path.iterdir()), "nothing half-written stays"


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "Permission denied"), ValueError("x"), RuntimeError("y")])
def test_other_errors_say_nothing_of_space(error, tmp_path):
    with pytest.raises(type(error)), replacing(tmp_path / "a"):
        raise error
    assert out_of_space(error) is None
    assert not hasattr(error, "__notes__")


def test_what_a_user_can_put_right_has_a_sentence_and_a_fault_of_the_program_none():
    assert sentence(UserError("no such plane")) == "no such plane"
    assert sentence(PermissionError(errno.EACCES, "Permission denied", "x")) == "x: permission denied"
    assert sentence(ValueError("x")) is None


def test_a_device_that_is_full_is_recognised():
    with pytest.raises(OSError, match="No space left") as full:
        Path("/dev/full").write_text("x")
    assert out_of_space(full.value) == "no space left on the disk"
