"""How long one study takes from files to answer: `python benchmarks/predict_study.py MODEL STUDY [--times 7]`.

Start-up (imports, weights, first pass) is timed apart; then the same study is answered several times in one process,
and each stage's median is printed with its range.
"""

import argparse
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import torch

started = time.perf_counter()

from kneessl.process_tuning import keep_freed_memory  # noqa: E402
from kneessl.reader.answer.assess import Assessor  # noqa: E402
from kneessl.reader.answer_folder import write_answer  # noqa: E402  the imports are part of what is timed
from kneessl.reader.intake.intake import files_of  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("study")
    parser.add_argument("--times", type=int, default=7)
    given = parser.parse_args()
    keep_freed_memory()  # as the command line does
    assessor = Assessor(given.model)
    print(f"start-up {time.perf_counter() - started:.2f} s; threads {torch.get_num_threads()}")
    stages: dict[str, list[float]] = {name: [] for name in ("files and headers", "pixels, model, heat", "write", "all")}
    for _ in range(given.times):
        with tempfile.TemporaryDirectory() as folder:
            marks = [time.perf_counter()]
            with files_of(given.study) as files:
                knees = assessor.knees(files)
                marks.append(time.perf_counter())
                assessments = [assessor.assess(knee) for knee in knees]
            marks.append(time.perf_counter())
            for number, assessment in enumerate(assessments):
                write_answer(Path(folder) / str(number), assessment)
            marks.append(time.perf_counter())
        for name, seconds in zip(stages, (b - a for a, b in pairwise(marks)), strict=False):
            stages[name].append(seconds)
        stages["all"].append(marks[-1] - marks[0])
    for name, seconds in stages.items():
        print(f"{name:<20} {statistics.median(seconds):.2f} s  ({min(seconds):.2f} to {max(seconds):.2f})")


if __name__ == "__main__":
    main()
