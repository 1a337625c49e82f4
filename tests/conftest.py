from collections.abc import Callable
from pathlib import Path

import pytest

DATA = Path(__file__).parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Path of a folder or file of the real data beside the checkout; skips the test where it is missing."""

    def path(name: str) -> Path:
        if not (DATA / name).exists():
            pytest.skip(f"real data missing: {DATA / name}")
        return DATA / name

    return path
