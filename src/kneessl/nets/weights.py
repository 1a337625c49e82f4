"""Weights from a file: tensors and nothing else, never code."""

from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from kneessl.errors import UserError

TORCH_SUFFIXES = (".pth", ".pt", ".ckpt", ".tar", ".torch", ".bin")
CONTAINERS = ("state_dict", "model")
"""Keys that nobody would call part of a layer's name."""
NAMED = 8
"""Keys that a message names before it says "and N more"."""
HEADS = ("fc.", "classifier.")
"""What torchvision's ResNet and AlexNet carry beyond a trunk: nobody misses it."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file of weights onto the CPU: tensors by name; no code in it is ever run.

    A file of PyTorch may keep its state dict inside others, as `{"state_dict": {...}}`, `{"model": {...}}` or
    `{"teacher": {...}}` do. The names of its tensors are then the keys on the way to them, joined by dots; what is no
    tensor, such as an epoch, is left out. The keys `state_dict` and `model` are left off where they come first.

    Args:
        path: A safetensors file (`.safetensors`), or a file of PyTorch (`.pth`, `.pt`, `.ckpt`, `.tar`, `.torch`,
            `.bin`).

    Raises:
        UserError: no such file, another format, damaged, or it holds Python objects or no plain tensors.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing or not a file; name a .safetensors, .pth or .pt file with weights")
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    if path.suffix.lower() in TORCH_SUFFIXES:
        return _read_torch(path)
    raise UserError(
        f"{path} is not a .safetensors, .pth or .pt file (nor .ckpt, .tar, .torch or .bin); weights are read from "
        "those only"
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is not a readable safetensors file; it is damaged, so fetch it anew") from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        # DINO's and MAE's checkpoints hold the arguments of their command: a class that only keeps values.
        with torch.serialization.safe_globals([Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile file can raise anything
        raise UserError(
            f"{path} is damaged, or holds Python objects, which could run code and are not read; "
            "save its state dict alone, best as .safetensors"
        ) from error
    while isinstance(content, Mapping) and (inner := next((k for k in CONTAINERS if is_container(content, k)), None)):
        content = content[inner]
    tensors = dict(named_tensors(content))
    if not isinstance(content, Mapping) or (content and not tensors) or not all(map(is_plain, tensors.values())):
        raise UserError(f"{path} holds no state dict (names with a plain tensor each); save one as .safetensors")
    return tensors


def is_container(content: Mapping[Any, Any], key: str) -> bool:
    """Whether the state dict stands under a key: in a mapping that is neither empty nor beside tensors."""
    return isinstance(content.get(key), Mapping) and not any(isinstance(value, Tensor) for value in content.values())


def named_tensors(content: Any, prefix: str = "", depth: int = 8) -> Iterator[tuple[str, Tensor]]:
    """The tensors in nested mappings, by their keys joined by dots; keys that are no text are skipped."""
    for key, value in content.items() if isinstance(content, Mapping) else ():
        if isinstance(key, str) and isinstance(value, Tensor):
            yield prefix + key, value
        elif isinstance(key, str) and depth:  # a hostile file may hold itself
            yield from named_tensors(value, f"{prefix}{key}.", depth - 1)


def is_plain(value: Any) -> bool:
    """Whether `value` is a dense tensor of real numbers in memory: not sparse, quantised, nested or without data."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not (value.is_quantized or value.is_nested or value.is_complex())
    )


