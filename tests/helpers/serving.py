"""`kneessl serve` on made answers, for tests."""

from contextlib import contextmanager
from threading import Event

from fastapi.testclient import TestClient

from kneessl.reader.web.app import create_app
from kneessl.reader.web.security import Access
from kneessl.reader.web.store import Store
from kneessl.sources.limits import Limits

HERE = "http://127.0.0.1:8000"
NAME = "Planted^Filename.dcm"
"""What a client calls each file that it sends."""


class Engine:
    """Answers with the same assessments, one a knee, whatever comes; or raises `error`.

    Args:
        assessments: At least one.
    """

    def __init__(self, *assessments):
        self.assessments, self.facts = assessments, assessments[0].model
        self.seen, self.error = [], None
        self.go = Event()
        """No study is answered while it is cleared."""
        self.go.set()

    def knees(self, files):
        self.go.wait(30)
        self.seen = [path.read_bytes() for path in files]
        if self.error:
            raise self.error
        return self.assessments

    def assess(self, knee):
        return knee


@contextmanager
def served(engine, folder, host="127.0.0.1", token=None, keep_hours=24.0, most_waiting=20, **limits):
    """The application, as a browser on loopback asks it; the client's `store` is its store."""
    store = Store(folder, keep_hours, temporary=False)
    app = create_app(engine, store, Access(host, token), Limits(**limits), most_waiting)
    with TestClient(app, base_url=HERE, raise_server_exceptions=False) as client:
        client.store = store
        yield client
        engine.go.set()


def send(client, *contents, **more):
    """Upload files of these contents as one study."""
    parts = [("files", (NAME, content, "application/dicom")) for content in contents or (b"pixels",)]
    return client.post("/api/studies", files=parts, **more)


def finished(client, study=1):
    """The study as soon as it is done or has failed."""
    for _ in range(3000):
        told = client.get(f"/api/studies/{study}").json()
        if told["stage"] in {"done", "failed"}:
            return told
        Event().wait(0.02)
    raise AssertionError(told)
