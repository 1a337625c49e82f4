"""`kneessl imbalance-grid`: what a long tail costs with labels and without, over n and r (thesis, figures 3.1, 3.2)."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, Literal

from kneessl.errors import UserError
from kneessl.evaluation.gap import BALANCED, Cell, OverSeeds, gap_points
from kneessl.experiments.experiment import ExperimentSettings, carry_out, this_command, write_settings
from kneessl.experiments.jobs import Words, check_settings, done, failures, require_one_done
from kneessl.files import write_text
from kneessl.pictures.arms import SUPERVISED, require_arm
from kneessl.pictures.cifar10 import read_cifar10
from kneessl.pictures.folder import find_images
from kneessl.pictures.grid_sets import GridSets, cross
from kneessl.pictures.sets import choose_sets
from kneessl.report.grid_content import IN_DOMAIN, OUT_OF_DOMAIN, READOUTS, A, GridRow, ReadoutOverSeeds, ratio_text
from kneessl.report.grid_figures import write_png
from kneessl.report.grid_page import write_grid_page
from kneessl.report.grid_table import grid_table, write_grid_csv
from kneessl.report.grid_verdict import verdicts
from kneessl.report.page import PageHead
from kneessl.settings import takes
from kneessl.training.machine import Precision
from kneessl.training.runs import plain

RATIOS = (BALANCED, 0.1, 0.01)
Arms = Literal["both", "method", "supervised"]
COMMON = ("labels", "test", "held_out", "ood", "precision")
"""Settings of `kneessl imbalance` that all cells share."""
OF_ARM = {"method": ("pretrain", "settings"), "supervised": ("supervised",)}
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
class ImbalanceGridSettings(ExperimentSettings):
    """What `kneessl imbalance-grid` is asked for.

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
        cluster: Address of a Dask scheduler whose workers train instead of this machine, such as tcp://10.0.0.1:8786.
        resume: Go on where a grid in OUT stopped; what failed is tried again.
    """

    data: Path
    out: Path
    method: str = "simclr"
    arms: Arms = "both"
    images: list[int] | None = None
    ratios: list[float] | None = None
    seeds: int = 3
    labels: int | None = None
    test: int | None = None
    held_out: int = 0
    ood: Path | None = None
    pretrain: dict[str, Any] | None = None
    supervised: dict[str, Any] | None = None
    settings: dict[str, Any] | None = None
    precision: Precision = "auto"
    jobs: int = 1
    cluster: str | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method == SUPERVISED:
            raise UserError(
                f"method is {SUPERVISED}, which every grid has as its other arm; name a self-supervised method"
            )

    @property
    def of_arms(self) -> dict[str, dict[str, Any]]:
        """The arms, and for each the settings of `kneessl imbalance` that its cells share."""
        names = {"method": self.method, "supervised": SUPERVISED}
        given = {name: value for name, value in vars(self).items() if value is not None}
        return {
            names[arm]: {name: plain(given[name]) for name in (*COMMON, *own) if name in given}
            for arm, own in OF_ARM.items()
            if self.arms in {"both", arm}
        }


@dataclass(frozen=True)
class GridRun:
    """One cell of the grid under one seed."""

    settings: ImbalanceGridSettings
    cell: Cell
    seed: int

    @property
    def folder(self) -> Path:
        """Of its command, whose run folder is inside: the log would be in the way of a new run."""
        arm, n, ratio = self.cell
        return self.settings.out / "runs" / f"{arm}-n{n}-r{ratio_text(ratio)}-seed{self.seed}"

    def commands(self) -> Iterator[Words]:
        """Train and read out."""
        run, arm = self.folder / "run", self.cell.arm
        cell = ["--method", arm, "--images", str(self.cell.images), "--ratio", str(self.cell.ratio)]
        words = ["imbalance", str(self.settings.data), "--config", str(self.settings.out / f"{arm}.yaml"), *cell]
        yield [*words, "--seed", str(self.seed), "--out", str(run), "--resume"]
        write_text(self.folder / "result.json", (run / "result.json").read_text(encoding="utf-8"))


@takes(ImbalanceGridSettings)
def imbalance_grid(settings: ImbalanceGridSettings) -> None:
    """Train a self-supervised and a supervised arm on n images at ratio r, for every n, r and seed, and compare.

    A(n, r) is the accuracy of a linear classifier on frozen features, learnt from balanced labels, for both arms alike;
    Delta(n, r) = (A(n, 1) - A(n, r)) / A(n, 1) is what the long tail costs, seeds paired. Ratio 1 is always in the
    grid. A training that fails stands in the table with its reason, and the rest go on.
    """
    carry_out(settings, plan(settings))


def plan(settings: ImbalanceGridSettings) -> "ImbalanceGrid":
    """Every arm at every possible n and r under every seed, whole seeds first.

    Raises:
        UserError: the data cannot be read, no set with a ratio below 1 can be, or a setting is wrong.
    """
    for arm, shared in settings.of_arms.items():
        require_arm(arm)
        check_settings("imbalance", shared)
    sets = choose_grid(settings)
    classes = None if settings.ood is None else len(find_images(settings.ood, 0).classes)
    for omission in sets.left_out:
        print(omission)
    runs = [
        GridRun(settings, Cell(arm, n, ratio), seed)
        for seed in range(settings.seeds)
        for n, ratio in sets.counts
        for arm in settings.of_arms
    ]
    return ImbalanceGrid(settings, sets, classes, runs)


@dataclass(frozen=True)
class ImbalanceGrid:
    """The experiment: its figures are each cell's `result.json`, by seed."""

    settings: ImbalanceGridSettings
    sets: GridSets
    other_classes: int | None
    """Of the images out of domain, where there are any."""
    runs: Sequence[GridRun]

    @property
    def stages(self) -> dict[str, Sequence[GridRun]]:
        """All runs at once."""
        return {"imbalance grid": self.runs}

    def prepare(self) -> None:
        """Write the settings of each arm."""
        for arm, shared in self.settings.of_arms.items():
            write_settings(self.settings.out / f"{arm}.yaml", shared)

    def collect(self) -> dict[Cell, dict[int, Result]]:
        """The results by cell and seed, of the runs that are done.

        Raises:
            UserError: every run failed.
        """
        require_one_done(self.runs)
        results: dict[Cell, dict[int, Result]] = {run.cell: {} for run in self.runs}
        for run in filter(done, self.runs):
            text = (run.folder / "result.json").read_text(encoding="utf-8")
            results[run.cell][run.seed] = json.loads(text)
        return results

    def publish(self, figures: Mapping[Cell, Mapping[int, Result]]) -> dict[str, Path]:
        """Print the table and what it says, and write the table, the page and both figures."""
        settings, counts, arms = self.settings, self.sets.counts, self.settings.of_arms
        files = {what: settings.out / name for what, name in FILES.items()}
        rows = make_rows(figures, self.sets, list(arms))
        print(grid_table(rows))
        for verdict in verdicts(rows, SUPERVISED):
            print("\n- ".join([verdict.summary, *verdict.cells]))
        write_grid_csv(files["table"], rows)
        write_png(files["accuracy"], rows, "accuracy")
        write_png(files["gap"], rows, "gap")
        some = next(result for results in figures.values() for result in results.values())
        head = PageHead(
            title=f"What a long tail costs: {' and '.join(arms)}",
            lead=f"{len(counts)} training sets of CIFAR-10 by size and ratio, {settings.seeds} "
            f"seed{'s' * (settings.seeds > 1)} each; the features are read on {some['test_images']:,} "
            f"{some['tested_on']}.",
            warnings=[*failures(self.runs), *self.sets.left_out],
            facts=[
                ("arms", ", ".join(arms)),
                ("training images n", ", ".join(f"{n:,}" for n in dict.fromkeys(n for n, _ in counts))),
                ("ratios r", ", ".join(ratio_text(r) for r in dict.fromkeys(r for _, r in counts))),
                ("seeds", str(settings.seeds)),
            ],
            settings=arms,
            commands=[this_command()],
        )
        classes = self.other_classes
        elsewhere = None if classes is None else f"another data set, of {classes} classes"
        write_grid_page(files["page"], head, rows, classes=some["classes"], reference=SUPERVISED, elsewhere=elsewhere)
        return files


