"""`kneessl check`: what an exam folder holds, and everything that is wrong with it."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

from kneessl.errors import UserError
from kneessl.exams.folder import PLANES, SPLITS, ExamFolder, Plane, Provenance
from kneessl.progress import progress
from kneessl.workers.executor import executor, in_order, require_workers

_EXAMPLES = 5
_WORTH_A_START = 500
"""Series: fewer are read sooner than two processes have started."""
_AHEAD = 16
"""Series a process that wait, or whose results do."""


@dataclass(frozen=True)
class SeriesCount:
    """The readable series of one split and plane."""

    split: str
    plane: str
    slices: tuple[int, ...]
    """Number of slices of each."""


@dataclass(frozen=True)
class TaskCount:
    """The labels of one task in one split."""

    split: str
    task: str
    exams: int
    positive: int


@dataclass
class Findings:
    """Everything that a check found; each fault and notice is one sentence that names its file."""

    series: list[SeriesCount] = field(default_factory=list)
    tasks: list[TaskCount] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def check(data: Path, workers: int | None = None) -> None:
    """Print what an exam folder holds and every fault with its file; exit with status 1 where there is one.

    Args:
        data: The exam folder.
        workers: Processes; as many as there are cores by default.

    Raises:
        UserError: `data` is no exam folder.
        SystemExit: there is a fault.
    """
    findings = inspect(ExamFolder(data), require_workers(workers))
    print(as_text(findings))
    if findings.faults:
        raise SystemExit(1)


def inspect(folder: ExamFolder, workers: int = 1) -> Findings:
    """Read every series and label of an exam folder once, series in so many processes."""
    findings = Findings()
    hashes = _inspect_series(folder, findings, workers)
    _inspect_repeats(hashes, findings)
    for split in SPLITS:
        exams = {plane: folder.exams(split, plane) for plane in PLANES}
        _inspect_planes(folder, split, exams, findings)
        _inspect_labels(folder, split, set().union(*exams.values()), findings)
    _inspect_provenance(folder, findings)
    return findings


def as_text(findings: Findings) -> str:
    """Tables of series and tasks, then notices and faults, a line each."""
    series = [("plane", "split", "exams", "slices: least", "median", "most")]
    for count in findings.series:
        if count.slices:
            spread = (f"{min(count.slices)}", f"{median(count.slices):g}", f"{max(count.slices)}")
            series.append((count.plane, count.split, str(len(count.slices)), *spread))
    tasks = [("task", "split", "labels", "positive", "prevalence")]
    for task in findings.tasks:
        share = f"{task.positive / task.exams:.1%}" if task.exams else "-"
        tasks.append((task.task, task.split, str(task.exams), str(task.positive), share))
    lines = [*_aligned(series), ""]
    lines += _aligned(tasks) if len(tasks) > 1 else ["no labels"]
    lines += ["", *(f"notice: {text}" for text in findings.notices), *(f"fault: {text}" for text in findings.faults)]
    lines.append(f"faults: {len(findings.faults)}" if findings.faults else "no faults")
    return "\n".join(lines)


def _inspect_series(folder: ExamFolder, findings: Findings, workers: int) -> dict[str, list[tuple[str, Path]]]:
    """Count the slices of every series, and hash its pixels: hash to the splits and files that have them."""
    hashes: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    everything = [(split, plane, exam) for split in SPLITS for plane in PLANES for exam in folder.exams(split, plane)]
    slices: dict[tuple[str, str], list[int]] = defaultdict(list)
    with executor(workers if len(everything) >= _WORTH_A_START else 1) as pool:
        looks = in_order(pool, partial(_look, folder), everything, _AHEAD * workers)
        bar = progress(looks, title="series", unit="series", total=len(everything))
        for (split, plane, exam), (count, digest) in zip(everything, bar, strict=True):
            if not count:
                findings.faults.append(digest)
                continue
            slices[split, plane].append(count)
            hashes[digest].append((split, folder.path(split, plane, exam)))
    findings.series += [SeriesCount(split, plane, tuple(slices[split, plane])) for split in SPLITS for plane in PLANES]
    return hashes


def _look(folder: ExamFolder, place: tuple[str, str, str]) -> tuple[int, str]:
    """The number of slices of one series and the hash of its pixels; or 0 and its fault."""
    try:
        volume = folder.series(*place)
    except UserError as error:
        return 0, str(error)
    # tobytes in C order, so that a volume saved in Fortran order has the same hash.
    return len(volume), hashlib.sha256(volume.tobytes()).hexdigest()


def _inspect_repeats(hashes: dict[str, list[tuple[str, Path]]], findings: Findings) -> None:
    for places in hashes.values():
        if len(places) < 2:
            continue
        splits = {split for split, _ in places}
        where = ", ".join(str(path) for _, path in places)
        if len(splits) > 1:
            findings.faults.append(
                f"the same volume in more than one split, so what is tested was seen before: {where}"
            )
        else:
            findings.faults.append(f"the same volume {len(places)} times: {where}")


def _inspect_planes(folder: ExamFolder, split: str, exams: dict[Plane, list[str]], findings: Findings) -> None:
    every = set().union(*exams.values())
    for plane, names in exams.items():
        missing = every - set(names)
        if names and missing:
            where = folder.root / split / plane
            findings.notices.append(
                f"{where} lacks exams that other planes have ({len(missing)}): {_examples(missing)}"
            )


def _inspect_labels(folder: ExamFolder, split: str, exams: set[str], findings: Findings) -> None:
    try:
        tasks = folder.tasks(split)
        table = folder.table(split)
    except UserError as error:
        findings.faults.append(str(error))
        return
    if exams and not tasks:
        findings.notices.append(f"{folder.root}: split {split} has no labels ({split}-<task>.csv or {split}.csv)")
    for task in tasks:
        try:
            labels = folder.read_labels(split, task)
        except UserError as error:
            findings.faults.append(str(error))
            continue
        findings.tasks.append(TaskCount(split, task, len(labels), sum(labels.values())))
        if task not in table.tasks:
            _inspect_labelled(folder.root / f"{split}-{task}.csv", "label", exams, set(labels), findings)
    if table.tasks:
        # Blank cells are not counted: the table has a line for every exam, though not every label.
        _inspect_labelled(folder.root / f"{split}.csv", "line", exams, set(table.rows), findings)


def _inspect_labelled(path: Path, what: str, exams: set[str], named: set[str], findings: Findings) -> None:
    if missing := exams - named:
        findings.notices.append(
            f"{path}: {len(missing)} of {len(exams)} exams have no {what} ({_examples(missing)}); pre-training sees "
            "them all the same"
        )
    findings.faults += [f"{path}: {what} for exam {exam}, which has no series" for exam in sorted(named - exams)]


def _inspect_provenance(folder: ExamFolder, findings: Findings) -> None:
    path = folder.root / "exams.csv"
    try:
        lines = folder.provenance()
    except UserError as error:
        findings.faults.append(str(error))
        return
    if not lines:
        return
    for group, exams in _exams_by(lines, "patient_group"):
        if len({split for split, _ in exams}) > 1:
            findings.faults.append(f"{path}: patient group {group} is in more than one split: {_places(exams)}")
    for _, exams in _exams_by(lines, "source_sha256"):
        if len(exams) > 1:
            findings.faults.append(f"{path}: one source became several exams: {_places(exams)}")
    listed = {(line.split, line.plane, line.exam) for line in lines}
    present = {(split, plane, exam) for split in SPLITS for plane in PLANES for exam in folder.exams(split, plane)}
    for text, series in (("is listed, but missing", listed - present), ("is not listed", present - listed)):
        findings.notices += [f"{path}: {folder.path(*place)} {text}" for place in sorted(series)]


def _exams_by(lines: Sequence[Provenance], column: str) -> list[tuple[str, set[tuple[str, str]]]]:
    """Each value of a column with the exams (split, name) that have it, sorted; blank values are left out."""
    exams: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for line in lines:
        exams[getattr(line, column)].add((line.split, line.exam))
    exams.pop("", None)
    return sorted(exams.items())


def _places(exams: Iterable[tuple[str, str]]) -> str:
    return _examples(f"{split}/{exam}" for split, exam in exams)


def _examples(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:_EXAMPLES]) + (" ..." if len(names) > _EXAMPLES else "")


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns side by side: the first two to the left, numbers to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index < 2 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
