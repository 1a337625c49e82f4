import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from io import BytesIO

import pydicom
import pytest
from helpers.dicom import write_plane
from helpers.watched import ID, IDENTITY, OTHER, Archive, StandIn, an_archive, an_mr, dicom, objects, uids, written

from kneessl.errors import UserError
from kneessl.finetuning.finetune import finetune
from kneessl.reader.archive import watch as module
from kneessl.reader.archive.orthanc import Orthanc, StoredSeries, StoredStudy
from kneessl.reader.archive.watch import Watcher, follow, identity_of, is_answered, watch
from kneessl.reader.intake.connection import MissingError, UnreachableError

SETTINGS = {"epochs": 1, "size": 32, "batch": 4, "slices": 4, "precision": "32"}


@pytest.fixture
def stand_ins(monkeypatch):
    monkeypatch.setattr(module, "result_objects", objects)
    monkeypatch.setattr(module, "result_uids", uids)


def test_a_study_is_answered_once(stand_ins, capsys):
    archive, assessor = an_archive(ID), StandIn()
    watcher = Watcher(archive, assessor)
    for _ in range(3):
        watcher.look()
    assert archive.results(ID) == ["OT", "SR"]
    assert assessor.asked == 1
    assert watcher.unassessed == 0
    assert capsys.readouterr().out == "study 0a1b2c3d: right knee: SR and capture stored\n"
    assert not archive.folder.exists()
    Watcher(archive, assessor).look()  # started again
    assert assessor.asked == 1
    assert len(archive.downloads) == 1
    Watcher(archive, StandIn("b" * 64)).look()  # another model
    assert archive.results(ID) == ["OT", "OT", "SR", "SR"]


@dataclass(frozen=True)
class Told:
    """An answer as a dataclass, as the real one is."""

    study_uid: str
    laterality: str
    sha256: str
    findings: tuple
    assessed: bool


@pytest.mark.parametrize("sides", [("R",), ("L", "R")])
def test_a_study_whose_uid_was_replaced_as_invalid_is_answered_once_and_where_it_lies(stand_ins, monkeypatch, sides):
    archive, assessor = an_archive(ID), StandIn(sides=sides)
    assess = assessor.assess
    monkeypatch.setattr(assessor, "assess", lambda knee: Told(**vars(assess(knee)) | {"study_uid": "2.25.7"}))
    for _ in range(3):
        Watcher(archive, assessor).look()
    assert archive.results(ID) == ["OT"] * len(sides) + ["SR"] * len(sides)
    assert assessor.asked == 1


def test_two_watchers_that_do_not_see_each_other_leave_one_answer(stand_ins, capsys, monkeypatch):
    archive = an_archive(ID)
    monkeypatch.setattr(module, "is_answered", lambda *_: False)
    for _ in range(2):
        Watcher(archive, StandIn()).look()
    assert archive.results(ID) == ["OT", "SR"]
    assert capsys.readouterr().out.splitlines()[1] == "study 0a1b2c3d: right knee: SR and capture were there already"


@pytest.mark.parametrize("whole", range(6))
def test_both_knees_of_a_study_are_answered_also_after_a_crash_between_them(stand_ins, monkeypatch, whole):
    archive, sides, stored = an_archive(ID), ("L", "R", ""), []

    def store_or_crash(data):
        if len(stored) == whole:
            raise KeyboardInterrupt
        stored.append(Archive.store(archive, data))

    with monkeypatch.context() as crashing:
        crashing.setattr(archive, "store", store_or_crash, raising=False)
        with pytest.raises(KeyboardInterrupt):
            Watcher(archive, StandIn(sides=sides)).look()
    assert len(archive.results(ID)) == whole
    Watcher(archive, StandIn(sides=sides)).look()
    assert archive.results(ID) == ["OT"] * 3 + ["SR"] * 3


