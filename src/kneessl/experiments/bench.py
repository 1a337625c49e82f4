"""`kneessl bench`: exams a second of a training or prediction as it is, and what its arithmetic alone would allow."""

import json as js
import math
import statistics
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from torch import Tensor

from kneessl import cli
from kneessl.classifier.classifier import build_classifier
from kneessl.errors import UserError
from kneessl.exams.folder import PLANES, ExamFolder, Plane
from kneessl.experiments.bench_import import import_table, time_import
from kneessl.experiments.jobs import Words, check_settings
from kneessl.files import write_text
from kneessl.finetuning.settings import FinetuneSettings
from kneessl.methods import MethodName
from kneessl.model.model import PlaneModel, load_model
from kneessl.model.predict import forward_pass, whole_clip
from kneessl.progress import progress
from kneessl.settings import require_positive
from kneessl.training.fit import watched
from kneessl.training.machine import LightningPrecision, Precision, describe_machine, lightning_precision, peak_memory
from kneessl.training.stopwatch import Clock, Measured, Stopwatch, Timing

Of = Literal["pretrain", "finetune", "predict", "import"]
MATRIX_SIDE = {"cpu": 2048, "cuda": 8192}
"""Of the square matrices whose product tells how fast the hardware multiplies."""
ENDLESS = 10**6
"""Epochs: a training that is timed ends when that is done."""
RESERVED = {"pretrain": ("probe",), "finetune": ("folds", "frozen")}
"""Settings that cannot be timed."""


@dataclass(frozen=True)
class Bench:
    """What was measured; figures are medians over rounds."""

    of: Of
    exams_per_step: int
    pipeline_exams_per_s: float
    pipeline_views_per_s: float
    """Pictures that go into the network."""
    ceiling_exams_per_s: float
    """Of the same step on tensors that are already in place."""
    ratio: float
    """Of the two, each round for itself."""
    ratio_range: tuple[float, float]
    """The least and the greatest round's."""
    stages: dict[str, float]
    """Seconds of a step, by stage; `wait`: what the pipeline's step took beyond their sum."""
    epoch_end_s: float
    """Seconds that the end of an epoch costs (log, checkpoint); 0 where none ended."""
    peak_memory_bytes: int
    flops_per_step: int
    """Of matrix products and convolutions."""
    matrix_flops_per_s: float
    """Of a large matrix product, in the precision used."""
    matrix_share: float
    """The pipeline's operations a second, as a share of those."""
    precision: str
    machine: str
    rounds: int
    steps_per_round: int


def bench(
    data: Path,
    of: Of = "pretrain",
    method: MethodName = "byolmed2d",
    task: str = "acl",
    plane: Plane = "sagittal",
    model: Path | None = None,
    pretrain: dict[str, Any] | None = None,
    finetune: dict[str, Any] | None = None,
    rounds: int = 5,
    seconds: float = 2.0,
    json: bool = False,
) -> None:
    """Measure how fast it learns or predicts on this machine, and how much of that the pipeline costs.

    The real command runs, in a folder that is removed afterwards; its steps alternate with bare ones in one process, so
    that their ratio means something on a machine that does other work too.

    Args:
        data: Exam folder; for import, a small folder of DICOM.
        of: What to measure: pretrain, finetune, predict (one exam after the other), or import.
        method: Of pre-training.
        task: Of fine-tuning.
        plane: To learn from.
        model: Run folder of `kneessl finetune` or `kneessl fuse`, for predict; by default, random weights a plane.
        pretrain: Settings of pre-training, as `kneessl pretrain --help` lists them.
        finetune: Settings of fine-tuning, as `kneessl finetune --help` lists them.
        rounds: How often pipeline and bare steps alternate.
        seconds: Least length of a burst of steps, which is no longer than an epoch.
        json: Print one JSON object instead of a table.
    """
    require_positive({"rounds": rounds, "seconds": seconds}, "rounds", "seconds")
    if of == "import":
        imported = time_import(data, rounds)
        print(js.dumps(asdict(imported), indent=2) if json else import_table(imported))
        return
    if of == "predict":
        folder = ExamFolder(data)
        if model is None:
            planes = untrained(folder, finetune or {})
        else:
            planes = list(load_model(model).planes.values())
        result = time_prediction(folder, planes, rounds, seconds)
    elif of == "pretrain":
        result = time_training(of, data, pretrain or {}, ["--method", method, "--plane", plane], rounds, seconds)
    else:
        result = time_training(of, data, finetune or {}, ["--task", task, "--plane", plane], rounds, seconds)
    print(js.dumps(asdict(result), indent=2) if json else bench_table(result))


