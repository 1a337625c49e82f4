"""`kneessl serve` under load: is an answer lost, are two mixed up, does its memory stay bounded, what of a full disk?

    python benchmarks/served.py [--clients 20] [--uploads 200] [--slow 6] [--seed 0] [--model runs/demo/pretrained]

The real server, in a process of its own, gets small studies of one knee or both, as files or as a zip, from many
clients at once. Some send slowly; some break off, claim another boundary, or send what is no study. Each whole upload
must be taken in, or told to come later (429) and taken in then, and have one answer a knee: with the very pictures that
were sent, as pydicom and NumPy read them, and in its structured report references to its own images. A broken one must
be refused, or fail with a sentence. Nothing may bear an identity, and no upload may be left. Then the same with a store
on a disk (tmpfs, which takes root) that holds few answers only: each upload must be answered, or refused or fail with a
sentence that says so; and with room again it is answered. Faults are lines; ends with a table.
"""

import argparse
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from campaign.reading import frames_of, pictures
from campaign.studies import SECRET, file_of, series, uid
from interrupted import small_disk
from pydicom import Dataset, dcmread

KINDS = ("whole", "zip", "both knees", "slow", "cut off", "other boundary", "no study")
SHARES = (0.45, 0.1, 0.1, 0.1, 0.1, 0.05, 0.1)
GOOD = KINDS[:4]
MIB = 2**20
NO_ROOM = "disk is full"


@dataclass
class Upload:
    """What one client sends, and what came of it."""

    number: int
    kind: str
    images: list[Dataset]
    body: bytes
    faults: list[str] = field(default_factory=list)
    end: str = ""
    """answered, refused or failed."""


