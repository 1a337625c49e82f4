"""The command line in this process; and what it promises, as text: settings, and options with types and defaults.

The words that explain an option may change; its name, type and default are what scripts and run folders rely on. After
a change that is meant, write the files anew and read the difference in git:

    .venv/bin/python tests/helpers/command_line.py
"""

import io
import os
import re
import sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from kneessl import cli

KEPT = Path(__file__).parents[1] / "commands"
"""`config/COMMAND.txt` and `help/COMMAND.txt`."""


class Printed(NamedTuple):
    """What a command wrote."""

    stdout: str
    stderr: str


def kneessl(*words: object, expect: int = 0) -> Printed:
    """Type a command, in this process: a process of its own takes seconds to import PyTorch. `expect` is its status."""
    out, error, status = io.StringIO(), io.StringIO(), 0
    with (
        patch.object(sys, "argv", ["kneessl", *map(str, words)]),
        patch.dict(os.environ, COLUMNS="100"),
        redirect_stdout(out),
        redirect_stderr(error),
    ):
        try:
            cli.main()
        except SystemExit as end:
            status = end.code
    assert status == expect, out.getvalue() + error.getvalue()
    return Printed(out.getvalue(), error.getvalue())


def printed(command: str, option: str) -> str:
    """What a command prints for one option; every entry of `--help` stands on a line of its own."""
    text = io.StringIO()
    with patch.dict(os.environ, COLUMNS="10000"), redirect_stdout(text), suppress(SystemExit):
        cli.run(command, [option])
    return text.getvalue()


def without_explanations(text: str) -> str:
    """`--help` with the usage, and of each entry its names and what is said last: `(type: int, default: 3)`."""
    usage, *lines = text.splitlines()
    kept = [usage]
    for line in lines:
        if entry := re.match(r"  (\S.*?)(  .*)?$", line):
            kept.append(f"  {entry[1]}")
        if facts := re.search(r" (\((required, )?type: .*\))$", line):
            kept.append(f"      {facts[1]}")
    return "\n".join(kept) + "\n"


def promises(command: str) -> dict[str, str]:
    """The text of each kept file of a command, by the folder that it is in."""
    return {
        "config": printed(command, "--print_config"),
        "help": without_explanations(printed(command, "--help")),
    }


if __name__ == "__main__":
    for name in cli.COMMANDS:
        for kind, content in promises(name).items():
            (KEPT / kind).mkdir(parents=True, exist_ok=True)
            (KEPT / kind / f"{name}.txt").write_text(content, encoding="utf-8")
