import errno
import tempfile
from pathlib import Path

import pydicom
import pytest

from kneessl.errors import UserError, out_of_space, sentence
from kneessl.files import new_folder, replacing, sweep
from kneessl.sources.files import private_folder


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


def test_pydicom_finds_a_full_disk(tmp_path):
    data = pydicom.Dataset()
    data.PatientComments = "x" * 10_000
    with pytest.raises(OSError, match="0010,4000") as full, Path("/dev/full").open("wb", 0) as file:
        pydicom.dcmwrite(file, data, implicit_vr=True, little_endian=True)
    assert full.value.errno is None
    assert out_of_space(full.value) == "no space left on the disk"


def test_a_device_that_is_full_is_recognised():
    with pytest.raises(OSError, match="No space left") as full:
        Path("/dev/full").write_text("x")
    assert out_of_space(full.value) == "no space left on the disk"


def abandoned(path: Path, folder: bool) -> Path:
    """What a process that was killed leaves of `path`."""
    left = path.parent / f".{path.name}.ab12_xyz.partial"
    if folder:
        (left / "train").mkdir(parents=True)
        left = left / "train" / "0000.npy"
    left.write_bytes(b"half")
    return left


def test_what_a_killed_process_began_goes_when_the_same_is_written_again_and_nothing_else(tmp_path, capsys):
    mine = abandoned(tmp_path / "knees", folder=True)
    others = [abandoned(tmp_path / "knees.v2", folder=True), abandoned(tmp_path / "other", folder=False)]
    users = tmp_path / ".knees.partial"
    users.write_text("a user's own")
    with new_folder(tmp_path / "knees") as folder:
        (folder / "a").write_text("whole")
    assert not mine.exists()
    assert all(path.exists() for path in (*others, users))
    assert capsys.readouterr().err == f"note: {tmp_path}: deleted what a killed process had left unfinished (1)\n"


def test_what_a_living_process_writes_is_left_alone(tmp_path, capsys):
    with new_folder(tmp_path / "knees") as first:
        with new_folder(tmp_path / "knees") as second:
            (second / "a").write_text("second")
        assert first.is_dir()
        with replacing(tmp_path / "run" / "last.ckpt") as partial:
            sweep(tmp_path)
            assert partial.is_file()
        (tmp_path / "knees" / "a").unlink()
    assert capsys.readouterr().err == ""


def test_a_run_folder_is_swept_at_any_depth_in_one_line(tmp_path, capsys):
    left = []
    for name, folder in (("last.ckpt", False), ("metrics.csv", False), ("model", True)):
        (tmp_path / "folds" / "0" / "checkpoints").mkdir(parents=True, exist_ok=True)
        left.append(abandoned(tmp_path / "folds" / "0" / "checkpoints" / name, folder))
    sweep(tmp_path)
    assert not any(path.exists() for path in left)
    assert capsys.readouterr().err.count("\n") == 1


def test_a_study_that_a_killed_process_left_behind_is_deleted_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with private_folder() as living:
        gone = tmp_path / "kneessl-study-0123abcd"
        gone.mkdir()
        (gone / "image").write_bytes(b"pixels")
        store = tmp_path / "kneessl-0123abcd"
        store.mkdir()
        with private_folder():
            assert living.is_dir()
        assert store.is_dir()
        assert not gone.exists()
