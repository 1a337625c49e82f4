import os
import pickle

import numpy as np
import pytest

from kneessl.errors import UserError
from kneessl.exams.folder import ExamFolder, Provenance, write_labels, write_provenance, write_series


def series(slices: int = 6) -> np.ndarray:
    return np.random.default_rng(slices).integers(0, 256, (slices, 256, 256), dtype=np.uint8)


@pytest.fixture
def root(tmp_path):
    write_series(tmp_path, "train", "sagittal", "0000", series())
    return tmp_path


def test_series_round_trip_exactly(root):
    read = ExamFolder(root).series("train", "sagittal", "0000")
    assert isinstance(read, np.memmap)
    np.testing.assert_array_equal(read, series())


def test_drawing_slices_reads_only_those_slices(root):
    path = root / "train" / "sagittal" / "0001.npy"
    slices = 2_000_000  # 131 GB, of which the sparse file holds next to nothing
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(4, 256, 256)).flush()
    with path.open("r+b") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (slices, 256, 256)}
        np.lib.format.write_array_header_1_0(file, header)
        os.truncate(path, file.tell() + slices * 256 * 256)
    volume = ExamFolder(root).series("train", "sagittal", "0001")
    drawn = volume[np.linspace(0, slices - 1, 16).astype(int)]
    assert isinstance(volume, np.memmap)
    assert drawn.shape == (16, 256, 256)


def hostile_files() -> dict[str, bytes]:
    whole = b"\x93NUMPY\x01\x00"
    return {
        "empty": b"",
        "text": b"not an array",
        "header only": whole,
        "hostile header": whole + (60).to_bytes(2, "little") + b"{'descr': __import__('os').system('true')}".ljust(60),
        "pickle": pickle.dumps({"a": 1}),
    }


@pytest.mark.parametrize("content", hostile_files().values(), ids=hostile_files().keys())
def test_damaged_files_are_user_errors(root, content):
    path = root / "train" / "sagittal" / "0001.npy"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"0001\.npy is not a readable"):
        ExamFolder(root).series("train", "sagittal", "0001")


def test_pickled_objects_never_run(root):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(root / "exploded"),))

    np.save(root / "train" / "sagittal" / "0001.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="Python objects"):
        ExamFolder(root).series("train", "sagittal", "0001")
    assert not (root / "exploded").exists()


def test_truncated_series_is_a_user_error(root):
    path = root / "train" / "sagittal" / "0000.npy"
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(UserError, match="cut short"):
        ExamFolder(root).series("train", "sagittal", "0000")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((6, 256, 256), np.float32), "dtype float32"),
        (np.zeros((6, 128, 256), np.uint8), r"shape \(6, 128, 256\)"),
        (np.zeros((256, 256), np.uint8), r"shape \(256, 256\)"),
        (np.zeros((0, 256, 256), np.uint8), "no slices|not a readable"),
    ],
)
def test_wrong_arrays_are_user_errors(root, array, message):
    np.save(root / "train" / "sagittal" / "0001.npy", array)
    with pytest.raises(UserError, match=message):
        ExamFolder(root).series("train", "sagittal", "0001")


def test_mrnet_label_files_are_read_exactly(root):
    (root / "train-acl.csv").write_text("0000,0\n0001,1\n0002,0\n")
    (root / "train-meniscus.csv").write_bytes(b"\xef\xbb\xbf0000,1\r\n0001,0\r\n\r\n")
    folder = ExamFolder(root)
    assert folder.tasks("train") == ["acl", "meniscus"]
    assert folder.labels("train", "acl") == {"0000": 0, "0001": 1, "0002": 0}
    assert folder.labels("train", "meniscus") == {"0000": 1, "0001": 0}


def test_labels_are_written_as_mrnet_has_them(root):
    write_labels(root, "valid", "abnormal", {"1131": 0, "1130": 1})
    assert (root / "valid-abnormal.csv").read_bytes() == b"1130,1\n1131,0\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0000,2\n", "line 1"),
        ("0000,1\n0001\n", "line 2"),
        ("0000,1\n0000,0\n", "twice"),
        ("exam,label\n", "line 1"),
        (",1\n", "line 1"),
    ],
)
def test_bad_label_files_name_the_line(root, text, message):
    (root / "train-acl.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        ExamFolder(root).labels("train", "acl")


def test_label_file_that_is_not_text(root):
    (root / "train-acl.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match="not text"):
        ExamFolder(root).labels("train", "acl")


def test_missing_task_names_the_known_ones(root):
    write_labels(root, "train", "acl", {"0000": 1})
    with pytest.raises(UserError, match="in this split: acl"):
        ExamFolder(root).labels("train", "effusion")


def test_provenance_round_trip(root):
    line = Provenance("train", "0000", "sagittal", "g0000", "R", 0.625, 0.625, 4.0, "ab", 'echo 30 ms; it, said "so"')
    write_provenance(root, [line])
    assert ExamFolder(root).provenance() == [line]


def test_folders_that_hold_no_exams(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        ExamFolder(tmp_path / "missing")
    with pytest.raises(UserError, match="holds no series"):
        ExamFolder(tmp_path)


def test_files_that_only_pretend_to_be_npy_are_named(tmp_path):
    path = tmp_path / "train" / "sagittal" / "0000.npy"
    path.parent.mkdir(parents=True)
    header = b"\x93NUMPY\x01\x00"

    def npy(text: bytes) -> bytes:
        return header + len(text).to_bytes(2, "little") + text

    np.savez(tmp_path / "archive.npz", a=np.zeros((3, 256, 256), np.uint8))
    for content in (
        (tmp_path / "archive.npz").read_bytes(),
        npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (3, 256"),
        npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (-3, 256, 256), }"),
        npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999, 256, 256), }"),
        npy(b"[" * 5000),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"0000\.npy is not a readable \.npy file"):
            ExamFolder(tmp_path).series("train", "sagittal", "0000")


@pytest.mark.parametrize("damage", ["x,y", "{header}\n1,2", "{header}\n" + "1," * 12, "\xff"])
def test_a_damaged_exams_csv_is_named(tmp_path, damage):
    write_series(tmp_path, "train", "sagittal", "0000", np.zeros((3, 256, 256), np.uint8))
    header = "split,exam,plane,patient_group,laterality,row_mm,column_mm,slice_mm,source_sha256,choice"
    (tmp_path / "exams.csv").write_bytes(damage.format(header=header).encode("latin-1"))
    with pytest.raises(UserError, match=r"exams\.csv"):
        ExamFolder(tmp_path).provenance()
