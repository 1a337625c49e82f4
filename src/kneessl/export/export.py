"""`kneessl export`: a model for use elsewhere, as safetensors, ONNX and MONAI bundle, each checked as written."""

import hashlib
import json
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan
from torch.export import Dim, ExportedProgram

from kneessl.errors import UserError
from kneessl.exams.folder import SIDE, ExamFolder, Plane
from kneessl.export.bundle import write_bundle
from kneessl.files import new_folder, write_text
from kneessl.model.card import model_card
from kneessl.model.locked import DECISIONS, FAMILIARITY, WEIGHTS
from kneessl.model.model import PlaneModel, load_model
from kneessl.model.predict import whole_clip
from kneessl.nets.sslm import ConvLSTM, SSLMHead
from kneessl.sources.volume import DISPLAY
from kneessl.training.runs import read_record
from kneessl.views.preprocess import central
from kneessl.views.resample import resize_matrix, separable

MOST_SLICES = 1024
"""The longest series that an exported graph takes."""
TOLERANCE = 1e-4
"""Largest allowed difference of a logit from PyTorch's."""
SYNTHETIC = (1, 2, 24)
"""Numbers of slices of the noise series that a graph is checked on where no data are named."""
CHECKED_EXAMS = 3
PACKAGES = ("monai", "onnx", "onnxscript", "onnxruntime")


def export(model: Path, out: Path, data: Path | None = None) -> None:
    """Write a model for use without kneessl: safetensors, ONNX, a MONAI bundle and a model card.

    Every form takes a whole series as it lies on disk; cropping, resizing and standardising are inside. What was
    written is run at once, and has to give PyTorch's logits.

    Args:
        model: Run folder of `kneessl finetune` or `kneessl fuse`; of the latter, each plane goes into a subfolder.
        out: The folder to make; must not exist yet.
        data: Exam folder to check the written files on; by default series of noise.

    Raises:
        UserError: a package is missing, no such model, no series to check on, or a written file gives other logits.
            Then nothing is written.
    """
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise UserError(
            f'{" and ".join(missing)} missing for the exported forms; run `pip install "kneessl[export]"` first'
        )
    loaded = load_model(model)
    for one in loaded.planes.values():
        if isinstance(one.classifier.head, SSLMHead) and one.preprocessing.depth < 1:
            raise UserError(
                f"{model} has the head conv_lstm and depth {one.preprocessing.depth}, which PyTorch's exporter cannot "
                "export together; fine-tune with --depth 1 or another --head"
            )
    fused = read_record(model).get("kind") == "fuse"
    series = {plane: series_to_check(plane, data) for plane in loaded.planes}
    with new_folder(out) as folder:
        for plane, one in loaded.planes.items():
            part = plane if fused else "."
            export_plane(model / part, one, series[plane], "noise" if data is None else data.name, folder / part)
        if fused:
            shutil.copyfile(model / DECISIONS, folder / DECISIONS)
            about = {"kind": "fuse", "tasks": loaded.tasks, "planes": list(loaded.planes)} | decided(model)
            write_text(folder / "model.json", json.dumps(about, indent=2) + "\n")
            write_text(folder / "README.md", model_card(model, exported=True))
    print(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}")


def series_to_check(plane: Plane, data: Path | None) -> list[np.ndarray]:
    """Series, each uint8 `(slices, 256, 256)`, of which one has a single slice.

    Raises:
        UserError: `data` is no exam folder, or has no series in this plane.
    """
    if data is None:
        rng = np.random.default_rng(0)
        return [rng.integers(0, 256, (slices, SIDE, SIDE), dtype=np.uint8) for slices in SYNTHETIC]
    folder = ExamFolder(data)
    exams = [(split, exam) for split in ("valid", "train") for exam in folder.exams(split, plane)][:CHECKED_EXAMS]
    if not exams:
        raise UserError(f"{data} has no {plane} series to check the exported model on; name another exam folder")
    series = [np.array(folder.series(split, plane, exam)) for split, exam in exams]
    return [*series, series[0][:1]]


def export_plane(run: Path, model: PlaneModel, series: Sequence[np.ndarray], source: str, out: Path) -> None:
    """Write one plane's model into `out` in every form, and check it on `series`, which come from `source`."""
    out.mkdir(exist_ok=True)
    tta = model.tta
    model = replace(model, classifier=deepcopy(model.classifier).cpu(), tta=False)
    whole = SeriesClassifier(model)
    for name in (WEIGHTS, FAMILIARITY, DECISIONS):  # byte for byte: decisions.json holds hashes of the others
        if (run / name).is_file():
            shutil.copyfile(run / name, out / name)
    with quiet():
        write_onnx(whole, model, out / "model.onnx")
        card = model_card(run, exported=True)
        network = captured(OneImage(whole), "image", torch.zeros(1, 1, 2, SIDE, SIDE), axis=2)
        write_bundle(network, model, card, out / "bundle")
        differences = {
            name: largest_difference(logits, model, series, out / name)
            for name, logits in (
                ("model.onnx", onnx_logits(out / "model.onnx")),
                ("bundle", program_logits(out / "bundle" / "models" / "model.pt2")),
            )
        }
    for name, difference in differences.items():
        print(f"{model.plane} {name}: logits within {difference:.1e} of PyTorch's on {len(series)} series ({source})")
    about = model_description(run, model) | {
        "averaged over shifts by kneessl, not by the graphs": tta,
        "checked": {"series": len(series), "from": source, "largest difference of a logit": differences},
    }
    if tta:
        print("note: kneessl averages this model over small shifts of the picture; the exported graphs do not shift")
    write_text(out / "model.json", json.dumps(about, indent=2) + "\n")
    write_text(out / "README.md", card)


