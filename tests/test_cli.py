import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from kneessl import cli
from kneessl.errors import UserError


def test_help_is_quick_and_lists_every_command(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["kneessl", "--help"])
    cli.main()
    text = capsys.readouterr().out
    assert all(f"  {name}" in text for name in cli.COMMANDS)
    assert "example:" in text
    assert "--debug" in text


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
    parser.parse_args(cli.normalise(rest, switches))


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


def test_options_are_normalised():
    words = ["--from", "run", "--warmup-epochs=3", "--resume", "data", "--resume", "false", "-x", "a-b"]
    words += ["--config", "c.yaml"]
    assert cli.normalise(words, {"resume"}) == [
        "--config=c.yaml", "--from_run", "run", "--warmup_epochs=3", "--resume=true", "data", "--resume", "false", "-x",
        "a-b",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        ["--config", "c.yaml", "--size", "48"], ["--size", "48", "--config", "c.yaml"],
        ["--config=c.yaml", "--size=48"], ["--size=48", "--config=c.yaml"],
    ],
)  # fmt: skip
@pytest.mark.parametrize("preset", [[], ["--preset", "quick"]])
def test_what_is_typed_wins_over_a_file_of_settings_and_the_file_over_a_preset(words, preset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("size: 64\nslices: 5\nview: {blur: 0.3}\n")
    settings, rest = cli.take_preset("finetune", ["x", "--task", "acl", *words, *preset, "--out", "o"])
    parser, _, switches = cli.make_parser("finetune")
    parser.set_defaults(settings)
    values = parser.parse_args(cli.normalise(rest, switches))
    assert (values.size, values.slices, values.view.blur) == (48, 5, 0.3)


def test_a_later_file_of_settings_wins_over_an_earlier_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text("size: 64\nslices: 5\n")
    (tmp_path / "b.yaml").write_text("size: 96\n")
    parser, _, switches = cli.make_parser("finetune")
    words = ["x", "--config", "a.yaml", "--task", "acl", "--config", "b.yaml", "--out", "o"]
    values = parser.parse_args(cli.normalise(words, switches))
    assert (values.size, values.slices) == (96, 5)


def test_a_file_of_settings_that_is_not_named_is_asked_for():
    parser, _, switches = cli.make_parser("check")
    with pytest.raises(UserError, match="--config"):
        parser.parse_args(cli.normalise(["x", "--config"], switches))


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


def fail_with(monkeypatch, error: BaseException, *words: str) -> None:
    def fail(*_):
        raise error

    monkeypatch.setattr(cli, "run", fail)
    monkeypatch.setattr(sys, "argv", ["kneessl", "check", "x", *words])
    monkeypatch.setenv(cli.DEBUG, "0")


@pytest.mark.parametrize("error", [UserError("x is no exam folder"), PermissionError(13, "Permission denied", "x")])
@pytest.mark.parametrize("way", ["neither", "option", "environment"])
def test_debug_shows_the_traceback_before_the_sentence(error, way, monkeypatch, capsys):
    fail_with(monkeypatch, error, *(["--debug"] if way == "option" else []))
    if way == "environment":
        monkeypatch.setenv(cli.DEBUG, "1")
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] in {"kneessl: x is no exam folder", "kneessl: x: permission denied"}
    assert ("Traceback" in lines[0]) == (way != "neither")
    assert cli.debugging() == (way != "neither"), "the processes of an experiment inherit it"


def test_a_fault_of_the_program_keeps_its_traceback(monkeypatch):
    fail_with(monkeypatch, ValueError("level is 2"))
    with pytest.raises(ValueError, match="level is 2"):
        cli.main()


def test_a_full_disk_is_one_sentence(monkeypatch, capsys):
    fail_with(monkeypatch, OSError(28, "No space left on device"))
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        "kneessl: writing the output: no space left on the disk; make room, or choose a folder on another disk\n"
    )


def test_help_into_a_reader_that_leaves_ends_quietly():
    code = "from kneessl.cli import main; main()"
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as output:
        done = subprocess.run([sys.executable, "-c", code, "--help"], stdout=output, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (cli.BROKEN_PIPE, "")


def test_another_broken_pipe_is_told(monkeypatch, capsys):
    fail_with(monkeypatch, BrokenPipeError(32, "Broken pipe"))
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert capsys.readouterr().err == "kneessl: broken pipe\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epochs: 3\nsize: 48\nepochs: 4\n", r"c\.yaml: epochs stands there 2 times; keep one"),
        ("view1:\n  blur: 0\n  flip: 1\n  blur: 1\n", r"c\.yaml: view1\.blur stands there 2 times"),
        ("view2: null\nview2.per_slice: false\n", r"c\.yaml: view2 and view2\.per_slice both stand there; keep one"),
        ("view2.flip: 1.0\nview2: {blur: 0.3}\n", r"c\.yaml: view2 and view2\.flip both stand there"),
        ("probe: &a [*a]\n", r"c\.yaml: probe refers to itself"),
        ("settings: &a {hidden: *a}\n", r"c\.yaml: .*refers to itself"),
        ("view1: {blur: null}\n", "a view's blur is None; it must be from 0 to 1"),
        ("view1: {crop_area: null}\n", "a view's crop_area is"),
        ("view1: 16\n", "a setting has a value of another kind"),
        ("field: null\n", "field is null; give it a value, or leave it out"),
        ("epochs: null\n", "epochs"),
    ],
)
def test_a_file_of_settings_that_is_not_plain_is_refused(tmp_path, text, said):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=said):
        cli.run("pretrain", [str(tmp_path), "--out", str(tmp_path / "out"), "--config", str(file)])


@pytest.mark.parametrize(("words", "keys"), [([], None), (["--keys", "k.csv"], Path("k.csv"))])
def test_an_option_may_be_called_as_a_method_of_the_parsers_values_is(words, keys):
    parser, function, _ = cli.make_parser("import")
    values = parser.instantiate(parser.parse_args(["src", "out", *words]))
    assert cli.given_values(function, values)["keys"] == keys
