import json

import numpy as np
import pytest
from helpers.dicom import write_dicom
from helpers.sent import a_server, a_zip, replying

from kneessl.errors import UserError
from kneessl.reader.archive.orthanc import Orthanc
from kneessl.reader.intake.connection import UnreachableError
from kneessl.sources.limits import Limits

ID = "0a1b2c3d-00000000-00000000-00000000-00000000"


@pytest.mark.parametrize(
    "body", [b"[7]", b"{}", b'{"Last": "x"}', b'"x"', b"7", b'{"Last": null}', b"<html>", b'{"Changes": [{}]}']
)
def test_an_address_of_something_else_is_told(body):
    with a_server(replying(body)) as (url, _):
        archive = Orthanc(url)
        for ask in (archive.last_change, lambda: archive.stable_since(0), archive.studies, lambda: archive.study(ID)):
            with pytest.raises(UserError, match=r"does not answer as (Orthanc|one) does"):
                ask()


@pytest.mark.parametrize("name", ["../../x", "Quaxolotl", 7, None, ID + "\n"])
def test_an_id_that_is_none_goes_into_no_path_and_no_line(name):
    with a_server(replying(json.dumps([name]).encode())) as (url, _):
        with pytest.raises(UserError, match="does not answer as Orthanc does") as error:
            Orthanc(url).studies()
        assert "Quaxolotl" not in str(error.value)


def test_a_download_that_breaks_off_is_told_from_a_whole_one(tmp_path):
    whole = a_zip(tmp_path / "z", {"a": bytes(5000)}).read_bytes()
    with a_server(replying(whole)) as (url, _):
        assert Orthanc(url).download(ID, tmp_path / "whole", Limits()).read_bytes() == whole
        with pytest.raises(UserError, match="more than"):
            Orthanc(url).download(ID, tmp_path / "large", Limits(bytes=len(whole) - 1))
    with a_server(replying(whole[:-1])) as (url, _), pytest.raises(UnreachableError, match="broke off"):
        Orthanc(url).download(ID, tmp_path / "cut", Limits())
    assert list((tmp_path / "large").iterdir()) == []


def test_changes_of_a_real_archive_come_in_pages(archive, orthanc, monkeypatch, tmp_path):
    monkeypatch.setattr("kneessl.reader.archive.orthanc._CHANGES_A_PAGE", 2)
    start = archive.last_change()
    write_dicom(tmp_path / "study", np.zeros((2, 4, 4)))
    study = orthanc.push((tmp_path / "study").iterdir())
    orthanc.settle(study)
    found, change, done, pages = [], start, False, 0
    while not done:
        stable, change, done = archive.stable_since(change)
        found += stable
        pages += 1
    assert found == [study]
    assert pages > 1
    assert change == archive.last_change()
    assert archive.stable_since(change + 1000)[1] < change + 1000


def test_without_its_credentials_a_real_archive_is_not_entered(archive, orthanc, monkeypatch):
    monkeypatch.setenv("KNEESSL_ORTHANC_PASSWORD", "wrong")
    with pytest.raises(UserError, match="KNEESSL_ORTHANC_USER and KNEESSL_ORTHANC_PASSWORD"):
        Orthanc(orthanc.url).studies()
