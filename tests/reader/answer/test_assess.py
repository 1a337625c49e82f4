"""From made studies to answers; what is said must be what the model says of the same study once it is imported."""

from dataclasses import replace

import numpy as np
import pydicom
import pytest
from helpers.dicom import write_plane
from scipy.special import expit

from kneessl.errors import UserError
from kneessl.exams.folder import ExamFolder
from kneessl.model.model import load_model
from kneessl.model.predict import predict_task, series_logits
from kneessl.reader.answer.assess import Assessor, NoKneeError
from kneessl.reader.answer.quality import quality_flags
from kneessl.sources.importer import import_exams


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """One right knee in three planes."""
    folder = tmp_path_factory.mktemp("study")
    for number, plane in enumerate(("sagittal", "coronal", "axial"), start=1):
        write_plane(folder / plane, plane, f"2.25.5.{number}", seed=number)
    return folder


def familiar(assessor):
    """The same, but nothing is unfamiliar to it: noise is, to a model of squares on noise."""
    planes = {plane: replace(model, familiarity=None) for plane, model in assessor.model.planes.items()}
    assessor.model = replace(assessor.model, planes=planes)
    return assessor


def files(*folders):
    return sorted(file for folder in folders for file in folder.rglob("*.dcm"))


def assessed(run, *folders):
    assessor = familiar(Assessor(run))
    (knee,) = assessor.knees(files(*folders))
    return assessor.assess(knee)


def test_an_answer_is_the_models_own_on_the_imported_study(models, study, tmp_path):
    import_exams(study, tmp_path / "imported")
    folder, model = ExamFolder(tmp_path / "imported"), load_model(models / "fused")
    told = assessed(models / "fused", study)
    for plane in ("sagittal", "coronal"):
        assert np.array_equal(told.planes[plane].series.volume, folder.series("train", plane, "0000"))
    logits = {p: series_logits(m, folder.series("train", p, "0000"))[None] for p, m in model.planes.items()}
    assert [finding.task for finding in told.findings] == ["acl", "Baker's / cyst"]
    for finding in told.findings:
        expected = predict_task(model, finding.task, logits)
        assert finding.probability == expected.probabilities[0]
        assert finding.state == expected.states[0]
        assert finding.interval == expected.intervals[0]
        assert finding.interval[0] <= finding.probability <= finding.interval[1]
        assert finding.planes == ("sagittal", "coronal")
        assert finding.calibrated
        assert finding.points == model.decisions.decisions[finding.task]["coronal+sagittal"].points
    assert told.assessed
    assert told.missing == ()
    assert (told.laterality, len(told.key)) == ("R", 16)
    assert (told.model.name, told.model.sha256) == ("fused", model.decisions.sha256)


def test_maps_deal_out_the_fused_logit_and_heat_is_their_size(models, study):
    model, told = load_model(models / "fused"), assessed(models / "fused", study)
    for finding in told.findings:
        fusion = model.decisions.stacks[finding.task].fusions["coronal+sagittal"]
        index, dealt = model.tasks.index(finding.task), fusion.intercept
        for plane, seen in told.planes.items():
            assert seen.exact
            bias = model.planes[plane].classifier.head.bias[index].item()
            dealt += fusion.weights[plane] * bias + float(seen.maps[finding.task].sum())
        recalibration = model.decisions.decisions[finding.task]["coronal+sagittal"].recalibration
        assert expit(recalibration.intercept + recalibration.slope * dealt) == pytest.approx(finding.probability)
        heat = [seen.heat[finding.task].astype(int) for seen in told.planes.values()]
        assert max(np.abs(values).max() for values in heat) == (127 if any(fusion.weights.values()) else 0)
        assert all(values.shape == (20, 256, 256) for values in heat)
    assert any(any(stack.fusions["coronal+sagittal"].weights.values()) for stack in model.decisions.stacks.values())


