"""about.csv: what a user knows of exams beside their pictures."""

import numpy as np
import pytest

from kneessl.errors import UserError
from kneessl.exams.about import read_about
from kneessl.exams.folder import ExamFolder, write_series


@pytest.fixture
def folder(tmp_path):
    write_series(tmp_path, "valid", "sagittal", "0000", np.zeros((2, 256, 256), np.uint8))
    return ExamFolder(tmp_path)


def about(folder, text, encoding="utf-8"):
    (folder.root / "about.csv").write_text(text, encoding=encoding)
    return read_about(folder)


def test_values_by_characteristic_and_blank_ones_left_out(folder):
    known = about(folder, "\ufeffsplit, exam,site,age\nvalid,0000,Split,41\nvalid,0001, ,7\ntrain,0000,Rijeka,\n")
    assert known == {
        "site": {("valid", "0000"): "Split", ("train", "0000"): "Rijeka"},
        "age": {("valid", "0000"): "41", ("valid", "0001"): "7"},
    }


def test_a_folder_without_one_knows_nothing(folder):
    assert read_about(folder) == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "line 1"),
        ("exam,site\n0000,a\n", "line 1"),
        ("split,exam\nvalid,0000\n", "line 1"),
        ("split,exam,site,site\n", "line 1"),
        ("split,exam,site\nvalid,0000\n", "line 2: its cells"),
        ("split,exam,site\nvalid,0000,a,b\n", "line 2: its cells"),
        ("split,exam,site\nvalid,0000,a\nvalid,0000,b\n", "line 3: its split"),
        ("split,exam,site\nelsewhere,0000,a\n", "line 2: its split"),
        ('split,exam,site\nvalid,0000,"a\n', "plain CSV"),
    ],
)
def test_a_table_of_another_form_is_refused(folder, text, reason):
    with pytest.raises(UserError, match=reason):
        about(folder, text)


def test_a_table_that_is_no_text_is_refused(folder):
    with pytest.raises(UserError, match="plain CSV"):
        about(folder, "split,exam,site\nvalid,0000,ä\n", "latin-1")
