"""Label files of hospitals: what is taken, and what ends with one sentence that names lines and never values."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kneessl.errors import UserError
from kneessl.sources.archive.keys import KeyRow, read_keys, update_keys, write_keys
from kneessl.sources.archive.label_file import read_label_file
from kneessl.sources.archive.labelling import match

PATIENT = "Quaxolotl^Zyphira"


def label_file(tmp_path, text, tasks=(), encoding="utf-8"):
    path = tmp_path / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return read_label_file(path, tasks)


def row(
    exam="0000", side="L", study="2.25.1", series="2.25.2", accession="A1", patient="P1", path="a/b", split="train"
):
    return KeyRow(exam, split, side, study, series, accession, patient, path)


def test_columns_of_labels_are_tasks_and_others_are_named(tmp_path):
    text = "StudyInstanceUID,Report,sex,ACL,Baker's,empty\n"
    text = text + '1.2,"torn, as\nwritten",F,1.0,,\n1.3,,M,0.0,1,\n\n1.4,none,F,,,\n'
    file = label_file(tmp_path, text)
    assert file.column == "StudyInstanceUID"
    assert file.tasks == ("ACL", "Baker's")
    assert [(line.number, line.key, line.labels) for line in file.lines] == [(2, "1.2", (1, None)), (4, "1.3", (0, 1))]
    assert file.unlabelled == 1
    assert file.left_out == ("Report (line 2: neither 0, 1 nor blank)", "sex (line 2: neither 0, 1 nor blank)",
                             "empty (blank)")  # fmt: skip
    assert label_file(tmp_path, text, ("Baker's",)).tasks == ("Baker's",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the first column must be named after the key"),
        (f"{PATIENT},1\nother,0\n", "line 1: the first column must be named after the key"),
        ("AccessionNumber;acl\nA1;1\n", "with commas between columns"),
        ("AccessionNumber,acl,acl\nA1,1,0\n", "there are 2 columns 'acl'"),
        ("AccessionNumber,acl,\nA1,1,0\n", "column 3 has no name"),
        ("AccessionNumber,acl\n", "no column with labels"),
        ("AccessionNumber,acl\nA1,\n", "no column with labels"),
        (f"AccessionNumber,acl\n{PATIENT},1\n{PATIENT},0\n", "line 3: its key stands in line 2 already"),
        (f"AccessionNumber,acl\n{PATIENT},1\n{PATIENT},1\n", "line 3: its key stands in line 2 already"),
        ("AccessionNumber,laterality,acl\nA1,L,1\nA1,,1\n", "line 3: its key stands in line 2 already"),
        ("AccessionNumber,laterality,acl\nA1,left,1\n", "line 2: laterality must be L, R or blank"),
        (f"AccessionNumber,acl\n{PATIENT},1,0\n", "line 2: 3 cells under a header of 2"),
        ("AccessionNumber,acl\n,1\n", "line 2: AccessionNumber is blank"),
        ('AccessionNumber,acl\n"A1,1\n', "line 2: not CSV"),
    ],
)
def test_faulty_label_files_end_with_one_sentence_without_a_value(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as error:
        label_file(tmp_path, text)
    assert "\n" not in str(error.value)
    assert PATIENT not in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_another_encoding_is_told(tmp_path, encoding):
    with pytest.raises(UserError, match="not text in UTF-8"):
        label_file(tmp_path, "AccessionNumber,acl\nMüller,1\n", encoding=encoding)
    assert label_file(tmp_path, "AccessionNumber,acl\nMüller,1\n", encoding="utf-8-sig").lines[0].key == "Müller"


def test_a_chosen_task_must_be_there_and_hold_labels(tmp_path):
    with pytest.raises(UserError, match="has no column mcl; the columns are acl"):
        label_file(tmp_path, "path,acl\na,1\n", ("mcl",))
    with pytest.raises(UserError, match="line 3: acl is neither 0, 1 nor blank"):
        label_file(tmp_path, "path,acl\na,1\nb,torn\n", ("acl",))
    with pytest.raises(UserError, match="is missing"):
        read_label_file(tmp_path / "none.csv")


@pytest.mark.parametrize("column", ["StudyInstanceUID", "SeriesInstanceUID", "AccessionNumber", "PatientID"])
def test_every_key_finds_its_exam(tmp_path, column):
    key = getattr(row(), column)
    file = label_file(tmp_path, f"{column},acl\n{key},1\nother,0\n")
    rows = [row(), row(exam="0001", study="2.25.8", series="2.25.9", accession="A2", patient="P2"), row(exam="")]
    matching = match(file, rows)
    assert matching.labels == {("train", "0000"): {"acl": (1, 2)}}
    assert (matching.matched, matching.unmatched, matching.ambiguous) == ((2,), (3,), ())


@pytest.mark.parametrize("path", ["a/b", "a", "./a/b/", r"a\b", "a/b/IM0001.dcm"])
def test_a_path_names_a_folder_above_or_a_file_within(tmp_path, path):
    matching = match(label_file(tmp_path, f"path,acl\n{path},1\n"), [row(), row(exam="0001", path="ab/b", study="2")])
    assert list(matching.labels) == [("train", "0000")]


def test_two_knees_of_one_study_want_a_laterality(tmp_path):
    knees = [row(), row(exam="0001", side="R")]
    matching = match(label_file(tmp_path, "AccessionNumber,acl\nA1,1\n"), knees)
    assert (matching.labels, matching.ambiguous) == ({}, (2,))
    matching = match(label_file(tmp_path, "AccessionNumber,laterality,acl\nA1,L,1\nA1,R,0\n"), knees)
    assert {exam: tasks["acl"][0] for (_, exam), tasks in matching.labels.items()} == {"0000": 1, "0001": 0}


def test_all_echoes_of_a_knee_have_its_label(tmp_path):
    matching = match(label_file(tmp_path, "AccessionNumber,acl\nA1,1\n"), [row(), row(exam="0001")])
    assert {exam for _, exam in matching.labels} == {"0000", "0001"}


def test_lines_that_contradict_one_another_leave_no_label(tmp_path):
    rows = [row(), row(series="2.25.3")]
    matching = match(label_file(tmp_path, "SeriesInstanceUID,acl,mcl\n2.25.2,1,1\n2.25.3,0,1\n"), rows)
    assert matching.labels == {("train", "0000"): {"mcl": (1, 2)}}
    assert matching.contradicting == (2, 3)


def test_a_patient_with_several_studies_is_no_key(tmp_path):
    rows = [row(), row(exam="0001", study="2.25.8")]
    with pytest.raises(UserError, match="line 2: this patient has several exams") as error:
        match(label_file(tmp_path, "PatientID,acl\nP1,1\n"), rows)
    assert "P1" not in str(error.value)


text = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=8)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.builds(KeyRow, text, text, text, text, text, text, text, text), max_size=6))
def test_a_key_file_comes_back_as_it_was(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("keys") / "keys.csv"
    write_keys(path, rows)
    assert list(read_keys(path)) == rows
    assert path.stat().st_mode & 0o777 == 0o600
    update_keys(path, lambda: rows)
    assert sorted(read_keys(path)) == sorted(rows)


def test_a_key_file_that_is_none(tmp_path):
    (tmp_path / "keys.csv").write_text("exam,label\n0000,1\n")
    with pytest.raises(UserError, match="no key file"):
        list(read_keys(tmp_path / "keys.csv"))
    with pytest.raises(UserError, match="is missing"):
        list(read_keys(tmp_path / "none.csv"))
