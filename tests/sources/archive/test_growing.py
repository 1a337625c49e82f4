"""Imports that are interrupted, resumed, added to, or done by several processes: always the same exam folder."""

import csv
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.dicom import write_plane
from hypothesis import given, settings
from hypothesis import strategies as st

from kneessl.errors import UserError, sentence
from kneessl.exams.check import inspect
from kneessl.exams.folder import ExamFolder
from kneessl.sources.archive import finish, salt, steps
from kneessl.sources.archive.index import Index
from kneessl.sources.dicom.persons import Owner, Persons
from kneessl.sources.dicom.stack import DicomSeries
from kneessl.sources.importer import import_exams
from kneessl.sources.notes import Notes

STUDIES = 6


def study(folder: Path, number: int, plane: str = "sagittal", **tags) -> None:
    """A study of one knee; every third person has two."""
    own = {"StudyInstanceUID": f"2.25.{number}", "PatientID": f"P{number // 2}", "AccessionNumber": f"A{number}"}
    series, seed = f"2.25.{number}.{len(plane)}", 10 * number + len(plane)
    write_plane(folder, plane, series, slices=6, side=32, seed=seed, **(own | tags))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def rows(folder: Path, table: str = "exams.csv") -> list[dict[str, str]]:
    with (folder / table).open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Studies all in one folder, one of them with a fault, and files that are no DICOM."""
    src = tmp_path_factory.mktemp("archive") / "src"
    for number in range(STUDIES):
        study(src, number)
    study(src, 1, "coronal")
    study(src, 50, ImagePositionPatient=[1, 2, 3])
    (src / "notes.txt").write_text("text")
    return src


@pytest.fixture(scope="module")
def whole(archive, tmp_path_factory):
    """What one import makes of it."""
    out = tmp_path_factory.mktemp("whole") / "out"
    import_exams(archive, out)
    return out


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setattr(steps, "_BATCH", 10)


# ---- one bad study


def test_a_bad_study_is_listed_with_its_reason_and_stops_no_other(whole):
    assert len({line["exam"] for line in rows(whole)}) == STUDIES
    table = rows(whole, "import.csv")
    (fault,) = [line for line in table if line["kind"] == "fault"]
    assert "two images at the same position" in fault["what"]
    assert fault["exams"] == "0"
    assert fault["study_hash"] not in {line["study_hash"] for line in rows(whole)}
    assert {
        "study_hash": "",
        "exams": "",
        "kind": "left out",
        "what": "files that are not DICOM",
        "count": "1",
    } in table


def test_strict_ends_with_the_first_fault_and_leaves_nothing(archive, tmp_path):
    with pytest.raises(UserError, match="two images at the same position"):
        import_exams(archive, tmp_path / "out", strict=True)
    assert not list(tmp_path.iterdir())


def test_a_fault_of_the_program_is_one_of_its_study(archive, tmp_path, monkeypatch):
    prepared = DicomSeries.prepared

    def broken(series):
        if series.images[0].study == "2.25.3":
            raise RuntimeError("text of a patient")
        return prepared(series)

    monkeypatch.setattr(DicomSeries, "prepared", broken)
    import_exams(archive, tmp_path / "out")
    faults = [line["what"] for line in rows(tmp_path / "out", "import.csv") if line["kind"] == "fault"]
    assert any("because of a fault in kneessl (RuntimeError at" in what for what in faults)
    assert not any("patient)" in what for what in faults)
    assert len({line["exam"] for line in rows(tmp_path / "out")}) == STUDIES - 1


# ---- the same bytes


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_order_of_files_does_not_matter(archive, whole, tmp_path_factory, seed):
    place, rng = tmp_path_factory.mktemp("shuffled"), random.Random(seed)
    files = sorted(archive.iterdir())
    for number, file in enumerate(rng.sample(files, len(files))):
        link = place / "src" / f"{rng.randrange(4)}" / f"IM{number:06d}{file.suffix if file.suffix == '.txt' else ''}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    import_exams(place / "src", place / "out")
    made, expected = tree(place / "out"), tree(whole)
    made.pop("import.csv"), expected.pop("import.csv")  # faults name files by number
    assert made == expected


def test_files_may_be_found_in_any_order(archive, whole, tmp_path, monkeypatch):
    found = steps.entries

    def shuffled(src):
        return iter(random.Random(3).sample(everything := list(found(src)), len(everything)))

    monkeypatch.setattr(steps, "entries", shuffled)
    import_exams(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(whole)


def test_the_number_of_processes_does_not_matter(archive, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "_WORTH_A_START", 2)
    import_exams(archive, tmp_path / "out", workers=2)
    assert tree(tmp_path / "out") == tree(whole)


def test_at_least_one_process(archive, tmp_path):
    with pytest.raises(UserError, match="workers is 0"):
        import_exams(archive, tmp_path / "out", workers=0)


# ---- interrupted and resumed


class Interrupt:
    """Raises KeyboardInterrupt at the n-th of the events that leave something on disk."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


