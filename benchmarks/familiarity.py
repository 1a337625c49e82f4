"""Does a model notice what it has never seen? Exams as they are, exams changed on purpose, and a real knee.

    python benchmarks/familiarity.py MODEL KNEES DATA

MODEL is a run of `kneessl finetune --folds` on the phantom KNEES, DATA the folder with the real knees `knee_mese` and
`knee_fair`. Of the exams of `valid` as they are, about 1 % and 5 % should be flagged, for they are of the training
exams' kind; of all others, as many as can be. The changes are made to the series as they lie on disk.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from kneessl.exams.folder import ExamFolder
from kneessl.model.model import PlaneModel, load_model
from kneessl.model.predict import forward_pass
from kneessl.sources.importer import import_exams

Change = Callable[[np.ndarray], np.ndarray]


def as_grey(values: np.ndarray) -> np.ndarray:
    return np.round(values).clip(0, 255).astype(np.uint8)


def noisy(series: np.ndarray) -> np.ndarray:
    return as_grey(series + np.random.default_rng(0).normal(0, 40, series.shape))


def upper_half(series: np.ndarray) -> np.ndarray:
    half = series.copy()
    half[:, half.shape[1] // 2 :] = 0
    return half


def as_it_is(series: np.ndarray) -> np.ndarray:
    return series


CHANGES: dict[str, Change] = {
    "valid, as they are": as_it_is,
    "noise, standard deviation 40 of 255": noisy,
    "blur, sigma 4 pixels": lambda series: as_grey(gaussian_filter(series.astype(np.float32), (0, 4, 4))),
    "greys inverted": lambda series: 255 - series,
    "turned by 90 degrees": lambda series: np.rot90(series, axes=(1, 2)).copy(),
    "only the upper half": upper_half,
    "contrast, gamma 2.5": lambda series: as_grey(255 * (series / 255) ** 2.5),
}


def series_of(root: Path, split: str, plane: str) -> Iterator[np.ndarray]:
    folder = ExamFolder(root)
    for exam in folder.exams(split, plane):
        yield np.array(folder.series(split, plane, exam))


def real_knees(data: Path, plane: str) -> dict[str, list[np.ndarray]]:
    """The real knees in this plane, as `kneessl import` makes them: all eight echoes of one, two volumes of another."""
    with tempfile.TemporaryDirectory() as made:
        for name, settings in (
            ("knee_mese", {"echo": "all"}),
            ("knee_fair", {"npy_axes": "ALS", "npy_spacing": 1.5, "same_patient": True}),
        ):
            import_exams(data / name, Path(made) / name, **settings)
        return {name: list(series_of(Path(made) / name, "train", plane)) for name in ("knee_mese", "knee_fair")}


def row(name: str, model: PlaneModel, exams: Iterable[np.ndarray], change: Change = as_it_is) -> str:
    assert model.familiarity is not None
    known = model.familiarity
    found = [known.p_value(forward_pass(model, change(series)).features) for series in tqdm(list(exams), desc=name)]
    at_one, at_five = np.mean([known.unfamiliar(p) for p in found]), np.mean(np.array(found) <= 0.05)
    return f"| {name} | {len(found)} | {at_one:.0%} | {at_five:.0%} | {np.median(found):.3f} |"


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "knees", "data"):
        words.add_argument(name, type=Path)
    args = words.parse_args()
    for plane, model in load_model(args.model).planes.items():
        valid = list(series_of(args.knees, "valid", plane))
        rows = [row(name, model, valid, change) for name, change in CHANGES.items()]
        rows += [row(f"real: {name}", model, series) for name, series in real_knees(args.data, plane).items()]
        print(f"\n{plane}, {len(model.familiarity.reference)} reference distances\n")
        print("| exams | n | flagged at .01 | at .05 | median p |\n|---|---|---|---|---|", *rows, sep="\n")


if __name__ == "__main__":
    main()
