import csv
import os
import pickle
from dataclasses import replace

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


def refused_by_both(root, exam, message):
    """Reading a series and looking at its header alone refuse the same files in the same words."""
    for look in (ExamFolder(root).series, ExamFolder(root).slices):
        with pytest.raises(UserError, match=message):
            look("train", "sagittal", exam)


@pytest.mark.parametrize("content", hostile_files().values(), ids=hostile_files().keys())
def test_damaged_files_are_user_errors(root, content):
    path = root / "train" / "sagittal" / "0001.npy"
    path.write_bytes(content)
    refused_by_both(root, "0001", r"0001\.npy is not a readable")


def test_pickled_objects_never_run(root):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(root / "exploded"),))

    np.save(root / "train" / "sagittal" / "0001.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    refused_by_both(root, "0001", "Python objects")
    assert not (root / "exploded").exists()


def test_truncated_series_is_a_user_error(root):
    path = root / "train" / "sagittal" / "0000.npy"
    os.truncate(path, path.stat().st_size - 1)
    refused_by_both(root, "0000", "cut short")


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
    refused_by_both(root, "0001", message)


def test_mrnet_label_files_are_read_exactly(root):
    (root / "train-acl.csv").write_text("0000,0\n0001,1\n0002,0\n")
    (root / "train-meniscus.csv").write_bytes(b"\xef\xbb\xbf0000,1\r\n0001,0\r\n\r\n")
    folder = ExamFolder(root)
    assert folder.tasks("train") == ["acl", "meniscus"]
    assert folder.read_labels("train", "acl") == {"0000": 0, "0001": 1, "0002": 0}
    assert folder.read_labels("train", "meniscus") == {"0000": 1, "0001": 0}


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


# ---- labels of many tasks in one table

RSNA = {
    "ACL": "10 0",
    "MCL": "0010",
    "Medial Meniscus": "1111",
    "Lateral Meniscus": "0000",
    "Medial OA": "01 1",
    "Lateral OA": "1   ",
    "PF OA": "0110",
    "Effusion": "1001",
    "Synovitis": " 1 0",
    "Baker's": "0101",
    "Contusion": "1100",
    "Fracture": "    ",
}
STUDIES = [f"1.2.826.0.1.3680043.8.498.{number}" for number in (11, 5, 307, 42)]


def write_table(path, header, rows, **dialect):
    with path.open("w", newline="", encoding=dialect.pop("encoding", "utf-8")) as file:
        csv.writer(file, **dialect).writerows([header, *rows])


@pytest.mark.parametrize(
    "dialect",
    [
        {"lineterminator": "\n"},
        {"lineterminator": "\r\n", "encoding": "utf-8-sig"},
        {"lineterminator": "\n\n", "quoting": csv.QUOTE_ALL},
    ],
    ids=["plain", "CRLF and BOM", "quoted and blank lines"],
)
def test_the_twelve_labels_of_rsna_2026(root, dialect):
    rows = [[study, *(values[i] for values in RSNA.values())] for i, study in enumerate(STUDIES)]
    write_table(root / "train.csv", ["StudyInstanceUID", *RSNA], rows, **dialect)
    folder = ExamFolder(root)
    assert folder.tasks("train") == sorted(RSNA)
    assert folder.tasks("valid") == []
    for task, values in RSNA.items():
        expected = {study: int(value) for study, value in zip(STUDIES, values, strict=True) if value != " "}
        assert folder.read_labels("train", task) == expected
    assert folder.read_labels("train", "Fracture") == {}


def test_names_of_tasks_may_hold_slashes_commas_and_dashes(root):
    (root / "train.csv").write_text('exam,"Medial/Lateral, any",acl-complete,Кист а\n0000,1,0,1\n', encoding="utf-8")
    folder = ExamFolder(root)
    assert folder.tasks("train") == sorted(["Medial/Lateral, any", "acl-complete", "Кист а"])
    assert folder.labels("train", "Medial/Lateral, any") == {"0000": 1}
    assert folder.labels("train", "acl-complete") == {"0000": 0}


def test_files_and_table_stand_side_by_side(root):
    write_labels(root, "train", "acl", {"0000": 1})
    write_labels(root, "train", "acl-complete", {"0000": 0})
    (root / "train.csv").write_text("exam,MCL\n0000,0\n0001,1\n")
    folder = ExamFolder(root)
    assert folder.tasks("train") == ["MCL", "acl", "acl-complete"]
    assert folder.read_labels("train", "acl") == {"0000": 1}
    assert folder.read_labels("train", "acl-complete") == {"0000": 0}
    assert folder.read_labels("train", "MCL") == {"0000": 0, "0001": 1}
    with pytest.raises(UserError, match="in this split: MCL, acl, acl-complete"):
        folder.read_labels("train", "PCL")


def test_one_task_in_both_places(root):
    write_labels(root, "train", "acl", {"0000": 1})
    (root / "train.csv").write_text("exam,acl\n0000,1\n")
    with pytest.raises(UserError, match=r"train-acl\.csv: train\.csv has labels for acl as well"):
        ExamFolder(root).labels("train", "acl")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1: expected a header"),
        (b"\n", "line 1: expected a header"),
        (b"exam\n0000\n", "line 1: expected a header"),
        (b"0000,1\n0001,0\n", "line 1: '1' names no task"),
        (b"exam,acl,acl\n", "2 columns acl"),
        (b"exam,acl, acl \n", "2 columns acl"),
        (b"exam,acl,\n", "line 1: .* names no task"),
        (b'exam,"a\ncl"\n', "line 1: .* names no task"),
        (b"exam,acl,mcl\n0000,1\n", "line 2: 2 cells under a header of 3"),
        (b"exam,acl,mcl\n0000,1,0,1\n", "line 2: 4 cells under a header of 3"),
        (b"exam,acl\n ,1\n", "line 2: the first cell names no exam"),
        (b'exam,acl\n"00\n00",1\n', "line 3: the first cell names no exam"),
        (b"exam,acl\n0000,1\n0001,0\n0000,1\n", "line 4: exam 0000 stands here twice"),
        (b"exam,acl\n0000,2\n", "line 2: the label for acl is '2'"),
        (b"exam,acl\n0000,1.0\n", "line 2: the label for acl is '1.0'"),
        (b"exam,acl\n0000,-1\n", "line 2: the label for acl is '-1'"),
        (b"exam,acl\n0000,yes\n", "line 2: the label for acl is 'yes'"),
        ("exam,acl\n0000,\u0661\n".encode(), "line 2: the label for acl is"),
        (b'exam,acl\n"0000,1\n', "not CSV"),
        (b'exam,acl\n"00"00,1\n', "not CSV"),
        (b"exam,acl\n" + b"0" * 200_000 + b",1\n", "not CSV"),
        (b"\xff\xfe\x00\x01", "not text"),
        (b"exam;acl\n0000;1\n", "line 1: expected a header"),
    ],
)
def test_bad_tables_name_the_line(root, content, message):
    (root / "train.csv").write_bytes(content)
    folder = ExamFolder(root)
    for call in (lambda: folder.labels("train", "acl"), lambda: folder.tasks("train")):
        with pytest.raises(UserError, match=message) as error:
            call()
        assert str(root / "train.csv") in str(error.value)
        assert "\n" not in str(error.value)


