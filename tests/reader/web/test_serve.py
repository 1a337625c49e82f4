"""The REST interface of `kneessl serve`, on made answers: studies, limits, identity, and the command itself."""

import asyncio
import errno
import io
import json
import logging
import sys
import zipfile
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pydicom
import pytest

pytest.importorskip("fastapi", reason="the extra `reader` is not installed")
from helpers.made import IDENTITY, made
from helpers.serving import NAME, Engine, finished, send, served

from kneessl.errors import UserError
from kneessl.reader import serve as command
from kneessl.reader.answer_folder import result_record
from kneessl.reader.web import upload, worker
from kneessl.reader.web.faults import log_fault
from kneessl.reader.web.security import NO_SPACE
from kneessl.reader.web.worker import UNFORESEEN

SECRETS = [*(value for value in map(str, IDENTITY.values()) if len(value) > 1), "planted-file", NAME]


@pytest.fixture(scope="module")
def a_made(tmp_path_factory):
    return made(tmp_path_factory.mktemp("made"))


@pytest.fixture
def engine(a_made):
    return Engine(a_made.assessment)


@pytest.fixture
def serving(engine, tmp_path, monkeypatch):
    """Start the application with some settings; without DICOM objects, which take a while, unless asked for."""
    with ExitStack() as started:

        def start(dicom=False, **settings):
            if not dicom:
                monkeypatch.setattr(worker, "has_dicom_objects", lambda: False)
            return started.enter_context(served(engine, tmp_path / "store", **settings))

        yield start


@pytest.fixture
def client(serving):
    return serving()


def a_zip(**entries):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def incoming(tmp_path):
    return [path for path in (tmp_path / "store" / "incoming").rglob("*") if path.is_file()]


# Studies


def test_a_study_is_taken_in_answered_and_its_upload_deleted(client, engine, a_made, tmp_path):
    response = send(client, b"one", b"", b"two")
    assert (response.status_code, response.json()) == (202, {"id": 1})
    told = finished(client)
    assert told["stage"] == "done"
    assert engine.seen == [b"one", b"two"]  # in their order, without the empty one
    assert told["answers"] == [json.loads(json.dumps(result_record(a_made.assessment)))]
    assert told["knees"][0]["side"] == "R"
    assert [one["answer"] for one in told["knees"][0]["findings"]] == ["yes", "doubt", "no", "not assessed"]
    assert not any((tmp_path / "store" / part / "1").exists() for part in ("incoming", "working"))
    assert [line["id"] for line in client.get("/api/studies").json()] == [1]


def test_zips_and_files_come_together_as_one_study(client, engine):
    send(client, a_zip(b=b"second", a=b"first"), b"third")
    assert finished(client)["stage"] == "done"
    assert engine.seen == [b"first", b"second", b"third"]


def test_a_study_of_two_knees_has_two_answers(client, engine, a_made):
    engine.assessments = [a_made.assessment, replace(a_made.assessment, laterality="L")]
    send(client)
    told = finished(client)
    assert [knee["knee"] for knee in told["knees"]] == [1, 2]
    assert [answer["laterality"]["side"] for answer in told["answers"]] == ["R", "L"]
    assert client.get("/api/studies/1/result?knee=2").json()["laterality"]["side"] == "L"
    assert client.get("/api/studies/1/result?knee=3").status_code == 404


def test_the_viewer_gets_the_very_slices_and_heat(client, a_made):
    send(client)
    finished(client)
    for plane, seen in a_made.assessment.planes.items():
        response = client.get(f"/api/studies/1/slices/{plane}")
        shape = tuple(map(int, response.headers["x-shape"].split(",")))
        assert np.array_equal(np.frombuffer(response.content, np.uint8).reshape(shape), seen.series.volume)
        for task, heat in seen.heat.items():
            response = client.get(f"/api/studies/1/heat/{plane}/{task}")
            assert np.array_equal(np.frombuffer(response.content, np.int8).reshape(shape), heat)
    assert response.headers["content-encoding"] == "gzip"
    assert client.get("/api/studies/1/heat/axial/mcl").status_code == 404
    assert client.get("/api/studies/1/slices/coronal").status_code == 404