def test_key_slices_are_peaks_of_what_speaks_for_the_finding(models, study):
    told = assessed(models / "fused", study)
    seen = 0
    for finding in told.findings:
        scores = {plane: told.planes[plane].maps[finding.task].sum((1, 2)) for plane in finding.planes}
        total = sum(values[values > 0].sum() for values in scores.values())
        shares = [key.share for key in finding.key_slices]
        assert shares == sorted(shares, reverse=True)
        assert len(shares) <= 3
        assert sum(shares) <= 1
        for key in finding.key_slices:
            seen += 1
            values = scores[key.plane]
            assert key.of == len(values)
            assert key.share == pytest.approx(values[key.index] / total)
            assert values[key.index] == values[max(key.index - 1, 0) : key.index + 2].max()
            assert key.image is told.planes[key.plane].series.images[key.index]
        if finding.key_slices:
            assert max(values.max() for values in scores.values()) == pytest.approx(shares[0] * total)
    assert seen, "at least one finding has something that speaks for it"


def test_a_missing_plane_is_said_and_its_own_points_are_used(models, study):
    told, model = assessed(models / "fused", study / "coronal"), load_model(models / "fused")
    assert told.missing == ("sagittal",)
    for finding in told.findings:
        assert finding.planes == ("coronal",)
        assert finding.points == model.decisions.decisions[finding.task]["coronal"].points
        assert any("without sagittal" in reason for reason in finding.reasons)


def test_without_any_plane_of_the_model_nothing_is_said(models, study):
    told = assessed(models / "fused", study / "axial")
    assert not told.assessed
    for finding in told.findings:
        assert (finding.answer, finding.probability, finding.interval, finding.key_slices) == (
            "not assessed",
            None,
            None,
            (),
        )
        assert finding.reasons == ("no sagittal or coronal series could be used",)
    (line,) = told.series
    assert not line.used
    assert line.reason == "the model does not look at axial series"
    assert told.planes == {}


def test_a_set_of_planes_without_anything_locked_is_not_assessed(models, study):
    assessor = familiar(Assessor(models / "fused"))
    decisions = assessor.model.decisions
    locked = {task: {k: d for k, d in sets.items() if k != "coronal"} for task, sets in decisions.decisions.items()}
    assessor.model = replace(assessor.model, decisions=replace(decisions, decisions=locked))
    (knee,) = assessor.knees(files(study / "coronal"))
    finding = assessor.assess(knee).findings[0]
    assert finding.answer == "not assessed"
    assert "nothing is locked with the model for coronal alone" in finding.reasons[0]
    empty = replace(decisions, decisions={task: {} for task in locked})
    assessor.model = replace(assessor.model, decisions=empty)
    (knee,) = assessor.knees(files(study))
    (reason,) = assessor.assess(knee).findings[0].reasons
    assert reason == "nothing is locked with the model for sagittal and coronal alone", "no plane is called missing"


def test_without_folds_there_is_a_bare_probability_and_it_says_so(models, study):
    told, model = assessed(models / "unlocked", study), load_model(models / "unlocked")
    (finding,) = told.findings
    assert (finding.answer, finding.interval, finding.calibrated, finding.points) == (
        "no operating points",
        None,
        False,
        None,
    )
    assert "not calibrated" in finding.reasons[0]
    assert finding.probability == pytest.approx(
        expit(series_logits(model.planes["sagittal"], told.planes["sagittal"].series.volume)[0])
    )
    assert any("is not known" in flag.text for flag in told.flags)


def test_what_the_model_has_never_seen_is_held_at_doubt(models, study):
    assessor = Assessor(models / "sagittal")
    (knee,) = assessor.knees(files(study))
    plane = assessor.model.planes["sagittal"]
    points = {
        task: {key: replace(d, points=replace(d.points, rule_out=0.0, rule_in=0.0)) for key, d in sets.items()}
        for task, sets in assessor.model.decisions.decisions.items()
    }
    always_yes = replace(assessor.model, decisions=replace(assessor.model.decisions, decisions=points))

    def with_reference(distance):
        own = replace(plane.familiarity, reference=np.full(200, distance))
        assessor.model = replace(always_yes, planes={"sagittal": replace(plane, familiarity=own)})
        return assessor.assess(knee)

    near, far = with_reference(1e9), with_reference(0.0)
    assert {finding.state for finding in near.findings} == {"yes"}
    assert {finding.state for finding in far.findings} == {"doubt"}
    assert not [flag for flag in near.flags if flag.kind == "unfamiliar"]
    (flag,) = [flag for flag in far.flags if flag.kind == "unfamiliar"]
    assert flag.plane == "sagittal"
    assert "99.5%" in flag.text
    for a, b in zip(near.findings, far.findings, strict=True):
        assert a.probability == b.probability
        assert any("held at doubt" in reason for reason in b.reasons)


