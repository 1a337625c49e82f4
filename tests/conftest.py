"""Shared fixtures. One thread a process: tests run in several processes, and equal thread counts give equal sums."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; child processes inherit it

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.trainings import without_reports
from scipy.ndimage import gaussian_filter

from kneessl.exams.folder import write_labels, write_series

pytest_plugins = ["pytester", "helpers.slow"]
DATA = Path(__file__).parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _own_salt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Imports make and use a salt of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Path of a folder or file of the real data beside the checkout; skips the test where it is missing."""

    def path(name: str) -> Path:
        if not (DATA / name).exists():
            pytest.skip(f"real data missing: {DATA / name}")
        return DATA / name

    return path


@pytest.fixture(scope="session")
def knees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small exam folder, sagittal plane: smooth noise, and in exams labelled 1 a bright square on three slices."""
    root = tmp_path_factory.mktemp("exams") / "knees"
    rng = np.random.default_rng(0)
    for split, names in (("train", range(12)), ("valid", range(12, 20))):
        labels = {f"{i:04d}": i % 2 for i in names}
        for exam, label in labels.items():
            volume = gaussian_filter(rng.normal(size=(12, 64, 64)), (0, 3, 3)).repeat(4, 1).repeat(4, 2)
            volume = 90 + 200 * volume
            if label:
                volume[4:7, 96:160, 96:160] += 120
            write_series(root, split, "sagittal", exam, volume.clip(0, 255).astype(np.uint8))
        write_labels(root, split, "acl", labels)
    return root


@pytest.fixture
def no_reports() -> Iterator[None]:
    """For tests that train and read no page."""
    with without_reports():
        yield