def test_a_finding_may_have_any_name(client, engine, a_made):
    odd = "MCL / LCL: 50 % ü?#.."
    seen = {p: replace(s, heat={odd: s.heat["acl"]}, maps={}) for p, s in a_made.assessment.planes.items()}
    finding = replace(a_made.assessment.findings[0], task=odd)
    model = replace(a_made.assessment.model, tasks=(odd,))
    engine.assessments = [replace(a_made.assessment, findings=(finding,), planes=seen, model=model)]
    send(client)
    assert finished(client)["stage"] == "done"
    address = "/api/studies/1/heat/axial/MCL%20%2F%20LCL%3A%2050%20%25%20%C3%BC%3F%23.."
    assert np.array_equal(np.frombuffer(client.get(address).content, np.int8), seen["axial"].heat[odd].ravel())


def test_the_files_of_an_answer_can_be_downloaded(serving):
    pytest.importorskip("highdicom", reason="the extra `reader` is not installed")
    client = serving(dicom=True)
    send(client)
    told = finished(client)
    report = client.get("/api/studies/1/report")
    assert report.headers["content-disposition"] == 'attachment; filename="kneessl-1-1-report.html"'
    assert "script" not in report.headers["content-security-policy"]
    assert "sandbox" in report.headers["content-security-policy"]
    assert report.text.startswith("<!doctype html>")
    assert client.get("/api/studies/1/result").json() == told["answers"][0]
    assert told["objects"]
    kinds = ("sr", "capture")
    objects = [pydicom.dcmread(io.BytesIO(client.get(f"/api/studies/1/{kind}").content)) for kind in kinds]
    assert [one.Modality for one in objects] == ["SR", "OT"]


def test_without_highdicom_there_are_no_dicom_objects(client):
    send(client)
    assert finished(client)["objects"] is False
    assert client.get("/api/studies/1/sr").status_code == 404


def test_a_study_that_cannot_be_used_fails_with_the_reason(client, engine, tmp_path):
    engine.error = UserError(f"{tmp_path / 'store'}/incoming/1/00001: there is no knee MR series that can be used here")
    send(client)
    told = finished(client)
    assert told["stage"] == "failed"
    assert told["sentence"] == "Incoming/1/00001: there is no knee MR series that can be used here."
    assert incoming(tmp_path) == []


def test_a_fault_of_the_program_tells_nothing_of_the_study(client, engine, caplog, tmp_path):
    engine.error = ValueError("PatientName is Planted^Paula")
    send(client)
    assert finished(client)["sentence"] == UNFORESEEN
    assert "ValueError at serving.py:" in caplog.text
    assert "Planted" not in caplog.text
    assert incoming(tmp_path) == []
    engine.error = None
    send(client)  # the worker goes on
    assert finished(client, 2)["stage"] == "done"