class SeriesClassifier(nn.Module):
    """A classifier with its preprocessing: a series as it lies on disk -> logits and probabilities.

    Args:
        model: The model of one plane, on the CPU; not changed.
    """

    kept: Tensor
    resize: Tensor

    def __init__(self, model: PlaneModel) -> None:
        super().__init__()
        self.preprocessing = model.preprocessing
        self.classifier = deepcopy(model.classifier).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        head = self.classifier.head
        if isinstance(head, SSLMHead):
            head.lstm = nn.Sequential(*(ScannedLSTM(cast(ConvLSTM, lstm)) for lstm in head.lstm))
        # Python rounds 2.5 to 2 and 3.5 to 4: a table says the same in every runtime.
        kept = [self.preprocessing.middle(total) for total in range(MOST_SLICES + 1)]
        self.register_buffer("kept", torch.tensor([[part.start, part.stop] for part in kept]))
        side = len(range(*central(SIDE, self.preprocessing.field).indices(SIDE)))
        start = torch.zeros(1, dtype=torch.int64)
        self.register_buffer("resize", resize_matrix(start, start + side, side, self.preprocessing.size))
        self.requires_grad_(False).eval()

    def forward(self, series: Tensor) -> tuple[Tensor, Tensor]:
        """uint8, or float from 0 to 255, `(slices, 256, 256)` -> float32 logits and probabilities, each `(tasks,)`."""
        total = series.shape[0]
        chosen = torch.arange(total)
        if self.preprocessing.depth < 1:
            start, stop = self.kept[total].unbind()
            chosen = ((chosen >= start) & (chosen < stop)).nonzero()[:, 0]
            torch._check(chosen.shape[0] >= 1)  # how many depends on values: the tracer has to be told
            torch._check(chosen.shape[0] <= total)
            series = series[chosen]
        # As `views.clips.places`: an only slice lies in the middle.
        places = torch.where(torch.scalar_tensor(total) > 1, chosen / torch.sym_max(total - 1, 1), 0.5)
        slices = self.preprocessing.crop(series)[None].float() / 255
        clip = self.preprocessing.standardise(separable(slices, self.resize, self.resize).clamp(0, 1))
        logits = self.classifier(clip, places[None])[0]
        return logits, logits.sigmoid()


