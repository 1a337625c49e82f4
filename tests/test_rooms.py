"""`tests/` mirrors `src/kneessl`, and what the tests say of themselves is so."""

import ast
from pathlib import Path

import pytest
from helpers.slow import SLOW, TESTS

SOURCE = TESTS.parent / "src" / "kneessl"
NO_ROOMS = {"benchmarks", "commands", "helpers"}
"""Tests of `benchmarks/` beside `src/`; what is kept of the command line; and what tests share."""


def folders(root: Path) -> set[str]:
    return {path.parent.relative_to(root).as_posix() for path in root.rglob("*.py")} - {"."}


def test_every_folder_of_tests_has_its_room():
    assert {folder for folder in folders(TESTS) if folder.split("/")[0] not in NO_ROOMS} <= folders(SOURCE)


@pytest.mark.parametrize("file", SLOW)
def test_what_is_said_to_be_slow_is_there(file):
    defined = {node.name for node in ast.parse((TESTS / file).read_text()).body if isinstance(node, ast.FunctionDef)}
    assert SLOW[file] <= defined


def test_a_training_and_a_process_are_noticed_where_no_mark_is(pytester):
    pytester.makeconftest(f"import sys; sys.path.insert(0, {str(TESTS)!r}); pytest_plugins = ['helpers.slow']")
    pytester.makepyfile(
        """
        import subprocess, sys, types
        import pytest

        class Trainer:
            def fit(self):
                pass

        sys.modules["lightning"] = types.SimpleNamespace(Trainer=Trainer)

        @pytest.fixture
        def process():
            subprocess.run([sys.executable, "--version"])

        def test_trains():
            Trainer().fit()

        def test_starts(process):
            pass

        @pytest.mark.slow
        def test_marked(process):
            Trainer().fit()

        def test_neither():
            subprocess.run(["true"])
        """
    )
    done = pytester.runpytest_subprocess("-p", "no:xdist", "-W", "ignore")
    done.assert_outcomes(passed=2, failed=1, errors=1)
    done.stdout.fnmatch_lines(["*not marked as slow*: Trainer.fit*"])