def choose_grid(settings: ImbalanceGridSettings) -> GridSets:
    """The training sets that CIFAR-10 allows.

    Raises:
        UserError: the data cannot be read, a number is out of range, or no set with a ratio below 1 can be.
    """
    cifar = read_cifar10(settings.data)

    def counts(ratio: float, n: int | None) -> list[int]:
        return choose_sets(cifar, ratio, n, settings.labels, settings.test, settings.held_out, seed=0).counts

    counts(BALANCED, None)  # so that what is wrong with all cells ends here
    return cross(settings.images, settings.ratios or list(RATIOS), counts)


def make_rows(results: Mapping[Cell, Mapping[int, Result]], sets: GridSets, arms: Sequence[str]) -> list[GridRow]:
    """The grid's rows, by n, then falling ratio, then arm."""
    accuracies = {IN_DOMAIN: {cell: by_seed(seeds, "readouts", A, "accuracy") for cell, seeds in results.items()}}
    if any(result["ood"] for seeds in results.values() for result in seeds.values()):
        accuracies[OUT_OF_DOMAIN] = {cell: by_seed(seeds, "ood", "linear") for cell, seeds in results.items()}
    points = {domain: gap_points(values, SUPERVISED) for domain, values in accuracies.items()}
    return [
        GridRow(
            cell := Cell(arm, n, ratio),
            tuple(counts),
            {domain: of_domain[cell] for domain, of_domain in points.items()},
            {name: readout for name in READOUTS if (readout := read_out(results[cell], name))},
        )
        for (n, ratio), counts in sets.counts.items()
        for arm in arms
    ]


def by_seed(results: Mapping[int, Result], *keys: str) -> dict[int, float]:
    """The value of a proportion in every seed's result, by the keys that lead to it."""
    return {seed: float(reduce(getitem, keys, result)["value"]) for seed, result in results.items()}


def read_out(results: Mapping[int, Result], name: str) -> ReadoutOverSeeds | None:
    """One readout over seeds; None where the cell has no such readout, or no seed."""
    having = {seed: result for seed, result in results.items() if name in result["readouts"]}
    accuracy = OverSeeds.of(by_seed(having, "readouts", name, "accuracy"))
    if accuracy is None:
        return None

    def parts(kind: str) -> dict[str, OverSeeds]:
        names = next(iter(having.values()))["readouts"][name][kind]
        values = {part: OverSeeds.of(by_seed(having, "readouts", name, kind, part)) for part in names}
        return {part: value for part, value in values.items() if value}

    return ReadoutOverSeeds(accuracy, parts("groups"), parts("per_class"))