def test_a_knee_that_comes_later_is_answered_too(stand_ins):
    archive, assessor = an_archive(ID), StandIn(sides=("L",))
    watcher = Watcher(archive, assessor)
    watcher.look()
    archive.add(ID, an_mr("1.2.1", number=1))
    assessor.sides = ("L", "R")
    watcher.look()
    assert archive.results(ID) == ["OT", "OT", "SR", "SR"]
    archive.add(ID, an_mr("1.2.1", number=2))  # while nobody watches
    again = StandIn(sides=("L", "R"))
    Watcher(archive, again).look()
    assert again.asked == 1
    assert archive.results(ID) == ["OT", "OT", "SR", "SR"]


def test_a_study_that_grows_while_it_is_read_is_not_answered_in_part(stand_ins, capsys, monkeypatch):
    archive, assessor = an_archive(ID), StandIn()
    assess = assessor.assess

    def slowly(knee):
        if assessor.asked == 1:
            archive.add(ID, an_mr("1.2.1", number=1))
        return assess(knee)

    monkeypatch.setattr(assessor, "assess", slowly)
    watcher = Watcher(archive, assessor)
    watcher.look()
    assert archive.results(ID) == []
    assert capsys.readouterr().out == "study 0a1b2c3d: changed meanwhile; it will be answered once it is stable again\n"
    watcher.look()
    assert archive.results(ID) == ["OT", "SR"]


def test_a_study_that_is_not_stable_yet_or_deleted_waits_without_a_word(stand_ins, capsys):
    archive = an_archive(ID, OTHER)
    archive.unstable.add(ID)
    archive.broken[OTHER] = MissingError("gone")
    watcher = Watcher(archive, StandIn())
    watcher.look()
    assert archive.downloads == [OTHER]
    assert capsys.readouterr().out.startswith("study ffeeddcc: changed meanwhile")
    del archive.held[OTHER]
    archive.unstable.clear()
    archive.changes += [ID, OTHER]
    watcher.look()
    assert archive.results(ID) == ["OT", "SR"]
    assert watcher.unassessed == 0


def test_what_is_no_knee_mr_is_left_alone_with_one_line(stand_ins, capsys):
    archive = an_archive(ID, part="BRAIN")
    archive.add(OTHER, written(dicom("CT", "1.9", "1.9.1", "1.9.1.1")))
    watcher = Watcher(archive, StandIn())
    watcher.look()
    archive.changes += [ID, OTHER]
    watcher.look()
    assert capsys.readouterr().out.splitlines() == [
        "study 0a1b2c3d: not a knee MR: images of another body part (BRAIN) (1)",
        "study ffeeddcc: not a knee MR: no MR series",
    ]
    assert archive.downloads == [ID]
    assert watcher.unassessed == 0


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (UserError("the zip is damaged"), "the zip is damaged"),
        (
            ValueError(IDENTITY[0]),
            r"could not be assessed, because of a fault in kneessl \(ValueError at watched\.py:\d+\)",
        ),
        (UnreachableError("broke off"), "given up after 3 tries: broke off"),
    ],
)
def test_a_bad_study_never_stops_the_others(stand_ins, capsys, fault, line):
    archive = an_archive(ID, OTHER)
    archive.broken[ID] = fault
    watcher = Watcher(archive, StandIn())
    watcher.look()
    assert archive.results(OTHER) == ["OT", "SR"]
    assert re.search(f"^study 0a1b2c3d: {line}$", capsys.readouterr().out, re.MULTILINE)
    assert watcher.unassessed == 1
    watcher.look()
    assert len(archive.downloads) <= 4
    del archive.broken[ID]
    archive.add(ID, an_mr("1.2.1", number=1))
    watcher.look()
    assert archive.results(ID) == ["OT", "SR"]


