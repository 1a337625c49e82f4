"""The RSNA 2026 challenge's `submission.csv`."""

import pytest

from kneessl.errors import UserError
from kneessl.reader.command import KneeRow, predict, submit, uid_in
from kneessl.reader.submission import require_submission


def test_a_line_a_study_with_the_larger_probability_of_two_knees(tmp_path, capsys):
    rows = [
        KneeRow(1, uid="2.25.2", probabilities={"ACL": 0.25, "Baker's": 0.5}),
        KneeRow(1, uid="2.25.2", probabilities={"ACL": 0.75, "Baker's": None}),
        KneeRow(2, uid="2.25.1", probabilities={"ACL": 0.125, "Baker's": None}),
        KneeRow(3, problem="no knee", uid="2.25.3"),
        KneeRow(4, problem="no knee"),
    ]
    submit(tmp_path / "submission.csv", ["ACL", "Baker's"], rows)
    assert (tmp_path / "submission.csv").read_text() == (
        "StudyInstanceUID,ACL,Baker's\n2.25.1,0.125,\n2.25.2,0.75,0.5\n2.25.3,,\n"
    )
    told = capsys.readouterr()
    assert "studies 3, with a blank cell 2" in told.out
    assert "2 studies have a blank cell and 1 no line" in told.err


def test_only_a_folder_named_by_a_uid_tells_one():
    assert uid_in("test_series/1.2.840.113") == "1.2.840.113"
    assert uid_in("test_series/DOE^JANE") == uid_in("20260101") == ""


def test_wrong_use_ends_before_anything_runs(tmp_path):
    with pytest.raises(UserError, match="--submission is of many studies; give --each"):
        predict(tmp_path / "model", "study", tmp_path / "out", submission=tmp_path / "submission.csv")
    (tmp_path / "mine.csv").write_text("mine")
    with pytest.raises(UserError, match="exists and is no submission"):
        predict(tmp_path / "model", "study", tmp_path / "out", each=True, submission=tmp_path / "mine.csv")
    (tmp_path / "earlier.csv").write_text("StudyInstanceUID,ACL\n")
    require_submission(tmp_path / "earlier.csv")
