import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from kneessl.errors import UserError
from kneessl.exams.folder import ExamFolder, Provenance, write_provenance, write_series
from kneessl.exams.splits import folds, folds_by, patient_groups


def knees(count: int, patients: int, prevalence: list[float], unknown: float = 0.0, seed: int = 0):
    """Groups and labels as of a clinic: findings of one exam hang together, some patients come again."""
    rng = np.random.default_rng(seed)
    groups = [f"g{i}" for i in [*range(patients), *rng.integers(0, patients, count - patients)]]
    chance = rng.random((count, len(prevalence))) ** np.exp(0.4 * rng.normal(size=(count, 1)))
    labels = (chance < prevalence).astype(np.int64)
    labels[rng.random(labels.shape) < unknown] = -1
    return groups, labels


def deviation(fold: np.ndarray, labels: np.ndarray) -> float:
    """Largest difference between the prevalence in a fold and in all."""
    worst = 0.0
    for column in labels.T:
        known = column >= 0
        whole = column[known].mean()
        worst = max(worst, *(abs(column[known & (fold == k)].mean() - whole) for k in range(fold.max() + 1)))
    return worst


def refused(match: str, *arguments) -> None:
    with pytest.raises(UserError, match=match) as error:
        folds(*arguments)
    assert "\n" not in str(error.value)


RSNA = [0.1, 0.08, 0.3, 0.2, 0.15, 0.1, 0.2, 0.35, 0.15, 0.12, 0.15, 0.06]


@pytest.mark.parametrize(
    ("case", "bound"),
    [((1130, 1088, [0.8, 0.18, 0.35]), 0.005), ((500, 450, RSNA, 0.2), 0.02), ((60, 50, [0.4]), 0.06)],
    ids=["MRNet", "twelve tasks, a fifth unknown", "sixty exams"],
)
def test_patients_stay_whole_and_findings_in_proportion(case, bound):
    groups, labels = knees(*case)
    fold = folds(groups, labels, 5, seed=3)
    assert fold.shape == (len(groups),)
    assert fold.dtype.kind == "i"
    assert all(len({f for f, g in zip(fold, groups, strict=True) if g == group}) == 1 for group in set(groups))
    sizes = np.bincount(fold, minlength=5)
    assert len(sizes) == 5
    assert sizes.max() - sizes.min() <= 0.02 * len(groups) + 2
    assert deviation(fold, labels) < bound


def test_many_tasks_fare_better_than_with_the_combination_of_findings():
    groups, labels = knees(500, 450, RSNA, 0.2)
    combination = np.unique(labels, axis=0, return_inverse=True)[1].ravel()
    splitter = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    theirs = np.empty(500, dtype=int)
    with pytest.warns(UserWarning, match="least populated class"):
        parts = list(splitter.split(labels, combination, groups))
    for k, (_, test) in enumerate(parts):
        theirs[test] = k
    assert deviation(folds(groups, labels, 5, 0), labels) < deviation(theirs, labels) / 3


def test_the_seed_decides():
    groups, labels = knees(200, 180, [0.3, 0.5])
    one, again, other = (folds(groups, labels, 4, seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_names_of_groups_do_not_matter_beyond_their_order():
    groups, labels = knees(200, 180, [0.3, 0.5])
    renamed = [f"patient {int(group[1:]):05d}" for group in groups]
    ordered = [f"{int(group[1:]):05d}" for group in groups]
    np.testing.assert_array_equal(folds(renamed, labels, 4, 1), folds(ordered, labels, 4, 1))


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 5), st.integers(1, 3), st.integers(0, 10**6))
def test_every_fold_has_two_of_each_class_where_single_exams_allow_it(k, tasks, seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(5 * k, 12 * k))
    labels = np.zeros((count, tasks), dtype=np.int64)
    for column in labels.T:
        column[rng.permutation(count)[: int(rng.integers(3 * k, count - 2 * k + 1))]] = 1
    fold = folds([str(i) for i in range(count)], labels, k, seed)
    for column in labels.T:
        for value in (0, 1):
            assert np.bincount(fold[column == value], minlength=k).min() >= 2


def test_a_task_that_is_labelled_in_few_exams():
    labels = np.full((60, 2), -1)
    labels[:, 0] = np.arange(60) % 2
    labels[:8, 1] = [0, 1] * 4
    groups = [str(i) for i in range(60)]
    fold = folds(groups, labels, 2, 0)
    assert np.bincount(fold[:8:2], minlength=2).tolist() == [2, 2]
    assert np.bincount(fold[1:8:2], minlength=2).tolist() == [2, 2]
    refused("with 3 folds, one has 1 of the 4 exams with label 0 of task 2 of 2, and needs 2", groups, labels, 3, 0)


def test_a_class_that_no_number_of_folds_could_serve_is_exempt():
    labels = np.stack([np.arange(30) % 2, np.arange(30) == 4, np.zeros(30), np.full(30, -1)], axis=1).astype(np.int64)
    fold = folds([str(i) for i in range(30)], labels, 5, 0)
    assert np.bincount(fold).tolist() == [6] * 5


