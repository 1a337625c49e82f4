"""The made archive: what was planted comes out of import, for each vendor, classic and enhanced, compressed and not."""

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from kneessl.errors import UserError
from kneessl.exams.folder import PLANES, ExamFolder
from kneessl.phantom.command import phantom
from kneessl.phantom.dicom_archive import write_archive
from kneessl.phantom.dicom_pictures import resampled
from kneessl.phantom.dicom_study import DAMAGES, SYNTAXES, ArchiveSettings, Study
from kneessl.phantom.knee import PICTURE, TASKS, draw_knee
from kneessl.phantom.protocol import BEST_FIRST
from kneessl.phantom.scanner import render
from kneessl.phantom.vendors import SCANNERS
from kneessl.sources.dicom.image import read_headers
from kneessl.sources.dicom.series import find_knees
from kneessl.sources.importer import import_exams
from kneessl.sources.notes import Notes

STUDIES = 30
SMALL = ArchiveSettings(0, (0.8, 0.3, 0.4), PLANES, matrix=64, slices=5, knees=1, damaged=0.1)
FULL = replace(SMALL, matrix=256, damaged=0.0)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    out = tmp_path_factory.mktemp("archive") / "hospital"
    write_archive(out, SMALL, STUDIES, workers=1)
    return out


@pytest.fixture(scope="module")
def knees(archive):
    return knees_of(archive)


@pytest.fixture(scope="module")
def imported(archive):
    out = archive.parent / "imported"
    import_exams(archive / "dicom", out)
    return ExamFolder(out)


def knees_of(archive: Path):
    files = sorted(file for file in (archive / "dicom").rglob("*") if file.is_file())
    notes = Notes(skip_faulty=True)
    return find_knees(read_headers(((file, file.name) for file in files), notes), 30.0, False, notes)


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as content:
        return list(csv.DictReader(content))


def bytes_of(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


# What comes out of import


def test_every_series_to_read_is_chosen_and_said_rightly(archive, knees, imported):
    truth = {line["series_uid"]: line for line in rows(archive / "truth.csv")}
    lines = {line.source_sha256: line for line in imported.provenance()}
    groups, planes = {}, Counter()
    for knee in knees:
        for series in knee.series:
            uid = series.images[0].series
            if uid not in truth or truth[uid]["damage"]:  # in the place of a damaged one, or itself cut short
                continue
            known, line = truth.pop(uid), lines[series.prepared().source_sha256]
            assert (line.plane, line.weighting, line.echo_ms) == (
                known["plane"],
                known["weighting"],
                float(known["echo_ms"]),
            )
            assert (line.fat_suppressed is True) == (known["fat_suppressed"] == "True")
            assert line.slice_mm == pytest.approx(float(known["slice_mm"]), abs=2e-3)
            assert line.row_mm * 256 == pytest.approx(float(known["pixel_mm"]) * 64, abs=2e-2)
            assert line.laterality == ("" if known["side_told_by"] == "nothing" else known["laterality"])
            assert line.synthetic
            assert len(imported.series("train", line.plane, line.exam)) == int(known["slices"]) == 5
            assert groups.setdefault(known["patient_id"], line.patient_group) == line.patient_group
            planes[known["vendor"], known["enhanced"], known["transfer_syntax"]] += 1
    assert len(set(groups.values())) == len(groups)
    assert all(known["damage"] for known in truth.values())
    assert len(planes) == len(SCANNERS) * len(SYNTAXES)
    wrong = {line["study_uid"] for line in rows(archive / "truth.csv") if line["side_told_by"] == "most tags"}
    assert {knee.study for knee in knees if knee.flags} == wrong


def test_damage_is_in_its_share_and_keeps_the_series_from_being_read(archive, knees):
    damaged = [line for line in rows(archive / "truth.csv") if line["damage"]]
    assert len(damaged) == STUDIES // 10
    assert {line["damage"] for line in damaged} <= set(DAMAGES)
    read = {series.images[0].series for knee in knees for series in knee.series}
    for line in damaged:
        if line["damage"] != "cut short":  # which shows when its pixels are read
            assert line["series_uid"] not in read


def test_labels_are_the_planted_findings_one_line_a_knee(archive):
    labels = rows(archive / "labels.csv")
    assert len({(line["AccessionNumber"], line["laterality"]) for line in labels}) == len(labels)
    both = Counter(line["AccessionNumber"] for line in labels)
    assert len(both) == STUDIES
    assert 2 in both.values()
    planted = {lesion.finding for lesion in draw_knee(SMALL.knee(0)).lesions}
    for line in labels:
        assert {task: int(line[task]) for task in TASKS} == {
            "abnormal": int(bool(planted)),
            "acl": int("acl" in planted),
            "meniscus": int("meniscus" in planted),
        }


def test_headers_follow_the_standard_and_nobody_in_them_exists(archive, monkeypatch):
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.RAISE)
    images, instances = Counter(), []
    for file in sorted(file for file in (archive / "dicom").rglob("*") if file.is_file()):
        if file.stat().st_size == 0:
            continue
        data = pydicom.dcmread(file, stop_before_pixels=True)
        list(data.iterall())  # each value is read, and is what its representation allows
        assert data.SyntheticData == "YES"
        assert data.PatientID.startswith("KP")
        assert all(uid.startswith("2.25.") for uid in (data.StudyInstanceUID, data.SeriesInstanceUID))
        assert data.file_meta.MediaStorageSOPInstanceUID == data.SOPInstanceUID
        instances.append(data.SOPInstanceUID)
        if "ImageType" in data and data.Modality == "MR" and data.ImageType[1] == "PRIMARY":
            images[data.Manufacturer, data.SOPClassUID, data.file_meta.TransferSyntaxUID] += 1
    assert len(images) == len(SCANNERS) * len(SYNTAXES)
    assert len(set(instances)) == len(instances)


