import socketserver
import ssl
import stat
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pydicom
import pytest
from helpers.orthanc import PASSWORD, USER, running_orthanc
from helpers.refusal import PLANTED, refused
from helpers.sent import BOUNDARY, a_server, multipart, replying

from kneessl.errors import UserError
from kneessl.reader.intake.connection import Connection, MissingError, UnreachableError
from kneessl.reader.intake.dicomweb import retrieve_study
from kneessl.reader.intake.intake import Limits, files_of

pytestmark = pytest.mark.usefixtures("private_temporary_folder", "no_credentials")


@pytest.fixture
def no_credentials(monkeypatch):
    for name in ("TOKEN", "USER", "PASSWORD"):
        monkeypatch.delenv(f"KNEESSL_DICOMWEB_{name}", raising=False)


@pytest.mark.parametrize("contents", [[b"one", b"\r\n--a--", b""], [bytes(range(256)) * 9000, b"--a--b\r\r\n-"]])
def test_each_part_of_the_answer_is_a_file(contents):
    with a_server(replying(multipart(*contents))) as (url, seen), files_of(f"{url}/dicom-web/studies/1.2.3/") as files:
        assert [file.name for file in files] == [f"{n + 1:05d}.dcm" for n in range(len(contents))]
        assert [file.read_bytes() for file in files] == contents
        assert stat.S_IMODE(files[0].parent.stat().st_mode) == 0o700
    assert [each["path"] for each in seen] == ["/dicom-web/studies/1.2.3"]
    assert seen[0]["Accept"] == 'multipart/related; type="application/dicom"; transfer-syntax=*'
    assert "Authorization" not in seen[0]


@pytest.mark.parametrize(
    ("variables", "header"),
    [
        ({"TOKEN": "t0ken", "USER": "u"}, "Bearer t0ken"),
        ({"USER": "ü", "PASSWORD": "p:w"}, "Basic w7w6cDp3"),
        ({"USER": "", "PASSWORD": "p"}, None),
    ],
)
def test_credentials_come_from_the_environment_alone(tmp_path, monkeypatch, variables, header):
    netrc = tmp_path / "netrc"
    netrc.write_text("default login nobody password nothing")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # a proxy is not asked for what is on this machine
    monkeypatch.delenv("no_proxy", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(f"KNEESSL_DICOMWEB_{name}", value)
    with a_server(replying(multipart(b"x"))) as (url, seen), files_of(f"{url}/dicom-web/studies/1.2.3"):
        assert seen[0].get("Authorization") == header


@pytest.mark.parametrize(
    ("address", "match"),
    [
        ("http://127.0.0.1:1/dicom-web/studies/1.2/series/3", "not the address of a study"),
        ("http://127.0.0.1:1/dicom-web/studies/Quaxolotl", "not the address of a study"),
        ("http://127.0.0.1:1/studies/" + "1" * 65, "not the address of a study"),
        ("http://Quaxolotl:pw@127.0.0.1:1/dicom-web/studies/1.2", "carries credentials"),
        ("http://127.0.0.1:port/dicom-web/studies/1.2", "not the address of an archive"),
        ("http://127.0.0.1:1/dicom web/studies/1.2", "not the address of a study"),
        ("https:///dicom-web/studies/1.2", "not the address of a study"),
        ("http://127.0.0.1:1/a?Quaxolotl=/studies/1.2", "has a \\? or #"),
        ("http://127.0.0.1:1/dicom-web/studies/1.2", "does not answer"),
        ("http://quaxolotl.invalid/studies/1.2", "does not answer"),
    ],
)
def test_an_address_that_is_none_is_refused(address, match):
    refused(address, match)


def test_credentials_never_go_unencrypted_to_another_machine(monkeypatch):
    monkeypatch.setenv("KNEESSL_DICOMWEB_TOKEN", "s3cret")
    refused("http://pacs.invalid/dicom-web/studies/1.2", "unencrypted")
    for local in ("http://localhost:1", "http://127.0.0.9:1", "http://[::1]:1", "https://pacs.invalid"):
        refused(f"{local}/dicom-web/studies/1.2", "does not answer")


def test_a_credential_that_no_header_can_hold_is_not_quoted(monkeypatch):
    monkeypatch.setenv("KNEESSL_DICOMWEB_TOKEN", f"{PLANTED}\nX: y")
    refused(
        "http://127.0.0.1:1/studies/1.2", "the request to the archive failed; check its address and the credentials"
    )


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (replying(b"Quaxolotl", status=401), "refuses access.*KNEESSL_DICOMWEB_USER"),
        (replying(b"Quaxolotl", status=404), "does not have this study"),
        (replying(b"Quaxolotl", status=302), "status 302; is the address right"),
        (replying(b"Quaxolotl", status=503), "cannot answer now"),
        (replying(b"Quaxolotl", kind="application/json"), "does not answer with DICOM files"),
        (replying(b"x", kind="multipart/related"), "does not answer with DICOM files"),
        (replying(b"x", kind="multipart/related; boundary=" + "x" * 5000), "damaged"),
        (replying(b"Quaxolotl"), "damaged"),
        (replying(multipart()), "no files"),
        (replying(multipart(b"Quaxolotl", b"y", end=b"")), "broke off"),
        (replying(multipart(b"Quaxolotl", b"y")[:-30]), "broke off"),
        (replying(multipart(*[b"x"] * 6)), "more than 5 files"),
        (replying(multipart(bytes(601))), "a file of more than"),
        (replying(multipart(*[bytes(300)] * 4)), "give one study at a time"),
    ],
)
def test_an_answer_that_is_no_study_is_refused(answer, match, caplog):
    with a_server(answer) as (url, seen):
        refused(f"{url}/dicom-web/studies/1.2", match)
    assert len(seen) == 1
    assert caplog.text == ""  # the libraries' own warnings quote the address and the answer