def test_patients_who_hold_all_positives_cannot_be_parted():
    labels = np.array([[1]] * 6 + [[0]] * 20)
    groups = ["a"] * 3 + ["b"] * 3 + [str(i) for i in range(20)]
    assert set(folds(groups, labels, 2, 0)[:6]) == {0, 1}
    refused("with 3 folds, one has 0 of the 6 exams with label 1", groups, labels, 3, 0)


@pytest.mark.parametrize("k", [-1, 0, 1, 11])
def test_wrong_numbers_of_folds(k):
    refused(
        f"folds is {k}; it must be from 2 to the number of patients, 10", list("abcdefghij"), np.ones((10, 1)), k, 0
    )


# ---- who is who


def series(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (3, 256, 256), dtype=np.uint8)


def line(split: str, exam: str, plane: str, group: str) -> Provenance:
    return Provenance(split, exam, plane, group, "", 0.6, 0.6, 3.0, "", "")


@pytest.fixture
def root(tmp_path):
    for plane in ("sagittal", "axial"):
        for number in range(5):
            write_series(tmp_path, "train", plane, f"{number:04d}", series(number + 10 * (plane == "axial")))
    return tmp_path


EXAMS = [f"{number:04d}" for number in range(5)]


def same(groups: list[str]) -> list[list[int]]:
    """Positions that share a group."""
    return sorted([i for i, g in enumerate(groups) if g == group] for group in set(groups))


def test_without_identities_every_exam_stands_alone(root):
    assert same(patient_groups(ExamFolder(root), "train", EXAMS)) == [[0], [1], [2], [3], [4]]


def test_the_same_pixels_in_any_plane_are_one_patient(root):
    shutil.copy(root / "train/sagittal/0001.npy", root / "train/sagittal/0003.npy")
    np.save(root / "train/axial/0004.npy", np.asfortranarray(series(13)))  # as the axial series of exam 0003
    folder = ExamFolder(root)
    assert same(patient_groups(folder, "train", EXAMS)) == [[0], [1, 3, 4], [2]]
    assert same(patient_groups(folder, "train", ["0004", "0000", "0001"])) == [[0], [1], [2]]
    assert same(patient_groups(folder, "train", ["0004", "0003"])) == [[0, 1]]


def test_an_importers_groups_count_whatever_the_plane(root, monkeypatch):
    lines = [line("train", exam, "axial", group) for exam, group in zip(EXAMS, "ababc", strict=True)]
    write_provenance(root, [*lines, line("valid", "0004", "axial", "a")])
    folder = ExamFolder(root)
    monkeypatch.setattr(folder, "series", lambda *_: pytest.fail("the pixels need not be read"))
    assert same(patient_groups(folder, "train", EXAMS)) == [[0, 2], [1, 3], [4]]


def test_exams_that_the_importer_does_not_name_are_compared_with_all(root):
    write_provenance(root, [line("train", "0000", "axial", "a"), line("train", "0001", "axial", "")])
    shutil.copy(root / "train/sagittal/0000.npy", root / "train/sagittal/0002.npy")
    assert same(patient_groups(ExamFolder(root), "train", EXAMS)) == [[0, 2], [1], [3], [4]]


def test_a_damaged_series_is_named(root):
    (root / "train/axial/0002.npy").write_bytes(b"")
    with pytest.raises(UserError, match=r"0002\.npy"):
        patient_groups(ExamFolder(root), "train", EXAMS)


# ---- one scanner after the other


def test_each_value_is_a_fold_and_patients_stay_together():
    values = ["a"] * 6 + ["b"] * 6 + ["c"] * 6
    groups = [str(i) for i in range(18)]
    groups[5] = groups[6] = groups[7] = "one person"  # one exam on a, two on b
    labels = np.array([[i % 2] for i in range(18)])
    fold, names, moved = folds_by(groups, labels, values)
    assert names == ["a", "b", "c"]
    assert fold.tolist() == [0] * 5 + [1] * 7 + [2] * 6
    assert moved == 1


def test_values_with_too_few_exams_of_a_label_share_a_fold():
    values = ["a"] * 6 + ["b"] * 6 + ["c"] * 3 + ["d"] * 2 + [""]
    labels = np.array([[i % 2] for i in range(18)])
    fold, names, _ = folds_by([str(i) for i in range(18)], labels, values)
    assert names == ["a", "b", "not known, c, d"]
    assert fold.tolist() == [0] * 6 + [1] * 6 + [2] * 6


def test_what_leaves_nothing_to_train_on_is_refused():
    labels, groups = np.array([[i % 2] for i in range(12)]), [str(i) for i in range(12)]
    with pytest.raises(UserError, match="all exams would be in one fold, a;"):
        folds_by(groups, labels, ["a"] * 12)
    with pytest.raises(UserError, match="without a, fewer than 2 exams of a label"):
        folds_by(groups, labels, ["a"] * 10 + ["b"] * 2)
