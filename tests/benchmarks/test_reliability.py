"""The campaign of odd inputs in small, and that its judge sees what is wrong."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CHEAP = (
    "dicom-bytes", "dicom-attributes", "dicom-relations", "dicom-encodings", "nifti", "npy", "labels", "exams-csv",
    "weights",
)  # fmt: skip


@pytest.fixture
def module(monkeypatch):
    """Imports one of `benchmarks/`."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module
    for name in [name for name in sys.modules if name.partition(".")[0] in {"campaign", "reliability"}]:
        del sys.modules[name]


@pytest.mark.parametrize("kind", CHEAP)
def test_no_input_is_answered_wrongly_without_a_word(module, tmp_path, kind):
    reliability = module("reliability")
    for number in range(4):
        (tmp_path / str(number)).mkdir()
        outcome, why = reliability.attempt(kind, number, 7, tmp_path / str(number))
        assert outcome in {"right", "right, and said", "refused"}, why


def test_a_campaign_goes_on_where_it_stopped(module, tmp_path):
    reliability = module("reliability")
    reliability.campaign(100, 3, tmp_path, ["labels"])
    lines = (tmp_path / "outcomes-3.csv").read_text().splitlines()
    before = [row["outcome"] for row in reliability.outcomes(tmp_path / "outcomes-3.csv")]
    (tmp_path / "outcomes-3.csv").write_text("\n".join(lines[:6]) + "\n")
    rows = reliability.outcomes(reliability.campaign(100, 3, tmp_path, ["labels"]))
    assert [row["number"] for row in rows] == [str(number) for number in range(len(lines) - 1)]
    assert [row["outcome"] for row in rows] == before, "the same input again"
    assert f"| labels | {len(rows)} | " in reliability.table(rows)


@pytest.fixture
def judged(module):
    """A series as it went in, as it came out, and the judge of both."""
    judge, reading, studies = module("campaign.judge"), module("campaign.reading"), module("campaign.studies")
    images = studies.series(np.random.default_rng(0))
    slices = [each for data in images for each in reading.frames_of(data)]
    shown = reading.pictures(slices[::-1]).astype(np.uint8)
    out = judge.Written("0", "sagittal", shown, 160 / 256, 4.0, "R", "g0", "")
    return judge, slices, out


def test_what_is_right_is_called_right(judged):
    judge, slices, out = judged
    assert judge.judge([out], slices, 0, "") == "right"


WRONG = {
    "out of order": {"pictures": lambda out: out.pictures[[1, 0, 2, 3, 4, 5]]},
    "a picture that no image shows": {"pictures": lambda out: out.pictures[:, ::-1]},
    "grey values differ": {"pictures": lambda out: out.pictures // 2},
    "tagged R, and came out as L": {"side": lambda out: "L"},
    "pixels of": {"pixel_mm": lambda out: 0.7},
    "slices 3.0 mm apart": {"slice_mm": lambda out: 3.0},
}


@pytest.mark.parametrize(("said", "changes"), WRONG.items(), ids=WRONG)
def test_what_is_wrong_is_called_wrong(judged, said, changes):
    judge, slices, out = judged
    with pytest.raises(judge.Wrong, match=said):
        judge.judge([replace(out, **{name: change(out) for name, change in changes.items()})], slices, 0, "")


@pytest.mark.parametrize(
    ("kept", "said"), [([1, 2, 3, 4, 5], "partly taken, and nothing says so"), ([0, 1, 3, 4, 5], "missing in between")]
)
def test_images_that_are_left_out_unsaid_are_noticed(module, judged, kept, said):
    judge, slices, out = judged
    shown = module("campaign.reading").pictures([slices[index] for index in kept[::-1]])
    out = replace(out, pictures=shown.astype(np.uint8))
    with pytest.raises(judge.Wrong, match=said):
        judge.judge([out], slices, 0, "")
    if "partly" in said:
        assert judge.judge([out], slices, 0, "left out: a file (1)") == "right, and said"


def test_series_of_two_persons_under_one_group_are_called_wrong(judged):
    judge, slices, out = judged
    others = [replace(each, person="another", study="2", series="2") for each in slices]
    again = replace(out, exam="1")
    for each in others:
        each.values = each.values[::-1]
    again.pictures = np.flip(out.pictures, 1)
    with pytest.raises(judge.Wrong, match="several persons have one group"):
        judge.judge([out, again], [*slices, *others], 0, "")
    assert judge.judge([out, replace(again, group="g1")], [*slices, *others], 0, "") == "right"


@pytest.mark.parametrize("error", [KeyError("Quaxolotl"), ValueError("x")])
def test_an_error_that_is_no_sentence_is_called_wrong(module, error):
    judge = module("campaign.judge")

    def door():
        raise error

    with pytest.raises(judge.Wrong, match=type(error).__name__):
        judge.tell(door)


def test_json_written_otherwise_says_the_same(module):
    meaning = module("campaign.model_inputs").meaning
    assert meaning(b'{"a": 1, "b": [2]}') == meaning(b'{"b":[2],\n "a":1}')
    assert len({meaning(content) for content in (b'{"a": 1}', b'{"a": 1.0}', b'{"a": true}', b'{"a": 1', b"")}) == 5
