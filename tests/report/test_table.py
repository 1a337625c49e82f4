import pytest

from kneessl.report.table import WIDTH, aligned, joined, with_note, write_table


def test_a_csv_file_has_the_columns_of_all_rows_and_empty_cells(tmp_path):
    write_table(tmp_path / "t.csv", [{"a": 0.1 + 0.2, "b": None}, {"a": 1, "c": joined([0.25, 3])}])
    assert (tmp_path / "t.csv").read_bytes() == b"a,b,c\n0.30000000000000004,,\n1,,0.25 3\n"


def test_a_failure_leaves_the_old_table(tmp_path):
    write_table(tmp_path / "t.csv", [{"a": 1}])
    with pytest.raises(AttributeError):
        write_table(tmp_path / "t.csv", [{"a": 1}, ["no row"]])
    assert (tmp_path / "t.csv").read_text() == "a\n1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_columns_are_aligned_and_no_line_ends_in_spaces():
    rows = [["name", "n", "note"], ["a", "1,000", ""], ["longer", "7", "x"]]
    assert aligned(rows, left=[0, 2]) == ["name        n  note", "a       1,000", "longer      7  x"]


def test_a_note_is_broken_at_the_width_of_a_terminal():
    lines = with_note(["table"], "word " * 60).splitlines()
    assert lines[:2] == ["table", ""]
    assert len(lines) > 3
    assert max(map(len, lines)) <= WIDTH
