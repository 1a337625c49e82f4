"""The command line: `kneessl COMMAND ...`. Each command is one function; its signature and docstring are its help."""

import os
import select
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.resources import files
from inspect import Parameter, signature
from itertools import pairwise
from pathlib import Path
from types import NoneType
from typing import Any, NoReturn, get_args

import jsonargparse
import yaml

from kneessl.errors import UserError, sentence
from kneessl.process_tuning import fast_imports
from kneessl.settings import Settings, require_plain


@dataclass(frozen=True)
class Command:
    """Where a command's function is (imported only when called: PyTorch takes seconds), and an example."""

    function: str
    positional: tuple[str, ...]
    summary: str
    example: str


COMMANDS = {
    "demo": Command("kneessl.demo:demo", (), "the whole way on synthetic knees, in minutes", "kneessl demo"),
    "phantom": Command(
        "kneessl.phantom.command:phantom",
        ("out",),
        "write an exam folder of synthetic knees",
        "kneessl phantom knees --exams 120 --seed 0",
    ),
    "import": Command(
        "kneessl.sources.importer:import_exams",
        ("src", "out"),
        "turn DICOM, NIfTI, .npy volumes or KneeMRI into an exam folder",
        "kneessl import dicom_folder knees --labels labels.csv --keys keys.csv",
    ),
    "label": Command(
        "kneessl.sources.archive.label:label",
        ("data",),
        "add labels to an exam folder, by the keys that a hospital holds",
        "kneessl label knees --labels labels.csv --keys keys.csv",
    ),
    "check": Command(
        "kneessl.exams.check:check", ("data",), "look an exam folder over, and name every fault", "kneessl check knees"
    ),
    "pretrain": Command(
        "kneessl.training.pretrain:pretrain",
        ("data",),
        "learn an encoder from unlabelled series",
        "kneessl pretrain knees --method byolmed2d --plane sagittal --out runs/encoder --preset quick",
    ),
    "finetune": Command(
        "kneessl.finetuning.finetune:finetune",
        ("data",),
        "train a classifier on labelled exams",
        "kneessl finetune knees --task acl --from runs/encoder --out runs/acl --preset quick",
    ),
    "fuse": Command(
        "kneessl.model.fuse:fuse",
        ("models",),
        "models of several planes as one, by out-of-fold stacking",
        'kneessl fuse "[runs/sagittal,runs/coronal]" --out runs/fused',
    ),
    "evaluate": Command(
        "kneessl.evaluate.evaluate:evaluate",
        ("model", "data"),
        "AUC, accuracy and a report on exams kept apart",
        "kneessl evaluate runs/acl knees",
    ),
    "suspects": Command(
        "kneessl.evaluate.suspects:suspects",
        ("model", "data"),
        "training exams whose label may be wrong, with pictures",
        "kneessl suspects runs/acl knees",
    ),
    "recalibrate": Command(
        "kneessl.model.recalibrate:recalibrate",
        ("model", "data"),
        "set probabilities and operating points anew on a few exams of another hospital",
        "kneessl recalibrate runs/acl hospital --labels 50 --out runs/acl-here",
    ),
    "plan": Command(
        "kneessl.evaluate.plan:plan",
        (),
        "how many exams a test set needs, before one is collected",
        "kneessl plan --auc .90 --against .85 --prevalence .2 --width .05 --power .8",
    ),
    "predict": Command(
        "kneessl.reader.command:predict",
        ("model", "study"),
        "answer a study from a scanner: a folder, zip or DICOMweb address",
        "kneessl predict runs/acl study.zip --out answers/study",
    ),
    "serve": Command(
        "kneessl.reader.serve:serve",
        ("model",),
        "a web page: drop a study, see where the model looks",
        "kneessl serve runs/acl",
    ),
    "watch": Command(
        "kneessl.reader.archive.watch:watch",
        ("model", "url"),
        "answer each study that arrives in an Orthanc archive, back into it",
        "kneessl watch runs/acl http://127.0.0.1:8042",
    ),
    "localise": Command(
        "kneessl.explain.localise:localise",
        ("model", "data"),
        "whether the model looks at the lesion, on synthetic knees",
        "kneessl localise runs/acl knees",
    ),
    "export": Command(
        "kneessl.export.export:export",
        ("model",),
        "write a model for use elsewhere: ONNX, safetensors, MONAI bundle",
        "kneessl export runs/acl --out exported/acl",
    ),
    "compare": Command(
        "kneessl.experiments.compare:compare",
        ("data",),
        "every method under the same conditions: table, intervals, page",
        "kneessl compare knees --task acl --plane sagittal --seeds 3 --out runs/compare --preset quick",
    ),
    "label-curve": Command(
        "kneessl.experiments.label_curve:run_label_curve",
        ("data",),
        "what pre-training is worth in labels: curves, intervals, page",
        "kneessl label-curve knees --task acl --from runs/encoder --out runs/labels --preset quick",
    ),
    "imbalance": Command(
        "kneessl.pictures.imbalance:imbalance",
        ("data",),
        "learn from long-tailed CIFAR-10 with labels or without: what imbalance costs",
        "kneessl imbalance cifar-10-batches-bin --ratio .01 --method simclr --out runs/longtail --preset thesis",
    ),
    "imbalance-grid": Command(
        "kneessl.pictures.imbalance_grid:imbalance_grid",
        ("data",),
        "the gap over numbers of images and ratios, both arms: figures, table, page",
        'kneessl imbalance-grid cifar-10-batches-bin --images "[12406]" --ratios "[.1,.01]" --out runs/grid',
    ),
    "prevalence": Command(
        "kneessl.experiments.prevalence:run_prevalence",
        ("data",),
        "the same for knees: what a rare finding costs each arm",
        "kneessl prevalence knees --task acl --out runs/prevalence --preset quick",
    ),
    "bench": Command(
        "kneessl.experiments.bench:bench",
        ("data",),
        "how fast it trains and predicts here, and what the pipeline costs of it",
        "kneessl bench knees --preset thesis",
    ),
    "probe": Command(
        "kneessl.pictures.linear_evaluation:probe",
        (),
        "linear evaluation on a folder of images by class: top-1, top-5",
        "kneessl probe --data images --from runs/encoder --out runs/probe",
    ),
}