@settings(max_examples=8, deadline=None)
@given(after=st.integers(0, 60), again=st.integers(0, 60), add=st.booleans())
def test_whenever_it_is_interrupted_it_goes_on_to_the_same_folder(archive, whole, tmp_path_factory, after, again, add):
    place = tmp_path_factory.mktemp("interrupted")
    out, expected = place / "out", whole
    if add:
        for name in ("out", "expected"):
            first = place / "first"
            if not first.exists():
                study(first, 0)
                study(first, 2)
            import_exams(first, place / name)
        import_exams(archive, place / "expected", add=True)
        expected = place / "expected"
    for count in (after, again, 10**9):
        with pytest.MonkeyPatch.context() as patch:
            event = Interrupt(count)
            for owner, name in ((Index, "set_about"), (steps.Steps, "_record"), (steps.Steps, "_finish")):
                patch.setattr(owner, name, interrupted(getattr(owner, name), event))
            patch.setattr(Path, "rename", interrupted(Path.rename, event))
            patch.setattr(Path, "replace", interrupted(Path.replace, event))
            patch.setattr(finish, "write_import_table", interrupted(finish.write_import_table, event))
            with suppress(KeyboardInterrupt):
                import_exams(archive, out, add=add, resume=True)
                break
    assert tree(out) == tree(expected)
    assert {path.name for path in place.iterdir()} <= {"out", "expected", "first"}


def interrupted(function, event):
    """A function that an event may come before or after."""

    def instead(*args, **kwargs):
        event()
        result = function(*args, **kwargs)
        event()
        return result

    return instead


def test_killed_at_any_moment_it_goes_on_and_no_process_is_left(archive, whole, tmp_path):
    words = [sys.executable, "-c", RUN, str(archive), str(tmp_path / "out")]
    staged = tmp_path / ".out.import" / "series"
    for least in (1, 4):
        running = subprocess.Popen(words, start_new_session=True)
        while running.poll() is None and len(list(staged.rglob("*.npy"))) < least:
            time.sleep(0.02)
        running.send_signal(signal.SIGKILL)
        running.wait()
        deadline = time.monotonic() + 30
        while alive(running.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not alive(running.pid)
    subprocess.run(words, check=True)
    assert tree(tmp_path / "out") == tree(whole)
    assert not (tmp_path / ".out.import").exists()


RUN = """
import sys
from pathlib import Path
from kneessl.sources.archive import steps
from kneessl.sources.importer import import_exams
steps._BATCH, steps._WORTH_A_START = 10, 2
if __name__ == "__main__":
    import_exams(Path(sys.argv[1]), Path(sys.argv[2]), workers=2, resume=True)
"""


def alive(session: int) -> bool:
    """Whether a process of a session is left."""
    return subprocess.run(["pgrep", "-s", str(session)], capture_output=True).returncode == 0


def left_behind(archive: Path, out: Path, monkeypatch) -> Path:
    """An import that was interrupted after three studies."""
    with monkeypatch.context() as patch:
        patch.setattr(steps.Steps, "_finish", interrupted(steps.Steps._finish, Interrupt(7)))
        with pytest.raises(KeyboardInterrupt):
            import_exams(archive, out)
    return out.parent / f".{out.name}.import"


def test_what_is_left_behind_is_private_and_is_gone_on_with_only_when_asked(archive, tmp_path, monkeypatch):
    folder = left_behind(archive, tmp_path / "out", monkeypatch)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "index.sqlite").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="was interrupted; --resume goes on with it"):
        import_exams(archive, tmp_path / "out")
    with pytest.raises(UserError, match="was begun with split train, and not valid"):
        import_exams(archive, tmp_path / "out", split="valid", resume=True)
    running = Index(folder / "index.sqlite")
    running.db.execute("BEGIN IMMEDIATE")
    with pytest.raises(UserError, match=r"another import into .* is running"):
        import_exams(archive, tmp_path / "out", resume=True)
    running.close()


