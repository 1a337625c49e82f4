"""Weights from a file: tensors and nothing else, never code."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from kneessl.errors import UserError

NAMED = 8
"""Keys that a message names before it says "and N more"."""
HEADS = ("fc.", "classifier.")
"""What torchvision's ResNet and AlexNet carry beyond a trunk: nobody misses it."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a `.safetensors`, `.pth` or `.pt` file onto the CPU: tensors by name; no code in it is ever run.

    A `.pth` file is a state dict, or `{"state_dict": {...}}` with whatever else beside it.

    Raises:
        UserError: no such file, another format, damaged, or holding more than plain tensors.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing or not a file; name a .safetensors, .pth or .pt file with weights")
    readers = {".safetensors": _read_safetensors, ".pth": _read_torch, ".pt": _read_torch}
    if path.suffix.lower() not in readers:
        raise UserError(f"{path} is not a .safetensors, .pth or .pt file; weights are read from those only")
    return readers[path.suffix.lower()](path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is not a readable safetensors file; it is damaged, so fetch it anew") from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile file can raise anything
        raise UserError(
            f"{path} is damaged, or holds Python objects, which could run code and are not read; "
            "save its state dict alone, best as .safetensors"
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(k, str) and is_plain(v) for k, v in content.items()):
        raise UserError(f"{path} holds no state dict (names with a plain tensor each); save one as .safetensors")
    return dict(content)


def is_plain(value: Any) -> bool:
    """Whether `value` is a dense tensor of real numbers in memory: not sparse, quantised, nested or without data."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not (value.is_quantized or value.is_nested or value.is_complex())
    )


def load_weights(module: nn.Module, path: Path) -> str:
    """Start `module`, an encoder's trunk, from weights made elsewhere.

    The file may put one prefix before all names, such as `module.`, `encoder.` or `backbone.`: the prefix under which
    most of the module's names are found is taken off (the first of equals). What the file lacks stays as it is. A first
    convolution made for one channel is spread over three, a third each: on grey slices that is the same.

    Args:
        module: Whose parameters and buffers to overwrite, where the file has them.
        path: See `read_tensors`.

    Returns:
        A sentence: how many tensors were taken, and which names are missing or unexpected. Not counted as such are the
        heads `fc` and `classifier`, and batch norm's `num_batches_tracked`.

    Raises:
        UserError: the file cannot be read, has no name in common with the module, or a shape or kind of number differs.
    """
    found, wanted = read_tensors(path), module.state_dict()
    prefix = common_prefix(found, wanted)
    taken = {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}
    taken = {k: spread(v, wanted[k]) for k, v in taken.items() if k in wanted}
    if not taken:
        raise UserError(
            f"{path} has no weights for this network: it wants names such as {listed(wanted)}, "
            f"and the file has {listed(found) or 'none'}"
        )
    differing = [
        f"{k} {tuple(v.shape)} instead of {tuple(wanted[k].shape)}"
        for k, v in taken.items()
        if v.shape != wanted[k].shape or v.is_floating_point() != wanted[k].is_floating_point()
    ]
    if differing:
        raise UserError(f"{path} is of another network ({listed(differing)}); name a file that fits")
    module.load_state_dict(taken, strict=False)
    missing = [k for k in wanted if k not in taken and not k.endswith("num_batches_tracked")]
    sources = {prefix + k for k in taken}
    unexpected = [k for k in found if k not in sources and not k.removeprefix(prefix).startswith(HEADS)]
    return (
        f"{len(taken)} of {len(wanted)} tensors taken from {path}"
        + (f" under the prefix {prefix}" if prefix else "")
        + f"; missing: {listed(missing) or 'none'}; unexpected: {listed(unexpected) or 'none'}"
    )


def common_prefix(found: Iterable[str], wanted: Mapping[str, Any]) -> str:
    """The text ending in a dot, or nothing, that stands before most of the `wanted` names in `found`."""
    prefixes: Counter[str] = Counter()
    for key in found:
        start = 0
        while True:
            if key[start:] in wanted:
                prefixes[key[:start]] += 1
            start = key.find(".", start) + 1
            if start == 0:
                break
    return prefixes.most_common(1)[0][0] if prefixes else ""


def spread(given: Tensor, wanted: Tensor) -> Tensor:
    """A convolution of one channel `(n, 1, h, w)` as one of three `(n, 3, h, w)` where that is `wanted`."""
    if given.ndim == wanted.ndim == 4 and (given.shape[1], wanted.shape[1]) == (1, 3) and given.is_floating_point():
        return given.expand(-1, 3, -1, -1) / 3
    return given


def listed(names: Iterable[str]) -> str:
    """Up to eight names, fit to be printed, and how many more there are."""
    every = list(names)
    shown = ("".join(c if c.isprintable() else "?" for c in name[:80]) for name in every[:NAMED])
    return ", ".join(shown) + (f" and {len(every) - NAMED} more" if len(every) > NAMED else "")
