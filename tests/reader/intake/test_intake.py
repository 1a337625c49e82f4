import subprocess
import sys

import pytest
from helpers.refusal import PLANTED, SMALL, refused

from kneessl.reader.intake.intake import files_of

pytestmark = pytest.mark.usefixtures("private_temporary_folder")


def test_a_folder_of_any_depth_is_read_without_what_is_hidden_or_lies_outside(tmp_path):
    study = tmp_path / "study"
    for name in ("b", "deep/er/a", ".hidden", ".cache/c", "deep/.d"):
        (study / name).parent.mkdir(parents=True, exist_ok=True)
        (study / name).write_bytes(b"x")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"x")
    (study / "link").symlink_to(outside / "secret")
    (study / "folder").symlink_to(outside)
    (study / "again").symlink_to(study / "b")
    with files_of(str(study)) as files:
        assert [file.relative_to(study).as_posix() for file in files] == ["again", "b", "deep/er/a"]


def test_a_folder_that_is_a_link_itself_is_read(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/a").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with files_of(str(tmp_path / "link")) as files:
        assert files == [tmp_path / "link/a"]


def test_only_an_address_needs_what_is_installed_with_the_reader(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    script = (
        "import sys\n"
        "sys.modules['requests'] = None\n"
        "from kneessl.reader.intake.intake import UserError, files_of\n"
        "with files_of(sys.argv[1]) as files: print(len(files))\n"
        "try:\n    with files_of('http://127.0.0.1:1/studies/1.2'): pass\n"
        "except UserError as error: print(error)\n"
    )
    lines = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True).stdout.splitlines()
    assert lines == ["1", 'requests missing for archives; run `pip install "kneessl[reader]"` first']


def test_a_file_is_itself(tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"x")
    with files_of(str(tmp_path / "a.dcm")) as files:
        assert files == [tmp_path / "a.dcm"]


def test_a_folder_past_a_limit_is_refused(tmp_path):
    study = tmp_path / PLANTED
    refused(study, "does not exist")
    study.mkdir()
    refused(study, "no files")
    for number in range(5):
        (study / str(number)).write_bytes(bytes(200))
    with files_of(str(study), SMALL) as files:
        assert len(files) == 5
    (study / "0").write_bytes(bytes(201))
    refused(study, r"more than 0\.000953674 MiB; give one study")
    (study / "0").write_bytes(bytes(601))
    refused(study, "a file of more than")
    (study / "0").write_bytes(b"")
    (study / "5").write_bytes(b"")
    refused(study, "more than 5 files")
