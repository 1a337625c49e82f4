"""A MONAI bundle of one plane's model, which runs without kneessl: `python -m monai.bundle run`.

Its network is a program that `torch.export` wrote: TorchScript, which bundles used to hold, is deprecated in PyTorch
2.13, and its tracer would fix the number of slices of some heads without a word. `models/model.pt`, which the
specification asks for, has the same weights by name, readable with `weights_only`.
"""

import json
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from kneessl.exams.folder import SIDE
from kneessl.files import write_text
from kneessl.model.model import PlaneModel

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"


def write_bundle(program: ExportedProgram, model: PlaneModel, card: str, out: Path) -> None:
    """Write the bundle.

    Args:
        program: float32 image from 0 to 255, `(1, 1, slices, 256, 256)` -> logits `(1, tasks)`.
        model: What it was made from.
        card: The model card, its documentation.
        out: The folder to make.
    """
    (out / "models").mkdir(parents=True)
    torch.export.save(program, out / "models" / "model.pt2")
    torch.save(program.state_dict, out / "models" / "model.pt")
    for name, content in (("metadata", metadata(model)), ("inference", inference(model))):
        write_text(out / "configs" / f"{name}.json", json.dumps(content, indent=2) + "\n")
    write_text(out / "docs" / "README.md", card)
    write_text(out / "LICENSE", distribution("kneessl").read_text("licenses/LICENSE") or "Apache-2.0\n")


def metadata(model: PlaneModel) -> dict[str, Any]:
    """`configs/metadata.json`, by MONAI's schema of July 2024."""
    tasks = ", ".join(model.tasks)
    kneessl = version("kneessl")
    return {
        "schema": SCHEMA,
        "version": kneessl,
        "changelog": {kneessl: "exported by kneessl"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"fire": "0.7.1"},
        "name": f"kneessl {model.plane} {tasks}",
        "task": f"Classification of {model.plane} knee MRI series: {tasks}",
        "description": f"Logits of {tasks} from all slices of one {model.plane} MRI series of a knee.",
        "authors": "whoever trained this model with kneessl",
        "copyright": "code Apache-2.0; the terms of the training data hold for the weights",
        "data_type": "numpy",
        "image_classes": "one channel, grey values 0 to 255 of the series' 0.5th to 99.5th percentile",
        "pred_classes": f"one channel a finding, in this order: {tasks}",
        "intended_use": "Research only. Not a medical device: not for diagnosis or treatment of patients.",
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude",
                    "modality": "MR",
                    "num_channels": 1,
                    "spatial_shape": ["*", SIDE, SIDE],
                    "dtype": "float32",
                    "value_range": [0, 255],
                    "is_patch_data": False,
                    "channel_def": {"0": "grey value"},
                }
            },
            "outputs": {
                "pred": {
                    "type": "vector",
                    "format": "logits",
                    "num_channels": len(model.tasks),
                    "spatial_shape": [],
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": False,
                    "channel_def": {str(i): task for i, task in enumerate(model.tasks)},
                }
            },
        },
    }


def inference(model: PlaneModel) -> dict[str, Any]:
    """`configs/inference.json`: every `.npy` of `dataset_dir` -> one probability a task, in `output_file`."""
    return {
        "imports": [
            "$import json",
            "$import numpy",
            "$import pathlib",
            "$import torch",
            "$from torch.export.passes import move_to_device_pass",
        ],
        "bundle_root": ".",
        "device": "cpu",
        "dataset_dir": "$@bundle_root + '/series'",
        "output_file": "$@bundle_root + '/eval/predictions.json'",
        "tasks": list(model.tasks),
        "program": "$move_to_device_pass(torch.export.load(@bundle_root + '/models/model.pt2'), @device)",
        "network_def": "$torch.export.unflatten(@program).eval()",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {
                    "_target_": "LoadImaged",
                    "keys": "image",
                    "reader": "NumpyReader",
                    "channel_dim": "no_channel",
                    "ensure_channel_first": True,
                    "dtype": "$numpy.float32",
                },
                {"_target_": "EnsureTyped", "keys": "image", "track_meta": False},
            ],
        },
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': str(p), 'exam': p.stem} for p in sorted(pathlib.Path(@dataset_dir).glob('*.npy'))]",
            "transform": "@preprocessing",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {"_target_": "Activations", "sigmoid": True},
        "probabilities": "$((b['exam'][0], @postprocessing(@inferer(b['image'].to(@device), @network_def))[0].tolist())"
        " for b in @dataloader)",
        "predictions": "$[{'exam': exam, **dict(zip(@tasks, found))} for exam, found in @probabilities]",
        "run": [
            "$pathlib.Path(@output_file).parent.mkdir(parents=True, exist_ok=True)",
            "$pathlib.Path(@output_file).write_text(json.dumps(@predictions, indent=2) + '\\n', encoding='utf-8')",
        ],
    }
