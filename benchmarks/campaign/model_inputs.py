"""Models: their run folders, damaged, and files of weights that others made."""

import json
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from campaign.judge import REFUSED, RIGHT, SAID, Wrong, tell
from kneessl.model.model import load_model
from kneessl.nets.weights import load_weights

Random = np.random.Generator
MODEL = Path("runs/demo/pretrained")
"""Of `make demo`; `run_folder` damages copies of it."""


# ---- the run folder of a model


@cache
def whole_model() -> str:
    return load_model(MODEL).sha256


def run_folder(rng: Random, work: Path) -> str:
    """A model of which one file is damaged: refused, or the same model, by its hash."""
    run = work / "run"
    run.mkdir()
    for file in MODEL.iterdir():
        if file.is_file():
            (run / file.name).symlink_to(file.resolve())
    names = ("run.json", "decisions.json", "familiarity.safetensors", "model.safetensors", "config.yaml")
    name = names[int(rng.choice(len(names), p=[0.4, 0.3, 0.15, 0.1, 0.05]))]
    content = bytearray((MODEL / name).read_bytes())
    (run / name).unlink()
    kind = int(rng.integers(8))
    if name.endswith(".json") and kind < 4:
        record = json.loads(content)
        _damage_record(rng, record)
        content = bytearray(json.dumps(record).encode())
    elif kind < 6:
        limit = len(content) if name.endswith(".json") or kind == 4 else 3000
        content[int(rng.integers(limit))] ^= 1 << int(rng.integers(8))
    elif kind == 6:
        del content[int(rng.integers(len(content))) :]
    if kind < 7:
        (run / name).write_bytes(content)
    told = tell(lambda: load_model(run))
    if told.refusal:
        return REFUSED
    changed = kind == 7 or meaning(bytes(content)) != meaning((MODEL / name).read_bytes())
    if not changed or name == "config.yaml":
        return RIGHT
    if told.value.sha256 == whole_model() and name != "run.json":
        raise Wrong(f"a damaged {name} counts as the very same model")
    _require_same_reading(told.value, name)
    return SAID


def meaning(content: bytes) -> bytes:
    """What a file says, so that JSON written otherwise is the same; any other content as it is."""
    try:
        return json.dumps(json.loads(content), sort_keys=True).encode()
    except ValueError:
        return content


def _damage_record(rng: Random, record: dict[str, Any]) -> None:
    """Delete or replace one value, at any depth."""
    place: Any = record
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = keys[int(rng.integers(len(keys)))]
        if isinstance(place[key], dict | list) and rng.random() < 0.7:
            place = place[key]
            continue
        values = (None, -1, "x", [], {}, 1e400, "sagittal", True, 3)
        if rng.random() < 0.3:
            del place[key]
        else:
            place[key] = values[int(rng.integers(len(values)))]
        return


def _require_same_reading(model: Any, name: str) -> None:
    """It reads series as the whole model does: the same planes, tasks and preprocessing."""
    whole = load_model(MODEL)
    if model.tasks != whole.tasks or list(model.planes) != list(whole.planes):
        raise Wrong(f"a damaged {name} changes what the model answers")
    for plane in whole.planes:
        if model.planes[plane].preprocessing != whole.planes[plane].preprocessing:
            raise Wrong(f"a damaged {name} changes how the model reads pictures")


# ---- weights that others made


class Trunk(nn.Module):
    """As a ResNet is named, and small."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
        self.layer2 = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6))


class Hostile:
    """A pickle of it makes a file wherever it is read as Python does."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


NUMBERED = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5"}
PREFIXES = ("", "module.", "backbone.", "encoder_q.", "module.encoder_q.", "trunk._feature_blocks.", "teacher.")
DAMAGES = ("none", "none", "none", "not finite", "cut off", "a bit", "a shape", "a kind", "a name", "code", "other")


def weights(rng: Random, work: Path) -> str:
    """A file of weights as others keep it, whole or damaged: taken as it is, each gap said, or refused untouched."""
    trunk, source = Trunk(), random_trunk(rng)
    damage = DAMAGES[int(rng.integers(len(DAMAGES)))]
    content = dict(source)
    if rng.random() < 0.2:
        content["conv1.weight"] = content["conv1.weight"].mean(1, keepdim=True)
    one = list(content)[int(rng.integers(len(content)))]
    expected, refused = damage_tensors(rng, content, one, damage)
    prefix = PREFIXES[int(rng.integers(len(PREFIXES)))]
    numbered = damage not in {"a name", "a shape", "a kind"} and rng.random() < 0.25
    named = {prefix + (renumbered(name) if numbered else name): value for name, value in content.items()}
    if rng.random() < 0.3:
        named |= {"fc.weight": torch.zeros(2, 6), "fc.bias": torch.zeros(2)}
    path = write_weights(rng, work, named, damage)
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    told = tell(lambda: load_weights(trunk, path))
    if (work / "ran").exists():
        raise Wrong("code in a file of weights was run")
    after = trunk.state_dict()
    if told.refusal:
        if damage == "none":
            raise Wrong(f"whole weights are refused: {told.refusal}")
        if any(not torch.equal(after[name], value) for name, value in before.items()):
            raise Wrong("refused, and the network has other weights than before")
        return REFUSED
    if refused:
        raise Wrong(f"{damage}: taken, and says {told.value}")
    if damage in {"cut off", "a bit"}:
        expected = as_it_reads(path, prefix, numbered)
    return judged(told.value, before, after, expected)


