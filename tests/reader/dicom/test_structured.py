"""Structured reports, read back value by value, and checked by programs that are not ours."""

import io
import re
import shutil
import subprocess
import sys
import uuid
from dataclasses import replace
from importlib import import_module

import highdicom
import pydicom
import pytest
from helpers.made import IDENTITY, STUDY, made
from pydicom.sr.codedict import codes

from kneessl.errors import UserError
from kneessl.reader.answer.assessment import NO_DIAGNOSIS, NOTICE, Flag, KeySlice, PlaneResult
from kneessl.reader.dicom.returned import result_uids, uid_of
from kneessl.reader.dicom.structured import SCHEME, finding_code, result_objects, structured_report
from kneessl.sources.dicom.image import read_headers
from kneessl.sources.dicom.series import find_knees
from kneessl.sources.notes import Notes

NOT_COPIED = {"SeriesDescription", "InstitutionName"}
"""Planted, but of the series and equipment: the results are of another series and of no hospital's equipment."""
TIMES = {
    "InstanceCreationDate",
    "InstanceCreationTime",
    "SeriesDate",
    "SeriesTime",
    "ContentDate",
    "ContentTime",
    "DateOfSecondaryCapture",
    "TimeOfSecondaryCapture",
    "ContributingEquipmentSequence",
}


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return made(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def files(case):
    """The results as files: without identity and with it."""
    return {
        who: [as_file(result) for result in result_objects(case.assessment, identity)]
        for who, identity in (("nobody", None), ("patient", case.header))
    }


@pytest.fixture(scope="module")
def report(files):
    """As highdicom reads it back."""
    return highdicom.sr.srread(io.BytesIO(files["nobody"][0]))


@pytest.fixture(scope="module")
def groups(report):
    return groups_of(report)


def as_file(dataset):
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def read(content):
    return pydicom.dcmread(io.BytesIO(content))


def read_report(report):
    """As highdicom reads it back."""
    return highdicom.sr.srread(io.BytesIO(as_file(report)))


def groups_of(report):
    """The measurement groups, by task."""
    groups = report.content.get_image_measurement_groups()
    return {group.tracking_identifier.partition(",")[0]: group for group in groups}


def texts(container, name=codes.DCM.Comment):
    return [
        item.TextValue
        for item in container.ContentSequence
        if item.ValueType == "TEXT" and item.ConceptNameCodeSequence[0].CodeValue == name.value
    ]


def checked_by(program, path, content, *options):
    """What another program says of a file: its exit status and its output."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    path.write_bytes(content)
    done = subprocess.run([program, *options, str(path)], capture_output=True, text=True, errors="replace")
    return done.returncode, done.stdout + done.stderr


def assert_valid(path, content, *explained):
    """No error by dicom3tools, but for those that a test explains; its warnings are two, and neither is a fault.

    A private coding scheme is not in its list of public ones. And a file without identity cannot go into a DICOMDIR,
    which wants to sort it under somebody.
    """
    _, output = checked_by("dciodvfy", path, content)
    lines = [line for line in output.splitlines() if line not in {"ComprehensiveSR", "SCImage"}]
    warnings = f"defined term <{SCHEME}>", "Missing attribute or value that would be needed to build DICOMDIR"
    known = (f"Warning - Unrecognized {warnings[0]}", f"Warning - {warnings[1]}", *explained)
    assert not [line for line in lines if not line.startswith(known)]
    assert re.search("ComprehensiveSR|SCImage", output)


def test_uids_are_those_of_the_study_side_and_model():
    uids = result_uids(STUDY, "R", "ab" * 32)
    assert uids == result_uids(STUDY, "R", "ab" * 32)
    space = uuid.UUID("00c91f42-538e-42ee-b650-4d4b81564d1b")
    names = "\n".join(["sr series", STUDY, "R", "ab" * 32])
    assert uids.sr_series == f"2.25.{uuid.uuid5(space, names).int}"
    others = [
        result_uids(STUDY, "L", "ab" * 32),
        result_uids(STUDY, "R", "cd" * 32),
        result_uids(STUDY + "1", "R", "ab" * 32),
    ]
    every = [uid for each in (uids, *others) for uid in vars(each).values()]
    assert len(set(every)) == 16
    assert all(pydicom.uid.UID(uid).is_valid and len(uid) <= 44 for uid in every)


def test_uids_stay_what_they_are_from_version_to_version():
    assert uid_of("sr series", "1.2.3", "R", "ab") == "2.25.279630564964051495333405971970977036242"


def test_every_value_is_read_back(case, groups):
    assert list(groups) == ["acl", "meniscus", "abnormal", "mcl"]
    answers = {"yes": codes.SCT.Present, "doubt": codes.SCT.Undetermined, "no": codes.SCT.Absent}
    for finding in case.assessment.findings:
        group = groups[finding.task]
        assert group.finding_type == finding_code(finding.task)
        (site,) = group.finding_sites
        assert (site.value, site.laterality) == (codes.SCT.KneeJoint, codes.SCT.Right)
        (said,) = [e for e in group.get_qualitative_evaluations() if e.name.scheme_designator == SCHEME]
        assert said.name.meaning == "Answer of a research model, not a diagnosis"
        assert said.value == answers[finding.state] if finding.state else said.value.meaning == "Not assessed"
        numbers = group.get_measurements()
        expected = [] if finding.probability is None else [finding.probability, *finding.interval]
        assert [number.value for number in numbers] == [100 * value for value in expected]
        assert {number.unit for number in numbers} <= {codes.UCUM.Percent}
        assert texts(group[0])[: len(finding.reasons)] == list(finding.reasons)
    assert [number.name.meaning for number in groups["acl"].get_measurements()] == [
        "Probability",
        "Probability, lower limit of its 95 % interval",
        "Probability, upper limit of its 95 % interval",
    ]
    assert "Operating points, locked beforehand: no below 20.0 %, yes from 70.0 %." in texts(groups["acl"][0])


def test_a_finding_that_was_not_assessed_carries_no_number(groups):
    group = groups["mcl"]
    assert not group.get_measurements()
    assert not group.source_images
    assert texts(group[0]) == ["nothing is locked with the model for sagittal alone"]


def test_a_probability_without_operating_points_or_interval_is_told_as_such(case):
    open_ = replace(case.assessment.findings[0], state=None, interval=None, points=None)
    group = groups_of(read_report(structured_report(replace(case.assessment, findings=(open_,)), None)))["acl"]
    assert [number.value for number in group.get_measurements()] == [87.5]
    (said,) = group.get_qualitative_evaluations()
    assert said.value.meaning == "Probability only: the model has no operating points"
    assert not [text for text in texts(group[0]) if "Operating points" in text]


@pytest.mark.parametrize(("share", "shown"), [(1e-9, "0.01"), (1 - 1e-9, "99.99"), (0.36248617, "36.25")])
def test_no_probability_is_shown_as_0_or_100(case, share, shown):
    finding = replace(case.assessment.findings[0], probability=share, interval=None)
    report = read(as_file(structured_report(replace(case.assessment, findings=(finding,)), None)))
    (group,) = report.ContentSequence[-1].ContentSequence
    (number,) = [item.MeasuredValueSequence[0] for item in group.ContentSequence if item.ValueType == "NUM"]
    assert (str(number.NumericValue), number.FloatingPointValue) == (shown, 100 * share)


def test_key_slices_lead_to_their_images_and_frames(groups):
    group = groups["acl"]
    references = [image.ReferencedSOPSequence[0] for image in group.source_images]
    found = [
        (r.ReferencedSOPClassUID.name, r.ReferencedSOPInstanceUID, r.get("ReferencedFrameNumber")) for r in references
    ]
    assert found == [
        ("MR Image Storage", f"{STUDY}.1.2", None),
        ("Enhanced MR Image Storage", f"{STUDY}.2.1", 6),
        ("MR Image Storage", f"{STUDY}.1.4", None),
    ]
    assert "Key slice: axial, 6 of 8, 25 % of what speaks for the finding." in texts(group[0])


def test_the_evidence_is_every_image_that_was_used(case, report):
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in case.files]
    wanted = {(h.StudyInstanceUID, h.SeriesInstanceUID, h.SOPInstanceUID, h.SOPClassUID) for h in headers}
    found = report.get_evidence(current_procedure_only=True)
    assert set(found) == wanted
    assert len(found) == len(wanted) == 7


def test_a_device_observed_it_and_nobody_verified_it(case, report):
    assert (report.VerificationFlag, report.CompletionFlag, report.PreliminaryFlag) == (
        "UNVERIFIED",
        "PARTIAL",
        "PRELIMINARY",
    )
    (context,) = report.content.get_observer_contexts()
    assert context.observer_type == codes.DCM.Device
    assert context.observer_identifying_attributes.name == "kneessl"
    whole = replace(case.assessment, findings=case.assessment.findings[:3])
    assert structured_report(whole, None).CompletionFlag == "COMPLETE"


def test_the_algorithm_is_the_model_by_its_hash(groups):
    group = groups["acl"][0]
    assert texts(group, codes.DCM.AlgorithmName) == ["kneessl"]
    assert texts(group, codes.DCM.AlgorithmVersion) == ["0.1.0"]
    parameters = texts(group, codes.DCM.AlgorithmParameters)
    assert f"model SHA-256 {'5e' * 32}" in parameters
    assert f"sagittal preprocessing {'p1' * 8}" in parameters
    assert f"sagittal training data SHA-256 {'d1' * 32}" in parameters
    assert "trained on synthetic knees (a phantom)" in parameters


def test_what_a_reader_must_know_comes_before_the_findings(case, files):
    items = list(read(files["nobody"][0]).ContentSequence)
    assert items[-1].ConceptNameCodeSequence[0].CodeMeaning == "Imaging Measurements"
    comments = [i.TextValue for i in items if i.ConceptNameCodeSequence[0].CodeMeaning == "Comment"]
    assert comments == [NOTICE, NO_DIAGNOSIS, case.assessment.flags[1].text]
    real = replace(case.assessment, model=replace(case.assessment.model, synthetic=None), flags=())
    report = structured_report(real, None)
    assert texts(report) == [NOTICE]
    assert b"phantom" not in as_file(report)


def test_a_phantom_model_is_called_so_even_if_no_flag_says_it(case):
    assert texts(structured_report(replace(case.assessment, flags=()), None)) == [NOTICE, NO_DIAGNOSIS]


def test_without_identity_nothing_leads_to_the_patient_but_uids(files):
    for content in files["nobody"]:
        for planted in (*map(str, IDENTITY.values()), "lanted"):
            if planted == "F":  # a letter of many words: see the attribute below
                continue
            assert planted.encode() not in content
        result = read(content)
        for keyword in set(IDENTITY) - {"SeriesDescription"}:
            assert not result.get(keyword), keyword
        assert result.StudyInstanceUID == STUDY


def test_with_identity_it_is_filed_where_the_study_is(files):
    for content, number, modality in zip(files["patient"], (9901, 9902), ("SR", "OT"), strict=True):
        result = read(content)
        for keyword in set(IDENTITY) - NOT_COPIED:
            assert str(result[keyword].value) == IDENTITY[keyword], keyword
        assert result.StudyInstanceUID == STUDY
        assert (result.SeriesNumber, result.Modality) == (number, modality)
        assert result.SeriesDescription == "kneessl research result"
        assert "InstitutionName" not in result


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "Müller-Ödström^Jürgen"),
        ("ISO_IR 192", "Wang^XiaoDong=王^小东"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    ],
)
def test_names_stay_in_the_character_set_of_the_study(tmp_path, charset, name):
    case = made(tmp_path, IDENTITY | {"SpecificCharacterSet": charset, "PatientName": name, "StudyDescription": "Knie"})
    header = pydicom.dcmread(case.files[0], stop_before_pixels=True)
    raw = header.get_item("PatientName").value
    odd = replace(case.assessment.findings[0], reasons=("“held” – it’s 90 % · 膝",))
    for result in result_objects(replace(case.assessment, findings=(odd,)), header):
        content = as_file(result)
        assert raw in content
        back = read(content)
        assert back.PatientName == name
        assert back.SpecificCharacterSet == charset
        if result.Modality == "SR":
            (group,) = back.ContentSequence[-1].ContentSequence
            assert texts(group)[0] == '"held" - it\'s 90 % - ?'


def test_values_that_break_the_standard_go_back_as_they_came(case):
    header = pydicom.Dataset()
    with pytest.warns(UserWarning, match="Invalid value"):
        header.PatientSex, header.PatientBirthDate = "unknown to all of us", "31.12.1963"
    for result in result_objects(case.assessment, read_again(header)):
        back = read(as_file(result))
        assert (back.PatientSex, back.get_item("PatientBirthDate").value) == ("unknown to all of us", b"31.12.1963")
        assert back.PatientName == ""


def read_again(dataset):
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, implicit_vr=False, little_endian=True)
    return pydicom.dcmread(io.BytesIO(buffer.getvalue()), force=True)


def test_two_runs_differ_in_their_time_alone(case):
    first, second = (result_objects(case.assessment, case.header) for _ in range(2))
    for one, two in zip(first, second, strict=True):
        for dataset in (one, two):
            for keyword in TIMES & set(dataset.dir()):
                del dataset[keyword]
        assert one == two
        assert one.file_meta == two.file_meta


def test_both_results_have_the_uids_that_were_promised(case):
    uids = result_uids(STUDY, "R", case.assessment.model.sha256)
    report, capture = result_objects(case.assessment, None)
    assert (report.SeriesInstanceUID, report.SOPInstanceUID) == (uids.sr_series, uids.sr_instance)
    assert (capture.SeriesInstanceUID, capture.SOPInstanceUID) == (uids.capture_series, uids.capture_instance)


def test_a_study_of_which_nothing_could_be_read_still_has_results(case, tmp_path):
    nothing = tuple(
        replace(f, state=None, probability=None, interval=None, planes=(), key_slices=(), points=None)
        for f in case.assessment.findings
    )
    empty = replace(case.assessment, findings=nothing, planes={}, missing=case.assessment.model.planes, laterality="")
    report, capture = result_objects(empty, case.header)
    assert "CurrentRequestedProcedureEvidenceSequence" not in report
    assert report.PatientName == "Planted^Paula"
    (site,) = groups_of(read_report(report))["acl"].finding_sites
    assert site.laterality is None
    assert_valid(tmp_path / "sr.dcm", as_file(report))
    unknown = "Warning - is only permitted to be empty when actually unknown"  # which the side of this knee is
    assert_valid(tmp_path / "capture.dcm", as_file(capture), unknown)


def test_files_that_cannot_be_named_are_no_evidence(case):
    seen = case.assessment.planes["sagittal"]
    nameless = tuple(replace(image, instance="", sop_class="") for image in seen.series.images)
    finding = replace(case.assessment.findings[0], key_slices=(KeySlice("sagittal", 2, 6, 0.5, nameless[2]),))
    planes = {"sagittal": replace(seen, series=replace(seen.series, images=nameless))}
    report = structured_report(replace(case.assessment, findings=(finding,), planes=planes), None)
    assert not groups_of(read_report(report))["acl"].source_images
    assert "CurrentRequestedProcedureEvidenceSequence" not in report


NAME = "DOE_JANE_19700101"


def with_images(assessment, **changes):
    """The assessment with these changes to every image; a value may be made of the image."""

    def changed(image):
        return replace(image, **{name: v(image) if callable(v) else v for name, v in changes.items()})

    def renewed(plane):
        return replace(plane, series=replace(plane.series, images=tuple(map(changed, plane.series.images))))

    findings = tuple(
        replace(f, key_slices=tuple(replace(key, image=changed(key.image)) for key in f.key_slices))
        for f in assessment.findings
    )
    planes = {name: renewed(plane) for name, plane in assessment.planes.items()}
    return replace(assessment, findings=findings, planes=planes)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "changes",
    [
        {"sop_class": "05703841015643452503209109170649121759226008273168"},  # an anonymiser's
        {"sop_class": "1.3.46.670589.11.0.0.12.1"},  # Philips's own
        {"sop_class": "1.2.840.10008.5.1.1.30"},  # the standard's, retired: a hardcopy
        {"instance": lambda image: f"{NAME}_{image.frame}"},
        {"series": NAME},
        {"study": NAME},
    ],
)
@pytest.mark.parametrize("who", ["nobody", "patient"])
def test_images_of_unknown_classes_and_without_valid_uids_are_not_referenced(case, changes, who, caplog):
    changed = with_images(case.assessment, **changes)
    results = result_objects(changed, case.header if who == "patient" else None)
    report = read_report(results[0])
    assert "CurrentRequestedProcedureEvidenceSequence" not in report
    groups = groups_of(report)
    assert set(groups) == {"acl", "meniscus", "abnormal", "mcl"}
    assert not any(group.source_images for group in groups.values())
    assert not any(NAME.encode() in as_file(result) for result in results)
    assert not caplog.records


def test_images_that_can_be_referenced_are_so_beside_others_that_cannot(case):
    planes = case.assessment.planes
    private = with_images(case.assessment, sop_class="1.3.46.670589.11.0.0.12.1").planes["axial"]
    changed = replace(case.assessment, planes=planes | {"axial": private}, findings=case.assessment.findings[2:])
    report = structured_report(changed, None)
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == f"{STUDY}.1"
    assert len(series.ReferencedSOPSequence) == 6


@pytest.mark.filterwarnings("error")
def test_a_study_whose_uid_is_a_name_gets_one_that_is_none(case):
    named = replace(with_images(case.assessment, study=NAME), study_uid=NAME)
    results = result_objects(named, None)
    assert {str(result.StudyInstanceUID) for result in results} == {uid_of("study", NAME)}
    assert not any(NAME.encode() in as_file(result) for result in results)
    returned = result_objects(named, case.header)
    assert {str(result.StudyInstanceUID) for result in returned} == {NAME}, "its archive files it by that"


@pytest.mark.parametrize(
    ("task", "scheme", "value", "meaning"),
    [
        ("acl", "SCT", "444470001", "Injury of anterior cruciate ligament"),
        ("ACL", "SCT", "444470001", "Injury of anterior cruciate ligament"),
        ("abnormal", "SCT", "263654008", "Abnormal"),
        ("meniscus", "SCT", "239720000", "Tear of meniscus of knee"),
        ("Medial Meniscus", SCHEME, "medial_meniscus", "Tear of medial meniscus"),
        ("PF OA", SCHEME, "pf_oa", "Osteoarthritis of patellofemoral joint"),
        ("Baker's", SCHEME, "baker_s", "Baker's cyst"),
        ("Effusion", "SCT", "202381003", "Knee joint effusion"),
        ("Hoffa", SCHEME, "hoffa", "Hoffa"),
        ("膝", SCHEME, "finding", "?"),
        ("x" * 80, SCHEME, "x" * 80, "x" * 64),
    ],
)
def test_tasks_are_coded_publicly_where_their_meaning_is_sure(case, task, scheme, value, meaning):
    code = finding_code(task)
    assert (code.scheme_designator, code.value, code.meaning) == (scheme, value, meaning)
    finding = replace(case.assessment.findings[0], task=task)
    report = read_report(structured_report(replace(case.assessment, findings=(finding,)), None))
    (group,) = report.content.get_image_measurement_groups()
    assert group.finding_type == code


@pytest.mark.parametrize("who", ["nobody", "patient"])
def test_dcmtk_reads_the_report_without_a_warning(files, who, tmp_path):
    status, output = checked_by("dsrdump", tmp_path / "sr.dcm", files[who][0], "+Pl", "+Pc")
    assert status == 0
    assert not re.findall(r"^[WEF]: |warning|error", output, re.IGNORECASE | re.MULTILINE)
    assert '<contains NUM:(122157,DCM,"Probability")="87.50" (%,UCUM,"Percent")>' in output
    assert '=(52101004,SCT,"Present")>' in output
    assert "(MRe image,,6)" in output
    assert f'<contains TEXT:(121106,DCM,"Comment")="{NOTICE}">' in output
    assert ("Planted^Paula" in output) == (who == "patient")


@pytest.mark.parametrize("who", ["nobody", "patient"])
@pytest.mark.parametrize("which", [0, 1], ids=["report", "capture"])
def test_dicom3tools_finds_no_error(files, who, which, tmp_path):
    assert_valid(tmp_path / "result.dcm", files[who][which])


def test_the_real_knee_goes_back_to_where_it_came_from(real_data, case, tmp_path):
    paths = sorted(path for path in real_data("knee_mese").rglob("*") if path.is_file())
    headers = read_headers(((path, "a file") for path in paths), Notes())
    (knee,) = find_knees(headers, 30.0, every_echo=False, notes=Notes())
    (series,) = knee.series
    seen = series.prepared()
    heat = {"acl": case.assessment.planes["sagittal"].heat["acl"][[0] * len(seen.volume)]}
    plane = PlaneResult(seen, case.assessment.planes["sagittal"].facts, {}, True, heat)
    key = KeySlice("sagittal", 11, len(seen.volume), 0.5, seen.images[11])
    finding = replace(case.assessment.findings[0], planes=("sagittal",), key_slices=(key,))
    study = seen.images[0].study
    assessment = replace(case.assessment, study_uid=study, findings=(finding,), planes={"sagittal": plane}, flags=())
    header = pydicom.dcmread(seen.images[0].file, stop_before_pixels=True)
    assert not header.original_encoding[1]  # big endian
    report, capture = result_objects(assessment, header)
    assert (
        len(report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence) == 24
    )
    (image,) = groups_of(read_report(report))["acl"].source_images
    assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == seen.images[11].instance
    for name, result in (("sr", report), ("capture", capture)):
        back = read(as_file(result))
        assert back.StudyInstanceUID == header.StudyInstanceUID
        assert back.PatientID == header.PatientID
        assert back.StudyDate == header.StudyDate
        # The study was anonymised to the year 1, which dicom3tools takes for no date: it goes back as it came.
        assert header.StudyDate == header.PatientBirthDate == "00010101"
        dates = [
            f"Error - Value invalid for this VR - {date}  DA [1] = <00010101>"
            for date in ("(0x0008,0x0020) DA Study Date", "(0x0010,0x0030) DA Patient's Birth Date")
        ]
        total = "Error - Dicom dataset contains invalid data values for Value Representations"
        assert_valid(tmp_path / name, as_file(result), *dates, total)
    status, output = checked_by("dsrdump", tmp_path / "sr", as_file(report))
    assert status == 0
    assert "warning" not in output.lower()


def test_a_missing_package_is_named_in_one_sentence(monkeypatch):
    for module in [name for name in sys.modules if name.partition(".")[0] == "highdicom"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "highdicom", None)
    monkeypatch.delitem(sys.modules, "kneessl.reader.dicom.structured")
    with pytest.raises(UserError, match=r'^highdicom missing .* run `pip install "kneessl\[reader\]"` first$'):
        import_module("kneessl.reader.dicom.structured")


def test_flags_of_any_text_can_be_written(case):
    odd = Flag("quality", "axial", "“Äußerst” grobkörnig – 4,0 mm " + "x" * 3000)
    report = structured_report(replace(case.assessment, flags=(odd,)), case.header)
    assert texts(report)[-1] == '"?u?erst" grobk?rnig - 4,0 mm ' + "x" * 3000