def test_a_full_disk_is_said_and_no_fault_of_the_program(client, engine, monkeypatch, tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device", "Planted^Paula")
    engine.error = full
    send(client)
    assert finished(client)["sentence"] == NO_SPACE
    with monkeypatch.context() as patched:
        patched.setattr(upload.Inbox, "write", lambda *_: (_ for _ in ()).throw(full))
        response = send(client)
    assert (response.status_code, response.json()) == (507, {"detail": NO_SPACE})
    assert [line["id"] for line in client.get("/api/studies").json()] == [1], "nothing is left of it"
    assert incoming(tmp_path) == []


def test_a_bad_zip_fails_with_the_reason(client):
    send(client, b"PK\x03\x04 and no more")
    assert finished(client)["sentence"].startswith("The zip is damaged")


def test_studies_can_be_deleted(client, tmp_path):
    send(client)
    finished(client)
    assert client.delete("/api/studies/1").status_code == 204
    assert client.get("/api/studies").json() == []
    assert not (tmp_path / "store" / "answers" / "1").exists()
    for address in ("/api/studies/1", "/api/studies/1/report", "/api/studies/1/slices/axial"):
        assert client.get(address).status_code == 404
    assert client.delete("/api/studies/1").status_code == 404


def test_a_study_that_waits_says_what_is_ahead_and_can_be_deleted(client, engine):
    engine.go.clear()
    for _ in range(3):
        send(client)
    while client.get("/api/studies/1").json()["stage"] == "queued":
        pass
    assert client.get("/api/studies/3").json()["ahead"] == 2
    assert client.get("/api/studies/3/report").status_code == 404
    client.delete("/api/studies/2")
    assert client.get("/api/studies/3").json()["ahead"] == 1
    engine.go.set()
    assert finished(client, 3)["stage"] == "done"


def test_an_answer_goes_after_its_time(serving):
    client = serving(keep_hours=1e-9)
    send(client)
    while client.get("/api/studies/1").status_code != 404:
        client.store.sweep()
    assert client.get("/api/studies").json() == []


# Limits


def test_a_body_that_announces_too_much_is_refused_before_it_is_read(serving, tmp_path):
    client = serving(bytes=1000)
    response = send(client, b"x" * 2000)
    assert response.status_code == 413
    assert response.json()["detail"].startswith("The study has more than")
    assert client.get("/api/studies").json() == []
    assert incoming(tmp_path) == []


def test_a_body_that_announces_nothing_is_refused_as_soon_as_it_is_too_large(serving, tmp_path):
    client = serving(bytes=1_000_000)
    sent = 0

    def parts():
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="files"; filename="x"\r\n\r\n'
        for _ in range(100):
            sent += 1
            on_disk = sum(path.stat().st_size for path in incoming(tmp_path))
            assert on_disk <= 1_000_000
            yield b"x" * 100_000

    response = client.post("/api/studies", content=parts(), headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert response.status_code == 413
    assert incoming(tmp_path) == []


def test_too_many_files_are_refused(serving, tmp_path):
    client = serving(files=2)
    assert send(client, b"1", b"2").status_code == 202
    response = send(client, b"1", b"2", b"3")
    assert (response.status_code, "2 files" in response.json()["detail"]) == (413, True)
    assert [line["id"] for line in client.get("/api/studies").json()] == [1]


def test_what_is_in_zips_counts_too_and_all_of_them_together(serving):
    client = serving(files=3)
    send(client, a_zip(a=b"1", b=b"2"), a_zip(a=b"3", b=b"4"))
    assert finished(client)["stage"] == "failed"
    assert "files" in finished(client)["sentence"]
    send(client, a_zip(a=b"1", b=b"2"), b"3")
    assert finished(client, 2)["stage"] == "done"


def test_one_file_may_not_be_larger_than_a_file_may_be(serving):
    client = serving(file_bytes=100)
    send(client, b"x" * 101)
    assert "a file of more than" in finished(client)["sentence"]


def test_only_so_many_studies_may_wait(serving, engine):
    client = serving(most_waiting=2)
    engine.go.clear()
    assert [send(client).status_code for _ in range(3)] == [202, 202, 429]
    assert send(client).json()["detail"] == "2 studies wait already; send this one later."
    engine.go.set()
    finished(client, 2)
    assert send(client).status_code == 202


@pytest.mark.parametrize(
    ("end", "status"), [({"type": "http.disconnect"}, 400), (None, 408)], ids=["client leaves", "client stalls"]
)
def test_a_client_that_goes_away_leaves_nothing(client, tmp_path, monkeypatch, caplog, end, status):
    monkeypatch.setattr(upload, "STALLED_SECONDS", 0.2)
    begun = b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\nsome pixels'
    messages = [{"type": "http.request", "body": begun, "more_body": True}, end]
    sent = []

    async def receive():
        assert messages[0] is end or incoming(tmp_path) == []
        message = messages.pop(0)
        return message or await asyncio.sleep(60)

    async def send_on(message):
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"multipart/form-data; boundary=b")]
    scope = {"type": "http", "method": "POST", "path": "/api/studies", "headers": headers, "query_string": b""}
    asyncio.run(client.app(scope, receive, send_on))
    assert sent[0]["status"] == status
    assert client.get("/api/studies").json() == []
    assert list((tmp_path / "store" / "incoming").iterdir()) == []
    assert caplog.records == []


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{}", "application/json", 415),
        (b"", "multipart/form-data", 415),
        (b"--b--\r\n", "multipart/form-data; boundary=b", 400),
        (b"no boundary at all", "multipart/form-data; boundary=b", 400),
        (b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\ncut off', "multipart/form-data; boundary=b", 400),
        (b"--b\r\n" + b"X: y\r\n" * 99 + b"\r\n", "multipart/form-data; boundary=b", 400),
        (b"--b\r\n", "multipart/form-data; boundary=" + "b" * 999, 400),
    ],
)
def test_what_is_no_upload_is_refused_and_leaves_nothing(client, content, kind, status, tmp_path):
    response = client.post("/api/studies", content=content, headers={"Content-Type": kind})
    assert response.status_code == status
    assert response.json()["detail"].endswith(".")
    assert client.get("/api/studies").json() == []
    assert list((tmp_path / "store" / "incoming").iterdir()) == []


@pytest.mark.parametrize(
    "address",
    [
        "/api/studies/0",
        "/api/studies/planted",
        "/api/studies/1/slices/planted",
        "/api/studies/1/slices/..%2F..%2Fstudies.sqlite3",
        "/api/studies/1/report?knee=planted",
        "/api/studies/99999999999999999999999",
    ],
)
def test_an_address_that_is_not_understood_is_not_given_back(client, address):
    response = client.get(address)
    assert response.status_code in {404, 422}
    assert "planted" not in response.text
    assert isinstance(response.json()["detail"], str)