def test_series_that_a_power_cut_shortened_are_written_again(archive, whole, tmp_path, monkeypatch):
    folder = left_behind(archive, tmp_path / "out", monkeypatch)
    first, second = sorted((folder / "series").rglob("*.npy"))[:2]
    first.write_bytes(b"")
    second.unlink()
    import_exams(archive, tmp_path / "out", resume=True)
    assert tree(tmp_path / "out") == tree(whole)


def test_no_space_left_is_one_sentence_and_loses_nothing(archive, whole, tmp_path, monkeypatch, capsys):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("kneessl.sources.archive.studies.np.save", full)
        with pytest.raises(OSError, match="No space") as error:
            import_exams(archive, tmp_path / "out")
    assert sentence(error.value) == (
        f"writing {tmp_path / 'out'}: no space left on the disk; make room, or choose a folder on another disk"
    )
    assert "--resume goes on from there" in capsys.readouterr().err
    import_exams(archive, tmp_path / "out", resume=True)
    assert tree(tmp_path / "out") == tree(whole)


# ---- added


def test_new_studies_are_added_and_known_ones_skipped(archive, tmp_path, capsys):
    for number in (4, 1):
        study(tmp_path / "first", number)
    import_exams(tmp_path / "first", tmp_path / "out", split="valid", keys=tmp_path / "keys.csv")
    before, lines = tree(tmp_path / "out"), rows(tmp_path / "out")
    import_exams(archive, tmp_path / "out", add=True, keys=tmp_path / "keys.csv")
    told = capsys.readouterr().out
    assert "added exams 4, series 4, split train, valid; studies known already 2" in told
    after = rows(tmp_path / "out")
    assert after[: len(lines)] == lines
    assert {name: content for name, content in tree(tmp_path / "out").items() if name in before and ".npy" in name} == {
        name: content for name, content in before.items() if ".npy" in name
    }
    with (tmp_path / "keys.csv").open() as file:
        study_of = {line["exam"]: line["StudyInstanceUID"] for line in csv.DictReader(file) if line["exam"]}
    assert sorted(study_of) == [f"{n:04d}" for n in range(6)]
    groups = {}
    for line in after:  # a person is in one group and one split
        person = int(study_of[line["exam"]].removeprefix("2.25.")) // 2
        assert groups.setdefault(person, (line["patient_group"], line["split"])) == (
            line["patient_group"],
            line["split"],
        )
    assert len(set(groups.values())) == 3
    assert not inspect(ExamFolder(tmp_path / "out")).faults


def test_adding_what_is_known_changes_nothing(archive, whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path / "out")
    import_exams(archive, tmp_path / "out", add=True)
    assert "added exams 0" in capsys.readouterr().out
    assert tree(tmp_path / "out") == tree(whole)


def test_added_exams_have_a_line_in_the_table_of_labels(archive, tmp_path):
    study(tmp_path / "first", 1)
    labels = tmp_path / "labels.csv"
    labels.write_text("AccessionNumber,acl\nA1,1\n")
    import_exams(tmp_path / "first", tmp_path / "out", labels=labels)
    import_exams(archive, tmp_path / "out", add=True)
    table = ExamFolder(tmp_path / "out").table("train")
    assert len(table.rows) == STUDIES
    assert table.labels("acl") == {"0000": 1}