def time_training(
    of: Of, data: Path, settings: Mapping[str, Any], options: Words, rounds: int, seconds: float
) -> Bench:
    """Type the command of a training, and end it once it has been timed.

    Raises:
        UserError: a setting is wrong, or whatever the command says.
    """
    precision: Precision = check_settings(of, {**settings, "epochs": ENDLESS}, *RESERVED[of]).precision
    stopwatch = Stopwatch(rounds, seconds)
    with tempfile.TemporaryDirectory() as folder, watched(stopwatch), redirect_stdout(sys.stderr):
        config = Path(folder) / "settings.yaml"
        write_text(config, yaml.safe_dump(dict(settings)))
        out = ["--out", str(Path(folder) / "run")]
        with suppress(Measured):
            cli.run(of, [str(data), "--config", str(config), *options, "--epochs", str(ENDLESS), *out])
    return summary(of, stopwatch.timing, lightning_precision(precision), stopwatch.steps)


def untrained(folder: ExamFolder, settings: Mapping[str, Any]) -> list[PlaneModel]:
    """Random weights for each plane that the valid split has: as fast as any others.

    Raises:
        UserError: a setting of fine-tuning is wrong.
    """
    wanted: FinetuneSettings = check_settings("finetune", settings, *RESERVED["finetune"])
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return [
        PlaneModel(
            build_classifier(wanted.network or "resnet18", wanted.head, 1, {}).to(device).eval(), ("any",), plane,
            wanted.preprocessing, wanted.tta,
        )
        for plane in PLANES
        if folder.exams("valid", plane)
    ]  # fmt: skip


@torch.no_grad()
def time_prediction(folder: ExamFolder, planes: Sequence[PlaneModel], rounds: int, seconds: float) -> Bench:
    """Predict exams of the valid split that have all planes of a model, one after the other.

    Raises:
        UserError: there is no such exam.
    """
    known = [set(folder.exams("valid", model.plane)) for model in planes]
    exams = sorted(set.intersection(*known)) if known else []
    if not exams:
        named = ", ".join(model.plane for model in planes) or "any plane"
        raise UserError(f"{folder.root} has no exam in valid with {named}; name another exam folder or --model")
    timing = Timing(next(planes[0].classifier.parameters()).device)
    clock = timing.clock

    def series(exam: str, model: PlaneModel) -> np.ndarray:
        return folder.series("valid", model.plane, exam)

    def clips(exam: str) -> list[tuple[Tensor, Tensor]]:
        return [whole_clip(model, series(exam, model)) for model in planes]

    def bare(ready: Iterable[tuple[Tensor, Tensor]]) -> None:
        for model, (clip, where) in zip(planes, ready, strict=True):
            model.classifier.head(model.maps(clip), where)

    first = clips(exams[0])
    in_pytorch = [
        lambda model=model, clip=clip: model.classifier(*clip) for model, clip in zip(planes, first, strict=True)
    ]
    timing.count(1, [clip for clip, _ in first], lambda: [run() for run in in_pytorch])
    start = clock.now()
    bare(first)
    steps = max(1, round(seconds / (clock.now() - start)))
    endless = cycle(exams)
    for _ in progress(range(rounds), title="predict", unit="round"):
        chosen = list(islice(endless, steps))
        start = clock.now()
        for exam in chosen:
            for model in planes:
                forward_pass(model, series(exam, model))
        timing.pipeline.append((clock.now() - start) / steps)
        ready = [clips(exam) for exam in chosen]  # of the same exams: others may have more slices, or fewer
        start = clock.now()
        for tensors in ready:
            bare(tensors)
        timing.ceiling.append((clock.now() - start) / steps)
        stage = clock.lap()
        for model in planes:
            with stage("read"):
                slices = np.array(series(chosen[0], model))
            with stage("augment"):
                clip, where = whole_clip(model, slices)
            with stage("forward"):
                model.classifier.head(model.maps(clip), where)
    return summary("predict", timing, "32-true", steps)


