"""A real Orthanc for tests: on free loopback ports, with all that it keeps in a temporary folder."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

PROGRAM = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
USER, PASSWORD = "reader", "planted-password-77"


class Orthanc:
    """A running one, asked without any code of ours."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.auth = (USER, PASSWORD)

    def get(self, path: str, text: bool = False):
        answer = self.session.get(self.url + path, timeout=30)
        answer.raise_for_status()
        return answer.text if text else answer.json()

    def push(self, files: Iterable[Path | bytes]) -> str:
        """Store files; returns Orthanc's ID of the study of the last."""
        for file in files:
            content = file if isinstance(file, bytes) else file.read_bytes()
            answer = self.session.post(self.url + "/instances", data=content, timeout=30)
            answer.raise_for_status()
        return answer.json()["ParentStudy"]

    def settle(self, study: str) -> None:
        """Wait until a study is stable."""
        for _ in range(100):
            if self.get(f"/studies/{study}")["IsStable"]:
                return
            time.sleep(0.1)
        raise TimeoutError("the study does not become stable")

    def held(self) -> list[tuple[str, str]]:
        """Modality and SOPInstanceUID of every instance, sorted."""
        return sorted(
            (series["MainDicomTags"]["Modality"], self.get(f"/instances/{instance}")["MainDicomTags"]["SOPInstanceUID"])
            for series in self.get("/series?expand")
            for instance in series["Instances"]
        )

    def empty(self) -> None:
        """Delete all studies."""
        for study in self.get("/studies"):
            self.session.delete(f"{self.url}/studies/{study}", timeout=30).raise_for_status()


@contextmanager
def running_orthanc(folder: Path) -> Iterator[Orthanc]:
    """Start one, wait until it answers, and end it; skips the test where it is not installed."""
    if not Path(PROGRAM).exists() or not PLUGIN.exists():
        pytest.skip("Debian packages orthanc and orthanc-dicomweb are missing")
    port, dicom_port = free_port(), free_port()
    settings = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(PLUGIN)],
        "HttpPort": port,
        "DicomServerEnabled": False,
        "DicomPort": dicom_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "StableAge": 1,
        "MaximumStorageCacheSize": 0,  # so that a test can lose a file
        "DicomWeb": {"Enable": True},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "orthanc.log").open("w") as log:
        process = subprocess.Popen([PROGRAM, str(folder / "orthanc.json")], stdout=log, stderr=log)
        try:
            orthanc = Orthanc(f"http://127.0.0.1:{port}", folder)
            _wait_until_it_answers(orthanc, process, folder / "orthanc.log")
            yield orthanc
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _wait_until_it_answers(orthanc: Orthanc, process: subprocess.Popen, log: Path) -> None:
    for _ in range(150):
        if process.poll() is not None:
            raise RuntimeError(f"Orthanc ended at once: {log.read_text()[-2000:]}")
        try:
            orthanc.get("/system")
            return
        except requests.ConnectionError:
            time.sleep(0.1)
    raise TimeoutError("Orthanc does not answer")
