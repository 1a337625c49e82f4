import contextlib
import copyreg
import csv
import io
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from kneessl.errors import UserError
from kneessl.exams.check import inspect
from kneessl.exams.folder import ExamFolder
from kneessl.sources.importer import import_exams
from kneessl.sources.kneemri import SPLIT_OF_FOLDER, read_knee
from kneessl.sources.resample import pictures

COLUMNS = (
    *("examId", "seriesNo", "aclDiagnosis", "kneeLR", "roiX", "roiY", "roiZ"),
    *("roiHeight", "roiWidth", "roiDepth", "volumeFilename"),
)


def knee(seed: int, shape=(6, 32, 32), dtype=np.uint16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4096 if dtype != np.uint8 else 256, shape).astype(dtype)


def metadata(src: Path, lines: list[tuple], name: str | None = None) -> None:
    """Lines of exam, series, diagnosis and folder; each with its volume."""
    with (src / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for exam, series, diagnosis, *_ in lines:
            file_name = f"{exam}-{series}.pck" if name is None else name
            writer.writerow([exam, series, diagnosis, 1, 139, 184, 14, 74, 72, 3, file_name])


@pytest.fixture
def src(tmp_path) -> Path:
    """Seven volumes of six exams, in three splits, in the order of the data set: by number, not by folder."""
    src = tmp_path / "kneeMRI"
    lines = [
        (329637, 8, 0, "vol01"),
        (404663, 8, 1, "vol03"),
        (1027212, 5, 2, "vol04"),
        (412857, 10, 2, "vol10"),
        (412857, 8, 1, "vol10"),
        (457519, 6, 1, "vol02"),
        (466435, 8, 0, "vol09"),
    ]
    for number, (exam, series, _, folder) in enumerate(lines):
        path = src / folder / f"{exam}-{series}.pck"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(knee(number), protocol=3))
    metadata(src, lines)
    return src


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "exams.csv").open() as file:
        return list(csv.DictReader(file))


def refused(src: Path, match: str, **settings) -> str:
    """The import fails with one sentence, and leaves nothing behind."""
    before = set(src.parent.iterdir())
    with pytest.raises(UserError, match=match) as error:
        import_exams(src, src.parent / "out", strict=True, **settings)
    assert set(src.parent.iterdir()) == before
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- the data set


def test_published_split_and_labels(src, tmp_path, capsys):
    import_exams(src, tmp_path / "out")
    assert "exams 7, series 7, split test, train, valid" in capsys.readouterr().out
    folder = ExamFolder(tmp_path / "out")
    # By exam, then series, as numbers: 329637, 404663, 412857 (8, 10), 457519, 466435, 1027212.
    assert folder.exams("train", "sagittal") == ["0001", "0005", "0006"]
    assert folder.exams("valid", "sagittal") == ["0002", "0003"]
    assert folder.exams("test", "sagittal") == ["0000", "0004"]
    assert all(folder.tasks(split) == ["acl", "acl-complete"] for split in ("train", "valid", "test"))
    assert folder.labels("train", "acl") == {"0001": 1, "0005": 0, "0006": 1}
    assert folder.labels("train", "acl-complete") == {"0001": 0, "0005": 0, "0006": 1}
    assert folder.labels("valid", "acl") == {"0002": 1, "0003": 1}
    assert folder.labels("valid", "acl-complete") == {"0002": 0, "0003": 1}
    assert folder.labels("test", "acl") == {"0000": 0, "0004": 1}
    assert not inspect(folder).faults


def test_volumes_per_split_are_those_of_the_data_set():
    count = {f"vol{n:02d}": 92 for n in range(1, 10)} | {"vol10": 89}
    assert set(count) == set(SPLIT_OF_FOLDER)
    sizes = {split: sum(n for f, n in count.items() if SPLIT_OF_FOLDER[f] == split) for split in ("train", "valid")}
    assert sum(count.values()) == 917
    assert sizes == {"train": 552, "valid": 181}