def test_a_test_split_is_an_exam_folder_of_its_own(tmp_path):
    write_series(tmp_path, "test", "sagittal", "0000", series())
    write_labels(tmp_path, "test", "acl", {"0000": 1})
    folder = ExamFolder(tmp_path)
    assert folder.require("test", "sagittal") == ["0000"]
    assert folder.tasks("test") == ["acl"]
    assert folder.tasks("train") == []


PLAIN = Provenance("train", "0000", "sagittal", "g0000", "R", 0.625, 0.625, 4.0, "ab", 'echo 30 ms; it, said "so"')
FULL = replace(PLAIN, source="DICOM", synthetic=True, weighting="T2*", fat_suppressed=False, echo_ms=31.56)
FULL = replace(FULL, maker="GE", model="Discovery MR750w", field_t=3.0, repetition_ms=2500.0, flip_deg=111.0)
OLD_COLUMNS = "split,exam,plane,patient_group,laterality,row_mm,column_mm,slice_mm,source_sha256,choice"


@pytest.mark.parametrize("line", [PLAIN, FULL, replace(FULL, fat_suppressed=True), replace(FULL, echo_ms=None)])
def test_provenance_round_trip(root, line):
    write_provenance(root, [line])
    assert ExamFolder(root).provenance() == [line]
    assert ExamFolder(root).synthetic is line.synthetic


