"""Lay phantom slices beside real ones, so that a person can say whether they look like knees.

    python benchmarks/phantom_beside_real.py [DATA] [BESIDE.png] [PHANTOM.png]

DATA holds `knee_mese/` (DICOM) and `knee_fair/` (.npy), see `../shared/data/README.md`. BESIDE.png, by default
`runs/phantom_beside_real.png`, shows real and phantom knees; it holds real data, so it stays out of the repository.
PHANTOM.png, by default `docs/phantom.png`, shows phantom knees only.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pydicom
from PIL import Image

from kneessl.exams.folder import PLANES, Plane
from kneessl.phantom.knee import Plan, draw_knee, scan_knee

COLUMNS = 7
ECHO_MS = 25.248


def phantom_row(number: int, plane: Plane, acl: bool = False, meniscus: bool = False) -> tuple[list[np.ndarray], str]:
    """Slices spread over one phantom series, and what they are."""
    plan = Plan(0, number, "train", {"abnormal": acl or meniscus, "acl": acl, "meniscus": meniscus})
    knee = draw_knee(plan)
    volume, _ = scan_knee(knee, plane)
    inner = np.linspace(0.12, 0.88, COLUMNS) * (len(volume) - 1)
    sequence = knee.scans[plane].sequence.replace(", ", ",\n")
    return [volume[round(i)] for i in inner], f"phantom, {plane}\n{sequence}"


def real_sagittal(folder: Path) -> list[np.ndarray]:
    """Slices of one echo of a real sagittal series, from one side of the knee to the other."""
    headers = {path: pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(folder.glob("*.dcm"))}
    echo = [p for p, h in headers.items() if abs(float(h.EchoTime) - ECHO_MS) < 0.1]
    along = {p: float(headers[p].ImagePositionPatient[0]) for p in echo}
    echo.sort(key=along.__getitem__)
    chosen = [echo[round(i)] for i in np.linspace(0.12, 0.88, COLUMNS) * (len(echo) - 1)]
    pictures = [pydicom.dcmread(p).pixel_array.astype(float) for p in chosen]
    white = np.percentile(pictures, 99.3)
    return [np.clip(picture / white * 255, 0, 255) for picture in pictures]


def real_gradient_echo(path: Path) -> list[np.ndarray]:
    """Slices cut from a nearly isotropic real volume, `(128, 64, 128)`."""
    volume = np.load(path).astype(float)
    white = np.percentile(volume, 99.3)
    chosen = np.linspace(0.2, 0.8, COLUMNS) * (volume.shape[2] - 1)
    return [np.clip(volume[:, :, round(i)].T / white * 255, 0, 255) for i in chosen]


def figure(rows: list[tuple[list[np.ndarray], str]], path: Path) -> None:
    """Write the rows of slices, each with its caption at the left."""
    fig, axes = plt.subplots(len(rows), COLUMNS, figsize=(1.35 * COLUMNS, 1.35 * len(rows)), facecolor="black", dpi=115)
    for line, (pictures, caption) in zip(axes, rows, strict=True):
        for axis, picture in zip(line, pictures, strict=True):
            axis.imshow(picture, cmap="gray", vmin=0, vmax=255, aspect="auto" if picture.shape[0] != 256 else "equal")
            axis.set_axis_off()
        line[0].text(-0.06, 0.5, caption, color="white", fontsize=6, rotation=90, ha="center", va="center",
                     transform=line[0].transAxes)  # fmt: skip
    fig.subplots_adjust(left=0.04, right=1, top=1, bottom=0, wspace=0.02, hspace=0.02)
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.canvas.draw()
    picture = Image.fromarray(np.asarray(fig.canvas.buffer_rgba())).convert("L")
    plt.close(fig)
    picture.quantize(64).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1024:.0f} KB")


def main(data: Path, beside: Path, alone: Path) -> None:
    """Write both figures; the one with real slices only where there are any."""
    figure([phantom_row(n, plane, acl=n == 3) for plane in PLANES for n in (3, 8)], alone)
    if not (data / "knee_mese").is_dir():
        print(f"{beside} not written: {data / 'knee_mese'} is missing")
        return
    rows = [
        (real_sagittal(data / "knee_mese"), "real, sagittal\nspin echo"),
        phantom_row(5, "sagittal"),
        phantom_row(8, "sagittal"),
        phantom_row(3, "sagittal", acl=True),
        (real_gradient_echo(data / "knee_fair" / "straight.npy"), "real, axial\n(coarse)"),
        phantom_row(8, "axial"),
        phantom_row(8, "coronal"),
    ]
    figure(rows, beside)


if __name__ == "__main__":
    root = Path(__file__).parents[1]
    defaults = [
        root.parent / "shared" / "data",
        root / "runs" / "phantom_beside_real.png",
        root / "docs" / "phantom.png",
    ]
    given = [Path(argument) for argument in sys.argv[1:]]
    main(*given, *defaults[len(given) :])
