import io
import stat
import struct
import tempfile
import zipfile
from pathlib import Path

import pytest
from helpers.refusal import PLANTED, SMALL, refused
from helpers.sent import a_zip
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kneessl.errors import UserError
from kneessl.reader.intake.intake import Limits, files_of, unpack
from kneessl.sources.dicom.image import images
from kneessl.sources.notes import Notes

pytestmark = pytest.mark.usefixtures("private_temporary_folder")


def test_a_zip_becomes_numbered_files_that_are_gone_afterwards(tmp_path, private_temporary_folder):
    content = {f"{PLANTED}/b.dcm": b"two", f"{PLANTED}/a.IMA": b"one", "c.txt": b"", ".x": b"n", "__MACOSX/d": b"n"}
    study = a_zip(tmp_path / "study", content)
    with files_of(str(study)) as files:
        assert [(file.name, file.read_bytes()) for file in files] == [
            ("00001.ima", b"one"),
            ("00002.dcm", b"two"),
            ("00003", b""),
        ]
        (folder,) = private_temporary_folder.iterdir()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert "Quaxolotl" not in str(files)
    assert not folder.exists()


def test_a_zip_is_gone_when_the_reader_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), files_of(str(a_zip(tmp_path / "z", {"a": b"x"}))):
        raise ZeroDivisionError  # the fixture looks at what is left


def test_a_dicom_file_that_begins_as_a_zip_is_a_dicom_file(tmp_path):
    file = tmp_path / "both"
    file.write_bytes(b"PK\x03\x04".ljust(128, b"\0") + b"DICM" + a_zip(tmp_path / "z", {"a": b"x"}).read_bytes())
    with files_of(str(file)) as files:
        assert files == [file]


def test_an_archive_in_the_archive_is_not_opened_and_counts_as_no_dicom(tmp_path):
    inner = a_zip(tmp_path / "inner", {"a.dcm": b"x"})
    with files_of(str(a_zip(tmp_path / "z", {"inner.zip": inner.read_bytes()}))) as files:
        assert [file.read_bytes() for file in files] == [inner.read_bytes()]
        notes = Notes()
        assert images(files[0], "file 1 of 1", notes) == []
        assert str(notes) == "files that are not DICOM (1)"


def test_a_zip_past_a_limit_is_refused(tmp_path):
    refused(a_zip(tmp_path / "a", {f"{PLANTED}{n}": b"" for n in range(6)}), "more than 5 files")
    refused(a_zip(tmp_path / "b", {PLANTED: bytes(601)}), "a file of more than")
    refused(a_zip(tmp_path / "c", {f"{PLANTED}{n}": bytes(501) for n in range(2)}), "give one study at a time")
    refused(a_zip(tmp_path / "d", {}), "no files")
    refused(a_zip(tmp_path / "e", {f".{PLANTED}": b"x"}), "no files")


def test_a_bomb_is_refused_by_its_ratio(tmp_path, monkeypatch):
    monkeypatch.setattr("kneessl.sources.unzip._RATIO_FROM", 10_000)
    bomb = a_zip(tmp_path / "bomb", {PLANTED: bytes(100_000)})
    refused(bomb, "200-fold", Limits())
    few_black_slices = a_zip(tmp_path / "black", {"a": bytes(9_000)})
    with files_of(str(few_black_slices)) as files:
        assert files[0].stat().st_size == 9_000


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "..\\x", "\\x", "C:\\x", "c:x", "a\\..\\x", ".."])
def test_a_path_that_leads_out_is_refused(tmp_path, name):
    refused(a_zip(tmp_path / "z", {"good": b"x", name: b"x"}), "leads out of it")
    assert {path.name for path in tmp_path.iterdir()} == {"z"}


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_are_refused(tmp_path, kind):
    entry = zipfile.ZipInfo(PLANTED)
    entry.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "z", "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    refused(tmp_path / "z", "a link or a device")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_that_python_inflates_without_bounds_are_refused(tmp_path, method):
    refused(a_zip(tmp_path / "z", {PLANTED: b"x"}, method), "other than deflate")


def patched(path: Path, field: str, value: int, entry: int = 0) -> Path:
    """Overwrite a field of one line of the zip's directory."""
    offset, form = {"flags": (8, "<H"), "crc": (16, "<L"), "size": (24, "<L"), "place": (42, "<L")}[field]
    content = bytearray(path.read_bytes())
    line = -1
    for _ in range(entry + 1):
        line = content.index(b"PK\x01\x02", line + 1)
    struct.pack_into(form, content, line + offset, value)
    path.write_bytes(content)
    return path


