import csv
import json
import shutil

import numpy as np
import pytest
import torch

from kneessl.classifier.classifier import build_classifier
from kneessl.errors import UserError
from kneessl.evaluation.localisation import Outcome, Outcomes
from kneessl.exams.folder import ExamFolder
from kneessl.exams.lesions import COLUMNS, read_lesions
from kneessl.explain import localise as room
from kneessl.explain.examples import chosen_examples
from kneessl.explain.localise import falls, groups, localise
from kneessl.explain.measurements import ExamMeasurement, region_of
from kneessl.model.locked import write_decisions
from kneessl.model.model import load_model
from kneessl.nets.encoder import save_weights
from kneessl.phantom.command import phantom
from kneessl.training.runs import write_record
from kneessl.views.preprocess import Preprocessing

TASKS = ["abnormal", "acl", "meniscus"]


def make_plane(folder, plane, head="max", tasks=TASKS, **preprocessing):
    torch.manual_seed(0)
    save_weights(build_classifier("resnet18", head, len(tasks), {}), folder / "model.safetensors")
    facts = {"network": "resnet18", "head": head, "tasks": tasks, "plane": plane}
    write_record(folder, Preprocessing(**{"size": 32, **preprocessing}), rows=[], kind="finetune", **facts)
    return folder


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantom") / "knees"
    shares = {"abnormal": 0.75, "acl": 0.5, "meniscus": 0.25}
    phantom(out, exams=4, valid_fraction=1, **shares, planes=("sagittal", "axial"), workers=1)
    return out


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "fused"
    make_plane(folder / "sagittal", "sagittal", field=0.6, depth=0.8)
    make_plane(folder / "axial", "axial", head="transformer")
    write_record(folder, Preprocessing(32), rows=[], kind="fuse")
    write_decisions(folder, {}, {})
    return folder