def random_trunk(rng: Random) -> dict[str, Tensor]:
    """Weights of a trunk, drawn by the generator."""
    drawn = {}
    for name, value in Trunk().state_dict().items():
        values = torch.from_numpy(rng.normal(size=tuple(value.shape)).astype(np.float32))
        drawn[name] = values if value.is_floating_point() else value
    return drawn


def damage_tensors(rng: Random, content: dict[str, Tensor], one: str, damage: str) -> tuple[dict[str, Tensor], bool]:
    """Damage one tensor in place; returns what is to be found of the weights, and whether nobody may take them."""
    value, counts = content[one], one.endswith("num_batches_tracked")
    if damage == "not finite" and not counts:
        value.view(-1)[int(rng.integers(value.numel()))] = (float("nan"), float("inf"))[int(rng.integers(2))]
    if damage == "a shape" and not counts:
        content[one] = torch.cat([value, value])
    if damage == "a kind" and not counts:
        kinds = (value.to(torch.int32), value.to(torch.complex64), value.bool())
        content[one] = kinds[int(rng.integers(len(kinds)))]
    if damage == "a name":
        content[f"{one}_other"] = content.pop(one)
    broken = damage in {"not finite", "a shape", "a kind"} and not counts
    return dict(content), broken or damage in {"code", "other"}


def renumbered(name: str) -> str:
    first, _, rest = name.partition(".")
    return f"{NUMBERED[first]}.{rest}"


def write_weights(rng: Random, work: Path, named: dict[str, Tensor], damage: str) -> Path:
    """Write them in one of the formats in use, and damage the file where the tensors were not."""
    path = work / "weights.safetensors"
    if rng.random() < 0.4 and damage != "code":
        save_file({name: value.contiguous() for name, value in named.items()}, path)
    else:
        path = work / f"weights{('.pth', '.pt', '.ckpt', '.tar')[int(rng.integers(4))]}"
        box: Any = (named, {"state_dict": named}, {"model": named}, {"epoch": 3, "state_dict": named, "arch": "r"})
        box = box[int(rng.integers(len(box)))]
        if damage == "code":
            box = {**box, "optimizer": Hostile(work / "ran")}
        if damage == "code" and rng.random() < 0.5:
            path.write_bytes(pickle.dumps(box))
        else:
            torch.save(box, path, _use_new_zipfile_serialization=bool(rng.random() < 0.8))
    data = bytearray(path.read_bytes())
    if damage == "cut off":
        del data[int(rng.integers(len(data))) :]
    if damage == "a bit":
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    if damage == "other":
        data = bytearray((b"", b"<html>", bytes(200), rng.bytes(500))[int(rng.integers(4))])
    path.write_bytes(data)
    return path


def as_it_reads(path: Path, prefix: str, numbered: bool) -> dict[str, Tensor]:
    """What safetensors or PyTorch themselves find in a damaged file, under the trunk's names."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
    else:
        found = torch.load(path, weights_only=True)
        found = next((found[key] for key in ("state_dict", "model") if key in found), found)
    called = {prefix + (renumbered(name) if numbered else name): name for name in Trunk().state_dict()}
    return {called[name]: value for name, value in found.items() if name in called}


def judged(said: str, before: dict[str, Tensor], after: dict[str, Tensor], expected: dict[str, Tensor]) -> str:
    """Each weight is the file's, or what it was and named as missing.

    Raises:
        Wrong: it is not.
    """
    missing = []
    for name, value in before.items():
        wanted = expected.get(name, value)
        if wanted.shape != value.shape:
            wanted = wanted.expand_as(value) / 3
        if not torch.equal(after[name], wanted.to(value.dtype)):
            raise Wrong(f"{name} is not what the file has")
        if not torch.isfinite(after[name].double()).all():
            raise Wrong(f"{name} is not finite")
        if name not in expected and not name.endswith("num_batches_tracked"):
            missing.append(name)
    if any(name not in said for name in missing):
        raise Wrong(f"{missing} are missing, and nothing says so")
    return SAID if missing else RIGHT
