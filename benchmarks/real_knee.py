"""The real test: does pre-training on real MR slices make slices of the same place look alike, whatever the contrast?

Pre-trains on six echoes of the real knee in `knee_mese` and on the two volumes of `knee_fair`. Then, without labels,
every sagittal slice of the two echoes that training never saw is matched to the nearest slice (by cosine) of each seen
echo. The slices of all echoes were taken at the same 24 positions, 4 mm apart, so the right answer is known. They also
lie on the same pixels, which makes raw pixels nearly unbeatable: so every slice is also matched after the unseen knee
was turned by 8 degrees and shifted by 10 mm along both axes, as on another visit of the same patient.

Finished and interrupted runs in OUT are taken up again; remove OUT to start anew.

usage: python benchmarks/real_knee.py DATA [--out runs/real_knee] [--seeds 3] [--epochs 60] [--optimizer adamw]
"""

import argparse
import datetime
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import rotate, shift

from kneessl.errors import UserError
from kneessl.exams.folder import ExamFolder
from kneessl.nets.encoder import ClipEncoder, load_encoder
from kneessl.nets.features import recalibrate
from kneessl.sources.importer import import_exams
from kneessl.training.machine import describe_machine
from kneessl.training.pretrain import pretrain
from kneessl.views.preprocess import Preprocessing

SIZE = 96
UNSEEN = (2, 7)
"""Of the eight echoes, by rising echo time: one between seen ones, and the last (50 ms), beyond them all."""
TURN_DEGREES = 8.0
SHIFT_MM = (10.0, -10.0)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("data", type=Path)
    words.add_argument("--out", type=Path, default=Path("runs/real_knee"))
    words.add_argument("--seeds", type=int, default=3)
    words.add_argument("--epochs", type=int, default=60)
    words.add_argument("--optimizer", choices=["adamw", "lars"], default="adamw")
    args = words.parse_args()
    try:
        print(as_markdown(compare(args), args))
    except UserError as error:
        sys.exit(f"real_knee: {error}")


def compare(args: argparse.Namespace) -> dict[str, list[list[float]]]:
    """The figures of each kind of features, one list a seed."""
    seen, unseen, mm = make_folders(args.data, args.out)
    rows = {"raw pixels": [score(pixels, seen, unseen, mm)], "random weights": [], "BYOLMed2D": []}
    for seed in range(args.seeds):
        torch.manual_seed(seed)
        encoder = recalibrated(ClipEncoder("none"), seen)
        rows["random weights"].append(score(features(encoder), seen, unseen, mm))
        run = args.out / f"{args.optimizer}-seed{seed}"
        pretrain(
            args.out / "training", run, slices=16, size=SIZE, epochs=args.epochs, batch=4, warmup_epochs=5,
            settings={"hidden": 1024}, optimizer=args.optimizer, seed=seed, resume=True,
        )  # fmt: skip
        load_encoder(encoder, run / "encoder.safetensors")
        rows["BYOLMed2D"].append(score(features(recalibrated(encoder, seen)), seen, unseen, mm))
    return rows


def make_folders(data: Path, out: Path) -> tuple[list[np.ndarray], list[np.ndarray], float]:
    """Import the real knees; put what may be learned from into `out/training`.

    Returns:
        The seen and the unseen echoes, uint8 `(24, 256, 256)` each, and the pixel size in mm.
    """
    for name in ("mese", "fair", "training"):
        shutil.rmtree(out / name, ignore_errors=True)
    import_exams(data / "knee_mese", out / "mese", echo="all")
    import_exams(data / "knee_fair", out / "fair", npy_axes="ALS", npy_spacing=1.5, same_patient=True)
    mese, fair = ExamFolder(out / "mese"), ExamFolder(out / "fair")
    by_echo = mese.exams("train", "sagittal")
    seen = [exam for i, exam in enumerate(by_echo) if i not in UNSEEN]
    target = out / "training" / "train" / "sagittal"
    target.mkdir(parents=True)
    for exam in seen:
        shutil.copy(mese.path("train", "sagittal", exam), target / f"mese-{exam}.npy")
    for exam in fair.exams("train", "sagittal"):
        shutil.copy(fair.path("train", "sagittal", exam), target / f"fair-{exam}.npy")
    volumes = {exam: np.array(mese.series("train", "sagittal", exam)) for exam in by_echo}
    return [volumes[e] for e in seen], [volumes[by_echo[i]] for i in UNSEEN], mese.provenance()[0].row_mm