def test_pictures_are_the_drawn_ones_for_every_scanner(tmp_path):
    numbers = [next(n for n in range(100) if fits(Study(FULL, n), scanner)) for scanner in SCANNERS]
    for number in numbers:
        write_study(tmp_path / "dicom", number)
    by_uid = {series.images[0].series: series for knee in knees_of(tmp_path) for series in knee.series}
    for number in numbers:
        study = Study(FULL, number)
        (knee,) = study.knees
        for series in study.read_series(knee):
            volume = by_uid[series.uid].prepared().volume.astype(float)
            inside = volume.any(axis=(0, 2))  # rows that an oblong picture has
            drawn = rendered(series, knee)[:, inside].astype(float)
            low, high = np.percentile(drawn, (0.5, 99.5))
            expected = np.clip((drawn - low) / (high - low), 0, 1) * 255
            assert inside.sum() in {224, 256}
            assert np.corrcoef(volume[:, inside].ravel(), expected.ravel())[0, 1] > 0.995
            assert np.abs(volume[:, inside] - expected).mean() < 3


def fits(study: Study, scanner) -> bool:
    return study.scanner == scanner and len(study.knees) == 1


def write_study(folder: Path, number: int) -> None:
    from kneessl.phantom.dicom_archive import _write_study

    _write_study(folder, FULL, number)


def rendered(series, knee) -> np.ndarray:
    """As the phantom's own scanner draws it, without the archive's resampling, noise and storage."""
    plan, kind, plane = FULL.knee(knee.number), series.acquired.kind, series.acquired.plane
    drawn = draw_knee(plan)
    seed = plan.stream(PICTURE, PLANES.index(plane), 1 + BEST_FIRST.index(kind))
    scan = FULL.scan(knee.number, plane, kind)
    return render(drawn.anatomy, replace(drawn.pose, laterality=knee.side), scan, drawn.lesions, seed)[0]


# The same seed, the same files


def test_a_larger_archive_begins_with_the_smaller_one(tmp_path):
    settings = replace(SMALL, matrix=32, slices=5)
    for name, studies in (("three", 3), ("two", 2), ("again", 2)):
        write_archive(tmp_path / name, settings, studies, workers=1)
    three, two, again = (bytes_of(tmp_path / name) for name in ("three", "two", "again"))
    assert two == again
    tables = {"labels.csv", "truth.csv"}
    assert all(three[name].startswith(two[name]) if name in tables else three[name] == two[name] for name in two)
    assert len(three) > len(two)


def test_each_block_of_studies_has_every_scanner_with_every_encoding():
    block = {(study.scanner, study.syntax) for study in (Study(SMALL, number) for number in range(30, 60))}
    assert len(block) == 30


def test_persons_return_and_their_later_studies_are_later():
    visits = {}
    for number in range(200):
        study = Study(SMALL, number)
        visits.setdefault(study.person.patient_id, []).append(study)
    returned = [studies for studies in visits.values() if len(studies) > 1]
    assert 8 < len(returned) < 40
    for first, second, *_ in returned:
        assert first.person == second.person
        assert first.date < second.date


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_the_share_of_damage_is_exact(share):
    damaged = sum(bool(Study(replace(SMALL, damaged=share), number).damage) for number in range(200))
    assert damaged == 200 * share


# Resampling


@pytest.mark.parametrize("matrix", [64, 256, 512])
def test_resampling_keeps_a_wave_and_its_place(matrix):
    def wave(side):
        edge = (np.arange(side) + 0.5) / side  # of the field, at each pixel's centre
        return 100 + 50 * np.cos(2 * np.pi * (3 * edge[:, None] + 5 * edge))

    assert resampled(wave(256)[None], matrix)[0] == pytest.approx(wave(matrix), abs=1e-3)


# What the user asks for


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ({"matrix": 63}, "matrix is 63; give an even number"),
        ({"matrix": 2048}, "matrix is 2048"),
        ({"slices": 4}, "slices is 4; a series has 5 or more"),
        ({"knees": 0}, "knees is 0"),
        ({"damaged": 1.5}, "damaged is 1.5"),
        ({"exams": 2_000_000}, "exams is 2000000; names have six digits, so ask for at most 1000000"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, asked, what):
    with pytest.raises(UserError, match=what):
        phantom(tmp_path / "out", dicom=True, **asked)
    assert not list(tmp_path.iterdir())


def test_settings_of_an_archive_need_one(tmp_path):
    with pytest.raises(UserError, match="add --dicom"):
        phantom(tmp_path / "out", exams=1, matrix=64)
    with pytest.raises(UserError, match="already exists"):
        phantom(Path(__file__).parent, exams=1, dicom=True)
