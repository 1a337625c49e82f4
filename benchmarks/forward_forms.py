"""The bare forward pass of one exam in every form at hand: `python benchmarks/forward_forms.py [--rounds 7]`.

ResNet-18 on `--planes` series of `--slices` slices at 224 pixels, as prediction sees them. The forms take turns in one
process; medians. OpenVINO takes part where `pip install --no-deps openvino` has brought it. Every form's maps are
compared with PyTorch's in float32.
"""

import argparse
import datetime
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import cast

import numpy as np
import onnxruntime
import torch
import torch._inductor.config
from torch import Tensor, nn

from kneessl.nets.encoder import ClipEncoder, SliceEncoder
from kneessl.nets.fast_maps import fast_maps
from kneessl.process_tuning import keep_freed_memory
from kneessl.training.machine import describe_machine

SIZE = 224
Form = Callable[[Tensor], Tensor]


def encoder() -> SliceEncoder:
    """With statistics and scales of batch norm that folding would not get right by chance."""
    torch.manual_seed(0)
    slices = ClipEncoder("max").slices
    for module in slices.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.running_mean, std=0.1)
    return slices.eval().requires_grad_(False)


def in_bf16(form: Form) -> Form:
    def run(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return form(x).float()

    return run


def onnx_model(slices: SliceEncoder, example: Tensor) -> bytes:
    """As `torch.onnx` writes it; who runs it folds batch norm on its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "maps.onnx"
        torch.onnx.export(slices, (example,), path, dynamo=True, external_data=False, verbose=False)
        return path.read_bytes()


def onnx_runtime_form(model: bytes, threads: int) -> Form:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")  # else its threads disturb the next form
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (slices,) = session.get_inputs()
    return lambda x: torch.from_numpy(session.run(None, {slices.name: x.numpy()})[0])


def openvino_form(model: bytes, threads: int) -> Form:
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(io.BytesIO(model)), "CPU", settings)
    return lambda x: torch.from_numpy(np.array(compiled(x.numpy())[0]))


def forms(threads: int, shape: tuple[int, ...]) -> dict[str, Form]:
    slices, example = encoder(), torch.zeros(shape)
    model = onnx_model(slices, example)
    with torch._inductor.config.patch(freezing=True):
        compiled = torch.compile(deepcopy(slices))
        compiled(example)
    found: dict[str, Form] = {
        "PyTorch, as it is trained": slices,
        "PyTorch, bf16": in_bf16(slices),
        "torch.compile, frozen": compiled,
        "TorchScript, frozen": torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(slices, example))),
        "kneessl predict": cast(Form, fast_maps(slices)),
        "ONNX Runtime": onnx_runtime_form(model, threads),
    }
    try:
        found["OpenVINO"] = openvino_form(model, threads)
    except ImportError:
        print("OpenVINO is not installed")
    return found


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planes", type=int, default=3)
    parser.add_argument("--slices", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    keep_freed_memory()
    x = torch.randn(args.slices, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    ready = forms(torch.get_num_threads(), x.shape)
    right = ready["PyTorch, as it is trained"](x)
    errors = {name: float((form(x) - right).abs().max() / right.abs().max()) for name, form in ready.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(args.rounds):
        for name, form in ready.items():
            start = time.perf_counter()
            for _ in range(args.planes):
                form(x)
            seconds[name].append(time.perf_counter() - start)
    print("| form | s an exam (range) | largest error |\n|---|---|---|")
    for name in sorted(ready, key=lambda name: statistics.median(seconds[name])):
        low, high = min(seconds[name]), max(seconds[name])
        print(f"| {name} | {statistics.median(seconds[name]):.2f} ({low:.2f} to {high:.2f}) | {errors[name]:.0e} |")
    print(f"\n{args.planes} x {args.slices} slices; {describe_machine()} of {os.cpu_count()}, PyTorch "
          f"{torch.__version__}, {args.rounds} rounds, {datetime.date.today()}")  # fmt: skip


if __name__ == "__main__":
    main()
