"""What README, CONTRIBUTING and docs/ name is there: commands and their settings, files, and the pages they link to."""

import re
import shlex
from functools import wraps
from pathlib import Path

import pytest

from kneessl import cli
from kneessl.methods import METHODS

REPOSITORY = Path(__file__).parents[1]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
TEXTS = {page.relative_to(REPOSITORY).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
NOT_HERE = re.compile(r"(P/)?runs/|knees/|checkpoints/|(train|valid|test)/\w+/\d|.*\b(NAME|FILE)\b|.*test_NAME")
"""What commands make or read, and names that stand for any."""
COMMAND = re.compile(r"(?:^|&& |-m |srun \S+ )kneessl (.*)")


def commands_of(text: str) -> list[str]:
    """The words after `kneessl` of each command that stands in a block of shell lines."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [found[1].rstrip('"') if "sbatch" in line else found[1] for line in lines if (found := COMMAND.search(line))]


COMMANDS = [(page, command) for page, text in TEXTS.items() for command in commands_of(text)]


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[f"{page}: {command[:60]}" for page, command in COMMANDS])
def test_a_command_takes_the_settings_that_a_page_gives_it(monkeypatch, page, command):
    words = shlex.split(command, comments=True)
    parse, called = cli.make_parser, []

    def without_running(name):
        parser, function, switches = parse(name)

        @wraps(function)
        def instead(**settings):
            called.append(settings)

        return parser, instead, switches

    monkeypatch.setattr(cli, "make_parser", without_running)
    cli.run(words[0], words[1:])
    assert len(called) == 1


def test_every_command_is_shown_on_some_page():
    assert {command.split()[0] for page, command in COMMANDS} == set(cli.COMMANDS) - {"demo"}


def test_every_method_is_in_the_table_of_methods():
    table = re.search(r"^\| `--method` \|.*?\n\n", TEXTS["docs/researcher.md"], re.DOTALL | re.MULTILINE)
    rows = [line.split("|")[1:4] for line in table[0].strip().splitlines()[2:]] if table else []
    pools = {name: pool.strip().split(", ") for names, _, pool in rows for name in re.findall(r"`(\w+)`", names)}
    assert pools == {name: list(method.pools) for name, method in METHODS.items()}


@pytest.mark.parametrize("page", TEXTS)
def test_the_files_that_a_page_names_are_there(page):
    named = set(re.findall(r"`(?:python )?((?:[\w.-]+/)+[\w.-]+\.(?:py|yaml|txt|md|html|png))\b[^`]*`", TEXTS[page]))
    named |= set(re.findall(r"`([\w-]+\.py)`", TEXTS[page]))
    folders = (REPOSITORY, REPOSITORY / "src" / "kneessl")
    there = {name for name in named if any((folder / name).exists() for folder in folders)}
    assert not [name for name in sorted(named - there) if not NOT_HERE.match(name)]


@pytest.mark.parametrize("page", TEXTS)
def test_the_links_of_a_page_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        path = (REPOSITORY / page).parent / file if file else REPOSITORY / page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path.read_text(encoding="utf-8")), target


def anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
