"""`kneessl imbalance-grid`: what a long tail costs with labels and without, over n and r (thesis, figures 3.1, 3.2)."""

import json
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from kneessl.errors import UserError
from kneessl.evaluation.gap import BALANCED, Cell, OverSeeds, gap_points
from kneessl.experiments.jobs import Words, check_settings, done, failure, run_all
from kneessl.files import write_text
from kneessl.pictures.arms import SUPERVISED, require_arm
from kneessl.pictures.cifar10 import read_cifar10
from kneessl.pictures.folder import find_images
from kneessl.pictures.sets import choose_sets
from kneessl.report.grid_content import IN_DOMAIN, OUT_OF_DOMAIN, READOUTS, A, GridRow, ReadoutOverSeeds, ratio_text
from kneessl.report.grid_figures import write_png
from kneessl.report.grid_page import write_grid_page
from kneessl.report.grid_table import grid_table, write_grid_csv
from kneessl.report.grid_verdict import verdicts
from kneessl.report.page import PageHead
from kneessl.settings import require_positive
from kneessl.training.machine import Precision
from kneessl.training.runs import open_run, plain

RATIOS = (BALANCED, 0.1, 0.01)
Arms = Literal["both", "method", "supervised"]
COMMON = ("labels", "test", "held_out", "ood", "precision")
"""Settings of `kneessl imbalance` that all cells share."""
OWN = {"method": ("pretrain", "settings"), "supervised": ("supervised",)}
"""Those that the cells of one arm share."""
FILES = {
    "table": "grid.csv",
    "page": "grid.html",
    "accuracy": "figure_3_1.png",
    "gap": "figure_3_2.png",
}
Result = Mapping[str, Any]
"""A cell's `result.json`."""


@dataclass(frozen=True)
class Job:
    """One cell under one seed: its folder, and the command that runs it."""

    cell: Cell
    seed: int
    folder: Path
    data: Path
    settings: Path
    """YAML with what all cells of its arm share."""

    def commands(self) -> Iterator[Words]:
        """Train and read out, in a run folder inside the job's, whose log would be in the way of a new run."""
        run = self.folder / "run"
        own = ["--method", self.cell.arm, "--images", str(self.cell.images), "--ratio", str(self.cell.ratio)]
        words = ["imbalance", str(self.data), "--config", str(self.settings), *own, "--seed", str(self.seed)]
        yield [*words, "--out", str(run), "--resume"]
        write_text(self.folder / "result.json", (run / "result.json").read_text(encoding="utf-8"))


