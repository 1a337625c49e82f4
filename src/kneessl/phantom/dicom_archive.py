"""`kneessl phantom OUT --dicom`: a scanner's archive of synthetic knees, its labels, and the truth."""

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

from kneessl.exams.folder import Plane
from kneessl.files import new_folder
from kneessl.phantom.dicom_files import files_of, leftover_of
from kneessl.phantom.dicom_study import ArchiveSettings, Study, StudyKnee
from kneessl.phantom.knee import TASKS
from kneessl.progress import progress
from kneessl.workers.executor import executor


@dataclass(frozen=True)
class Truth:
    """One line of `truth.csv`: a plane of a knee, and the series to read in it."""

    accession: str
    study_uid: str
    patient_id: str
    laterality: str
    """`L` or `R`."""
    side_told_by: str
    """What in the headers tells the side: `tag`, `most tags` (one is wrong), `position` or `nothing`."""
    plane: Plane
    series_uid: str
    weighting: str
    fat_suppressed: bool
    echo_ms: float
    slices: int
    pixel_mm: float
    slice_mm: float
    vendor: str
    enhanced: bool
    transfer_syntax: str
    knee: int
    """Which drawn knee it shows; with `--knees` the same in many studies."""
    damage: str
    """What is wrong with the study's first such series; empty where nothing is."""
    abnormal: int
    acl: int
    meniscus: int


def write_archive(out: Path, settings: ArchiveSettings, studies: int, workers: int, cluster: str | None = None) -> None:
    """Write `dicom/`, `labels.csv` and `truth.csv` into a new folder.

    Raises:
        UserError: `out` holds something already; or as `executor`.
    """
    turns = settings.knees or studies
    order = sorted(range(studies), key=lambda number: (number % turns, number))
    with new_folder(out) as folder:
        with executor(min(workers, studies), cluster, writes=folder) as pool:
            written = pool.map(partial(_write_study, folder.absolute() / "dicom", settings), order)
            results = dict(zip(order, progress(written, total=studies, title="phantom", unit="study"), strict=True))
        truth = [line for number in range(studies) for line in results[number][0]]
        _write_rows(folder / "truth.csv", [field.name for field in fields(Truth)], map(asdict, truth))
        names = ("AccessionNumber", "laterality", *TASKS)
        lines = (_label_line(line, names) for line in truth)
        _write_rows(folder / "labels.csv", names, {tuple(line.values()): line for line in lines}.values())
    files, size = (sum(result[part] for result in results.values()) for part in (1, 2))
    print(f"{out}: studies {studies}, files {files}, {size / 1e6:.0f} MB; labels.csv and truth.csv beside dicom/")


def _label_line(line: Truth, names: Iterable[str]) -> dict[str, object]:
    values = asdict(line) | {"AccessionNumber": line.accession}
    return {name: values[name] for name in names}


def _write_study(folder: Path, settings: ArchiveSettings, number: int) -> tuple[list[Truth], int, int]:
    """Write one study; the truth about it, its number of files, and of bytes."""
    study = Study(settings, number)
    place = folder / f"{study.date:%Y-%m}" / study.accession
    parts = {f"{series.number:04d}": files_of(study, series) for series in study.series}
    parts["0999"] = iter([leftover_of(study)])
    files = size = 0
    for below, contents in parts.items():
        (place / below).mkdir(parents=True, exist_ok=True)  # a worker that was killed may have begun
        for name, content in contents:
            (place / below / name).write_bytes(content)
            files, size = files + 1, size + len(content)
    return [line for knee in study.knees for line in _truth(study, knee)], files, size


def _truth(study: Study, knee: StudyKnee) -> Iterable[Truth]:
    plan = study.settings.knee(knee.number)
    for series in study.read_series(knee):
        acquired = series.acquired
        scan = study.settings.scan(knee.number, acquired.plane, acquired.kind)
        yield Truth(
            accession=study.accession,
            study_uid=study.uid,
            patient_id=study.person.patient_id,
            laterality=knee.side,
            side_told_by=study.side_told_by,
            plane=acquired.plane,
            series_uid=series.uid,
            weighting=acquired.kind.weighting,
            fat_suppressed=acquired.kind.fat_suppressed,
            echo_ms=acquired.echo_ms,
            slices=scan.slices,
            pixel_mm=round(scan.field_of_view_mm / acquired.matrix, 6),
            slice_mm=round(scan.spacing_mm, 6),
            vendor=study.scanner.vendor.name,
            enhanced=study.scanner.enhanced,
            transfer_syntax=study.syntax.keyword,
            knee=plan.number,
            damage=study.damage if series == study.damaged_series else "",
            **{task: int(plan.labels[task]) for task in TASKS},
        )


def _write_rows(file: Path, names: Iterable[str], rows: Iterable[dict[str, object]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as content:
        writer = csv.DictWriter(content, list(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