DEBUG = "KNEESSL_DEBUG"
"""Environment variable: 1 for tracebacks; `--debug` sets it, so that the processes of an experiment have it too."""
BROKEN_PIPE = 141
"""Exit status where the reader of the output has gone, such as `head`: as a shell reports it, 128 + SIGPIPE."""


def presets() -> dict[str, dict[str, dict[str, object]]]:
    """The settings that `--preset NAME` stands for: preset -> command -> option -> value."""
    folder = files("kneessl") / "presets"
    return {
        file.name.removesuffix(".yaml"): yaml.safe_load(file.read_text(encoding="utf-8"))
        for file in sorted(folder.iterdir(), key=lambda f: f.name)
        if file.name.endswith(".yaml")
    }


def usage() -> str:
    """The text of `kneessl --help`."""
    lines = [f"  {name:<15} {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: kneessl COMMAND ...",
            "",
            "Self-supervised learning for knee MRI. Not a medical device.",
            "",
            *lines,
            "",
            "kneessl COMMAND --help shows a command's options and an example.",
            f"kneessl COMMAND --debug (or {DEBUG}=1) shows where in the program an error comes from.",
            "example: kneessl demo",
        ]
    )


def take_preset(command: str, words: list[str]) -> tuple[dict[str, object], list[str]]:
    """Split `--preset NAME` off the words of a command line.

    Returns:
        The preset's settings for this command, and the other words.
    """
    settings: dict[str, object] = {}
    rest: list[str] = []
    left = iter(words)
    for word in left:
        if word != "--preset" and not word.startswith("--preset="):
            rest.append(word)
            continue
        name = word.partition("=")[2] if "=" in word else next(left, "")
        known = [n for n, content in presets().items() if command in content]
        if name not in known:
            raise UserError(f"--preset {name}: `kneessl {command}` has the presets {', '.join(known) or 'none'}")
        settings = presets()[name][command]
    return settings, rest


def normalise(words: list[str], switches: set[str]) -> list[str]:
    """Bring the words of a command line into the form that jsonargparse takes.

    `--crop-area` is the same as `--crop_area`, `--from` is short for `--from_run` (`from` is a Python keyword), and a
    switch may stand without `true`. Files of settings come first, since a later word replaces an earlier one: what is
    typed holds wherever `--config` stands.
    """
    files: list[str] = []
    others: list[str] = []
    left = iter(pairwise([*words, ""]))
    for word, following in left:
        if not word.startswith("--"):
            others.append(word)
            continue
        option, equals, value = word.partition("=")
        option = option[2:].replace("-", "_")
        option = "from_run" if option == "from" else option
        if option in switches and not equals and following not in {"true", "false"}:
            equals, value = "=", "true"
        if option == "config" and not equals and following:
            equals, value = "=", next(left)[0]
        (files if option == "config" and equals else others).append(f"--{option}{equals}{value}")
    return [*files, *others]


class HelpFormatter(jsonargparse.DefaultHelpFormatter):
    """Keeps the line breaks of a section's text."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(super(HelpFormatter, self)._fill_text(line, width, indent) for line in text.splitlines())


class Parser(jsonargparse.ArgumentParser):
    """Says what is wrong in one sentence, without the usage of fifty options in front of it."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise instead of printing."""
        reason = " ".join(message.split())
        raise UserError(f"{reason} (see {self.prog} --help)")

    def instantiate(self, *args: Any, **kwargs: Any) -> Any:
        """As jsonargparse's; what it leaves to Python to refuse is a user error too."""
        try:
            return super().instantiate(*args, **kwargs)
        except TypeError as error:
            raise UserError(
                f"a setting has a value of another kind, such as one number for a group (see {self.prog} --help)"
            ) from error