@pytest.fixture(scope="module")
def done(fused, phantoms, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    localise(fused, phantoms, out=out)
    return out


def lines(out):
    with (out / "localisation.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_exam_with_a_lesion_in_the_plane_is_measured(done, phantoms):
    boxes = [box for box in read_lesions(phantoms) if box.split == "valid"]
    wanted = {(b.plane, task, b.exam) for b in boxes for task in TASKS if task in ("abnormal", b.finding)}
    assert {(row["plane"], row["task"], row["exam"]) for row in lines(done)} == wanted
    assert len(lines(done)) == len(wanted)
    assert {task for _, task, _ in wanted} == set(TASKS)


def test_figures_in_the_json_are_those_of_the_lines(done):
    summary = json.loads((done / "localisation.json").read_text())
    assert (summary["split"], summary["area_unit"]) == ("valid", "mm2")
    assert [(r["plane"], r["exact"], r["margin_px"]) for r in summary["results"]] == [
        *[("sagittal", True, round(32 * 154 / 32))] * 3,
        *[("axial", False, 256)] * 3,
    ]
    for result in summary["results"]:
        rows = [r for r in lines(done) if (r["plane"], r["task"]) == (result["plane"], result["task"])]
        found = result["groups"]["all"]
        assert found["exams"] == len(rows)
        for measure in ("in_box", "near_box", "right_slice"):
            assert found[measure]["found"]["successes"] == sum(int(r[measure]) for r in rows)
            assert found[measure]["middle"]["successes"] == sum(int(r[f"{measure}_middle"]) for r in rows)
            assert found[measure]["chance"] == pytest.approx(np.mean([float(r[f"{measure}_chance"]) for r in rows]))
        tried = [float(r["fall"]) - float(r["control_fall"]) for r in rows if r["fall"]]
        if tried:
            assert found["hiding"]["difference"] == pytest.approx(np.mean(tried))
            assert found["hiding"]["larger"]["n"] == len(tried)
        else:
            assert found["hiding"] is None
    assert any(row["fall"] for row in lines(done))


def test_the_same_again(done, fused, phantoms, tmp_path, capsys):
    localise(fused / "sagittal", phantoms, task="acl", out=tmp_path)
    rows = [row for row in lines(done) if (row["plane"], row["task"]) == ("sagittal", "acl")]
    assert lines(tmp_path) == rows
    assert "acl, sagittal" in capsys.readouterr().out
    first = (tmp_path / "examples.png").read_bytes()
    assert first.startswith(b"\x89PNG")
    localise(fused / "sagittal", phantoms, task="acl", out=tmp_path)
    assert (tmp_path / "examples.png").read_bytes() == first


@pytest.mark.parametrize("beside", [0, 1])
def test_a_map_that_is_the_lesion_always_hits_and_one_beside_it_never(fused, phantoms, monkeypatch, beside):
    """A heat map with one hot pixel is put in place of the model's own; everything behind it is as it is."""
    boxes = [b for b in read_lesions(phantoms) if b.split == "valid" and b.plane == "axial"]
    own = {box.exam: box for box in boxes if box.finding == "acl"}
    asked = iter(sorted(own))

    def one_hot(explanation, model):
        box = own[next(asked)]
        found = np.zeros((len(explanation.maps), 256, 256), np.float32)
        found[box.slice, box.row_max, box.column_max + beside] = 1
        return found

    monkeypatch.setattr(room, "heat", one_hot)
    model = load_model(fused / "axial").planes["axial"]
    found = room.measure(model, ExamFolder(phantoms), "valid", "acl", boxes, {}).exams
    assert [f.outcomes.in_box.hit for f in found] == [not beside] * 2
    assert all(f.outcomes.near_box.hit for f in found)


def test_hiding_what_a_model_sees_lowers_its_score_more_than_hiding_beside_it(fused, monkeypatch):
    """A stand-in for the model, whose logit is how much of a series is white: only the lesion is."""
    monkeypatch.setattr(room, "series_logits", lambda model, series: np.full(len(model.tasks), (series > 200).mean()))
    series = np.random.default_rng(0).integers(80, 120, (10, 256, 256)).astype(np.uint8)
    series[4:6, 120:131, 100:121] = 250
    model = load_model(fused / "sagittal").planes["sagittal"]
    boxes = np.array([[4, 120, 130, 100, 120], [5, 120, 130, 100, 120], [6, 1, 2, 1, 2]])
    fall, control = falls(model, series, "acl", float((series > 200).mean()), boxes, boxes)
    assert fall == pytest.approx((series > 200).mean())
    assert control == 0
    out_of_sight = np.array([[4, 0, 5, 0, 5], [0, 120, 130, 100, 120]])
    assert region_of(model, 10)[0] == slice(1, 9)
    assert falls(model, series, "acl", 1.0, out_of_sight, out_of_sight) == (None, None)
    everywhere = np.array([[4, 0, 255, 0, 255]])
    assert falls(model, series, "acl", 1.0, everywhere, everywhere) == (None, None)


def found(exam, area, logit, kinds=("gap",)):
    outcome = Outcome(True, 0.5, False)
    return ExamMeasurement(exam, kinds, area, logit, (0, 0, 0), Outcomes(outcome, outcome, outcome), None, None)


def test_groups():
    exams = [
        found(str(i), area=(i * 7) % 10, logit=-i, kinds=("gap", "wavy") if i == 3 else ("gap",)) for i in range(10)
    ]
    named = groups(exams)
    assert [f.exam for f in named["higher-scored half"]] == list("01234")
    thirds = [named[f"{size} third"] for size in ("smallest", "middle", "largest")]
    assert [len(third) for third in thirds] == [3, 4, 3]
    assert [f.area for third in thirds for f in third] == list(range(10))
    assert (len(named["gap"]), [f.exam for f in named["wavy"]]) == (10, ["3"])
    assert all(len(members) == 1 for members in groups(exams[:1]).values()), "no empty group"


def test_examples_are_spread_over_the_scores():
    exams = [found(str(i), 1, logit=i) for i in range(10)]
    assert [f.exam for f in chosen_examples(exams)] == ["9", "6", "3", "0"]
    assert len(chosen_examples(exams[:2])) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "cartilage"}, "has no task cartilage; it answers abnormal, acl, meniscus"),
        ({"split": "train", "task": "meniscus"}, "no exam of .*train has a lesion for meniscus"),
    ],
)
def test_what_cannot_be_measured_is_refused(fused, phantoms, tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        localise(fused, phantoms, out=tmp_path, **settings)
    assert not any(tmp_path.iterdir())


def test_a_folder_without_lesions_is_refused(fused, knees, tmp_path):
    with pytest.raises(UserError, match="only synthetic knees"):
        localise(fused, knees, out=tmp_path)


# The file


def test_the_reader_knows_the_phantom_s_columns(phantoms):
    with (phantoms / "lesions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [{k: str(v) for k, v in vars(box).items()} for box in read_lesions(phantoms)] == rows
    assert read_lesions(phantoms)[0].area == (int(rows[0]["row_max"]) - int(rows[0]["row_min"]) + 1) * (
        int(rows[0]["column_max"]) - int(rows[0]["column_min"]) + 1
    )


HEADER = ",".join(COLUMNS)
LINE = "valid,0001,sagittal,3,acl,gap,10,20,30,40"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line must be split,exam"),
        (LINE, "first line must be split,exam"),
        (f"{HEADER}\n{LINE},5", "line 2: expected 10 columns"),
        (f"{HEADER}\n{LINE[:-3]}", "line 2: expected 10 columns"),
        (f"{HEADER}\n\n{LINE}", "line 2: expected 10 columns"),
        (f"{HEADER}\n{LINE.replace('acl', '')}", "none of them empty"),
        (f"{HEADER}\n{LINE.replace('valid', 'held')}", "is not a split and a plane"),
        (f"{HEADER}\n{LINE.replace('sagittal', 'oblique')}", "is not a split and a plane"),
        (f"{HEADER}\n{LINE.replace(',3,', ',-3,')}", "whole numbers"),
        (f"{HEADER}\n{LINE.replace(',10,', ',1e1,')}", "whole numbers"),
        (f"{HEADER}\n{LINE.replace(',10,', ',²,')}", "whole numbers"),
        (f"{HEADER}\n{LINE.replace(',10,', ',21,')}", "first pixel comes before its last"),
        (f"{HEADER}\n{LINE.replace(',40', ',256')}", "both are from 0 to 255"),
        (f"{HEADER}\n{LINE}\n{LINE}", "line 3: this box stands here twice"),
        (f'{HEADER}\n"valid', "not readable text"),
        (f"{HEADER}\n\udcff", "not readable text"),
    ],
)
def test_a_damaged_file_is_refused_in_a_sentence(tmp_path, text, message):
    (tmp_path / "lesions.csv").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=message):
        read_lesions(tmp_path)


def test_a_box_beyond_its_series_is_refused(fused, phantoms, tmp_path):
    copy = shutil.copytree(phantoms, tmp_path / "knees")
    exam = ExamFolder(copy).exams("valid", "sagittal")[0]
    with (copy / "lesions.csv").open("a") as file:
        file.write(f"valid,{exam},sagittal,99,acl,gap,1,2,3,4\n")
    with pytest.raises(UserError, match=r"has a box on a slice that .* does not have"):
        localise(fused, copy, out=tmp_path)