def summary(of: Of, timing: Timing, precision: LightningPrecision, steps: int) -> Bench:
    """Medians over the rounds, beside what the hardware multiplies at most."""
    step, bare = statistics.median(timing.pipeline), statistics.median(timing.ceiling)
    ratios = [c / p for p, c in zip(timing.pipeline, timing.ceiling, strict=True)]
    stages = timing.clock.medians()
    most = matrix_rate(timing.clock, torch.bfloat16 if precision == "bf16-mixed" else torch.float32)
    return Bench(
        of=of,
        exams_per_step=timing.exams,
        pipeline_exams_per_s=timing.exams / step,
        pipeline_views_per_s=timing.views / step,
        ceiling_exams_per_s=timing.exams / bare,
        ratio=statistics.median(ratios),
        ratio_range=(min(ratios), max(ratios)),
        stages=stages | {"wait": max(0.0, step - sum(stages.values()))},
        epoch_end_s=statistics.median(timing.epoch_ends or [0.0]),
        peak_memory_bytes=peak_memory(),
        flops_per_step=timing.flops,
        matrix_flops_per_s=most,
        matrix_share=timing.flops / step / most,
        precision=precision,
        machine=describe_machine(),
        rounds=len(ratios),
        steps_per_round=steps,
    )


def matrix_rate(clock: Clock, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a product of two large square matrices, the best of ten."""
    side = MATRIX_SIDE[clock.device.type]
    a, b = torch.randn(2, side, side, device=clock.device, dtype=dtype)
    shortest = math.inf
    for _ in range(10):
        start = clock.now()
        torch.mm(a, b)
        shortest = min(shortest, clock.now() - start)
    return 2 * side**3 / shortest


def bench_table(result: Bench) -> str:
    """What was measured, as Markdown."""
    low, high = result.ratio_range
    stages = [(name, seconds) for name, seconds in result.stages.items() if seconds]
    total = result.exams_per_step / result.pipeline_exams_per_s
    lines = [
        f"{result.of}: {result.machine}, {result.precision}; {result.rounds} rounds of {result.steps_per_round} steps "
        f"of {result.exams_per_step} exams",
        "",
        "| | exams/s | views/s |",
        "|---|---|---|",
        f"| pipeline | {result.pipeline_exams_per_s:.3g} | {result.pipeline_views_per_s:.3g} |",
        f"| ceiling | {result.ceiling_exams_per_s:.3g} | |",
        "",
        f"ratio {result.ratio:.3f} (rounds: {low:.3f} to {high:.3f}); peak memory "
        f"{result.peak_memory_bytes / 2**30:.2f} GiB; {result.flops_per_step / 1e9:.0f} GFLOP a step, "
        f"{100 * result.matrix_share:.0f} % of the {result.matrix_flops_per_s / 1e9:.0f} GFLOP/s that a matrix product "
        "reaches",
        "",
        "| stage | ms a step | share |",
        "|---|---|---|",
        *(f"| {name} | {1000 * seconds:.1f} | {100 * seconds / total:.1f} % |" for name, seconds in stages),
    ]
    if result.epoch_end_s:
        lines += ["", f"the end of an epoch (log, checkpoint): {result.epoch_end_s:.2f} s"]
    return "\n".join(lines)
