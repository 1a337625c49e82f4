import pytest
from helpers.command_line import KEPT, promises, without_explanations

from kneessl import cli


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_settings_options_and_defaults_are_those_that_were_kept(command):
    for kind, content in promises(command).items():
        kept = KEPT / kind / f"{command}.txt"
        assert content == kept.read_text(encoding="utf-8"), f"{kept}: if this is meant, see helpers/command_line.py"


def test_nothing_is_kept_of_commands_that_are_gone():
    kept = {path.relative_to(KEPT).as_posix() for path in KEPT.rglob("*") if path.is_file()}
    assert kept == {f"{kind}/{command}.txt" for kind in ("config", "help") for command in cli.COMMANDS}


def test_another_name_type_or_default_shows_and_other_words_do_not():
    text = """usage: kneessl bake OUT [options]

options:
  --heat HEAT, --heat+ HEAT  How hot (or cold). (type: int, default: 3)
  --long LONG_LONG_LONG
                             Whatever. (required, type: str)
"""
    kept = without_explanations(text)
    assert without_explanations(text.replace("How hot (or cold)", "Heat")) == kept
    for name, other in (("heat+", "heats"), ("int", "float"), ("3", "4"), ("LONG_LONG", "LENGTH"), ("required, ", "")):
        assert without_explanations(text.replace(name, other)) != kept
