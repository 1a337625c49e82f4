"""kill -9 and a full disk at random moments: does each command end as if nothing had happened?

    python benchmarks/interrupted.py [--commands import predict pretrain finetune compare] [--kills 100] [--disks 100]
                                     [--seed 0] [--model runs/demo/pretrained]

Each command runs once unbroken, in a process of its own. Then it is killed at random moments of that time and typed
again (with --resume, but for predict): its output must then be that of the unbroken run, byte for byte but for times;
no half of it may stand under its name before, no process it started may live on, and nothing that it began may be left
after. Then each writes to a disk (tmpfs, which takes root) with less room than it needs: one sentence must say so, and
the same result must come once there is room. Faults are lines; ends with a table. `watched.py` does it to `watch`.
"""

import argparse
import contextlib
import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from campaign.studies import SECRET, save, study_of

VARYING = ("report.html", "metrics.csv", "run.json", "MODEL_CARD.md", "config.yaml", "last.ckpt", "studies.csv",
           "comparison.html", "log.txt")  # fmt: skip
"""Hold times, or the path of the output; what else there is must be the same."""
SMALL = ["--epochs", "2", "--size", "32", "--batch", "4", "--slices", "2", "--precision", "float32", "--seed", "1"]


@dataclass
class Command:
    """One command: its words, where it writes, and whether it goes on where it was stopped."""

    name: str
    words: Callable[[Path], list[str]]
    again: tuple[str, ...] = ()


def start(words: list[str], log: Path) -> int:
    """Run a command in a child of this process, which has imported everything already; returns its process ID."""
    child = os.fork()
    if child:
        return child
    status = 1
    os.setsid()
    try:
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.argv = ["kneessl", *words]
        from kneessl.cli import main

        main()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def ended(child: int) -> int:
    """Wait for a process; its status, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def alone(group: int) -> bool:
    """Whether no process of a group is left, or soon none is."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    os.killpg(group, signal.SIGKILL)
    return False


def content_of(out: Path) -> dict[str, str]:
    """Each file of an output with the hash of its content, without times, and without what was begun and is hidden."""
    found = {}
    for path in sorted(out.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(out).parts)
        if path.is_file() and path.name not in VARYING and not hidden:
            content = path.read_bytes()
            if path.name == "result.json":
                content = json.dumps({k: v for k, v in json.loads(content).items() if k != "seconds"}).encode()
            if path.name == "comparison.csv":
                rows = csv.DictReader(content.decode().splitlines())
                timeless = [{k: v for k, v in row.items() if "seconds" not in k and "memory" not in k} for row in rows]
                content = json.dumps(timeless).encode()
            found[str(path.relative_to(out))] = hashlib.sha256(content).hexdigest()
    return found


