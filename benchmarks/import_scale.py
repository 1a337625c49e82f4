"""How an import scales on this machine: seconds by number of processes, and memory by number of studies.

    kneessl phantom archive --dicom --exams 2000 --matrix 64 --slices 6
    python benchmarks/import_scale.py archive [--sizes 1000 2000] [--workers 1 2]

Two Markdown tables. Each import runs in a process of its own, of the first so many studies of the archive, by links;
memory is the most that the process itself and the largest of its workers held. Where other work goes on, compare
nothing but memory.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kneessl.sources.importer import import_exams


def first_studies(archive: Path, count: int, into: Path) -> Path:
    """Links to the first studies of an archive: folders that hold files or folders of files, two levels down."""
    into.mkdir()
    studies = sorted(path for path in (archive / "dicom").glob("*/*") if path.is_dir())[:count]
    if len(studies) < count:
        sys.exit(f"{archive} has {len(studies)} studies, fewer than {count}")
    for number, study in enumerate(studies):
        for file in study.rglob("*"):
            if file.is_file():
                link = into / f"{number:06d}" / file.relative_to(study)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file.resolve())
    return into


def one_import(src: str, out: str, workers: str) -> None:
    """In a process of its own: import, and print seconds and memory."""
    start = time.perf_counter()
    import_exams(Path(src), Path(out), workers=int(workers))
    seconds = time.perf_counter() - start
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    own, largest = (usage.ru_maxrss // 1024 for usage in usages)
    print(f"measured {seconds:.1f} {own} {largest}")


def measure(src: Path, out: Path, workers: int) -> list[str]:
    """Seconds, and MiB of the process and of its largest worker."""
    words = [sys.executable, __file__, "one-import", str(src), str(out), str(workers)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()[-1].split()[1:]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("archive", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 2000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        sources = {size: first_studies(asked.archive, size, work / f"src{size}") for size in asked.sizes}
        print("| studies | processes | s | MiB, process | MiB, largest worker |\n|---|---|---|---|---|")
        for size, src in sources.items():
            for workers in asked.workers if size == max(sources) else asked.workers[-1:]:
                seconds, own, largest = measure(src, work / f"out{size}-{workers}", workers)
                print(f"| {size:,} | {workers} | {seconds} | {own} | {largest} |", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if sys.argv[1:2] == ["one-import"]:
        one_import(*sys.argv[2:])
    else:
        main()