def test_pixels_and_provenance(src, tmp_path):
    import_exams(src, tmp_path / "out")
    lines = rows(tmp_path / "out")
    expected, _ = pictures(knee(0).astype(np.float32), 1.0, 1.0)
    np.testing.assert_array_equal(ExamFolder(tmp_path / "out").series("test", "sagittal", "0000"), expected)
    assert [line["patient_group"] for line in lines] == ["g0000", "g0001", "g0002", "g0002", "g0003", "g0004", "g0005"]
    assert {line["laterality"] for line in lines} == {""}
    assert {(line["row_mm"], line["column_mm"], line["slice_mm"]) for line in lines} == {("0.0", "0.0", "0.0")}
    assert len({line["source_sha256"] for line in lines}) == 7
    assert "KneeMRI vol01/329637-8.pck; spacing not published; 32 x 32 square pixels assumed" in lines[0]["choice"]
    assert len(ExamFolder(tmp_path / "out").provenance()) == 7


def test_nested_folders_and_a_part_of_the_volumes(src, tmp_path, capsys):
    nested = src / "vol03-20211010T053957Z-001" / "vol03"
    nested.mkdir(parents=True)
    (src / "vol03" / "404663-8.pck").rename(nested / "404663-8.pck")
    (src / "vol01" / "329637-8.pck").unlink()
    (src / "example.pck").write_bytes(b"never read")
    (src / "READ.ME").write_text("never read")
    import_exams(src, tmp_path / "out")
    assert len(rows(tmp_path / "out")) == 6
    said = capsys.readouterr().err
    assert "pickles that metadata.csv does not name (1)" in said
    assert "volumes that metadata.csv names and the folder lacks (unpack vol01.7z to vol10.7z) (1)" in said


def test_archives_still_packed(src):
    for path in src.rglob("*.pck"):
        path.unlink()
    refused(src, r"unpack vol01\.7z to vol10\.7z\) \(7\)")


def test_volumes_outside_the_folders_of_the_split(src):
    (src / "all").mkdir()
    (src / "vol03" / "404663-8.pck").rename(src / "all" / "404663-8.pck")
    refused(src, "404663-8.pck lies in no folder vol01 to vol10")


def test_one_volume_in_two_folders(src):
    (src / "vol05").mkdir()
    (src / "vol05" / "404663-8.pck").write_bytes((src / "vol03" / "404663-8.pck").read_bytes())
    refused(src, "404663-8.pck is in 2 folders")


@pytest.mark.parametrize(
    "name",
    [
        "../secret.pck",
        "../../1-1.pck",
        "/etc/passwd",
        "vol01/329637-8.pck",
        "..\\1-1.pck",
        "329637-8.pck\x00",
        "329637-8.npy",
        "٣٢٩-8.pck",
        "",
        "~/1-1.pck",
    ],
)
def test_names_that_lead_elsewhere(src, name):
    (src.parent / "secret.pck").write_bytes(pickle.dumps(knee(1)))
    (src.parent / "1-1.pck").write_bytes(pickle.dumps(knee(1)))
    metadata(src, [(329637, 8, 0)], name)
    refused(src, r"metadata\.csv, line 2: volumeFilename")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ((329637, 8, 3), "line 2: .* aclDiagnosis 0, 1 or 2"),
        ((329637, 8, ""), "line 2: .* aclDiagnosis 0, 1 or 2"),
        ((329637, 8, "12"), "line 2: .* aclDiagnosis 0, 1 or 2"),
        (("Quaxolotl", 8, 0), "line 2: volumeFilename"),
        ((329637, "8.5", 0), "line 2: volumeFilename"),
        ((-329637, 8, 0), "line 2: volumeFilename"),
    ],
)
def test_bad_lines(src, line, message):
    metadata(src, [line])
    refused(src, message)


def test_bad_tables(src):
    path = src / "metadata.csv"
    whole = path.read_text()
    path.write_text(whole + whole.splitlines()[1] + "\n")
    refused(src, r"line 9: 329637-8\.pck stands here twice")
    path.write_text(whole + '"1')
    refused(src, "not KneeMRI's table")
    path.write_bytes(whole.encode() + b"\xff\xfe")
    refused(src, "not KneeMRI's table")
    path.write_text(whole + "1,2\n")
    refused(src, "line 9: volumeFilename ''")


def test_other_tables_of_that_name_are_no_kneemri(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "metadata.csv").write_bytes(b"\xff\xfeexamId,volume\n")
    np.save(tmp_path / "src" / "knee.npy", knee(0, (16, 16, 16)))
    import_exams(tmp_path / "src", tmp_path / "out", npy_axes="ALS", npy_spacing=1.5)
    assert {line["split"] for line in rows(tmp_path / "out")} == {"train"}