def inputs(work: Path, rng: np.random.Generator) -> None:
    """Four studies, and an exam folder with labels to train on."""
    from kneessl.exams.folder import write_labels, write_series

    for number in range(4):
        save(work / "studies" / f"{SECRET[0]}{number}", study_of(rng, person=f"{SECRET[2]}{number}", side=64), rng)
    for split, names in (("train", range(12)), ("valid", range(12, 16))):
        for exam in names:
            volume = rng.integers(0, 256, (4, 32, 32), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
            write_series(work / "knees", split, "sagittal", f"{exam:04d}", volume)
        write_labels(work / "knees", split, "acl", {f"{exam:04d}": exam % 2 for exam in names})


def faults_after_kill(
    command: Command, work: Path, whole: dict[str, str], seconds: float, rng: np.random.Generator
) -> list[str]:
    """Kill a command once, then let it come to its end."""
    folder = Path(tempfile.mkdtemp(dir=work))
    out, log = folder / "out", folder / "log"
    child = start(command.words(out), log)
    time.sleep(rng.uniform(0.02, 1) * seconds)
    os.kill(child, signal.SIGKILL)
    status = ended(child)
    faults = [] if alone(child) else ["a process that it started lives on"]
    if command.name == "import" and out.exists() and content_of(out) != whole:
        faults.append("half an output stands under its name")
    placed = command.name == "import" and out.exists() and not list(folder.glob(".out.*"))
    if status and not placed:
        status = ended(start([*command.words(out), *command.again], log))
        if status:
            faults.append(f"typed again, it ends with status {status}: {log.read_text()[-300:]}")
        if left := [*folder.rglob(".*.partial"), *folder.glob(".out.*")]:
            faults.append(f"left unfinished: {[path.name for path in left][:3]}")
    if (now := content_of(out)) != whole:
        differ = {name for name in whole.keys() | now.keys() if whole.get(name) != now.get(name)}
        faults.append(f"another result than unbroken: {sorted(differ)[:4]}")
    if any(word in log.read_text() for word in SECRET):
        faults.append("the log names a patient")
    shutil.rmtree(folder)
    return faults


@contextlib.contextmanager
def small_disk(work: Path, size: int):
    """A disk with so many bytes."""
    place = Path(tempfile.mkdtemp(dir=work))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={max(size, 4096)}", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
        place.rmdir()


def faults_of_full_disk(
    command: Command, work: Path, whole: dict[str, str], needed: int, rng: np.random.Generator
) -> list[str]:
    """Let a command run out of space once, then give it room."""
    faults = []
    with small_disk(work, int(rng.uniform(0.02, 0.95) * needed)) as place:
        out, log = place / "out", Path(tempfile.mkstemp(dir=work)[1])
        status = ended(start(command.words(out), log))
        text = log.read_text()
        last = text.strip().splitlines()[-1] if text.strip() else ""
        if status == 0 and content_of(out) != whole:
            faults.append("it ends with status 0 and another result")
        if status not in {0, 2} and command.name != "predict":
            faults.append(f"status {status}: {text[-300:]}")
        if status == 2 and ("no space left on the disk" not in last or not last.startswith("kneessl: ")):
            faults.append(f"no sentence: {last[:300]}")
        if status and "Traceback" in text:
            faults.append(f"a traceback: {text[-400:]}")
        if status and command.name == "import" and out.exists():
            faults.append("half an output stands under its name")
        if any(word in text for word in SECRET):
            faults.append("the log names a patient")
        subprocess.run(["mount", "-o", f"remount,size={4 * needed + 2**26}", str(place)], check=True)
        if status and (status := ended(start([*command.words(out), *command.again], log))):
            faults.append(f"with room, it ends with status {status}: {log.read_text()[-300:]}")
        elif content_of(out) != whole:
            faults.append("with room, another result than unbroken")
        log.unlink()
    return faults


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--commands", nargs="+", default=["import", "predict", "pretrain", "finetune", "compare"])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--disks", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, default=Path("runs/demo/pretrained"))
    args = parser.parse_args()
    import kneessl.experiments.compare
    import kneessl.finetuning.finetune
    import kneessl.reader.command
    import kneessl.sources.importer
    import kneessl.training.pretrain  # noqa: F401  all before the first fork

    rng = np.random.default_rng(args.seed)
    work = Path(tempfile.mkdtemp())
    inputs(work, rng)
    knees, studies = str(work / "knees"), str(work / "studies")
    pretrain = ["pretrain", knees, "--warmup_epochs", "0", *SMALL]
    finetune = ["finetune", knees, "--task", "acl", "--folds", "2", *SMALL]
    small = [word for name, value in zip(SMALL[::2], SMALL[1::2], strict=True) if name != "--seed"
             for command in ("pretrain", "finetune") for word in (f"--{command}.{name[2:]}", value)]  # fmt: skip
    arms = ["--methods", "[rotation]", "--seeds", "1", "--pretrain.warmup_epochs", "0"]
    compare = ["compare", knees, "--task", "acl", *arms, *small]
    commands = (
        Command("import", lambda out: ["import", studies, str(out)], ("--resume",)),
        Command("predict", lambda out: ["predict", str(args.model), studies, "--each", "--out", str(out)]),
        Command("pretrain", lambda out: [*pretrain, "--out", str(out)], ("--resume",)),
        Command("finetune", lambda out: [*finetune, "--out", str(out)], ("--resume",)),
        Command("compare", lambda out: [*compare, "--out", str(out)], ("--resume",)),
    )  # fmt: skip
    lines, total = [], 0
    for command in (one for one in commands if one.name in args.commands):
        began = time.monotonic()
        if status := ended(start(command.words(work / command.name), work / "log")):
            sys.exit(f"{command.name} ends with status {status}: {(work / 'log').read_text()[-1000:]}")
        seconds, whole = time.monotonic() - began, content_of(work / command.name)
        needed = sum(path.stat().st_size for path in (work / command.name).rglob("*") if path.is_file())
        counts = []
        for tries, attempt, measure in (
            (args.kills, faults_after_kill, seconds), (args.disks, faults_of_full_disk, needed),
        ):  # fmt: skip
            faults = [fault for _ in range(tries) for fault in attempt(command, work, whole, measure, rng)]  # type: ignore[operator]
            for fault in faults:
                print(f"fault: {command.name}: {fault}", flush=True)
            counts += [tries, len(faults)]
        total += counts[1] + counts[3]
        lines.append(f"| `{command.name}` | {' | '.join(map(str, counts))} |")
        print(lines[-1], flush=True)
    shutil.rmtree(work)
    cpu = next(line.split(": ")[1] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line)
    print("\n| command | killed | faults | full disks | faults |\n|---|---:|---:|---:|---:|")
    print("\n".join(lines))
    print(f"seed {args.seed}, {date.today()}, {cpu}")
    sys.exit(total > 0)


if __name__ == "__main__":
    main()
