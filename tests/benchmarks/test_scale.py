"""Training on more bytes than memory holds: what is read is what is drawn."""

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

LIMIT = 2 << 30
"""Bytes of memory of its own (not of mapped files) that a process may have."""
FILES = 32
"""Files that it may have open; a map that is kept holds one."""
EXAMS, SLICES = 36, 3500
"""8.3 GB, almost four times the limit."""


def limited(code: str, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own under both limits."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))

    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, preexec_fn=limit)


@pytest.fixture(scope="module")
def knees(tmp_path_factory) -> Path:
    """Series that are huge in bytes and, since nothing was ever written to them, take next to nothing on disk."""
    root = tmp_path_factory.mktemp("exams")
    (root / "train" / "sagittal").mkdir(parents=True)
    for i in range(EXAMS):
        path = root / "train" / "sagittal" / f"{i:04d}.npy"
        np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(SLICES, 256, 256))
        assert path.stat().st_blocks * 512 < 1e5
    assert sum(p.stat().st_size for p in root.rglob("*.npy")) > 3 * LIMIT
    return root


def test_a_folder_larger_than_memory_trains_in_it(knees, tmp_path):
    out = tmp_path / "run"
    words = ["--slices=2", "--size=32", "--batch=12", "--epochs=2", "--warmup_epochs=1", "--precision=float32"]
    words += ["--settings.hidden=16", "--settings.dim=8"]
    run = limited("from kneessl.cli import main; main()", "pretrain", str(knees), "--out", str(out), *words)
    assert run.returncode == 0, run.stderr
    assert (out / "run.json").is_file()


def test_the_limits_hold(knees):
    """Without which the training would say nothing: neither the folder's bytes nor all its maps are to be had."""
    size = sum(p.stat().st_size for p in knees.rglob("*.npy"))
    assert "MemoryError" in limited(f"import numpy as np; np.empty({size}, np.uint8)").stderr
    load = "import pathlib, numpy as np; kept = [np.load(p, 'r') for p in pathlib.Path('.').rglob('*.npy')]"
    assert "Too many open files" in limited(load, cwd=knees).stderr
