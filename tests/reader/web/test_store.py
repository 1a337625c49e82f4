"""The studies that `kneessl serve` keeps: numbers, stages, what goes when, and what a crash leaves."""

import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from kneessl.errors import UserError, out_of_space
from kneessl.reader.web.schema import FindingLine, KneeLine
from kneessl.reader.web.store import STOPPED, Full, Store

KNEES = [KneeLine(knee=1, side="R", findings=[FindingLine(task="acl", answer="yes", probability=0.75)])]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(folder):
    with_hours = Store(folder, 24, temporary=False)
    yield with_hours
    with_hours.close()


def reopened(store, keep_hours=24.0):
    """What the next server finds, without the last one having tidied up."""
    store._list.close()
    return Store(store.root, keep_hours, temporary=False)


def written(store, study):
    folder = store.working(study) / "1"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("{}")


def answered(store):
    """A study that is done."""
    study = store.add(9)
    (store.incoming(study) / "00001").write_bytes(b"pixels")
    store.set_stage(study, "queued")
    assert store.take() == study
    written(store, study)
    store.publish(study, KNEES)
    return study


def test_a_study_goes_from_upload_to_answer(store):
    study = store.add(9)
    assert store.study(study).stage == "receiving"
    assert store.incoming(study).stat().st_mode & 0o777 == 0o700
    assert store.take() is None  # it has not come yet
    store.set_stage(study, "queued")
    assert store.take() == study
    assert store.study(study).stage == "reading headers"
    assert store.take() is None  # it is taken once only
    written(store, study)
    store.publish(study, KNEES)
    line = store.study(study)
    assert (line.stage, line.knees, line.sentence) == ("done", KNEES, "")
    assert (store.answer(study, 1) / "result.json").is_file()
    assert not store.working(study).exists()


def test_an_upload_goes_as_soon_as_there_is_an_answer(store):
    study = answered(store)
    assert not store.incoming(study).exists()
    assert (store.answer(study, 1) / "result.json").is_file()


def test_studies_wait_in_their_order_and_are_listed_newest_first(store):
    first, second, third = (store.add(9) for _ in range(3))
    for study in (third, first, second):
        store.set_stage(study, "queued")
    assert [line.id for line in store.studies()] == [third, second, first]
    assert [store.study(study).ahead for study in (first, second, third)] == [0, 1, 2]
    assert [store.take(), store.take(), store.take()] == [first, second, third]


def test_only_so_many_may_wait(store):
    first = store.add(2)
    store.add(2)
    with pytest.raises(Full):
        store.add(2)
    (store.incoming(first) / "00001").write_bytes(b"pixels")
    store.fail(first, "Not a knee.")
    assert not store.incoming(first).exists()
    assert store.add(2) == 3


def test_a_deleted_study_leaves_nothing_and_its_number_is_never_given_again(store):
    study = answered(store)
    assert store.delete(study)
    assert store.study(study) is None
    assert [path for path in store.root.rglob("*") if path.name == str(study)] == []
    assert not store.delete(study)
    assert store.add(9) == study + 1


def test_an_answer_to_a_study_deleted_meanwhile_is_dropped(store):
    study = store.add(9)
    store.set_stage(study, "queued")
    store.take()
    written(store, study)
    store.delete(study)
    written(store, study)
    store.publish(study, KNEES)
    assert store.studies() == []
    assert not store.answer(study, 1).exists()
    assert not store.working(study).exists()


def test_a_study_goes_after_its_time_and_not_before(store):
    study = answered(store)
    store.sweep()
    left = store.study(study).expires - datetime.now(UTC)
    assert timedelta(hours=23.9) < left <= timedelta(hours=24)
    store.keep = timedelta(0)
    waiting = store.add(9)
    store.sweep()
    assert [line.id for line in store.studies()] == [waiting]
    assert not store.answer(study, 1).exists()


def test_old_studies_go_when_the_next_server_starts(store):
    study = answered(store)
    later = reopened(store, keep_hours=1e-9)
    assert later.studies() == []
    assert not later.answer(study, 1).exists()
    later.close()


