import numpy as np
import pytest

from kneessl.errors import UserError
from kneessl.exams.check import TaskCount, check, inspect
from kneessl.exams.folder import ExamFolder, Provenance, write_labels, write_provenance, write_series


def series(seed: int, slices: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (slices, 256, 256), dtype=np.uint8)


@pytest.fixture
def root(tmp_path):
    """Three labelled exams, of which two train, without a fault."""
    for seed, (split, exam) in enumerate([("train", "0000"), ("train", "0001"), ("valid", "1130")]):
        write_series(tmp_path, split, "sagittal", exam, series(seed, 5 + seed))
    write_labels(tmp_path, "train", "acl", {"0000": 0, "0001": 1})
    write_labels(tmp_path, "valid", "acl", {"1130": 0})
    return tmp_path


def faults(root):
    return inspect(ExamFolder(root)).faults


def line(split: str, exam: str, group: str, source: str) -> Provenance:
    return Provenance(split, exam, "sagittal", group, "", 0.6, 0.6, 3.0, source, "")


def test_sound_folder_prints_its_tables(root, capsys):
    check(root)
    words = [row.split() for row in capsys.readouterr().out.splitlines()]
    assert ["sagittal", "train", "2", "5", "5.5", "6"] in words
    assert ["sagittal", "valid", "1", "7", "7", "7"] in words
    assert ["acl", "train", "2", "1", "50.0%"] in words
    assert words[-1] == ["no", "faults"]
    assert inspect(ExamFolder(root)).tasks == [TaskCount("train", "acl", 2, 1), TaskCount("valid", "acl", 1, 0)]


def test_a_fault_exits_with_status_1(root, capsys):
    write_labels(root, "train", "acl", {"0000": 0, "0001": 1, "0009": 1})
    with pytest.raises(SystemExit) as exit_:
        check(root)
    assert exit_.value.code == 1
    assert "train-acl.csv: label for exam 0009, which has no series" in capsys.readouterr().out


@pytest.mark.parametrize(
    "array", [np.zeros((5, 256, 256), np.float64), np.zeros((5, 200, 256), np.uint8)], ids=["dtype", "shape"]
)
def test_wrong_array(root, array):
    np.save(root / "train" / "sagittal" / "0001.npy", array)
    (fault,) = faults(root)
    assert str(root / "train" / "sagittal" / "0001.npy") in fault


@pytest.mark.parametrize("kept", [0, 100, 70_000])
def test_truncated_series(root, kept):
    path = root / "train" / "sagittal" / "0001.npy"
    path.write_bytes(path.read_bytes()[:kept])
    (fault,) = faults(root)
    assert str(path) in fault


def test_exam_without_label_and_label_without_exam(root):
    write_labels(root, "train", "acl", {"0000": 0, "0007": 1})
    findings = inspect(ExamFolder(root))
    assert [fault.removeprefix(str(root)) for fault in findings.faults] == [
        "/train-acl.csv: label for exam 0007, which has no series"
    ]
    (notice,) = (notice for notice in findings.notices if "train-acl.csv" in notice)
    assert "train-acl.csv: 1 of 2 exams have no label (0001); pre-training sees them all the same" in notice


def test_a_few_labels_among_many_exams_are_no_fault_and_one_line(root, capsys):
    for k in range(2, 40):
        write_series(root, "train", "sagittal", f"{k:04d}", series(8 + k))
    check(root)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "have no label" in line)
    assert "train-acl.csv: 38 of 40 exams have no label (0002, 0003, 0004, 0005, 0006 ...); pre-training" in line


def test_malformed_labels(root):
    (root / "train-acl.csv").write_text("0000,yes\n")
    (fault,) = faults(root)
    assert "train-acl.csv, line 1" in fault


def test_same_volume_twice_in_one_split(root):
    write_series(root, "train", "sagittal", "0001", series(0))
    (fault,) = faults(root)
    assert "the same volume 2 times" in fault
    assert "0000.npy" in fault
    assert "0001.npy" in fault