@pytest.mark.parametrize(
    ("first", "later", "same"),
    [
        ({}, {}, True),
        ({"IssuerOfPatientID": "A"}, {"IssuerOfPatientID": "A"}, True),
        ({"IssuerOfPatientID": "A"}, {"IssuerOfPatientID": "B"}, False),
        ({"IssuerOfPatientID": "A"}, {}, True),
        ({}, {"IssuerOfPatientID": "A"}, True),
        ({"PatientID": ""}, {"PatientID": ""}, False),
        ({"PatientID": "7"}, {"PatientID": "8"}, False),
    ],
)
def test_a_person_is_recognised_as_within_one_import(tmp_path, first, later, same):
    study(tmp_path / "first", 0, **({"PatientID": "7"} | first))
    study(tmp_path / "later", 1, **({"PatientID": "7"} | later))
    import_exams(tmp_path / "first", tmp_path / "out", split="valid")
    import_exams(tmp_path / "later", tmp_path / "out", add=True)
    lines = rows(tmp_path / "out")
    assert (lines[0]["patient_group"] == lines[1]["patient_group"]) is same
    assert lines[1]["split"] == ("valid" if same else "train")


def test_one_of_two_persons_in_different_splits_is_left_out(tmp_path):
    for number, issuer, split in ((0, "A", "train"), (1, "B", "valid")):
        study(tmp_path / issuer, number, PatientID="7", IssuerOfPatientID=issuer)
        import_exams(tmp_path / issuer, tmp_path / "out", split=split, add=bool(number))
    study(tmp_path / "later", 2, PatientID="7")
    study(tmp_path / "later", 3, PatientID="8")
    import_exams(tmp_path / "later", tmp_path / "out", add=True)
    assert len(rows(tmp_path / "out")) == 3
    (fault,) = [line for line in rows(tmp_path / "out", "import.csv") if line["kind"] == "fault"]
    assert "persons in different splits" in fault["what"]


def test_folders_that_cannot_be_added_to(archive, whole, knees, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="is no exam folder of `kneessl import`"):
        import_exams(archive, knees, add=True)
    with pytest.raises(UserError, match="is no exam folder"):
        import_exams(archive, tmp_path / "none", add=True)
    old = shutil.copytree(whole, tmp_path / "old")
    lines = (line.rsplit(",", 2)[0] for line in (old / "exams.csv").read_text().splitlines())
    (old / "exams.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match="has no hashes of its studies"):
        import_exams(archive, old, add=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with pytest.raises(UserError, match="was imported with another salt"):
        import_exams(archive, whole, add=True)
    salt.salt_file().write_text("none")
    with pytest.raises(UserError, match="is damaged"):
        import_exams(archive, tmp_path / "out")
    assert not (tmp_path / ".old.import").exists()


# ---- the index


owners = st.builds(Owner, st.sampled_from(["2.25.1", "2.25.2", "2.25.3"]), *[st.sampled_from(["", "a", "b"])] * 2)


@settings(max_examples=50, deadline=None)
@given(st.lists(owners, min_size=1, max_size=8))
def test_the_index_says_of_persons_what_all_images_say(tmp_path_factory, everyone):
    index = Index(tmp_path_factory.mktemp("index") / "index.sqlite")
    series = [(owner.study, "2.25.9", "", owner.patient, owner.issuer, ".") for owner in everyone]
    index.add_batch(1, [(owner.study, 1, b"") for owner in everyone], series)
    index.gather_studies()
    index.note_persons()
    told, expected = Notes(), Notes()
    Persons(everyone).note(expected)
    for _, kind, what, count in index.notes():
        assert kind == "assumed"
        told.assume(what, count)
    assert told.assumed == expected.assumed

    class Header:
        def __init__(self, owner):
            self.study, self.patient, self.issuer = owner

    for study, uid in index.studies_to_do():
        of_study = Persons(index.owners_of(study))
        for owner in everyone:
            if owner.study == uid:
                assert of_study.of(Header(owner)) == Persons(everyone).of(Header(owner))
    index.close()
