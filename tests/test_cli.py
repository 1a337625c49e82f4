import shlex
import sys

import pytest

from kneessl import cli
from kneessl.errors import UserError


def test_help_is_quick_and_lists_every_command(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["kneessl", "--help"])
    cli.main()
    text = capsys.readouterr().out
    assert all(f"  {name}" in text for name in cli.COMMANDS)
    assert "example:" in text


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help_with_its_example(name, capsys):
    parser, function, _ = cli.make_parser(name)
    text = parser.format_help()
    assert cli.COMMANDS[name].example.split()[-1] in text
    assert function.__doc__
    for word in cli.COMMANDS[name].positional:
        assert word.upper() in parser.usage


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_example_parses(name):
    words = shlex.split(cli.COMMANDS[name].example)
    assert words[:2] == ["kneessl", name]
    settings, rest = cli.take_preset(name, words[2:])
    parser, _, switches = cli.make_parser(name)
    parser.set_defaults(settings)
    parser.parse_args(cli.spell(rest, switches))


@pytest.mark.parametrize(("preset", "name"), [(p, c) for p, content in cli.presets().items() for c in content])
def test_every_preset_parses_and_a_word_overrides_it(preset, name):
    parser, _, _ = cli.make_parser(name)
    settings = cli.presets()[preset][name]
    parser.set_defaults(settings)
    untasked = {"pretrain", "imbalance", "imbalance-grid"}
    words = ["data"] if name == "bench" else ["data", "--out", "o"]
    words += [] if name in untasked else ["--task", "acl"]
    values = parser.parse_args(words)
    for key, value in settings.items():
        if not isinstance(value, dict):
            assert values[key] == value
    section = {"label-curve": "finetune", "prevalence": "finetune", "bench": "finetune"}.get(name, "pretrain")
    nested = name not in {"pretrain", "finetune"}
    changed = parser.parse_args([*words, f"--{section}.epochs" if nested else "--epochs", "77"])
    assert (changed[section]["epochs"] if nested else changed.epochs) == 77
    if name == "compare":
        assert changed.pretrain == settings["pretrain"] | {"epochs": 77}, "the preset's other settings stay"
        for command in ("pretrain", "finetune"):
            cli.parse_settings(command, settings[command])


def test_presets_never_mix_the_learning_rates_of_lars_and_adamw():
    for content in cli.presets().values():
        settings = content.get("pretrain", {})
        if settings.get("optimizer") == "adamw":
            assert (settings.get("lr") or 0) <= 0.01


def test_spelling():
    words = ["--from", "run", "--warmup-epochs=3", "--resume", "data", "--resume", "false", "-x", "a-b"]
    assert cli.spell(words, {"resume"}) == [
        "--from_run", "run", "--warmup_epochs=3", "--resume=true", "data", "--resume", "false", "-x", "a-b",
    ]  # fmt: skip


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(UserError, match="quick, thesis"):
        cli.take_preset("pretrain", ["--preset", "nope"])
    with pytest.raises(UserError, match="none"):
        cli.take_preset("check", ["--preset=quick"])


def test_an_interrupt_is_no_traceback(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run", interrupted)
    monkeypatch.setattr(sys, "argv", ["kneessl", "check", "x"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 130