def imbalance_grid(
    data: Path,
    out: Path,
    method: str = "simclr",
    arms: Arms = "both",
    images: list[int] | None = None,
    ratios: list[float] | None = None,
    seeds: int = 3,
    labels: int | None = None,
    test: int | None = None,
    held_out: int = 0,
    ood: Path | None = None,
    pretrain: dict[str, Any] | None = None,
    supervised: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    precision: Precision = "auto",
    jobs: int = 1,
    resume: bool = False,
) -> None:
    """Train a self-supervised and a supervised arm on n images at ratio r, for every n, r and seed, and compare.

    A(n, r) is the accuracy of a linear classifier on frozen features, learnt from balanced labels, for both arms alike;
    Delta(n, r) = (A(n, 1) - A(n, r)) / A(n, 1) is what the long tail costs, seeds paired. Ratio 1 is always in the
    grid. A training that fails stands in the table with its reason, and the rest go on.

    Args:
        data: CIFAR-10 in its official binary layout: the folder cifar-10-batches-bin, or the one that holds it.
        out: Folder to write: grid.csv, grid.html, figure_3_1.png, figure_3_2.png, and a folder for each cell and seed.
        method: The self-supervised arm: simclr, byol, moco_v2 or any other method of two views.
        arms: Both, or one of them alone.
        images: Numbers of training images in all, such as [2000,6000]; by default the most that every ratio allows.
        ratios: Of the rarest class to the commonest, by default [1,0.1,0.01].
        seeds: Trainings of each cell, seeds 0, 1, ...; all cells of a seed come before the next seed.
        labels: Images of each class whose labels the linear classifier learns from; by default all.
        test: Test images of each class; by default all.
        held_out: Test on so many training images of each class instead, kept out of all else.
        ood: Folder of images by class, as for `kneessl probe`: the same out of domain.
        pretrain: Settings of every self-supervised training, as `kneessl imbalance --help` lists them.
        supervised: The same of every supervised one.
        settings: The method's own settings, such as {temperature: 0.5}.
        precision: auto takes bf16 where the hardware multiplies it fast.
        jobs: Cells to train at the same time, sharing the processor's cores.
        resume: Go on where a grid in OUT stopped; what failed is tried again.
    """
    asked = {k: v for k, v in locals().items() if k not in {"out", "resume", "jobs"}}
    require_positive({"seeds": seeds, "jobs": jobs}, "seeds", "jobs")
    settings_of = arm_settings(method, arms, asked)
    for name, own in settings_of.items():
        require_arm(name)
        check_settings("imbalance", own, ())
    plan = plan_grid(data, images, ratios or list(RATIOS), labels, test, held_out)
    elsewhere = None if ood is None else f"another data set, of {len(find_images(ood, 0).classes)} classes"
    print("".join(f"{line}\n" for line in plan.left_out), end="")
    todo = [
        Job(Cell(arm, n, ratio), seed, out / "runs" / folder_name(arm, n, ratio, seed), data, out / f"{arm}.yaml")
        for seed in range(seeds)
        for n, ratio in plan.counts
        for arm in settings_of
    ]
    open_run(out, asked, resume)
    for arm, own in settings_of.items():
        write_text(out / f"{arm}.yaml", yaml.safe_dump(own))
    for job in todo:
        job.folder.mkdir(parents=True, exist_ok=True)
    run_all(todo, jobs, "imbalance grid")
    results = collect(todo)
    rows = make_rows(results, plan, list(settings_of))
    failures = [f"{job.folder.name} failed: {failure(job)}" for job in todo if not done(job)]
    print(grid_table(rows))
    for verdict in verdicts(rows, SUPERVISED):
        print("\n- ".join([verdict.summary, *verdict.cells]))
    write_grid_csv(out / FILES["table"], rows)
    write_png(out / FILES["accuracy"], rows, "accuracy")
    write_png(out / FILES["gap"], rows, "gap")
    some = next(result for own in results.values() for result in own.values())
    write_grid_page(
        out / FILES["page"],
        PageHead(
            title=f"What a long tail costs: {' and '.join(settings_of)}",
            lead=f"{len(plan.counts)} training sets of CIFAR-10 by size and ratio, {seeds} seed{'s' * (seeds > 1)} "
            f"each; the features are read on {some['test_images']:,} {some['tested_on']}.",
            warnings=[*failures, *plan.left_out],
            facts=[
                ("arms", ", ".join(settings_of)),
                ("training images n", ", ".join(f"{n:,}" for n in dict.fromkeys(n for n, _ in plan.counts))),
                ("ratios r", ", ".join(ratio_text(r) for r in dict.fromkeys(r for _, r in plan.counts))),
                ("seeds", str(seeds)),
            ],
            settings=settings_of,
            commands=[shlex.join(["kneessl", *sys.argv[1:]])],
        ),
        rows,
        classes=some["classes"],
        reference=SUPERVISED,
        elsewhere=elsewhere,
    )
    for what, name in FILES.items():
        print(f"{what + ':':<10}{out / name}")