def make_parser(name: str) -> tuple[Parser, Callable[..., None], set[str]]:
    """The parser of one command, its function, and the names of its switches."""
    command = COMMANDS[name]
    module, _, attribute = command.function.partition(":")
    if module not in sys.modules:
        with fast_imports():
            import_module(module)
    function = getattr(sys.modules[module], attribute)
    settings: type[Settings] | None = getattr(function, "settings", None)
    parameters = signature(function).parameters
    available = [n for n, content in presets().items() if name in content]
    epilog = f"example: {command.example}"
    if available:
        epilog = f"--preset {'|'.join(available)} changes the defaults above. {epilog}"
    needed = [p for p, spec in parameters.items() if spec.default is Parameter.empty and p not in command.positional]
    required = "".join(f" --{p} {p.upper()}" for p in needed)
    positional = "".join(f" {p.upper()}" for p in command.positional)
    parser = Parser(
        prog=f"kneessl {name}",
        usage=f"kneessl {name}{positional}{required} [options]",
        description=command.summary,
        epilog=epilog,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--config", action="config", help="YAML file with any of these settings.")
    options: set[str | int] = {p for p in parameters if p not in command.positional}
    add = (
        partial(parser.add_class_arguments, settings) if settings else partial(parser.add_function_arguments, function)
    )
    add(as_group=False, as_positional=True, skip=options)
    add(as_group=False, as_positional=False, skip=set(command.positional))
    for title, text in (settings.help_sections if settings else {}).items():
        parser.add_argument_group(title, text)
    return parser, function, {p for p, spec in parameters.items() if spec.annotation is bool}


def parse_settings(name: str, settings: Mapping[str, object]) -> Any:
    """Parse settings of a command without running it.

    Returns:
        The value that the command takes, or a namespace where it takes arguments: all of its settings, with the
        defaults of those not given; required ones are "x".

    Raises:
        UserError: a setting that the command does not have, or a value that it does not take.
    """
    parser, function, _ = make_parser(name)
    parameters = signature(function).parameters
    needed = {p for p, spec in parameters.items() if spec.default is Parameter.empty}
    values = parser.instantiate(parser.parse_object(dict.fromkeys(needed, "x") | dict(settings)))
    kind: type[Settings] | None = getattr(function, "settings", None)
    return kind(**given_values(function, values)) if kind else values


def given_values(function: Callable[..., None], values: Any) -> dict[str, Any]:
    """The arguments of a command's function.

    Raises:
        UserError: a file of settings says null for one that needs a value, which the parser lets through.
    """
    parameters = signature(function).parameters
    given = {p: values[p] for p in parameters}  # an option may be called `keys`, as a method of `values` is
    for p, value in given.items():
        if value is None and NoneType not in get_args(parameters[p].annotation):
            raise UserError(f"{p} is null; give it a value, or leave it out for its default")
    return given


def run(name: str, words: list[str]) -> None:
    """Parse the words after `kneessl NAME` and call its function."""
    settings, rest = take_preset(name, words)
    parser, function, switches = make_parser(name)
    parser.set_defaults(settings)
    rest = normalise(rest, switches)
    for word in rest:
        if word.startswith("--config="):
            require_plain(Path(word.removeprefix("--config=")))
    values = parser.instantiate(parser.parse_args(rest))
    function(**given_values(function, values))


def debugging() -> bool:
    """Whether tracebacks are wanted where a sentence tells the user enough."""
    return os.environ.get(DEBUG) == "1"


def main() -> None:
    """Entry point. Exit status: 0 done, 1 faults found, 2 not done for the reason printed, 130 interrupted."""
    words = sys.argv[1:]
    if "--debug" in words:
        os.environ[DEBUG] = "1"
        words = [word for word in words if word != "--debug"]
    try:
        call(words)
        sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        print(": ".join(["kneessl: interrupted", *map(str, interrupt.args)]), file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and output_is_closed():
            sys.exit(BROKEN_PIPE)
        told = sentence(error)
        if told is None:
            raise
        if debugging():
            traceback.print_exc()
        print(f"kneessl: {told}", file=sys.stderr)
        sys.exit(2)


def call(words: list[str]) -> None:
    """Do what the words after `kneessl` say.

    Raises:
        UserError: there is no such command, or whatever the command says.
    """
    if not words or words[0] in {"-h", "--help"}:
        print(usage())
        return
    if words[0] not in COMMANDS:
        raise UserError(f"there is no command {words[0]}; the commands are {', '.join(COMMANDS)}")
    run(words[0], words[1:])


def output_is_closed() -> bool:
    """Whether nobody reads standard output any more; what was not written yet is then dropped, without a complaint."""
    output = select.poll()
    output.register(1, 0)
    closed = any(event & select.POLLERR for _, event in output.poll(0))
    if closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return closed