def test_a_damaged_volume_ends_the_import_unless_told_otherwise(src, tmp_path, capsys):
    path = src / "vol10" / "412857-10.pck"
    path.write_bytes(path.read_bytes()[:-100])
    refused(src, r"vol10/412857-10\.pck is not a pickled array")
    import_exams(src, tmp_path / "out")
    assert ExamFolder(tmp_path / "out").labels("valid", "acl") == {"0002": 1}
    assert len(rows(tmp_path / "out")) == 6
    assert "412857-10.pck is not a pickled array" in capsys.readouterr().err


# ---- pickles of arrays


def read(tmp_path: Path, content: bytes) -> np.ndarray:
    (tmp_path / "knee.pck").write_bytes(content)
    return read_knee(tmp_path / "knee.pck", "knee.pck")


def as_older_numpy(content: bytes) -> bytes:
    """With NumPy 1's name of its core, and flags as numbers, which is how the published files have them."""
    return content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i2", "u1", "<i4"])
def test_arrays_are_read_exactly(tmp_path, protocol, dtype):
    array = knee(1, (5, 7, 9), np.dtype(dtype).newbyteorder("=")).astype(dtype)
    for variant in (array, np.asfortranarray(array), array[:, ::2], array[::-1]):
        volume = read(tmp_path, pickle.dumps(variant, protocol))
        assert volume.dtype == np.float32
        np.testing.assert_array_equal(volume, variant)


def test_arrays_of_numpy_1_are_read_exactly(tmp_path):
    for protocol in (2, 3):
        content = as_older_numpy(pickle.dumps(knee(1), protocol))
        assert b"numpy.core.multiarray" in content
        np.testing.assert_array_equal(read(tmp_path, content), knee(1))
    # dtype('u2', 0, 1), as NumPy wrote it before 1.24
    numbered = content.replace(b"X\x02\x00\x00\x00u2q\x08\x89\x88\x87", b"X\x02\x00\x00\x00u2q\x08K\x00K\x01\x87")
    assert numbered != content
    np.testing.assert_array_equal(read(tmp_path, numbered), knee(1))


def test_a_volume_of_the_published_size_is_read_in_every_protocol(tmp_path):
    array = knee(3, (45, 320, 320))
    for protocol in (2, 3, 4, 5):
        np.testing.assert_array_equal(read(tmp_path, pickle.dumps(array, protocol)), array)


def test_arrays_of_python_2_are_read_exactly(tmp_path):
    """Its `str` were bytes, and NumPy put the voxels into one: protocol 2, written out by hand."""
    array = knee(2, (5, 7, 9))
    voxels = array.astype("<u2").tobytes()
    content = b"".join(
        (
            b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85q\x02U\x01bq\x03",
            b"\x87q\x04Rq\x05(K\x01K\x05K\x07K\x09\x87q\x06cnumpy\ndtype\nq\x07U\x02u2q\x08K\x00K\x01\x87q\x09R",
            b"q\x0a(K\x03U\x01<q\x0bNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0cb\x89T",
            len(voxels).to_bytes(4, "little") + voxels + b"q\x0dtq\x0eb.",
        )
    )
    assert max(voxels) > 127, "else any encoding would do"
    np.testing.assert_array_equal(pickle.loads(content, encoding="latin1"), array)
    np.testing.assert_array_equal(read(tmp_path, content), array)


@pytest.mark.parametrize(
    "value",
    [
        knee(1).astype(np.float32),
        knee(1)[0],
        knee(1)[None],
        knee(1)[:0],
        knee(1) > 5,
        knee(1).astype("S4"),
        knee(1).astype("M8[s]"),
        np.array(knee(1)[0].tolist(), dtype=object),
        np.zeros((6, 4, 4), [("a", "<u2")]),
        np.ma.masked_array(knee(1)),
        np.uint16(7),
        knee(1).tolist(),
        {"data": knee(1)},
        [knee(1)],
        (knee(1), knee(2)),
        np.dtype("u2"),
        np.ndarray,
        None,
        b"bytes",
    ],
    ids=lambda value: f"{type(value).__name__} {getattr(value, 'dtype', '')}{getattr(value, 'shape', '')}",
)
def test_other_objects_are_refused(tmp_path, value):
    for protocol in (0, 2, 3, 4, 5):
        with pytest.raises(UserError, match=r"knee\.pck is not a pickled array of integers"):
            read(tmp_path, pickle.dumps(value, protocol))


