"""A run's folder and what it says of itself: settings, record, metrics. Importing it takes no training along."""

import csv
import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from kneessl.errors import UserError
from kneessl.exams.folder import ExamFolder
from kneessl.files import sweep, write_text
from kneessl.training.machine import describe_machine, peak_memory
from kneessl.views.preprocess import Preprocessing

LAST = Path("checkpoints", "last.ckpt")
"""In a run folder: what a run goes on from."""
CONFIG = "config.yaml"
"""In a run folder: what was asked for."""
MADE_BY = "# kneessl "
"""Begins the first line of `config.yaml`, and the version follows: a comment, so that the file is still a --config."""


def open_run(
    out: Path, settings: Mapping[str, Any], resume: bool, first: bool = True, defaults: Mapping[str, Any] | None = None
) -> Path | None:
    """Make the run folder, or go on with one.

    Args:
        out: The run folder.
        settings: What was asked for; written to `config.yaml`, and must be the same again on resuming.
        resume: Continue from the last checkpoint, if there is one.
        first: Of the processes that train together, the first makes the folder; the others find it made, or not yet.
        defaults: Of the settings. An older version's run lacks the options that it did not have: those count as asked
            for by their defaults, groups of settings (a view) option by option.

    Returns:
        The checkpoint to continue from, or None for a new run.

    Raises:
        UserError: the folder is in use and `resume` is off, or the settings differ from the run's.
    """
    if first:
        _claim(out, plain(settings), plain(defaults or {}), resume)
        sweep(out)
    checkpoint = out / LAST
    return checkpoint if checkpoint.is_file() else None


def _claim(out: Path, settings: Mapping[str, Any], defaults: Mapping[str, Any], resume: bool) -> None:
    """See that the folder is free for this run, or is this run's, and write `config.yaml`."""
    config = f"{MADE_BY}{version('kneessl')}\n{yaml.safe_dump(settings, sort_keys=False)}"
    path = out / CONFIG
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a folder for the run")
    if path.is_file():
        if not resume:
            raise UserError(f"{out} already holds a run; add --resume to continue it, or choose another --out")
        before, now = completed(read_config(out), defaults), yaml.safe_load(config)
        differing = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
        if differing:
            raise UserError(
                f"{path} has other settings than now asked for ({', '.join(differing)}); "
                f"a run resumes only as it began{_begun_by(path)}, so use the same settings or another --out"
            )
    elif out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out} is not empty and holds no run; choose another --out")
    else:
        write_text(path, config)


def _begun_by(config: Path) -> str:
    """Which version of kneessl wrote a `config.yaml`, in words, where it was another than this."""
    first, this = config.read_text(encoding="utf-8").partition("\n")[0], version("kneessl")
    writer = first.removeprefix(MADE_BY) if first.startswith(MADE_BY) else "of an earlier version"
    return "" if writer == this else f" (by kneessl {writer}; this is {this})"


def completed(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, and from `defaults` what they lack, in groups of settings too."""
    both = {**defaults, **settings}
    groups = {k for k, v in both.items() if isinstance(v, Mapping) and isinstance(defaults.get(k), Mapping)}
    return {k: completed(v, defaults[k]) if k in groups else v for k, v in both.items()}


def plain(value: Any) -> Any:
    """Settings as YAML and JSON know them: paths as text, dataclasses as mappings, tuples as lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def write_record(out: Path, preprocessing: Preprocessing, rows: list[dict[str, float]], **facts: Any) -> None:
    """Write `run.json`: versions, machine, time, memory, preprocessing, and the `facts` of this run.

    Args:
        out: The run folder.
        preprocessing: Recorded with its fingerprint.
        rows: The lines of `metrics.csv`.
        facts: What else to record.
    """
    packages = ("kneessl", "torch", "lightning", "numpy")
    record = {
        **facts,
        "seconds": sum(row["seconds"] for row in rows),
        "peak_memory_bytes": peak_memory(),
        "preprocessing": asdict(preprocessing),
        "fingerprint": preprocessing.fingerprint(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "machine": describe_machine(),
    }
    write_text(out / "run.json", json.dumps(plain(record), indent=2) + "\n")


def read_record(run: Path) -> dict[str, Any]:
    """Read `run.json`, or say that this is no finished run."""
    try:
        record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{run} is not a run folder: it has no run.json") from error
    except ValueError as error:
        raise UserError(f"{run / 'run.json'} is not readable JSON; the run folder is damaged") from error
    if not isinstance(record, dict):
        raise UserError(f"{run / 'run.json'} is not a JSON object; the run folder is damaged")
    return record


def read_config(run: Path) -> dict[str, Any]:
    """The settings of a run, from its `config.yaml`; none where a model travels without it."""
    path = run / CONFIG
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}


def read_metrics(run: Path) -> list[dict[str, float]]:
    """The lines of a run's `metrics.csv`; none where a model travels without it."""
    if not (run / "metrics.csv").is_file():
        return []
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def data_hash(folder: ExamFolder, split: str, plane: str, exams: list[str]) -> str:
    """SHA-256 over name, size, first and middle 4 KiB of each series: notices other data without reading all of it."""
    digest = hashlib.sha256()
    for exam in exams:
        path = folder.path(split, plane, exam)
        size = path.stat().st_size
        digest.update(f"{exam} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(4096))
            file.seek(size // 2)
            digest.update(file.read(4096))
    return digest.hexdigest()