def test_what_was_not_assessed_is_stored_and_said(stand_ins, capsys):
    archive, assessor = an_archive(ID), StandIn(sides=("",), tasks=("acl", "meniscus"))
    assessor.probability["meniscus"] = None
    watcher = Watcher(archive, assessor)
    watcher.look()
    assert archive.results(ID) == ["OT", "SR"]
    assert watcher.unassessed == 1
    expected = "study 0a1b2c3d: knee, side unknown: SR and capture stored; not assessed: meniscus\n"
    assert capsys.readouterr().out == expected


def test_changes_are_read_page_by_page_and_from_the_start_of_a_new_archive(stand_ins):
    archive = an_archive(ID)
    watcher = Watcher(archive, StandIn())
    watcher.look()
    many = [f"{n:08x}-00000000-00000000-00000000-00000000" for n in range(5)]
    for number, study in enumerate(many):
        archive.add(study, an_mr(f"1.3.{number}"))
    watcher.look()
    assert all(archive.results(study) == ["OT", "SR"] for study in many)
    archive.held.clear()
    archive.changes.clear()
    archive.add(OTHER, an_mr("1.4.1"))
    watcher.look()
    assert archive.results(OTHER) == ["OT", "SR"]


@pytest.mark.parametrize("after", range(9))
def test_a_lost_connection_is_tried_again_less_and_less_often(stand_ins, capsys, monkeypatch, after):
    archive = an_archive(ID, OTHER)
    calls, waits = 0, []
    up = archive._up

    def fails_for_a_while():
        nonlocal calls
        calls += 1
        if calls > after and len(waits) < 7:
            raise UnreachableError("the archive does not answer")
        up()

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 9:
            raise KeyboardInterrupt

    monkeypatch.setattr(archive, "_up", fails_for_a_while, raising=False)
    monkeypatch.setattr(module.time, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        follow(Watcher(archive, StandIn()), 5.0)
    assert waits == [10, 20, 40, 60, 60, 60, 60, 5, 5]
    assert archive.results(ID) == archive.results(OTHER) == ["OT", "SR"]
    out = capsys.readouterr().out
    assert out.count("the archive does not answer; next try in ") == 7
    assert out.count("SR and capture") == 2


def test_a_refusal_ends_the_watch(stand_ins, monkeypatch):
    archive = an_archive(ID)

    def refuse(*_):
        raise UserError("the archive refuses access")

    monkeypatch.setattr(archive, "stable_since", refuse, raising=False)
    with pytest.raises(UserError, match="refuses access"):
        follow(Watcher(archive, StandIn()), 5.0)


def test_what_counts_as_answered(stand_ins):
    own, model = uids("1.2", "L", "m"), "m"
    mr = StoredSeries("1.2.3", "MR", 20, "20261126T101500")
    sr = StoredSeries(own.sr_series, "SR", 1, "20261126T101502")
    capture = StoredSeries(own.capture_series, "OT", 1, "20261126T101501")
    for series, expected in [
        ((mr, sr, capture), True),
        ((mr,), False),
        ((mr, capture), False),
        ((mr, sr), False),
        ((mr, replace(mr, uid="1.2.4", updated=sr.updated), sr, capture), False),
        ((mr, replace(mr, uid="1.2.4", modality="CT", updated="2027"), sr, capture), True),
        ((mr, sr, capture, replace(capture, uid=uids("1.2", "R", "m").capture_series)), False),
    ]:
        assert is_answered(StoredStudy("1.2", True, series), model) == expected
    assert not is_answered(StoredStudy("1.2", True, (mr, sr, capture)), "another")
    assert not is_answered(StoredStudy("1.3", True, (mr, sr, capture)), model)


def test_the_header_of_the_answer_has_the_patient_and_the_study_and_no_more(tmp_path):
    (tmp_path / "a.dcm").write_bytes(an_mr("1.2.1"))
    knee = StandIn().knees([tmp_path / "a.dcm"])[0]
    header = identity_of(knee)
    assert (header.PatientName, header.PatientID, header.PatientBirthDate) == IDENTITY[:3]
    assert header.AccessionNumber == IDENTITY[4]
    assert not {"InstitutionName", "SOPInstanceUID", "PixelData", "Modality"} & set(header.dir())


@pytest.mark.parametrize("interval", [0.0, -1.0, float("nan"), float("inf")])
def test_an_interval_that_is_none_is_refused(tmp_path, interval):
    with pytest.raises(UserError, match="--interval"):
        watch(tmp_path, "http://127.0.0.1:1", interval=interval)


def test_an_address_that_is_none_is_refused_before_the_model_is_read(tmp_path):
    with pytest.raises(UserError, match="not the address of an archive"):
        watch(tmp_path / "no model", "ftp://127.0.0.1")


# ---- a real archive


def test_a_real_archive_keeps_one_answer_of_each_model(archive, orthanc, stand_ins, capfd):
    knee = orthanc.push(an_mr("1.2.1", number=number) for number in range(3))
    brain = orthanc.push([an_mr("1.2.2", "BRAIN")])
    for study in (knee, brain):
        orthanc.settle(study)
    pictures = orthanc.held()
    watcher = Watcher(archive, StandIn())
    watcher.look()
    answered = orthanc.held()
    assert [modality for modality, _ in answered if modality != "MR"] == ["OT", "SR"]
    orthanc.settle(knee)  # which is a change of its own
    watcher.look()
    Watcher(archive, StandIn()).look()
    assert orthanc.held() == answered
    Watcher(archive, StandIn("b" * 64)).look()
    assert [modality for modality, _ in orthanc.held()] == ["MR"] * len(pictures) + ["OT", "OT", "SR", "SR"]
    said = capfd.readouterr()
    assert said.err == ""
    assert said.out.splitlines().count(f"study {knee[:8]}: right knee: SR and capture stored") == 2
    assert said.out.count("not a knee MR: images of another body part (BRAIN) (1)") == 3
    assert not any(planted in said.out for planted in IDENTITY)


def test_in_a_real_archive_a_study_whose_files_are_lost_does_not_stop_the_rest(archive, orthanc, stand_ins, capfd):
    lost, good = orthanc.push([an_mr("1.2.1")]), orthanc.push([an_mr("1.2.2")])
    next(file for file in orthanc.folder.rglob("*") if file.is_file() and file.read_bytes() == an_mr("1.2.1")).unlink()
    for study in (lost, good):
        orthanc.settle(study)
    watcher = Watcher(archive, StandIn())
    watcher.look()
    assert sorted(modality for modality, _ in orthanc.held()) == ["MR", "MR", "OT", "SR"]
    assert watcher.unassessed == 1
    assert f"study {lost[:8]}: " in capfd.readouterr().out


def test_two_watchers_at_once_leave_one_answer_in_a_real_archive(archive, orthanc, stand_ins, monkeypatch):
    study = orthanc.push([an_mr("1.2.1")])
    orthanc.settle(study)
    monkeypatch.setattr(module, "is_answered", lambda *_: False)
    threads = [threading.Thread(target=Watcher(archive, StandIn()).look) for archive in (archive, Orthanc(orthanc.url))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [modality for modality, _ in orthanc.held()] == ["MR", "OT", "SR"]


# ---- the command, with a real archive and a real model


@pytest.fixture(scope="module")
def models(knees, tmp_path_factory):
    """Two sagittal models, one of them without operating points."""
    root = tmp_path_factory.mktemp("models")
    finetune(knees, "acl", root / "locked", folds=2, **SETTINGS)
    finetune(knees, "acl", root / "unlocked", **SETTINGS)
    return root


def results(orthanc) -> list[str]:
    return [modality for modality, _ in orthanc.held() if modality != "MR"]


def test_the_real_knee_is_answered_once_by_each_model(archive, orthanc, models, real_data, capfd):
    knee = orthanc.push(sorted(real_data("knee_mese").iterdir()))
    brain = orthanc.push(sorted((real_data("dicom_formats") / "transfer_syntaxes").iterdir())[:1])
    for name, expected in (("locked", 1), ("locked", 1), ("unlocked", 2)):
        for study in (knee, brain):
            orthanc.settle(study)  # an answer that goes back unsettles its study, too
        watch(models / name, orthanc.url, once=True)
        assert results(orthanc) == ["OT"] * expected + ["SR"] * expected
        assert f"study {brain[:8]}: not a knee MR: " in capfd.readouterr().out
    assert len(orthanc.get(f"/studies/{knee}")["Series"]) == 5
    assert len(orthanc.get(f"/studies/{brain}")["Series"]) == 1


def test_the_answer_is_filed_under_the_patient_and_the_log_knows_no_one(archive, orthanc, models, tmp_path, capfd):
    tags = {"PatientName": IDENTITY[0], "PatientID": IDENTITY[1], "PatientBirthDate": IDENTITY[2]}
    tags |= {"InstitutionName": IDENTITY[3], "AccessionNumber": IDENTITY[4], "SpecificCharacterSet": "ISO_IR 192"}
    tags["ReferringPhysicianName"] = "Grüße^Wïmbo"
    write_plane(tmp_path / "knee", "sagittal", "2.25.77", StudyInstanceUID="2.25.7", **tags)
    # Of this one the model cannot use the only series.
    write_plane(tmp_path / "other", "coronal", "2.25.88", StudyInstanceUID="2.25.8", **tags)
    studies = [orthanc.push((tmp_path / name).iterdir()) for name in ("knee", "other")]
    for study in studies:
        orthanc.settle(study)
    with pytest.raises(SystemExit) as status:
        watch(models / "locked", orthanc.url, once=True)
    assert status.value.code == 1
    said = capfd.readouterr()
    assert f"study {studies[0][:8]}: right knee: SR and capture stored\n" in said.out
    assert f"study {studies[1][:8]}: right knee: SR and capture stored; not assessed: acl\n" in said.out
    assert not any(planted in said.out + said.err for planted in (*IDENTITY, "Grüße", "2.25.7", "2.25.8"))
    assert results(orthanc) == ["OT", "OT", "SR", "SR"]
    for study in studies:
        for instance in orthanc.get(f"/studies/{study}/instances"):
            content = orthanc.session.get(f"{orthanc.url}/instances/{instance['ID']}/file", timeout=30).content
            data = pydicom.dcmread(BytesIO(content))
            assert (data.PatientName, data.PatientID, data.PatientBirthDate, data.AccessionNumber) == (
                *IDENTITY[:3],
                IDENTITY[4],
            )
            assert data.ReferringPhysicianName == tags["ReferringPhysicianName"]
    watch(models / "locked", orthanc.url, once=True)  # both are answered, as far as they can be
    assert capfd.readouterr().out == ""


def test_the_command_watches_until_it_is_ended_and_leaves_nothing(archive, orthanc, models, tmp_path):
    command = [sys.executable, "-m", "kneessl", "watch", str(models / "locked"), orthanc.url, "--interval", "0.2"]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as running:
        lines = iter(running.stdout.readline, "")
        assert next(lines) == "watching for stable studies; Ctrl-C ends it\n"
        write_plane(tmp_path / "knee", "sagittal", "2.25.77", StudyInstanceUID="2.25.7")
        study = orthanc.push((tmp_path / "knee").iterdir())
        assert next(lines) == f"study {study[:8]}: right knee: SR and capture stored\n"
        running.send_signal(signal.SIGTERM)  # ends as Ctrl-C does, by the same handler
        assert running.wait(60) == 130
        assert running.stderr.read().splitlines()[-1] == "kneessl: interrupted"
    assert results(orthanc) == ["OT", "SR"]
    assert not list(tmp_path.glob("kneessl-*"))
