"""The settings of a command as one value, which checks itself: what the command line, YAML and Python give alike."""

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, ParamSpec, TypeVar

import yaml

from kneessl.errors import UserError

_DEEPEST, _MOST_SETTINGS = 20, 10_000
"""Of a file of settings; only one that refers to itself passes them."""
P = ParamSpec("P")
S = TypeVar("S")


@dataclass(frozen=True)
class Settings:
    """Base of all settings of a command: one field for each of its options, in their order.

    A subclass is a frozen dataclass; its docstring's `Args` are the help of the options, and `__post_init__` raises a
    user error for values out of range.
    """

    free_on_resuming: ClassVar[frozenset[str]] = frozenset({"out", "resume"})
    """Fields that are no part of what a run is: they may change when it is resumed."""
    help_sections: ClassVar[Mapping[str, str]] = {}
    """Title -> text that `--help` shows after the options."""

    def asked(self) -> dict[str, Any]:
        """What a run is, by field: written to its `config.yaml`, and the same again when it is resumed."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in self.free_on_resuming}

    def defaults(self) -> dict[str, Any]:
        """The fields of `asked` that have a default, with it: what a version of kneessl without that option did.

        Where a group of settings is optional (None) and given, these are the group's own defaults.
        """
        asked = self.asked()
        values = {f.name: f.default for f in fields(self) if f.name in asked and f.default is not MISSING}
        for name, default in values.items():
            given = asked[name]
            if default is None and is_dataclass(given) and not isinstance(given, type):
                values[name] = type(given)()
        return values


def takes(kind: Callable[P, S]) -> Callable[[Callable[[S], None]], Callable[P, None]]:
    """Turn a function of settings into a command, which takes their fields as arguments.

    Args:
        kind: The subclass of `Settings`; the command line reads it as the command's `settings`.
    """

    def decorate(run: Callable[[S], None]) -> Callable[P, None]:
        @wraps(run)
        def command(*args: P.args, **kwargs: P.kwargs) -> None:
            run(kind(*args, **kwargs))

        vars(command).update(settings=kind, __signature__=signature(kind))
        return command

    return decorate


def require_positive(settings: Mapping[str, Any], *names: str) -> None:
    """Raise a user error for the first of these settings that is not above 0."""
    for name in names:
        if not 0 < settings[name] < math.inf:  # also where it is not a number
            raise UserError(f"{name} is {settings[name]}; it must be above 0")


def require_not_negative(settings: Mapping[str, Any], *names: str) -> None:
    """Raise a user error for the first of these settings that is not 0 or more."""
    for name in names:
        if not 0 <= settings[name] < math.inf:
            raise UserError(f"{name} is {settings[name]}; it must be 0 or more")


def require_plain(file: Path) -> None:
    """Refuse a file of settings that says one thing twice or refers to itself; the parser reports all other faults.

    A group beside its own options, such as `view2: null` and `view2.blur: .1`, says one thing twice: the parser would
    take one of them, by their order.

    Raises:
        UserError: it does.
    """
    try:
        whole = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, OSError, UnicodeDecodeError):
        return
    nodes: list[tuple[yaml.Node | None, str, int]] = [(whole, "", 0)]
    for node, name, depth in nodes:  # which grows on the way
        if depth > _DEEPEST or len(nodes) > _MOST_SETTINGS:
            raise UserError(f"{file}: {name.rstrip('.')} refers to itself or holds more than settings do; write it out")
        if isinstance(node, yaml.SequenceNode):
            nodes += [(item, name, depth + 1) for item in node.value]
        if not isinstance(node, yaml.MappingNode):
            continue
        keys = [str(key.value).replace("-", "_") for key, _ in node.value]
        for key, (_, value) in zip(keys, node.value, strict=True):
            if keys.count(key) > 1:
                raise UserError(f"{file}: {name}{key} stands there {keys.count(key)} times; keep one")
            if part := next((other for other in keys if other.startswith(f"{key}.")), None):
                raise UserError(
                    f"{file}: {name}{key} and {name}{part} both stand there; keep one, or write it as a group"
                )
            nodes.append((value, f"{name}{key}.", depth + 1))