class ScannedLSTM(nn.Module):
    """A ConvLSTM as an operator that loops over slices, so that a graph holds for any number of them.

    Args:
        lstm: The layer to replace; its weights are shared.
    """

    def __init__(self, lstm: ConvLSTM) -> None:
        super().__init__()
        self.hidden, self.from_input, self.from_state = lstm.hidden, lstm.from_input, lstm.from_state

    def forward(self, sequence: Tensor) -> Tensor:
        """float `(B, S, inputs, h, w)` -> the state after each step, `(B, S, hidden, h, w)`."""
        given = self.from_input(sequence.flatten(0, 1)).unflatten(0, sequence.shape[:2])
        start = given.new_zeros(len(sequence), self.hidden, *sequence.shape[3:])

        def step(before: list[Tensor], now: Tensor) -> tuple[list[Tensor], Tensor]:
            cell, state = before
            i, f, g, o = (now + self.from_state(state)).chunk(4, dim=1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            state = o.sigmoid() * cell.tanh()
            return [cell, state], state.clone()

        return scan(step, [start, start.clone()], given.transpose(0, 1))[1].transpose(0, 1)


class OneImage(nn.Module):
    """What a MONAI bundle's network takes and gives: an image of one channel, and logits."""

    def __init__(self, series: SeriesClassifier) -> None:
        super().__init__()
        self.series = series

    def forward(self, image: Tensor) -> Tensor:
        """float32 from 0 to 255, `(1, 1, slices, 256, 256)` -> logits `(1, tasks)`."""
        return self.series(image[0, 0])[0][None]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the warnings and log messages of PyTorch's exporters."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@torch.no_grad()
def captured(module: nn.Module, name: str, example: Tensor, axis: int) -> ExportedProgram:
    """The graph of a module whose argument `name` has any number of slices, 1 to 1024, along `axis`."""
    # An example of one slice would be taken for a constant.
    program = torch.export.export(
        module, (example,), dynamic_shapes={name: {axis: Dim("slices", min=1, max=MOST_SLICES)}}
    )
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # it names folders of this machine
    return program


def write_onnx(whole: SeriesClassifier, model: PlaneModel, path: Path) -> None:
    """Write the graph with its weights; it also carries tasks, plane and the preprocessing's fingerprint."""
    program = captured(whole, "series", torch.zeros(2, SIDE, SIDE, dtype=torch.uint8), axis=0)
    written = cast(
        torch.onnx.ONNXProgram,
        torch.onnx.export(
            program,
            input_names=["series"],
            output_names=["logits", "probabilities"],
            dynamic_shapes={"series": {0: "slices"}},
            verbose=False,
        ),
    )
    for node in written.model.graph.all_nodes():
        node.metadata_props.clear()  # it holds addresses in memory, other ones every time
    for function in written.model.functions.values():
        for node in function.all_nodes():
            node.metadata_props.clear()
    written.model.metadata_props.update(
        tasks=",".join(model.tasks), plane=model.plane, fingerprint=model.preprocessing.fingerprint()
    )
    written.save(path)


def onnx_logits(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A function from a series to its logits `(tasks,)` by ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda series: session.run(["logits"], {"series": series})[0]


def program_logits(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A function from a series to its logits `(tasks,)` by the bundle's network."""
    network = torch.export.load(path).module()
    return lambda series: network(torch.from_numpy(series).float()[None, None])[0].numpy()


def largest_difference(
    logits: Callable[[np.ndarray], np.ndarray], model: PlaneModel, series: Sequence[np.ndarray], path: Path
) -> float:
    """Largest difference of a logit from PyTorch's, to two digits.

    Raises:
        UserError: it is more than `TOLERANCE`, or not a number.
    """
    right = [model.classifier(*whole_clip(model, one)).detach()[0].double().numpy() for one in series]
    largest = float(np.max([np.abs(logits(one) - r) for one, r in zip(series, right, strict=True)]))
    if not largest <= TOLERANCE:
        raise UserError(
            f"{path.name} gives logits up to {largest:.1e} away from PyTorch's, more than {TOLERANCE:.0e}, so nothing "
            "is exported; use the versions of torch, onnx and onnxruntime in constraints.txt"
        )
    return float(f"{largest:.1e}")


def model_description(run: Path, model: PlaneModel) -> dict[str, Any]:
    """What `model.json` says beside the check: all it takes to use the model elsewhere."""
    record = read_record(run)
    slices, rows, columns = tuple(DISPLAY[model.plane])
    tasks = list(model.tasks)
    about: dict[str, Any] = {
        "kind": "finetune",
        "network": record.get("network", "resnet18"),
        "head": record.get("head"),
        "tasks": tasks,
        "plane": model.plane,
        "input": {
            "name": "series",
            "dtype": "uint8",
            "shape": ["slices", SIDE, SIDE],
            "slices": [1, MOST_SLICES],
            "range": [0, 255],
            "unit": "grey value; 0 and 255 are the 0.5th and 99.5th percentile of the series (`kneessl import`)",
            "directions": f"slices go towards {slices}, rows towards {rows}, columns towards {columns} (L left, "
            "P posterior, I inferior of the patient); the field of view fills the square",
        },
        "outputs": [
            {"name": "logits", "dtype": "float32", "shape": [len(tasks)], "unit": "log odds, in the order of tasks"},
            {
                "name": "probabilities",
                "dtype": "float32",
                "shape": [len(tasks)],
                "range": [0, 1],
                "unit": "sigmoid of the logits, not recalibrated",
            },
        ],
        "preprocessing": asdict(model.preprocessing)
        | {
            "fingerprint": model.preprocessing.fingerprint(),
            "steps": "inside the graphs: middle share `depth` of the slices, central share `field` of both sides, "
            "values / 255, antialiased bicubic resizing to `size`, clamped to 0 to 1, less `mean`, divided by `std`",
        },
        "weights": {"file": WEIGHTS, "sha256": hashlib.sha256((run / WEIGHTS).read_bytes()).hexdigest()},
        "versions": {name: version(name) for name in ("kneessl", "torch", "numpy", *PACKAGES)},
    }
    return about | decided(run)


def decided(run: Path) -> dict[str, Any]:
    """What is locked with a model, and in words how to apply it; nothing where nothing is locked."""
    if not (run / DECISIONS).is_file():
        return {}
    return {
        "decisions": json.loads((run / DECISIONS).read_text(encoding="utf-8")),
        "how to decide": "logit: of the only plane, or by `stacks` for the planes at hand, intercept + sum of weight x "
        "logit; probability: 1 / (1 + exp(-(intercept + slope x logit))) by `recalibration` of the task and planes; "
        "then yes at or above rule_in, no below rule_out, in doubt between",
    }