@pytest.mark.parametrize(
    ("choice", "known"),
    [
        ("synthetic phantom, proton density", ("phantom", True, "PD", False)),
        ("synthetic phantom, proton density, fat-suppressed", ("phantom", True, "PD", True)),
        ("DICOM; PD with fat suppressed by TR 3000 ms, TE 34 ms", ("", False, "", True)),
        ("DICOM; T1 without fat suppression by TR 600 ms", ("", False, "", False)),
        ("DICOM; PD by TR 3000 ms, of a patient and no synthetic phantom", ("", False, "", None)),
    ],
)
def test_folders_of_before_these_columns_are_read_by_their_words(root, choice, known):
    (root / "exams.csv").write_text(f'{OLD_COLUMNS}\ntrain,0000,sagittal,p0,L,0.5,0.5,3.5,ab,"{choice}"\n')
    (line,) = ExamFolder(root).provenance()
    assert (line.source, line.synthetic, line.weighting, line.fat_suppressed) == known
    assert line.choice == choice
    write_provenance(root, [line])
    assert ExamFolder(root).provenance() == [line]


@pytest.mark.parametrize("columns", ["synthetic", "choice", "colour"])
def test_a_column_that_is_damaged_repeated_or_unknown_is_named(root, columns):
    (root / "exams.csv").write_text(f"{OLD_COLUMNS},{columns}\ntrain,0000,sagittal,p0,L,0.5,0.5,3.5,ab,words,yes\n")
    with pytest.raises(UserError, match=r"exams\.csv"):
        ExamFolder(root).provenance()


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
        refused_by_both(tmp_path, "0000", r"0000\.npy is not a readable \.npy file")


@pytest.mark.parametrize("damage", ["x,y", "{header}\n1,2", "{header}\n" + "1," * 12, "\xff"])
def test_a_damaged_exams_csv_is_named(tmp_path, damage):
    write_series(tmp_path, "train", "sagittal", "0000", np.zeros((3, 256, 256), np.uint8))
    (tmp_path / "exams.csv").write_bytes(damage.format(header=OLD_COLUMNS).encode("latin-1"))
    with pytest.raises(UserError, match=r"exams\.csv"):
        ExamFolder(tmp_path).provenance()


CAUSES = {
    "zeros": (("0006", "0012"), ("6", "12"), "such as 12, where the series is 0012: leading zeros were lost"),
    "one of them": (("0006", "1012"), ("6", "1012"), "1 of 2 labels .* such as 6, where the series is 0006"),
    "decimals": (("0006", "0012"), ("6.0", "12.0"), "a name became a number with a decimal point"),
    "endings": (("a", "b"), ("a.npy", "b"), "such as a.npy, where the series is a: labels name exams without a file"),
    "letters": (("P01", "P02"), ("p01", "P02"), "capital and small letters differ"),
    "missing": (("0006", "0012"), ("0006", "0777"), "1 of 2 labels .* such as 0777;"),
}


@pytest.mark.parametrize(("exams", "labels", "said"), CAUSES.values(), ids=CAUSES)
@pytest.mark.parametrize("table", [False, True])
def test_labels_whose_exam_has_no_series_are_refused_with_the_likely_cause(tmp_path, exams, labels, said, table):
    for exam in exams:
        write_series(tmp_path, "train", "coronal", exam, series())
    name, header = ("train.csv", "exam,acl\n") if table else ("train-acl.csv", "")
    (tmp_path / name).write_text(header + "".join(f"{label},{n}\n" for n, label in enumerate(labels)))
    with pytest.raises(UserError, match=said) as error:
        ExamFolder(tmp_path, "refuse").labels("train", "acl")
    assert "--unlabelled ok leaves their labels aside" in str(error.value)
    assert set(ExamFolder(tmp_path).read_labels("train", "acl")) == set(labels)
    assert set(ExamFolder(tmp_path, "ok").labels("train", "acl")) == set(labels) & set(exams)


@pytest.mark.parametrize("plane", ["sagittal", "axial"])
def test_exams_without_a_label_and_with_series_in_other_planes_are_no_fault(tmp_path, plane):
    for exam in ("0000", "0001", "0002"):
        write_series(tmp_path, "train", plane if exam == "0001" else "coronal", exam, series())
    write_labels(tmp_path, "train", "acl", {"0000": 0, "0001": 1})
    assert ExamFolder(tmp_path).labels("train", "acl") == {"0000": 0, "0001": 1}