# Identity


def test_no_identity_gets_anywhere(serving, engine, a_made, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    client = serving(dicom=True)
    whole = [path.read_bytes() for path in a_made.files]
    assert any(b"Planted^Paula" in content for content in whole)
    client.post("/api/studies", files=[("Planted^Paula", (NAME, content)) for content in whole])
    finished(client)
    engine.error = KeyError("Planted^Paula")
    client.post("/api/studies", files=[("Planted^Paula", ("../" + NAME, b"PLANTED-4711"))])
    finished(client, 2)
    paths = client.get("/openapi.json").json()["paths"]
    kinds = [path.removeprefix("/api/studies/{study}") for path in paths if path.startswith("/api/studies/{study}")]
    kinds = [kind.replace("{plane}", "axial").replace("{task}", "acl") for kind in kinds]
    addresses = ["/api/studies", "/api/server", *(f"/api/studies/{study}{kind}" for kind in kinds for study in (1, 2))]
    told = [client.get(address) for address in addresses]
    assert sum(response.status_code == 200 for response in told) >= 8
    seen = [str(response.headers).encode() + response.content for response in told]
    seen += [path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()]
    seen += [str(path.relative_to(tmp_path)).encode() for path in (tmp_path / "store").rglob("*")]
    seen.append(caplog.text.encode())
    for secret in SECRETS:
        assert not any(secret.encode() in one for one in seen), secret


def test_a_fault_in_a_request_is_a_sentence(client, monkeypatch, caplog):
    monkeypatch.setattr(client.store, "studies", lambda: {}["Planted^Paula"])
    response = client.get("/api/studies")
    assert (response.status_code, response.json()) == (
        500,
        {"detail": "The request failed because of a fault in kneessl; its log names the place."},
    )
    assert "KeyError at test_serve.py:" in caplog.text
    assert "Planted" not in caplog.text


def test_a_fault_without_a_place_is_logged_too(caplog):
    log_fault("nothing", ValueError("Planted^Paula"))
    assert caplog.messages == ["nothing: ValueError"]


# The description of the interface


def test_the_interface_is_described_with_types(client):
    told = client.get("/openapi.json").json()
    assert told["info"]["title"] == "kneessl"
    assert set(told["paths"]["/api/studies"]) == {"get", "post"}
    study = told["paths"]["/api/studies/{study}"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert study == {"$ref": "#/components/schemas/Study"}
    assert {"Answer", "Finding", "Series", "Problem"} <= set(told["components"]["schemas"])
    assert all("summary" in one for methods in told["paths"].values() for one in methods.values())


# The command


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "PACKAGES", ("fastapi", "no_such_package"))
    with pytest.raises(UserError, match=r'no_such_package missing for the page; run `pip install "kneessl\[reader\]"`'):
        command.serve(tmp_path)


@pytest.mark.parametrize("hours", [0.0, -1.0, float("nan")])
def test_studies_are_kept_for_some_time(hours, tmp_path):
    with pytest.raises(UserError, match=r"--keep_hours is .*; give a number of hours above 0"):
        command.serve(tmp_path, keep_hours=hours)


def test_a_port_that_is_taken_is_named():
    with command.bound_socket("127.0.0.1", 0) as first:
        first.listen()
        port = first.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1, port {port}: address already in use"):
            command.bound_socket("127.0.0.1", port)


def test_an_address_that_does_not_exist_is_named():
    with pytest.raises(UserError, match=r"this computer has no address no\.such\.host\.invalid"):
        command.bound_socket("no.such.host.invalid", 0)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_does_not_exist_is_named(port):
    with pytest.raises(UserError, match=f"--port is a number from 0 to 65535, not {port}"):
        command.bound_socket("127.0.0.1", port)


def test_a_folder_that_is_no_model_leaves_no_store_behind(private_temporary_folder, tmp_path):
    with pytest.raises(UserError):
        command.serve(tmp_path / "nothing", port=0)
    assert list(tmp_path.iterdir()) == []


def test_without_highdicom_there_are_answers_but_no_dicom_objects(monkeypatch):
    for module in [name for name in sys.modules if name.partition(".")[0] == "highdicom"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "highdicom", None)
    monkeypatch.delitem(sys.modules, "kneessl.reader.dicom.structured", raising=False)
    monkeypatch.delitem(sys.modules, "kneessl.reader.dicom.capture", raising=False)
    assert not worker.has_dicom_objects()
