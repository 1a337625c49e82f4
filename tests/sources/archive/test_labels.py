"""Labels that come with an import, or are added later by its key file."""

import csv
from pathlib import Path

import pytest
from helpers.dicom import write_plane

from kneessl import cli
from kneessl.errors import UserError
from kneessl.exams.check import inspect
from kneessl.exams.folder import ExamFolder
from kneessl.sources.archive.label import label
from kneessl.sources.archive.salt import salt_file
from kneessl.sources.importer import import_exams

IDENTITY = ("Quaxolotl^Zyphira", "PID-7730041", "ACC-55120", "2.25.4711")


def study(folder: Path, number: int, plane: str = "sagittal", **tags) -> None:
    """A study of one knee in a folder of its own; accession number, patient and UID tell its number."""
    own = {"StudyInstanceUID": f"2.25.{number}", "PatientID": f"P{number}", "AccessionNumber": f"A{number:04d}"}
    series = f"2.25.{number}.{len(plane)}"
    write_plane(
        folder / f"study{number}", plane, series, slices=6, side=32, seed=10 * number + len(plane), **(own | tags)
    )


def exam_of(out: Path, keys: Path) -> dict[str, str]:
    """Accession number to exam."""
    with keys.open() as file:
        return {line["AccessionNumber"]: line["exam"] for line in csv.DictReader(file)}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    src = tmp_path_factory.mktemp("archive") / "src"
    for number in range(1, 5):
        study(src, number)
    study(src, 1, "coronal")
    return src


@pytest.fixture
def imported(archive, tmp_path, capsys):
    """An exam folder with its key file."""
    import_exams(archive, tmp_path / "out", keys=tmp_path / "keys.csv")
    capsys.readouterr()
    return tmp_path / "out"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_an_import_brings_its_labels(archive, tmp_path, capsys):
    text = "AccessionNumber,acl,Report\nA0001,1,torn\nA0003,0,fine\nA0009,1,gone\nA0002,,none\n"
    keys = tmp_path / "keys.csv"
    import_exams(archive, tmp_path / "out", labels=write(tmp_path / "labels.csv", text), keys=keys)
    told = capsys.readouterr()
    assert "labels: 2 of 3 lines matched, exams 2, tasks acl" in told.out
    assert "labels: line 4 unmatched" in told.err
    assert "labels: 1 lines without any label" in told.err
    assert "labels: columns left out: Report (line 2: neither 0, 1 nor blank)" in told.err
    names = exam_of(tmp_path / "out", keys)
    assert ExamFolder(tmp_path / "out").labels("train", "acl") == {names["A0001"]: 1, names["A0003"]: 0}
    assert keys.stat().st_mode & 0o777 == 0o600
    assert not inspect(ExamFolder(tmp_path / "out")).faults


@pytest.mark.parametrize(
    ("column", "key"),
    [
        ("StudyInstanceUID", "2.25.3"),
        ("SeriesInstanceUID", "2.25.3.8"),
        ("AccessionNumber", "A0003"),
        ("PatientID", "P3"),
        ("path", "study3"),
    ],
)
def test_labels_come_later_by_any_key(imported, tmp_path, column, key, capsys):
    label(imported, write(tmp_path / "labels.csv", f"{column},acl\n{key},1\n"), tmp_path / "keys.csv")
    name = exam_of(imported, tmp_path / "keys.csv")["A0003"]
    assert ExamFolder(imported).labels("train", "acl") == {name: 1}
    assert "1 of 1 lines matched" in capsys.readouterr().out


def test_on_the_command_line(archive, tmp_path):
    out, keys, labels = str(tmp_path / "out"), str(tmp_path / "keys.csv"), str(tmp_path / "labels.csv")
    write(tmp_path / "labels.csv", "AccessionNumber,acl,mcl\nA0001,1,0\n")
    cli.run("import", [str(archive), out, "--keys", keys, "--workers", "1"])
    cli.run("label", [out, "--labels", labels, "--keys", keys, "--tasks", "[mcl]"])
    assert ExamFolder(tmp_path / "out").tasks("train") == ["mcl"]


def test_labels_are_added_and_never_changed(imported, tmp_path):
    keys, labels = tmp_path / "keys.csv", tmp_path / "labels.csv"
    label(imported, write(labels, "AccessionNumber,acl\nA0001,1\nA0002,0\n"), keys)
    label(imported, write(labels, "AccessionNumber,acl,mcl\nA0001,1,0\nA0003,0,\n"), keys)
    names = exam_of(imported, keys)
    table = ExamFolder(imported).table("train")
    assert table.tasks == ("acl", "mcl")
    assert {name: table.rows[names[name]] for name in names} == {
        "A0001": (1, 0), "A0002": (0, None), "A0003": (0, None), "A0004": (None, None),
    }  # fmt: skip
    before = (imported / "train.csv").read_bytes()
    with pytest.raises(UserError, match=r"line 2: its acl is 0, and in .* has 1; correct one of the two"):
        label(imported, write(labels, "AccessionNumber,acl\nA0001,0\n"), keys)
    assert (imported / "train.csv").read_bytes() == before