def pixels(slices: np.ndarray) -> torch.Tensor:
    """Each slice's pixels, standardised: their cosine is then the correlation of two slices."""
    flat = Preprocessing(SIZE)(torch.from_numpy(slices)[None])[0].flatten(1)
    return flat - flat.mean(1, keepdim=True)


def features(encoder: ClipEncoder):
    """A function from slices, uint8 `(n, 256, 256)`, to the encoder's features `(n, 512)`."""

    @torch.no_grad()
    def extract(slices: np.ndarray) -> torch.Tensor:
        return encoder(Preprocessing(SIZE)(torch.from_numpy(slices)[None]))

    return extract


def recalibrated(encoder: ClipEncoder, seen: list[np.ndarray]) -> ClipEncoder:
    """The encoder with batch-norm statistics of the seen echoes' slices as they are, one slice at a time."""
    encoder.pool = "none"
    recalibrate(encoder, (Preprocessing(SIZE)(torch.from_numpy(volume)[None]) for volume in seen))
    return encoder.eval()


def score(extract, seen: list[np.ndarray], unseen: list[np.ndarray], mm: float) -> list[float]:
    """Mean slice error and share within one slice, of the knee in place and moved: four numbers."""
    gallery = [extract(volume) for volume in seen]
    figures = []
    for queries in (unseen, [moved(volume, mm) for volume in unseen]):
        errors = np.concatenate([match(extract(volume), echo) for volume in queries for echo in gallery])
        figures += [errors.mean(), (errors <= 1).mean()]
    return figures


def match(queries: torch.Tensor, gallery: torch.Tensor) -> np.ndarray:
    """Distance, in slices, of each query to the gallery slice nearest to it by cosine."""
    normalise = torch.nn.functional.normalize
    nearest = (normalise(queries, dim=1) @ normalise(gallery, dim=1).T).argmax(1)
    return (nearest - torch.arange(len(queries))).abs().numpy()


def moved(volume: np.ndarray, mm: float) -> np.ndarray:
    """The volume turned and shifted in the slices' plane."""
    turned = rotate(volume, TURN_DEGREES, axes=(1, 2), reshape=False, order=1)
    return shift(turned, (0, *(s / mm for s in SHIFT_MM)), order=1)


def as_markdown(rows: dict[str, list[list[float]]], args: argparse.Namespace) -> str:
    """The table for docs/results.md; with several seeds, mean and smallest to largest."""

    def cell(values: np.ndarray, digits: int, percent: bool = False) -> str:
        f = (lambda v: f"{v:.{digits}%}") if percent else (lambda v: f"{v:.{digits}f}")
        spread = f" ({f(values.min())} to {f(values.max())})" if len(values) > 1 else ""
        return f(values.mean()) + spread

    lines = [
        "| features | in place: mean error (slices) | within one slice | moved: mean error | within one slice |",
        "|---|---|---|---|---|",
    ]
    for name, scores in rows.items():
        columns = np.array(scores).T
        cells = [cell(c, 1 if i % 2 else 2, percent=bool(i % 2)) for i, c in enumerate(columns)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines.append(
        f"\n`python benchmarks/real_knee.py DATA --seeds {args.seeds} --epochs {args.epochs} "
        f"--optimizer {args.optimizer}`; "
        f"seeds 0 to {args.seeds - 1}, {describe_machine()}, {datetime.date.today()}"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