def test_pixels_that_cannot_be_read_give_way_to_the_next_best_series(models, study, tmp_path):
    broken = tmp_path / "broken"
    write_plane(broken, "sagittal", "2.25.5.9", slices=24, seed=9, PixelData=b"\0\0")
    told = assessed(models / "sagittal", study / "sagittal", broken)
    assert told.assessed
    used = {line.slices: (line.used, line.reason) for line in told.series}
    assert used[20] == (True, "a better series of its plane could not be read")
    assert used[24][0] is False
    assert "pixels are missing, cut short" in used[24][1]
    alone = assessed(models / "sagittal", broken)
    assert {finding.answer for finding in alone.findings} == {"not assessed"}


def test_no_knee_says_what_there_is_instead(models, tmp_path):
    assessor = Assessor(models / "sagittal")
    write_plane(tmp_path, "sagittal", "2.25.5.1", BodyPartExamined="BRAIN")
    with pytest.raises(NoKneeError, match=r"no knee MR series .* another body part \(BRAIN\) \(20\)"):
        assessor.knees(files(tmp_path))
    with pytest.raises(NoKneeError, match="left out: nothing"):
        assessor.knees([])
    write_plane(tmp_path / "knee", "sagittal", "2.25.5.2", ImageOrientationPatient=None)
    with pytest.raises(UserError, match="no valid ImageOrientationPatient") as error:
        assessor.knees(files(tmp_path / "knee"))
    assert not isinstance(error.value, NoKneeError), "a damaged study is not taken for another joint"


def test_the_same_study_gets_the_same_answer(models, study):
    a, b = assessed(models / "fused", study), assessed(models / "fused", study)
    assert [f.probability for f in a.findings] == [f.probability for f in b.findings]
    assert a.key == b.key


def test_quality_flags(models, study):
    told = assessed(models / "sagittal", study)
    seen = told.planes["sagittal"]
    assert not list(quality_flags(seen.series, seen.facts))
    odd = replace(seen.series, volume=seen.series.volume[:9], slice_mm=6.5, pixel_mm=1.5)
    texts = [flag.text for flag in quality_flags(odd, replace(seen.facts, obliquity_deg=38.0))]
    assert len(texts) == 4
    for text, part in zip(texts, ("only 9 slices", "6.5 mm apart", "384 mm", "38 degrees"), strict=True):
        assert part in text


@pytest.mark.parametrize("planes", [("sagittal", "coronal"), ("sagittal", "sagittal")])
def test_a_study_of_two_patients_is_not_answered(tmp_path, planes):
    for number, (plane, patient) in enumerate(zip(planes, ("Quaxolotl", "Zyphira"), strict=True)):
        write_plane(tmp_path, plane, f"2.25.5.{number}", seed=number, PatientID=patient)
    assessor = object.__new__(Assessor)  # which knees there are does not depend on the model
    with pytest.raises(UserError, match="images of several patients") as error:
        assessor.knees(files(tmp_path))
    assert "Quaxolotl" not in str(error.value)
    for file in files(tmp_path):
        data = pydicom.dcmread(file)
        data.StudyInstanceUID = "2.25.12" if data.PatientID == "Zyphira" else "2.25.11"
        data.save_as(file)
    assert len(assessor.knees(files(tmp_path))) == 2


@pytest.mark.parametrize("slices", [1, 3])
def test_studies_beside_the_answered_one_of_which_nothing_can_be_used_are_said(tmp_path, slices):
    write_plane(tmp_path / "a", "sagittal", "2.25.5.1")
    write_plane(tmp_path / "b", "coronal", "2.25.6.1", slices=slices, StudyInstanceUID="2.25.6")
    (knee,) = Assessor.knees(None, files(tmp_path))
    assert knee.left_out == ("series with fewer than 5 slices (1)",)


def test_what_another_answer_tells_of_is_not_told_twice(tmp_path):
    for study in ("2.25.5", "2.25.6"):
        write_plane(tmp_path / study, "sagittal", f"{study}.1", StudyInstanceUID=study)
    write_plane(tmp_path / "short", "coronal", "2.25.6.2", slices=3, StudyInstanceUID="2.25.6")
    assert [knee.left_out for knee in Assessor.knees(None, files(tmp_path))] == [(), ()]