def test_a_key_that_nobody_has(archive, imported, tmp_path):
    labels = write(tmp_path / "labels.csv", "AccessionNumber,acl\n1,1\n2,0\n")
    with pytest.raises(UserError, match=r"none of the 2 keys of .* is that of an exam"):
        label(imported, labels, tmp_path / "keys.csv")
    assert not (imported / "train.csv").exists()
    with pytest.raises(UserError, match="none of the 2 keys"):
        import_exams(archive, tmp_path / "new", labels=labels)
    assert not (tmp_path / "new").exists()
    write(labels, "AccessionNumber,acl\nA0001,1\n")  # what is done is kept
    import_exams(archive, tmp_path / "new", labels=labels, resume=True)
    assert len(ExamFolder(tmp_path / "new").labels("train", "acl")) == 1


def test_the_keys_of_another_folder(archive, imported, tmp_path):
    labels = write(tmp_path / "labels.csv", "AccessionNumber,acl\nA0001,1\n")
    import_exams(archive / "study1", tmp_path / "other")
    with pytest.raises(UserError, match=r"keys\.csv names exam 0001 in train, not in"):
        label(tmp_path / "other", labels, tmp_path / "keys.csv")


def test_a_patient_with_two_studies_ends_before_anything_is_written(archive, tmp_path):
    for number in (1, 2):
        study(tmp_path / "src", number, PatientID="P1")
    labels = write(tmp_path / "labels.csv", "PatientID,acl\nP1,1\n")
    with pytest.raises(UserError, match="line 2: this patient has several exams"):
        import_exams(tmp_path / "src", tmp_path / "out", labels=labels)
    assert not (tmp_path / "out").exists()


def test_keys_stay_outside_and_are_not_overwritten(archive, tmp_path):
    with pytest.raises(UserError, match="lies in the exam folder"):
        import_exams(archive, tmp_path / "out", keys=tmp_path / "out" / "keys.csv")
    with pytest.raises(UserError, match="already exists"):
        import_exams(archive, tmp_path / "out", keys=write(tmp_path / "keys.csv", "mine"))
    with pytest.raises(UserError, match="--tasks chooses columns of a label file"):
        import_exams(archive, tmp_path / "out", tasks=("acl",))


def test_without_keys_nothing_in_the_folder_tells_a_person(tmp_path, capfd):
    name, patient, accession, uid = IDENTITY
    study(tmp_path / name, 1, PatientName=name, PatientID=patient, AccessionNumber=accession, StudyInstanceUID=uid)
    study(tmp_path / name, 2, PatientID=patient, ImagePositionPatient=[1, 2, 3])
    labels = write(tmp_path / "labels.csv", f"AccessionNumber,acl\n{accession},1\n")
    import_exams(tmp_path / name, tmp_path / "out", labels=labels)
    told = "".join(capfd.readouterr())
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.is_relative_to(tmp_path / "out")]
    written = b"".join(str(path.relative_to(tmp_path)).encode() + path.read_bytes() for path in files)
    for text in IDENTITY:
        assert text.encode() not in written
        assert text not in told.replace(str(tmp_path), "")
    assert salt_file().read_bytes().strip() not in written
    assert {path.name for path in tmp_path.iterdir()} == {name, "labels.csv", "out"}


def test_the_layout_of_rsna(tmp_path, capsys):
    for number in (1, 2):
        study(tmp_path / "train_series", number)
    study(tmp_path / "train_series", 1, "coronal")
    series = "StudyInstanceUID,SeriesInstanceUID,Fluid_Sensitive,Fat_Suppression,Anatomical_Plane\n"
    series += "2.25.1,2.25.1.8,1,1,Sagittal\n2.25.1,2.25.1.7,1,1,Axial\n2.25.2,2.25.2.8,0,0,Sagittal\n"
    write(tmp_path / "train_series.csv", series)
    train = "StudyInstanceUID,Report,ACL,Medial Meniscus,Baker's\n2.25.1,text,1.0,0.0,1.0\n2.25.2,more,,,\n"
    keys = tmp_path / "keys.csv"
    import_exams(tmp_path / "train_series", tmp_path / "out", labels=write(tmp_path / "train.csv", train), keys=keys)
    folder = ExamFolder(tmp_path / "out")
    name = exam_of(tmp_path / "out", keys)["A0001"]
    assert folder.table("train").rows[name] == (1, 0, 1)
    # The coronal series is called axial, which its orientation contradicts.
    assert "contradicts their orientation" in capsys.readouterr().err
    assert {line.plane for line in folder.provenance() if line.exam == name} == {"sagittal", "coronal"}
    write(tmp_path / "train_series.csv", series.replace("Axial", "oblique"))
    with pytest.raises(UserError, match=r"train_series.csv, line 3: Anatomical_Plane is none of sagittal, coronal"):
        import_exams(tmp_path / "train_series", tmp_path / "other")
