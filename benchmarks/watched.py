"""`kneessl watch` on a real Orthanc for an hour, killed again and again: is each study answered exactly once?

    python benchmarks/watched.py --model runs/demo/pretrained [--minutes 60] [--studies 200] [--kills 10] [--seed 0]

Studies come at random times: one knee or both, some of another body part, some in two parts a few seconds apart. The
watch is ended by kill -9 at random times, most of them shortly after a study came, and started again at once. In the
end the archive is asked, without code of kneessl: each knee must have one structured report and one picture, filed
under its own patient, whose references are all to its own images; a study of another body part must have none. One
line of JSON for each fault, then the figures. Orthanc comes with Debian's packages orthanc and orthanc-dicomweb.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import date
from io import BytesIO
from pathlib import Path

import numpy as np
from campaign.studies import SECRET, series, uid
from pydicom import Dataset, dcmread

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from helpers.orthanc import PASSWORD, USER, Orthanc, running_orthanc

RESULTS = ("SR", "OT")


def made_study(rng: np.random.Generator, number: int) -> tuple[list[list[Dataset]], int]:
    """The files of a study in the parts in which they come, and how many knees are to be answered."""
    study, person = uid(rng), f"{SECRET[2]}-{number}"
    kind = rng.choice(["one", "both", "parts", "brain"], p=[0.6, 0.15, 0.15, 0.1])
    common = {"study": study, "person": person, "side": 64, "slices": 8}
    if kind == "both":
        return [series(rng, x_mm=-80, tag="R", **common) + series(rng, x_mm=80, tag="L", **common)], 2
    if kind == "brain":
        return [series(rng, BodyPartExamined="BRAIN", **common)], 0
    images = series(rng, **common)
    return ([images[:4], images[4:]] if kind == "parts" else [images]), 1


def content_of(data: Dataset) -> bytes:
    content = BytesIO()
    data.save_as(content, enforce_file_format=True)
    return content.getvalue()


class Watch:
    """The process of `kneessl watch`, started as often as it is killed."""

    def __init__(self, model: Path, url: str, folder: Path) -> None:
        self.words = [sys.executable, "-m", "kneessl", "watch", str(model), url, "--interval", "2"]
        self.log = folder / "watch.log"
        credentials = {"KNEESSL_ORTHANC_USER": USER, "KNEESSL_ORTHANC_PASSWORD": PASSWORD}
        self.environment = os.environ | credentials | {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder / "tmp")}
        (folder / "tmp").mkdir()
        self.start()

    def start(self, *more: str) -> None:
        with self.log.open("a") as log:
            self.process = subprocess.Popen([*self.words, *more], stdout=log, stderr=log, env=self.environment)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def run(archive: Orthanc, watch: Watch, args: argparse.Namespace) -> dict[str, tuple[str, int]]:
    """Send everything and kill now and then; returns each study's patient and number of knees, by Orthanc's ID."""
    rng = np.random.default_rng(args.seed)
    seconds = args.minutes * 60
    arrivals = sorted(rng.uniform(0, seconds * 0.95, args.studies))
    after = rng.choice(args.studies, args.kills, replace=False)
    kills = sorted(arrivals[n] + (rng.uniform(1, 4) if rng.random() < 0.8 else rng.uniform(0, 30)) for n in after)
    parts = []
    for number, at in enumerate(arrivals):
        pieces, knees = made_study(rng, number)
        parts += [(at + 4 * index, piece, number, knees) for index, piece in enumerate(pieces)]
    parts.sort(key=lambda part: part[0])
    sent: dict[str, tuple[str, int]] = {}
    began = time.monotonic()
    while parts or kills:
        now = time.monotonic() - began
        if kills and kills[0] <= now:
            kills.pop(0)
            watch.kill()
            watch.start()
        elif parts and parts[0][0] <= now:
            _, piece, number, knees = parts.pop(0)
            sent[archive.push(map(content_of, piece))] = (f"{SECRET[2]}-{number}", knees)
        else:
            time.sleep(0.2)
    return sent


def faults_of(archive: Orthanc, study: str, person: str, knees: int) -> list[str]:
    """What is wrong with what the archive holds of a study."""
    own, results = set(), []
    for line in archive.get(f"/studies/{study}/instances"):
        answer = archive.session.get(f"{archive.url}/instances/{line['ID']}/file", timeout=30)
        data = dcmread(BytesIO(answer.content))
        (results.append(data) if data.Modality in RESULTS else own.add(str(data.SOPInstanceUID)))
    found = []
    counts = Counter(data.Modality for data in results)
    if counts != Counter({modality: knees for modality in RESULTS if knees}):
        found.append(f"{dict(counts)} for {knees} knees")
    if any(data.PatientID != person for data in results):
        found.append("filed under another patient")
    for data in results:
        references = {str(e.value) for e in data.iterall() if e.keyword == "ReferencedSOPInstanceUID"}
        if foreign := references - own - {str(one.SOPInstanceUID) for one in results}:
            found.append(f"{len(foreign)} references to images of no such study")
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, default=Path("runs/demo/pretrained"))
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, running_orthanc(Path(name)) as archive:
        folder = Path(name)
        watch = Watch(args.model, archive.url, folder)
        sent = run(archive, watch, args)
        time.sleep(20)  # the last study becomes stable and is answered
        watch.process.terminate()
        watch.process.wait()
        before = len(archive.get("/instances"))
        watch.start("--once")
        status = watch.process.wait()
        faults = 0
        for study, (person, knees) in sent.items():
            for fault in faults_of(archive, study, person, knees):
                faults += 1
                print(json.dumps({"study": study, "fault": fault}))
        log = watch.log.read_text()
        left = len(list((folder / "tmp").iterdir()))
        told = [word for word in SECRET if word in log]
    cpu = next(line.split(": ")[1] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line)
    print(f"seed {args.seed}, {date.today()}, {cpu}, {args.minutes:g} minutes, killed {args.kills} times")
    print(f"studies {len(sent)}, knees {sum(knees for _, knees in sent.values())}, faults {faults}")
    print(f"instances before the last look {before}, status of the last look {status}")
    print(f"identity in the log: {told or 'none'}; lines of the log {len(log.splitlines())}; folders left {left}")
    if faults or told:
        print(log[-3000:])
        sys.exit(1)


if __name__ == "__main__":
    main()
