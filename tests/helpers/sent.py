"""What others send, in tests: zips, and a small web server that can misbehave."""

import threading
import zipfile
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def a_zip(path: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip of some files, in this order."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


BOUNDARY = "a--b"


def multipart(*parts: bytes, end: bytes = b"--") -> bytes:
    """A DICOMweb answer; another `end` than two hyphens breaks it off."""
    body = b"".join(b"--a--b\r\nContent-Type: application/dicom\r\n\r\n" + part + b"\r\n" for part in parts)
    return body + b"--a--b" + end + b"\r\n"


@contextmanager
def a_server(answer: Callable[[BaseHTTPRequestHandler], None]):
    """Serves GET with `answer`; yields its address and the headers of each request."""
    seen: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append({"path": self.path, **dict(self.headers)})
            answer(self)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.handle_error = lambda *_: None
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", seen
        finally:
            server.shutdown()
            thread.join()


def replying(
    body: bytes, kind: str = f'multipart/related; type="application/dicom"; boundary="{BOUNDARY}"', status=200
):
    """For `a_server`: always the same answer."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Location", "http://127.0.0.1:9/studies/1.2")
        handler.end_headers()
        handler.wfile.write(body)

    return answer