def arm_settings(method: str, arms: Arms, asked: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The arms, and for each the settings of `kneessl imbalance` that its cells share.

    Raises:
        UserError: the method is the supervised arm itself.
    """
    if method == SUPERVISED:
        raise UserError(f"method is {SUPERVISED}, which every grid has as its other arm; name a self-supervised method")
    names = {"method": method, "supervised": SUPERVISED}
    return {
        names[arm]: {k: plain(asked[k]) for k in (*COMMON, *own) if asked[k] is not None}
        for arm, own in OWN.items()
        if arms in {"both", arm}
    }


@dataclass(frozen=True)
class Plan:
    """Which training sets the grid has."""

    counts: Mapping[tuple[int, float], list[int]]
    """n and r -> training images of each class."""
    left_out: list[str]
    """What could not be, and why, a line each."""


def plan_grid(
    data: Path, images: list[int] | None, ratios: list[float], labels: int | None, test: int | None, held_out: int
) -> Plan:
    """The training sets that CIFAR-10 in `data` allows; for the arguments see `imbalance_grid`.

    Raises:
        UserError: the data cannot be read, a number is out of range, or no set with a ratio below 1 can be.
    """
    cifar = read_cifar10(data)

    def counts(ratio: float, n: int | None) -> list[int]:
        return choose_sets(cifar, ratio, n, labels, test, held_out, seed=0).counts

    counts(BALANCED, None)  # so that what is wrong with all cells ends here
    return plan_cells(images, ratios, counts)


def plan_cells(
    images: list[int] | None, ratios: Sequence[float], counts: Callable[[float, int | None], list[int]]
) -> Plan:
    """Cross numbers of images with ratios, ratio 1 among them, and leave out what cannot be.

    Args:
        images: Rising or not; None for the most that every ratio allows.
        ratios: In any order.
        counts: Ratio, and images in all or None for the most -> images of each class, or a user error.

    Raises:
        UserError: a ratio or number of images is out of range, or no set with a ratio below 1 can be.
    """
    if not all(0 < ratio <= BALANCED for ratio in ratios) or min(ratios) == BALANCED:
        raise UserError(f"ratios is {list(ratios)}; they must be above 0 and up to 1, at least one of them below 1")
    falling = sorted({BALANCED, *ratios}, reverse=True)
    sizes = sorted(set(images)) if images else [min(sum(counts(ratio, None)) for ratio in falling)]
    if sizes[0] < 1:
        raise UserError(f"images is {images}; they must be numbers of training images, above 0")
    possible, left_out = {}, []
    for n in sizes:
        for ratio in falling:
            try:
                possible[n, ratio] = counts(ratio, n)
            except UserError as error:
                left_out.append(f"{n:,} images at ratio {ratio_text(ratio)} are left out: {error}")
    if not any(ratio < BALANCED and (n, BALANCED) in possible for n, ratio in possible):
        raise UserError(f"nothing is left of the grid; {left_out[0]}")
    return Plan(possible, left_out)


def folder_name(arm: str, images: int, ratio: float, seed: int) -> str:
    """What a cell's folder is called."""
    return f"{arm}-n{images}-r{ratio_text(ratio)}-seed{seed}"


def collect(todo: Sequence[Job]) -> dict[Cell, dict[int, Result]]:
    """What the jobs have left behind, by cell and seed.

    Raises:
        UserError: every job failed.
    """
    found: dict[Cell, dict[int, Result]] = {}
    for job in todo:
        own = found.setdefault(job.cell, {})
        if done(job):
            own[job.seed] = json.loads((job.folder / "result.json").read_text(encoding="utf-8"))
    if not any(found.values()):
        raise UserError(f"every training failed; the first one because: {failure(todo[0])}")
    return found


def make_rows(results: Mapping[Cell, Mapping[int, Result]], plan: Plan, arms: Sequence[str]) -> list[GridRow]:
    """The grid's rows, by n, then falling ratio, then arm."""
    accuracies = {IN_DOMAIN: {cell: over(own, "readouts", A, "accuracy") for cell, own in results.items()}}
    if any(result["ood"] for own in results.values() for result in own.values()):
        accuracies[OUT_OF_DOMAIN] = {cell: over(own, "ood", "linear") for cell, own in results.items()}
    points = {domain: gap_points(values, SUPERVISED) for domain, values in accuracies.items()}
    return [
        GridRow(
            cell := Cell(arm, n, ratio),
            tuple(counts),
            {domain: own[cell] for domain, own in points.items()},
            {name: readout for name in READOUTS if (readout := read_out(results[cell], name))},
        )
        for (n, ratio), counts in plan.counts.items()
        for arm in arms
    ]


def over(results: Mapping[int, Result], *keys: str) -> dict[int, float]:
    """The value of a proportion of every seed's result, by the keys that lead to it."""
    values = {}
    for seed, result in results.items():
        found: Any = result
        for key in keys:
            found = found[key]
        values[seed] = float(found["value"])
    return values


def read_out(results: Mapping[int, Result], name: str) -> ReadoutOverSeeds | None:
    """One readout over seeds; None where the cell has no such readout, or no seed."""
    own = {seed: result for seed, result in results.items() if name in result["readouts"]}
    accuracy = OverSeeds.of(over(own, "readouts", name, "accuracy"))
    if accuracy is None:
        return None

    def parts(kind: str) -> dict[str, OverSeeds]:
        names = next(iter(own.values()))["readouts"][name][kind]
        values = {part: OverSeeds.of(over(own, "readouts", name, kind, part)) for part in names}
        return {part: value for part, value in values.items() if value}

    return ReadoutOverSeeds(accuracy, parts("groups"), parts("per_class"))