@dataclass
class Server:
    """A running `kneessl serve`."""

    process: subprocess.Popen[str]
    port: int
    store: Path
    log: Path
    peak_mib: dict[int, float] = field(default_factory=dict)
    """Resident memory at its most, by how many uploads had come to their end."""

    def ask(self, method: str, path: str, body: Any = None, kind: str = "") -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            headers = {"content-type": kind, "content-length": str(len(body))} if kind else {}
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def memory(self) -> float:
        """The most resident memory so far, in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


@contextmanager
def running(model: Path, store: Path, log: Path):
    words = [sys.executable, "-m", "kneessl", "serve", str(model), "--port", "0", "--store", str(store)]
    with log.open("w") as errors:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors, text=True, env=dict(os.environ))
    try:
        line = process.stdout.readline() if process.stdout else ""
        yield Server(process, int(re.search(r":(\d+)/", line)[1]), store, log)  # type: ignore[index]
    finally:
        process.terminate()
        process.wait()


class Slowly(bytes):
    """A body that is sent in pieces with pauses between them."""

    def pieces(self, seconds: float):
        for at in range(0, len(self), 1 + len(self) // 12):
            time.sleep(seconds / 12)
            yield self[at : at + 1 + len(self) // 12]


def made(rng: np.random.Generator, number: int) -> Upload:
    """An upload of some kind, and its body in multipart."""
    kind = str(rng.choice(KINDS, p=SHARES))
    common = {"study": uid(rng), "person": f"{SECRET[2]}-{number}", "slices": 6, "side": 64}
    if kind == "both knees":
        images = series(rng, x_mm=-80, tag="R", **common) + series(rng, x_mm=80, tag="L", **common)
    else:
        images = series(rng, **common)
    contents = [rng.bytes(3000) for _ in range(3)] if kind == "no study" else [file_of(one) for one in images]
    if kind == "zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for index, content in enumerate(contents):
                archive.writestr(f"{SECRET[0]}/{index}.dcm", content)
        contents = [buffer.getvalue()]
    head = f'\r\nContent-Disposition: form-data; name="files"; filename="{SECRET[0]}.dcm"\r\n\r\n'
    body = b"".join(b"--b0undary" + head.encode() + content + b"\r\n" for content in contents) + b"--b0undary--\r\n"
    return Upload(number, kind, images, body)


def send(server: Server, upload: Upload, slow: float) -> tuple[int, bytes]:
    """One attempt; the status and the body of the answer, or 0 where the connection broke, as it does in `cut off`."""
    boundary = "an0ther" if upload.kind == "other boundary" else "b0undary"
    kind = f"multipart/form-data; boundary={boundary}"
    if upload.kind == "cut off":
        connection = HTTPConnection("127.0.0.1", server.port, timeout=300)
        connection.putrequest("POST", "/api/studies")
        connection.putheader("content-type", kind)
        connection.putheader("content-length", str(len(upload.body)))
        connection.endheaders(upload.body[: len(upload.body) // 2])
        connection.close()
        return 0, b""
    if upload.kind == "slow":
        connection = HTTPConnection("127.0.0.1", server.port, timeout=300)
        pieces, headers = Slowly(upload.body).pieces(slow), {"content-type": kind}
        try:
            connection.request("POST", "/api/studies", pieces, headers, encode_chunked=True)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()
    return server.ask("POST", "/api/studies", upload.body, kind)


def carry_through(server: Server, upload: Upload, slow: float) -> None:
    """Send until it is taken in or refused, wait for the answer, and hold it against what was sent."""
    try:
        status, text = send(server, upload, slow)
        while status == 429:
            time.sleep(1)
            status, text = send(server, upload, slow)
        if status == 0 or status >= 400:
            judge_refusal(upload, status, text)
            return
        study = json.loads(text)["id"]
        while (told := json.loads(server.ask("GET", f"/api/studies/{study}")[1]))["stage"] not in {"done", "failed"}:
            time.sleep(0.5)
        if told["stage"] == "failed":
            judge_refusal(upload, 422, told["sentence"].encode())
        elif upload.kind in GOOD:
            upload.end = "answered"
            upload.faults += wrong_in(server, upload, study, told)
        else:
            upload.faults.append("answered, and is no study")
        server.ask("DELETE", f"/api/studies/{study}")
    except (OSError, HTTPException, ValueError, KeyError) as error:
        upload.faults.append(f"no answer: {type(error).__name__}: {error}"[:200])


def judge_refusal(upload: Upload, status: int, text: bytes) -> None:
    upload.end = "failed" if status == 422 else "refused"
    said = text.decode(errors="replace")
    if status == 500 or "fault in kneessl" in said:
        upload.faults.append(f"status {status}: {said[:200]}")
    elif upload.kind in GOOD and NO_ROOM in said:
        upload.end = "no room"
    elif upload.kind in GOOD:
        upload.faults.append(f"a whole upload is refused, status {status}: {said[:200]}")
    if any(word in said for word in SECRET):
        upload.faults.append("an answer names a patient")


def wrong_in(server: Server, upload: Upload, study: int, told: dict[str, Any]) -> list[str]:
    """What an answer does not have of its own study: one knee a side, the pictures, the references."""
    found, sides = [], {str(one.Laterality): [] for one in upload.images}
    for one in upload.images:
        sides[str(one.Laterality)].append(one)
    if sorted(knee["side"] for knee in told["knees"]) != sorted(sides):
        return [f"knees {[knee['side'] for knee in told['knees']]}, sent were {sorted(sides)}"]
    for knee in told["knees"]:
        number, own = knee["knee"], sides[knee["side"]]
        slices = sorted((frames_of(dcmread(io.BytesIO(file_of(one))))[0] for one in own), key=lambda one: one.place)
        _, shown = server.ask("GET", f"/api/studies/{study}/slices/sagittal?knee={number}")
        wanted = pictures(slices)
        if len(shown) != wanted.size:
            return [f"{len(shown)} pixels in place of {wanted.size}"]
        if np.abs(np.frombuffer(shown, np.uint8).reshape(wanted.shape).astype(float) - wanted).max() > 1:
            found.append("other pictures than were sent")
        status, content = server.ask("GET", f"/api/studies/{study}/sr?knee={number}")
        report = dcmread(io.BytesIO(content)) if status == 200 else Dataset()
        named = {str(e.value) for e in report.iterall() if e.keyword == "ReferencedSOPInstanceUID"}
        ids = {str(one.SOPInstanceUID) for one in own}
        if not named & ids or report.get("StudyInstanceUID") != upload.images[0].StudyInstanceUID:
            found.append("a structured report of another study")
        if any(word.encode() in content for word in SECRET):
            found.append("a structured report names a patient")
    return found


def run(server: Server, uploads: list[Upload], clients: int, slow: float) -> None:
    """Carry all uploads through, so many at once, and watch the memory."""
    ended, lock = 0, threading.Lock()

    def one(upload: Upload) -> None:
        nonlocal ended
        carry_through(server, upload, slow)
        with lock:
            ended += 1
            server.peak_mib[ended] = server.memory()

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(one, uploads))


def left_behind(server: Server, uploads: list[Upload]) -> list[str]:
    """What should not be there any more once all is answered and deleted."""
    for _ in range(60):
        lines = json.loads(server.ask("GET", "/api/studies")[1])
        files = [path for path in server.store.rglob("*") if path.is_file() and path.parent != server.store]
        if not lines and not files:
            break
        time.sleep(1)
    found = [f"{len(lines)} studies are left in the list"] if lines else []
    found += [f"{len(files)} files are left in the store"] if files else []
    log = server.log.read_text()
    if any(word in log for word in SECRET):
        found.append("the log names a patient")
    print(log, file=sys.stderr, end="")
    return found


def summary(title: str, uploads: list[Upload], server: Server) -> str:
    ends = Counter(upload.end for upload in uploads)
    faults = sum(len(upload.faults) for upload in uploads)
    whole = sum(upload.kind in GOOD for upload in uploads)
    first = server.peak_mib[max(1, len(uploads) // 4)]
    cells = [len(uploads), whole, ends["answered"], ends["no room"], ends["refused"] + ends["failed"], faults]
    return f"| {title} | {' | '.join(map(str, cells))} | {first:.0f} | {server.peak_mib[len(uploads)]:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--uploads", type=int, default=200)
    parser.add_argument("--slow", type=float, default=6.0, help="seconds that a slow upload takes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, default=Path("runs/demo/pretrained"))
    args = parser.parse_args()
    rng, rows, faults = np.random.default_rng(args.seed), [], []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        uploads = [made(rng, number) for number in range(args.uploads)]
        with running(args.model, work / "store", work / "log") as server:
            run(server, uploads, args.clients, args.slow)
            faults += [(upload.number, upload.kind, fault) for upload in uploads for fault in upload.faults]
            faults += [("", "after all", fault) for fault in left_behind(server, uploads)]
            rows.append(summary("a disk with room", uploads, server))
        again = [made(rng, number) for number in range(args.uploads // 5)]
        with small_disk(work, 2 * MIB) as disk, running(args.model, disk / "store", work / "log2") as server:
            run(server, again, args.clients, args.slow)
            rows.append(summary("a full disk", again, server))
            subprocess.run(["mount", "-o", f"remount,size={512 * MIB}", "tmpfs", str(disk)], check=True)
            faults += [(upload.number, upload.kind, fault) for upload in again for fault in upload.faults]
            later = [upload for upload in again if upload.end == "no room"]
            for upload in later:
                upload.end, upload.faults = "", []
            server.peak_mib.clear()
            if later:
                run(server, later, args.clients, args.slow)
                faults += [(upload.number, upload.kind, fault) for upload in later for fault in upload.faults]
                rows.append(summary("the same, with room", later, server))
            faults += [("", "after all", fault) for fault in left_behind(server, again)]
    for number, kind, fault in faults:
        print(f"fault: {number} {kind}: {fault}")
    print("| serve on | uploads | whole | answered | no room, said | refused or failed, said | faults |"
          " memory after a quarter, MiB | at the end |\n|---|" + "---:|" * 8)  # fmt: skip
    print("\n".join(rows))
    cpu = next(line.split(": ")[1] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line)
    print(f"{args.clients} clients, seed {args.seed}, {date.today()}, {cpu}")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
