"""What an import costs, beside decoding and resampling the slices that it uses and nothing else."""

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from kneessl import cli
from kneessl.errors import UserError
from kneessl.progress import progress
from kneessl.sources.dicom.image import read_headers
from kneessl.sources.dicom.series import DicomSeries, find_knees
from kneessl.sources.exam import DEFAULT_ECHO_MS
from kneessl.sources.files import files_in
from kneessl.sources.notes import Notes
from kneessl.sources.resample import pictures_of
from kneessl.training.machine import describe_machine, peak_memory


@dataclass(frozen=True)
class ImportBench:
    """What was measured in one process; figures are medians over rounds."""

    files: int
    exams: int
    series: int
    """That are used."""
    slices: int
    """Of those series."""
    import_ms: float
    """Processor time of one exam, from its files to its place in the exam folder."""
    bare_ms: float
    """Of decoding and resampling its used slices alone."""
    ratio: float
    """Of the two, each round for itself."""
    ratio_range: tuple[float, float]
    """The least and the greatest round's."""
    peak_memory_bytes: int
    machine: str
    rounds: int


def time_import(src: Path, rounds: int) -> ImportBench:
    """Import a folder of DICOM as a user would, in turns with the arithmetic that cannot be spared.

    Raises:
        UserError: there is no knee in it.
    """
    files = files_in(src).files
    notes = Notes(skip_faulty=True)
    headers = read_headers(((file, file.name) for file in files), notes)
    knees = find_knees(headers, DEFAULT_ECHO_MS, every_echo=False, notes=notes)
    if not knees:
        raise UserError(f"{src} holds no knee in DICOM; name a folder of studies")
    used = [series for knee in knees for series in knee.series]
    whole: list[float] = []
    bare: list[float] = []
    for _ in progress(range(rounds), title="import", unit="round"):
        whole.append(_import(src) / len(knees))
        bare.append(_decode(used) / len(knees))
    ratios = [one / other for one, other in zip(whole, bare, strict=True)]
    return ImportBench(
        files=len(files),
        exams=len(knees),
        series=len(used),
        slices=sum(len(series.images) for series in used),
        import_ms=1000 * statistics.median(whole),
        bare_ms=1000 * statistics.median(bare),
        ratio=statistics.median(ratios),
        ratio_range=(min(ratios), max(ratios)),
        peak_memory_bytes=peak_memory(),
        machine=describe_machine(),
        rounds=rounds,
    )


def _import(src: Path) -> float:
    """Seconds of processor time of an import in this process: other work on the machine does not count."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr), redirect_stderr(StringIO()):
        start = time.process_time()
        cli.run("import", [str(src), str(Path(folder) / "knees"), "--workers", "1"])
        return time.process_time() - start


def _decode(used: Sequence[DicomSeries]) -> float:
    """Seconds of processor time of decoding and resampling alone."""
    start = time.process_time()
    for series in used:
        pictures_of(series.name, series.read().displayed())
    return time.process_time() - start


def import_table(result: ImportBench) -> str:
    """What was measured, as Markdown."""
    low, high = result.ratio_range
    return "\n".join(
        [
            f"import: {result.machine}; one process, {result.rounds} rounds of {result.exams} exams, {result.series} "
            f"series, {result.slices} slices used, of {result.files} files",
            "",
            "| | ms of processor time an exam |",
            "|---|---|",
            f"| import | {result.import_ms:.0f} |",
            f"| decoding and resampling the used slices alone | {result.bare_ms:.0f} |",
            "",
            f"ratio {result.ratio:.2f} (rounds: {low:.2f} to {high:.2f}); peak memory "
            f"{result.peak_memory_bytes / 2**30:.2f} GiB",
        ]
    )