def test_same_volume_across_splits_even_in_another_memory_order(root):
    np.save(root / "valid" / "sagittal" / "1130.npy", np.asfortranarray(series(0)))
    (fault,) = faults(root)
    assert "in more than one split" in fault
    assert str(root / "valid" / "sagittal" / "1130.npy") in fault


def test_one_patient_in_both_splits(root):
    lines = [line("train", "0000", "g0", "a"), line("train", "0001", "g1", "b"), line("valid", "1130", "g0", "c")]
    write_provenance(root, lines)
    (fault,) = faults(root)
    assert "patient group g0 is in more than one split: train/0000, valid/1130" in fault


def test_one_source_imported_twice(root):
    lines = [line("train", "0000", "g0", "a"), line("train", "0001", "g1", "b"), line("valid", "1130", "g2", "a")]
    write_provenance(root, lines)
    (fault,) = faults(root)
    assert "one source became several exams: train/0000, valid/1130" in fault


def test_missing_planes_and_missing_labels_are_notices(root):
    write_series(root, "train", "axial", "0000", series(5))
    (root / "valid-acl.csv").unlink()
    findings = inspect(ExamFolder(root))
    assert not findings.faults
    assert any("axial lacks exams" in notice and "0001" in notice for notice in findings.notices)
    assert any("split valid has no labels" in notice for notice in findings.notices)


def test_a_test_split_is_looked_over_like_the_others(root):
    write_series(root, "test", "sagittal", "2000", series(1, 6))
    write_labels(root, "test", "acl", {"2000": 1, "2001": 0})
    write_provenance(root, [line("train", "0000", "g0", "a"), line("test", "2000", "g0", "b")])
    found = faults(root)
    assert [text.removeprefix(str(root)) for text in found[1:]] == [
        "/test-acl.csv: label for exam 2001, which has no series",
        "/exams.csv: patient group g0 is in more than one split: test/2000, train/0000",
    ]
    assert "in more than one split" in found[0]
    assert str(root / "test" / "sagittal" / "2000.npy") in found[0]
    assert TaskCount("test", "acl", 2, 1) in inspect(ExamFolder(root)).tasks


def test_a_table_of_labels_is_counted_and_blank_cells_are_no_fault(root):
    (root / "valid-acl.csv").unlink()
    (root / "train.csv").write_text("exam,MCL,Baker's\n0000,1,\n0001,0,\n")
    (root / "valid.csv").write_text("exam,acl\n1130,\n")
    findings = inspect(ExamFolder(root))
    assert not findings.faults
    assert findings.tasks == [
        TaskCount("train", "Baker's", 0, 0),
        TaskCount("train", "MCL", 2, 1),
        TaskCount("train", "acl", 2, 1),
        TaskCount("valid", "acl", 0, 0),
    ]
    assert not any("has no labels" in notice for notice in findings.notices)
    check(root)


def test_exams_that_the_table_or_the_folder_lacks_are_named_once(root):
    (root / "train.csv").write_text("exam,MCL,PCL\n0000,1,0\n0009,1,1\n")
    findings = inspect(ExamFolder(root))
    assert [fault.removeprefix(str(root)) for fault in findings.faults] == [
        "/train.csv: line for exam 0009, which has no series"
    ]
    assert sum("/train.csv: 1 of 2 exams have no line (0001)" in notice for notice in findings.notices) == 1


def test_a_damaged_table_is_one_fault_and_the_rest_is_looked_over(root):
    (root / "train.csv").write_text("exam,MCL,PCL,LCL\n0000,1,0,2\n0001,1,1,0\n")
    (root / "valid-acl.csv").write_text("1130,yes\n")
    found = faults(root)
    assert len(found) == 2
    assert "train.csv, line 2: the label for LCL is '2'" in found[0]
    assert "valid-acl.csv, line 1" in found[1]


def test_a_task_in_a_file_and_in_the_table(root):
    (root / "train.csv").write_text("exam,acl,PCL\n0000,1,0\n0001,1,1\n")
    (fault,) = faults(root)
    assert "train-acl.csv: train.csv has labels for acl as well; keep one of the two" in fault


def test_no_exam_folder(tmp_path):
    with pytest.raises(UserError):
        check(tmp_path)
