"""What a run folder says of what was asked for, and when it may go on."""

from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from kneessl import cli
from kneessl.errors import UserError
from kneessl.finetuning.settings import FinetuneSettings
from kneessl.settings import Settings
from kneessl.training.pretrain import PretrainSettings
from kneessl.training.runs import CONFIG, open_run, read_config
from kneessl.views.augment import View


def begin(settings: Settings, without: tuple[str, ...] = (), version_line: bool = True) -> Path:
    """A run folder as a version without some options has left it, such as ema or view1.hue."""
    open_run(settings.out, settings.asked(), resume=False, defaults=settings.defaults())
    config = read_config(settings.out)
    for name in without:
        group, _, option = name.rpartition(".")
        del (config[group] if group else config)[option]
    path = settings.out / CONFIG
    first = path.read_text().splitlines()[0] + "\n" if version_line else ""
    path.write_text(first + yaml.safe_dump(config, sort_keys=False))
    return path


def go_on(settings: Settings) -> None:
    open_run(settings.out, settings.asked(), resume=True, defaults=settings.defaults())


@pytest.fixture
def asked(tmp_path):
    return PretrainSettings(Path("knees"), tmp_path / "run", epochs=3, warmup_epochs=1, view1=View(blur=0.5))


def test_config_says_by_which_version_it_was_made_and_is_still_a_config(asked):
    text = begin(asked).read_text()
    assert text.splitlines()[0] == f"# kneessl {version('kneessl')}"
    values = cli.parse_settings("pretrain", yaml.safe_load(text))
    assert (values.epochs, values.view1.blur) == (3, 0.5)


@pytest.mark.parametrize("option", ["probes", "weight_decay", "view1.hue", "view2.solarize"])
def test_an_option_that_the_runs_version_did_not_have_counts_as_asked_for_by_its_default(asked, option):
    path = begin(asked, without=(option,), version_line=False)
    before = path.read_bytes()
    go_on(asked)
    assert path.read_bytes() == before, "config.yaml keeps what was asked for"


@pytest.mark.parametrize(
    ("option", "changes"),
    [
        ("probes", {"probes": 2}),
        ("view1.hue", {"view1": View(blur=0.5, hue=0.1)}),
        ("view2.solarize", {"view2": View(blur=0.1, solarize=0.0)}),
    ],
)
def test_a_new_option_with_another_value_than_its_default_is_no_resuming(asked, option, changes):
    begin(asked, without=(option,), version_line=False)
    message = (
        rf"now asked for \({next(iter(changes))}\).*by kneessl of an earlier version; this is {version('kneessl')}"
    )
    with pytest.raises(UserError, match=message):
        go_on(replace(asked, **changes))


def test_settings_that_differ_are_refused_and_the_place_of_the_run_is_no_setting(asked, tmp_path):
    begin(asked)
    with pytest.raises(UserError, match=r"now asked for \(lr, seed\); a run resumes only as it began, so"):
        go_on(replace(asked, lr=0.5, seed=1))
    (tmp_path / "run").rename(tmp_path / "moved")
    go_on(replace(asked, out=tmp_path / "moved", devices=2, resume=True))


def test_an_option_that_is_gone_is_refused(asked):
    path = begin(asked)
    path.write_text(path.read_text() + "retired: 3\n")
    with pytest.raises(UserError, match=r"now asked for \(retired\)"):
        go_on(asked)


def test_the_default_of_a_new_option_of_fine_tuning_is_its_networks(tmp_path):
    asked = FinetuneSettings(Path("knees"), ["acl", "meniscus"], tmp_path / "run", view=View(hue=0.1))
    settings = asked.resolved("mrnet_resnet18")
    begin(settings, without=("head", "lr", "schedule", "ema", "tta", "view.jitter"), version_line=False)
    go_on(settings)
    for change in ({"lr": 0.1}, {"head": "mean"}, {"ema": 0.5}, {"view": View(hue=0.1, jitter=0.0)}):
        with pytest.raises(UserError, match=rf"now asked for \({next(iter(change))}\)"):
            go_on(replace(asked, **change).resolved("mrnet_resnet18"))


def test_resolved_settings_stay_as_they_are(tmp_path):
    for tasks in ("acl", ["acl", "meniscus"]):
        settings = FinetuneSettings(Path("knees"), tasks, tmp_path, lr=0.5).resolved("resnet18")
        assert settings.resolved("resnet18") == settings
        assert (settings.lr, settings.epochs, settings.head) == (0.5, 30, "max")
        assert settings.balance == ("oversample" if tasks == "acl" else "weights")
        assert settings.recipe == settings.resolved("resnet18").recipe


@dataclass(frozen=True)
class Recorded(Settings):
    out: Path
    needed: int
    given: float = 1.0
    resume: bool = False


def test_required_settings_and_those_that_are_free_have_no_default():
    assert Recorded(Path("run"), 3, 2.0).defaults() == {"given": 1.0}
    assert Recorded(Path("run"), 3, 2.0).asked() == {"needed": 3, "given": 2.0}


def test_a_checkpoint_that_was_not_finished_goes_when_the_run_goes_on(asked, capsys):
    begin(asked)
    left = asked.out / "checkpoints" / ".last.ckpt.0123abcd.partial"
    left.parent.mkdir()
    left.write_bytes(b"half")
    go_on(asked)
    assert not left.exists()
    assert capsys.readouterr().err == f"note: {asked.out}: deleted what a killed process had left unfinished (1)\n"