def test_past_studies_are_still_listed_after_a_restart(store):
    study = answered(store)
    later = reopened(store)
    assert [line.id for line in later.studies()] == [study]
    assert later.study(study).knees == KNEES
    assert (later.answer(study, 1) / "result.json").is_file()
    later.close()


@pytest.mark.parametrize("stage", ["queued", "reading headers", "model", "writing"])
def test_a_crash_leaves_a_failed_study_and_nothing_half_written(store, stage):
    study = store.add(9)
    (store.incoming(study) / "00001").write_bytes(b"pixels")
    store.set_stage(study, stage)
    written(store, study)
    later = reopened(store)
    assert (later.study(study).stage, later.study(study).sentence) == ("failed", STOPPED)
    assert [path for path in later.root.rglob("*") if path.name == str(study)] == []
    later.close()


def test_a_crash_between_moving_an_answer_and_saying_so_leaves_no_answer(store):
    study = store.add(9)
    store.set_stage(study, "writing")
    written(store, study)
    store.working(study).replace(store.answer(study, 1).parent)
    later = reopened(store)
    assert later.study(study).stage == "failed"
    assert not later.answer(study, 1).exists()
    later.close()


def test_an_upload_that_was_cut_off_by_a_crash_is_forgotten(store):
    study = store.add(9)
    (store.incoming(study) / "00001").write_bytes(b"pix")
    later = reopened(store)
    assert later.studies() == []
    assert not later.incoming(study).exists()
    later.close()


def test_a_temporary_store_goes_when_it_is_closed(folder):
    store = Store(folder, 24, temporary=True)
    answered(store)
    store.close()
    assert not folder.exists()


def test_only_this_user_may_look_into_a_store(folder, store):
    assert folder.stat().st_mode & 0o777 == 0o700


def test_two_servers_may_not_share_a_store(folder, store):
    with pytest.raises(UserError, match="in use by another server"):
        Store(folder, 24, temporary=False)
    store.add(9)  # the first one goes on


def test_a_folder_with_something_else_in_it_is_refused_and_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="holds something else"):
        Store(tmp_path, 24, temporary=False)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_file_is_no_store(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is not a folder"):
        Store(tmp_path / "file", 24, temporary=False)


def test_a_damaged_list_is_refused(folder, store):
    store.close()
    (folder / "studies.sqlite3").write_bytes(b"no database, but long enough to be looked at as one" * 9)
    with pytest.raises(UserError, match="cannot be read"):
        Store(folder, 24, temporary=False)


def test_a_list_of_another_version_is_refused(folder, store):
    store.close()
    with sqlite3.connect(folder / "studies.sqlite3") as other:
        other.execute("pragma user_version = 7")
    other.close()
    with pytest.raises(UserError, match="another version"):
        Store(folder, 24, temporary=False)


def test_what_a_full_disk_keeps_out_of_the_list_is_written_down_later(store):
    failed, gone = store.add(9), store.add(9)
    (store.incoming(failed) / "00001").write_bytes(b"pixels")
    store.set_stage(failed, "queued")
    assert store.take() == failed
    pages = store._list.execute("pragma page_count").fetchone()[0]
    store._list.execute(f"pragma max_page_count = {pages}")
    with pytest.raises(sqlite3.OperationalError) as full:
        store.fail(failed, "The disk is full. " * 1000)
    assert out_of_space(full.value) == "no space left on the disk"
    assert store.study(failed).stage == "reading headers"
    assert not store.incoming(failed).exists(), "its space is free at once"
    store._list.execute("pragma max_page_count = 1000000")
    store._late[gone] = None  # as where the list could not forget it
    store.sweep()
    assert store.study(failed).stage == "failed"
    assert store.study(gone) is None
    assert store._late == {}


def test_a_study_that_finds_no_room_for_its_folder_takes_no_place(store):
    store.root.joinpath("incoming").rmdir()
    with pytest.raises(OSError, match="incoming"):
        store.add(9)
    assert store.studies() == []