def test_an_entry_without_a_name_is_a_file_as_any(tmp_path):
    study = a_zip(tmp_path / "z", {"a": b"x"})
    study.write_bytes(study.read_bytes().replace(b"a", b"\0"))
    with files_of(str(study)) as files:
        assert files[0].read_bytes() == b"x"


def test_an_encrypted_zip_is_refused(tmp_path):
    refused(patched(a_zip(tmp_path / "z", {PLANTED: b"x"}), "flags", 1), "encrypted")


def test_entries_that_overlap_are_refused(tmp_path):
    both = a_zip(tmp_path / "z", {"a": b"first", "b": b"other"})
    refused(patched(both, "place", 0, entry=1), "overlap")


@pytest.mark.parametrize("size", [0, 10, 599])
def test_an_entry_that_lies_about_its_size_is_refused(tmp_path, size):
    lying = a_zip(tmp_path / "z", {PLANTED: bytes(100_000)})
    refused(patched(lying, "size", size), "damaged")


def test_a_wrong_checksum_is_refused(tmp_path):
    refused(patched(a_zip(tmp_path / "z", {"a": b"good", PLANTED: b"x"}), "crc", 7, entry=1), "damaged")


def test_a_zip_that_is_cut_short_or_no_zip_is_refused(tmp_path):
    whole = a_zip(tmp_path / "z", {PLANTED: bytes(range(256))}).read_bytes()
    for length in range(4, len(whole)):
        (tmp_path / "cut").write_bytes(whole[:length])
        refused(tmp_path / "cut", "damaged")


def test_a_directory_that_claims_gigabytes_is_not_read(tmp_path):
    content = bytearray(a_zip(tmp_path / "z", {"a": b"x"}).read_bytes())
    end = content.index(b"PK\x05\x06")
    struct.pack_into("<L", content, end + 12, 2**31)
    bomb = tmp_path / "bomb"
    bomb.write_bytes(content)
    with bomb.open("r+b") as file:  # a sparse file, so that the directory could be as long as it says
        file.truncate(2**31 + 2**20)
        file.seek(2**31 + 2**20)
        file.write(content[end:])
    refused(bomb, "more than 5 files, or is damaged")


def test_unpack_leaves_no_file_behind_and_hides_none_of_the_users_errors(tmp_path):
    bad = patched(a_zip(tmp_path / "z", {"a": b"good", "b": b"x"}), "crc", 7, entry=1)
    with pytest.raises(UserError, match="damaged"):
        unpack(bad, tmp_path / "into", Limits())
    assert list((tmp_path / "into").iterdir()) == []
    (tmp_path / "into/00001").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        unpack(a_zip(tmp_path / "y", {"a": b"good"}), tmp_path / "into", Limits())
    assert (tmp_path / "into/00001").read_bytes() == b"mine"


NAMES = st.text(st.sampled_from("ab./\\:\0é \n"), min_size=1, max_size=12).filter(lambda name: name[0] != "\0")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=st.dictionaries(NAMES, st.binary(max_size=400), max_size=7), damage=st.data())
def test_no_zip_writes_outside_its_folder_or_past_the_limits(tmp_path, entries, damage):
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        path = a_zip(Path(folder) / "z", entries)
        content = bytearray(path.read_bytes())
        for _ in range(damage.draw(st.integers(0, 3))):
            content[damage.draw(st.integers(4, len(content) - 1))] = damage.draw(st.integers(0, 255))
        path.write_bytes(content)
        into = Path(folder) / "into"
        try:
            files = unpack(path, into, SMALL)
        except UserError:
            files = []
        written = [p for p in Path(folder).rglob("*") if p.is_file() and p != path]
        assert sorted(written) == sorted(files)
        assert all(file.parent == into for file in files)
        assert len(files) <= SMALL.files
        assert sum(file.stat().st_size for file in files) <= SMALL.bytes


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=st.lists(st.binary(max_size=3000), min_size=1, max_size=8))
def test_an_honest_zip_comes_out_as_it_went_in(tmp_path, contents):
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        study = a_zip(Path(folder) / "z", {f"{n:03d}": content for n, content in enumerate(contents)})
        assert [file.read_bytes() for file in unpack(study, Path(folder) / "into", Limits())] == contents


def test_an_archive_made_in_memory_is_no_different(tmp_path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive, archive.open("a", "w", force_zip64=True) as entry:
        entry.write(b"x" * 10)
    (tmp_path / "z").write_bytes(content.getvalue())
    assert [file.read_bytes() for file in unpack(tmp_path / "z", tmp_path / "into", Limits())] == [b"x" * 10]