def test_an_answer_without_end_is_cut_at_the_limit():
    def endless(handler: BaseHTTPRequestHandler) -> None:
        replying(b"--a--b\r\n\r\n")(handler)
        for _ in range(10_000):
            handler.wfile.write(bytes(100_000))

    with a_server(endless) as (url, _):
        refused(f"{url}/studies/1.2", "a file of more than")


def test_an_answer_that_breaks_off_by_its_own_length_is_told_from_a_whole_one(tmp_path):
    def cut(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", f"multipart/related; boundary={BOUNDARY}")
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        handler.wfile.write(multipart(b"x"))
        handler.wfile.flush()
        handler.connection.shutdown(2)

    with a_server(cut) as (url, _), pytest.raises(UnreachableError):
        retrieve_study(f"{url}/studies/1.2", tmp_path / "into", Limits())
    assert list((tmp_path / "into").iterdir()) == []


def test_a_server_cannot_make_the_reader_wait_and_is_asked_once_more_at_most():
    def later(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(503)
        handler.send_header("Retry-After", "3600")
        handler.end_headers()

    def hangs_up(handler: BaseHTTPRequestHandler) -> None:
        handler.connection.shutdown(2)

    started = time.monotonic()
    for answer, requests in ((later, 1), (hangs_up, 2)):
        with a_server(answer) as (url, seen):
            refused(f"{url}/studies/1.2", "answer")
            assert len(seen) == requests
    assert time.monotonic() - started < 1800


def test_json_is_bounded_and_told_from_other_text(monkeypatch):
    monkeypatch.setattr("kneessl.reader.intake.connection._LARGEST_JSON", 1000)
    answers = {
        b'{"a": 1}': None,
        b'{"a"': "answer is not JSON",
        b"[" * 900: "answer is not JSON",
        bytes(2000): "too long",
    }
    for body, match in answers.items():
        with a_server(replying(body)) as (url, _):
            connection = Connection(url, "KNEESSL_DICOMWEB")
            if match is None:
                assert connection.json("/x") == {"a": 1}
                continue
            with pytest.raises(UserError, match=match):
                connection.json("/x")
    with a_server(replying(b"", status=404)) as (url, _), pytest.raises(MissingError):
        Connection(url, "KNEESSL_DICOMWEB").json("/x")


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path):
    key = tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    try:
        subprocess.run([*command, "-keyout", key, "-out", key.with_name("cert.pem")], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is missing")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(key.with_name("cert.pem"), key)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        refused(f"https://127.0.0.1:{server.server_address[1]}/studies/1.2", "certificate is not trusted")
        server.shutdown()
        thread.join()


def test_a_real_archive_gives_the_same_pixels(real_data, tmp_path, monkeypatch):
    sources = sorted(real_data("knee_mese").iterdir())[:12]
    sources += sorted((real_data("dicom_formats") / "transfer_syntaxes").iterdir())
    pixels = {}
    for file in sources:
        data = pydicom.dcmread(file)
        pixels.setdefault(str(data.StudyInstanceUID), {})[str(data.SOPInstanceUID)] = data.pixel_array
    monkeypatch.setenv("KNEESSL_DICOMWEB_USER", USER)
    with running_orthanc(tmp_path) as orthanc:
        orthanc.push(sources)
        for study, expected in pixels.items():
            address = f"{orthanc.url}/dicom-web/studies/{study}"
            monkeypatch.setenv("KNEESSL_DICOMWEB_PASSWORD", "wrong")
            refused(address, "refuses access")
            monkeypatch.setenv("KNEESSL_DICOMWEB_PASSWORD", PASSWORD)
            with files_of(address) as files:
                found = {str(data.SOPInstanceUID): data.pixel_array for data in map(pydicom.dcmread, files)}
            assert found.keys() == expected.keys()
            for instance, values in found.items():
                np.testing.assert_array_equal(values, expected[instance])
        refused(f"{orthanc.url}/dicom-web/studies/1.2.3", "does not have this study", Limits())