def test_too_few_slices(tmp_path):
    with pytest.raises(UserError, match=r"knee\.pck has 4 slices; a series needs 5"):
        read(tmp_path, pickle.dumps(knee(1, (4, 8, 8)), 3))


def test_flat_volumes(src):
    (src / "vol01" / "329637-8.pck").write_bytes(pickle.dumps(np.full((6, 8, 8), 7, np.uint16), 3))
    refused(src, r"vol01/329637-8\.pck: every pixel has the same value")


def test_a_file_too_large_is_not_read(tmp_path):
    path = tmp_path / "knee.pck"
    path.touch()
    os.truncate(path, 2**40)  # sparse
    with pytest.raises(UserError, match=r"knee\.pck has over 134217728 bytes"):
        read_knee(path, "knee.pck")


def test_truncated_and_altered_files(tmp_path):
    content = pickle.dumps(knee(1, (5, 3, 3)), 3)
    for kept in range(len(content)):
        with pytest.raises(UserError, match="not a pickled array"):
            read(tmp_path, content[:kept])
    rng = np.random.default_rng(0)
    for _ in range(400):
        altered = bytearray(content)
        for place in rng.integers(0, 170, rng.integers(1, 4)):
            altered[place] = rng.integers(0, 256)
        with contextlib.suppress(UserError):
            assert read(tmp_path, bytes(altered)).ndim == 3


# ---- pickles that want something else; `MARK` exists as soon as one of them got it

MARK = "mark-of-execution"


class Asking:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.asked = (function, arguments)

    def __reduce__(self):
        return self.asked


class Inheriting(np.ndarray):
    def __array_finalize__(self, other):
        if os.environ.get("KNEESSL_TEST_ARMED"):
            Path(MARK).touch()

    def __setstate__(self, state):
        Path(MARK).touch()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def call(module: str, name: str, *arguments: str) -> bytes:
    """Protocol 4 that calls a function by name, which may be dotted, with strings."""
    listed = b"(" + b"".join(map(text, arguments)) + b"t"
    return b"\x80\x04" + text(module) + text(name) + b"\x93" + listed + b"R."


def older_call(module: str, name: str, *arguments: str) -> bytes:
    return f"c{module}\n{name}\n(".encode() + b"".join(b"V" + a.encode() + b"\n" for a in arguments) + b"tR."


TOUCH = f"touch {MARK}"
PYTHON = f"__import__('os').system('{TOUCH}')"