def require_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Check that weights have neither NaN nor infinity.

    Raises:
        UserError: one has; it names the tensors.
    """
    if broken := [name for name, values in tensors.items() if not values.float().isfinite().all()]:
        raise UserError(
            f"{path} has weights that are not finite (NaN or infinity): {listed(broken)}; the training that wrote it "
            "went wrong, so name another file"
        )


def load_weights(module: nn.Module, path: Path) -> str:
    """Start `module`, an encoder's trunk, from weights made elsewhere.

    The file may put one prefix before all names, such as `module.`, `encoder_q.` or `backbone.`: the one under which
    most of the module's names are found is taken off. What the file lacks stays as it is. Files that number layers
    instead of naming them, as lightly's `backbone.0.weight` does, are read by the order and shapes of their tensors,
    but only if all of the module's weights are found so. A first convolution made for one channel is spread over three,
    a third each: on grey slices that is the same.

    Args:
        module: Whose parameters and buffers to overwrite, where the file has them.
        path: See `read_tensors`.

    Returns:
        A sentence: how many tensors were taken, and which names are missing or unexpected. Not counted as such are the
        heads `fc` and `classifier`, and batch norm's `num_batches_tracked`.

    Raises:
        UserError: the file cannot be read, has no name in common with the module, a shape or kind of number differs, or
            a weight is not finite.
    """
    found, wanted = read_tensors(path), module.state_dict()
    prefix = common_prefix(found, wanted)
    names = {k: prefix + k for k in wanted if prefix + k in found}
    how = f" under the prefix {prefix}" if prefix else ""
    if not fits_whole(names, found, wanted) and (unnamed := match_unnamed(found, wanted)):
        prefix, names = unnamed
        how = f" under the prefix {prefix}, by the order of its layers" if prefix else " by the order of its layers"
    if not names:
        raise UserError(
            f"{path} has no weights for this network: it wants names such as {listed(wanted)}, "
            f"and the file has {listed(found) or 'none'}"
        )
    taken = {k: as_three_channels(found[name], wanted[k]) for k, name in names.items()}
    differing = [
        f"{k} {tuple(v.shape)} instead of {tuple(wanted[k].shape)}" for k, v in taken.items() if not fits(v, wanted[k])
    ]
    if differing:
        raise UserError(f"{path} is of another network ({listed(differing)}); name a file that fits")
    require_finite(path, {names[k]: v for k, v in taken.items()})
    module.load_state_dict(taken, strict=False)
    missing = [k for k in required(wanted) if k not in taken]
    sources = set(names.values())
    unexpected = [k for k in required(found) if k not in sources and not k.removeprefix(prefix).startswith(HEADS)]
    return (
        f"{len(taken)} of {len(wanted)} tensors taken from {path}{how}"
        f"; missing: {listed(missing) or 'none'}; unexpected: {listed(unexpected) or 'none'}"
    )


def prefixes_of(name: str) -> Iterator[str]:
    """Nothing, and every beginning of a name that ends in a dot: of `a.b.c` these are ``, `a.` and `a.b.`."""
    start = 0
    while True:
        yield name[:start]
        start = name.find(".", start) + 1
        if start == 0:
            return


def common_prefix(found: Iterable[str], wanted: Mapping[str, Any]) -> str:
    """The text ending in a dot, or nothing, that stands before most of the `wanted` names in `found`.

    Of equals it is the teacher's, which DINO's authors evaluate, else the first.
    """
    counts = Counter(prefix for key in found for prefix in prefixes_of(key) if key[len(prefix) :] in wanted)
    most = max(counts.values(), default=0)
    return first_choice([prefix for prefix, count in counts.items() if count == most])


def first_choice(prefixes: Sequence[str]) -> str:
    """The first prefix that names a teacher, else the first, else nothing."""
    return next((prefix for prefix in prefixes if "teacher" in prefix.split(".")), next(iter(prefixes), ""))


def match_unnamed(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[str, dict[str, str]] | None:
    """Find all of the `wanted` weights under one prefix of `found`, whatever the layers are called there.

    Returns:
        The prefix, and by wanted name the name in `found`; None where no prefix has all of them.
    """
    matches: dict[str, dict[str, str]] = {}
    counts = Counter(prefix for key in found for prefix in prefixes_of(key))
    for prefix in [prefix for prefix, count in counts.items() if count >= len(required(wanted))]:
        names = [key.removeprefix(prefix) for key in found if key.startswith(prefix)]
        for match in (match_numbered(names, wanted), match_in_order(names, wanted)):
            full = {k: prefix + name for k, name in match.items() if k in wanted}
            if fits_whole(full, found, wanted):
                matches.setdefault(prefix, full)
    innermost = [prefix for prefix in matches if sum(other.startswith(prefix) for other in matches) == 1]
    prefix = first_choice(innermost)
    return (prefix, matches[prefix]) if matches else None


def match_numbered(names: Sequence[str], wanted: Iterable[str]) -> dict[str, str]:
    """Match names whose first part is a number with the layers of a network in order.

    `nn.Sequential(*network.children())` calls `0.weight` and `4.0.conv1.weight` what the network calls `conv1.weight`
    and `layer1.0.conv1.weight`. The numbers decide, not the order of the names: safetensors files sort these.
    """
    layers = dict.fromkeys(key.partition(".")[0] for key in wanted)
    numbers = sorted({first for name in names if is_number(first := name.partition(".")[0])}, key=int)
    called = dict(zip(numbers, layers, strict=False))
    parts = [(name, *name.partition(".")) for name in names]
    return {f"{called[first]}.{rest}": name for name, first, _, rest in parts if first in called}


def match_in_order(names: Iterable[str], wanted: Mapping[str, Any]) -> dict[str, str]:
    """Match the first names, in the order of the file, with those of a network in its order."""
    return dict(zip(required(wanted), required(names), strict=False))


def is_number(text: str) -> bool:
    """Whether a part of a name is the number of a layer."""
    return text.isascii() and text.isdecimal() and len(text) <= 4


def required(names: Iterable[str]) -> list[str]:
    """The names but for batch norm's `num_batches_tracked`, which nothing here depends on."""
    return [name for name in names if not name.endswith("num_batches_tracked")]


def fits_whole(names: Mapping[str, str], found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    """Whether all `wanted` weights are matched, each by a tensor of the same kind (`weight`, `bias`) and shape."""
    return all(
        key in names
        and names[key].rpartition(".")[2] == key.rpartition(".")[2]
        and fits(as_three_channels(found[names[key]], wanted[key]), wanted[key])
        for key in required(wanted)
    )


def fits(given: Tensor, wanted: Tensor) -> bool:
    """Whether a tensor has the shape and the kind of numbers, whole or not, that another has."""
    return given.shape == wanted.shape and given.is_floating_point() == wanted.is_floating_point()


def as_three_channels(given: Tensor, wanted: Tensor) -> Tensor:
    """Turn a kernel of one channel `(n, 1, h, w)` into one of three channels `(n, 3, h, w)` if `wanted` has three."""
    if given.ndim == wanted.ndim == 4 and (given.shape[1], wanted.shape[1]) == (1, 3) and given.is_floating_point():
        return given.expand(-1, 3, -1, -1) / 3
    return given


def listed(names: Iterable[str]) -> str:
    """Up to eight names, fit to be printed, and how many more there are."""
    every = list(names)
    shown = ("".join(c if c.isprintable() else "?" for c in name[:80]) for name in every[:NAMED])
    return ", ".join(shown) + (f" and {len(every) - NAMED} more" if len(every) > NAMED else "")
