"""What is kept of the scanner: known words only, the field in tesla, and all of it in exams.csv."""

import pytest
from helpers.dicom import write_plane
from pydicom import Dataset

from kneessl.exams.folder import ExamFolder
from kneessl.phantom.vendors import SCANNERS
from kneessl.sources.dicom.header import Header
from kneessl.sources.dicom.scanner import scanner_of
from kneessl.sources.importer import import_exams


def named(maker, model, field=None):
    data = Dataset()
    data.Manufacturer, data.ManufacturerModelName, data.MagneticFieldStrength = maker, model, field
    scanner = scanner_of(Header(data))
    return scanner.maker, scanner.model, scanner.field_t


@pytest.mark.parametrize(
    ("tags", "kept"),
    [
        (("SIEMENS", "Skyra", "3"), ("Siemens", "Skyra", 3.0)),
        (("Siemens Healthineers", "MAGNETOM Vida", "2.89362"), ("Siemens", "Vida", 2.9)),
        (("SIEMENS", "TrioTim", "3"), ("Siemens", "Trio", 3.0)),
        (("SIEMENS", "Prisma_fit", "3"), ("Siemens", "Prisma", 3.0)),
        (("GE MEDICAL SYSTEMS", "DISCOVERY MR750w", "3"), ("GE", "Discovery MR750w", 3.0)),
        (("GE MEDICAL SYSTEMS", "Signa HDxt", "15000"), ("GE", "Signa HDxt", 1.5)),
        (("Philips Medical Systems", "Achieva dStream", "1.5"), ("Philips", "Achieva dStream", 1.5)),
        (("UIH", "uMR 780", "3"), ("United Imaging", "uMR 780", 3.0)),
        (("", "", None), ("", "", None)),
        (("Jane Doe", "MR1234567 born 1970", "30000000"), ("", "", None)),
        (("SIEMENS of Doe", "Skyra room of J. Doe, 17", "0"), ("Siemens", "Skyra", None)),
        (("GEORGE", "MR750123", "-3"), ("", "", None)),
    ],
)
def test_only_known_words_are_kept(tags, kept):
    assert named(*tags) == kept


@pytest.mark.parametrize("scanner", SCANNERS, ids=lambda scanner: scanner.model)
def test_the_scanners_of_the_phantoms_archive_are_known(scanner):
    maker, model, _ = named(scanner.vendor.manufacturer, scanner.model)
    assert maker
    assert model


def test_an_import_keeps_scanner_field_and_sequence(tmp_path):
    write_plane(
        tmp_path / "src", "sagittal", "2.25.7", Manufacturer="SIEMENS", ManufacturerModelName="Aera",
        MagneticFieldStrength="1.5", RepetitionTime="3200", FlipAngle="150",
    )  # fmt: skip
    import_exams(tmp_path / "src", tmp_path / "out")
    (line,) = ExamFolder(tmp_path / "out").provenance()
    assert (line.scanner, line.field_t, line.repetition_ms, line.flip_deg) == ("Siemens Aera", 1.5, 3200.0, 150.0)
    assert line.inversion_ms is None