def hostile() -> dict[str, bytes]:
    whole = pickle.dumps(knee(1), 3)
    older = as_older_numpy(whole)
    cases = {
        "os.system": call("os", "system", TOUCH),
        "posix.system": call("posix", "system", TOUCH),
        "os.system, protocol 0": older_call("os", "system", TOUCH),
        "posix.system, protocol 0": older_call("posix", "system", TOUCH),
        "Python 2's eval": older_call("__builtin__", "eval", PYTHON),
        "builtins.eval": call("builtins", "eval", PYTHON),
        "builtins.exec": call("builtins", "exec", PYTHON),
        "dotted name": call("numpy", "os.system", TOUCH),
        "dotted name through dtype": call("numpy", "dtype.__class__.__base__", TOUCH),
        "dotted name through our module": call("kneessl.sources.kneemri", "np.lib.os.system", TOUCH),
        "core's other name": call("numpy.core.multiarray", "fromfile", "/etc/passwd"),
        "core's scalar": call("numpy._core.multiarray", "scalar", "u2", "xx"),
        "core's frombuffer": call("numpy._core.numeric", "_frombuffer", "x"),
        "numpy.load": call("numpy", "load", "knee.pck"),
        "numpy's runstring": call("numpy.testing._private.utils", "runstring", PYTHON),
        "numpy.lib": call("numpy.lib.npyio", "load", "knee.pck"),
        "numpy.memmap": call("numpy", "memmap", MARK, "uint8", "w+"),
        "_codecs.encode to a file": call("_codecs", "lookup", "latin1"),
        "_codecs.encode, another codec": call("_codecs", "encode", "x", "rot13"),
        "a dtype with a callable": call("numpy", "dtype", "O"),
        "ndarray called": call("numpy", "ndarray", "x"),
        "object that asks": pickle.dumps(Asking(os.system, TOUCH), 3),
        "getattr chain": pickle.dumps(Asking(getattr, Asking(__import__, "os"), "system"), 3),
        "array of objects that ask": pickle.dumps(np.array([[[Asking(os.system, TOUCH)]]], dtype=object), 3),
        "array of objects that ask, protocol 4": pickle.dumps(
            np.array([Asking(os.system, TOUCH)] * 6, dtype=object), 4
        ),
        "inheriting array": pickle.dumps(knee(1).view(Inheriting), 3),
        "array beside an object that asks": pickle.dumps((knee(1), Asking(os.system, TOUCH)), 3),
        "asks, then gives the array": whole[:2] + call("os", "system", TOUCH)[2:-1] + b"0" + whole[2:],
        "copyreg": pickle.dumps(Asking(copyreg._reconstructor, object, object, None), 2),
        "persistent id": b"\x80\x03X\x01\x00\x00\x00aQ.",
        "instance opcode": f"(S'{TOUCH}'\nios\nsystem\n.".encode(),
        "object opcode": b"(cos\nsystem\n" + text(TOUCH) + b"o.",
        "new object": b"\x80\x04cnumpy\ndtype\n(" + text("u2") + b"t\x81.",
        "state of a stand-in": b"\x80\x03cnumpy\ndtype\n}" + text("__init__") + text("x") + b"sb.",
        "state of a function": b"\x80\x03c_codecs\nencode\nN}" + text("__defaults__") + b"Ns\x86b.",
        "extension": b"\x80\x02\x82\x01.",
        "memo bomb": b"\x80\x03Nr\xff\xff\xff\x7f" + whole[2:],
        "memo bomb, protocol 0": b"Np4000000000\n0" + whole,
        "negative memo": b"Np-4\n" + whole,
        "a frame of 2^62 bytes": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + pickle.dumps(knee(1), 4)[11:],
        "bytes of 2^62": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",
        "bytes of 2^63": b"\x80\x04\x8e" + struct.pack("<Q", 2**63 + 5) + b"x.",
        "deep tuples": b"\x80\x03" + b")" + b"\x85" * 100_000 + b".",
        "growing tuples": b"\x80\x03)" + b"2\x86" * 60 + b".",
        "many marks": b"(" * 1_000_000 + b".",
        "nothing": b"",
        "stop": b".",
        "text": b"hello",
        "numpy file": npy(),
        "huge shape": older.replace(b"K\x06K K \x87", b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x87"),
        "negative shape": older.replace(b"K\x06K K \x87", b"K\x06J\xe0\xff\xff\xffJ\xe0\xff\xff\xff\x87"),
        "shape of flags": older.replace(b"K\x06K K \x87", b"K\x06\x88K \x87"),
        "another shape": older.replace(b"K\x06K K \x87", b"K\x07K K \x87"),
        "object dtype": older.replace(b"X\x02\x00\x00\x00u2", b"X\x02\x00\x00\x00O8"),
        "unknown byte order": older.replace(b"X\x01\x00\x00\x00<", b"X\x01\x00\x00\x00O"),
    }
    assert all(content != older for content in cases.values())  # each replacement found its place
    return cases


def npy() -> bytes:
    file = io.BytesIO()
    np.save(file, knee(1))
    return file.getvalue()


@pytest.mark.parametrize("content", hostile().values(), ids=hostile().keys())
def test_hostile_pickles_run_nothing(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KNEESSL_TEST_ARMED", "1")
    with pytest.raises(UserError, match=r"knee\.pck is not a pickled array of integers") as error:
        read(tmp_path, content)
    assert "\n" not in str(error.value)
    assert not Path(MARK).exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["knee.pck"]


@pytest.mark.parametrize("name", ["os.system", "Python 2's eval", "builtins.eval", "array of objects that ask"])
def test_the_hostile_pickles_are_armed(tmp_path, monkeypatch, name):
    """The test above could not fail if these did nothing."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(hostile()[name])
    assert Path(MARK).exists()


def test_arrays_inherited_from_are_armed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(hostile()["inheriting array"])
    assert Path(MARK).exists()


def test_stand_ins_are_not_changed_by_what_they_refuse(tmp_path):
    for content in hostile().values():
        with pytest.raises(UserError):
            read(tmp_path, content)
    np.testing.assert_array_equal(read(tmp_path, pickle.dumps(knee(1), 2)), knee(1))
