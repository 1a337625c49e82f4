"""The model card: what a model is, what it is for, how it was made, how well it does, and how to load it.

A Markdown page with the front matter that Hugging Face reads (huggingface.co/docs/hub/model-cards).
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from kneessl import __version__
from kneessl.errors import UserError
from kneessl.model.locked import DECISIONS, FAMILIARITY, plane_folders
from kneessl.training.runs import read_config, read_record

MODEL_CARD = "MODEL_CARD.md"
"""Beside the weights, in a model's run folder."""
TEMPLATE = """\
---
{{ front -}}
---

# {{ tasks | join(", ") }} from {{ planes | join(", ") }} MRI of the knee

Given all slices of a {{ planes | join(", a ") }} MRI series of a knee, this model gives the probability of
{{ tasks | join(", ") }}{% if fused %}, each plane's answers fused into one{% endif %}. Made with kneessl {{ version }}.

## Intended use

Research on knee MRI: comparing methods, studying errors, starting further training.

**Not a medical device.** Not for diagnosis, triage or treatment of patients, nor for anything else that touches their
care; not for other joints, for radiographs or CT, for children unless the training data held them, or for planes and
findings not named above.

## How it was made

{% for row in made %}
- {{ row.plane }}: network {{ row.network }}, head {{ row.head }}, {{ row.parameters }}; slices of
  {{ row.size }} pixels, central share {{ row.field }} of the picture and middle share {{ row.depth }} of the slices;
  preprocessing {{ row.fingerprint }}.
  Trained on {{ row.data }}: {{ row.exams }}; from {{ row.start }}, {{ row.epochs }} epochs, seed {{ row.seed }}.
{% if row.synthetic %}
  **Those knees are a synthetic phantom: what this model says of a patient's knee means nothing.**
{% endif %}
{% endfor %}

## Figures

{% if figures %}
| of | exams | AUC | accuracy | sensitivity | specificity |
|---|---|---|---|---|---|
{% for row in figures %}
| {{ row | join(" | ") }} |
{% endfor %}

Values with their intervals, on the exams named by whoever ran `kneessl evaluate`.
{% else %}
None yet: `kneessl evaluate MODEL DATA` measures them on exams that the model has not seen.
{% endif %}

## Limits

- A figure holds for scanners, sequences and patients like those evaluated; measure again before use anywhere else.
- A figure from synthetic knees (`kneessl phantom`) says nothing about patients.
- The networks' own probabilities are not calibrated: 0.8 does not mean eight in ten.
  {{ "Recalibration and operating points are in decisions.json." if locked else "Nothing was recalibrated." }}
- It answers for every input, even where the series shows no knee or is damaged by artefacts.
{% if familiar %}
  familiarity.safetensors tells which exams look like none of the training exams to it; it notices neither every one of
  them nor every artefact.
{% endif %}
- Series have to be prepared as in training: uint8 `(slices, 256, 256)`, turned and windowed as `kneessl import` does.

## Licence

kneessl is under Apache-2.0. The weights were made from the training data, whose terms hold for them; many collections
of MRI allow research only. Whoever passes the weights on has to say which terms these are.

## Loading

{% if exported %}
`series` is a NumPy array, uint8 `(slices, 256, 256)`; `model.json` says the rest.
{%- if fused %} Each plane's folder holds the files named here.{% endif %}


ONNX, in any language with ONNX Runtime:

```python
import onnxruntime
session = onnxruntime.InferenceSession("model.onnx")
logits, probabilities = session.run(None, {"series": series})
```

MONAI bundle, without kneessl (a bundle runs code: run none from a source that you do not trust):

```sh
pip install torch monai fire
python -m monai.bundle run --config_file bundle/configs/inference.json --bundle_root bundle \\
    --dataset_dir FOLDER_OF_NPY --output_file predictions.json
```

safetensors, for further training with kneessl (`about` is what `model.json` holds):

```python
tensors = safetensors.torch.load_file("model.safetensors")
build = kneessl.classifier.classifier.build_classifier
classifier = build(about["network"], about["head"], len(about["tasks"]), tensors)
classifier.load_state_dict(tensors)
```
{% else %}
```sh
kneessl evaluate MODEL DATA
kneessl export MODEL --out FOLDER
```

```python
model = kneessl.model.model.load_model(pathlib.Path("MODEL"))
```
{% endif %}
"""


def model_card(folder: Path, exported: bool = False) -> str:
    """The card of a run folder of `kneessl finetune` or `kneessl fuse`, as Markdown.

    It names folders by their last part alone: a path may hold a person's name.

    Args:
        folder: With `run.json`, and where they are there, `config.yaml` and `result.json`.
        exported: Say how to load what `kneessl export` writes, not the run folder.

    Raises:
        UserError: not such a folder, or damaged.
    """
    record = read_record(folder)
    fused = record.get("kind") == "fuse"
    records = {run: read_record(run) for run in plane_folders(folder)}
    try:
        made = [how_made(one, read_config(run)) for run, one in records.items()]
        tasks = next(list(one["tasks"]) if "tasks" in one else [one["task"]] for one in records.values())
        rows = list(figures(read_json(folder / "result.json")))
    except (KeyError, TypeError, AttributeError, StopIteration) as error:
        raise UserError(f"{folder} is damaged: run.json lacks what a model card says; train or export again") from error
    front = {
        "license": "other",
        "license_name": "terms-of-the-training-data",
        "library_name": "kneessl",
        "pipeline_tag": "image-classification",
        "tags": ["medical", "mri", "knee", "monai", "onnx", "safetensors", *tasks],
    }
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return environment.from_string(TEMPLATE).render(
        front=yaml.safe_dump(front, sort_keys=False),
        tasks=tasks,
        planes=[row["plane"] for row in made],
        fused=fused,
        version=record.get("versions", {}).get("kneessl", __version__),
        made=made,
        figures=rows,
        exported=exported,
        locked=(folder / DECISIONS).is_file(),
        familiar=all((run / FAMILIARITY).is_file() for run in records),
    )


def how_made(record: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """What the card says about one plane's training; what an older run did not record is left open in words."""
    positives = record.get("positives")
    exams = f"{record.get('exams', 'an unrecorded number of')} exams"
    if isinstance(positives, list):
        exams += " (" + ", ".join(f"{n} with {t}" for t, n in zip(record["tasks"], positives, strict=False)) + ")"
    parameters = record.get("parameters")
    return {
        "plane": record["plane"],
        "network": record.get("network", "resnet18"),
        "head": record.get("head") or "of that network",
        "parameters": f"{parameters:,} parameters" if parameters else "parameters not counted",
        **{name: record["preprocessing"][name] for name in ("size", "field", "depth")},
        "fingerprint": record["fingerprint"],
        "data": f"`{Path(config['data']).name}`" if config.get("data") else "data not recorded",
        "exams": exams,
        "start": f"`{Path(record['start']).name}`" if record.get("start") else "a start not recorded",
        "epochs": record.get("epochs", "an unrecorded number of"),
        "seed": record.get("seed", "not recorded"),
        "synthetic": record.get("synthetic"),
    }


def figures(result: Any, name: tuple[str, ...] = ()) -> Iterator[list[str]]:
    """The lines of the card's table: every part of `result.json` that has an AUC, wherever it stands."""
    if not isinstance(result, Mapping):
        return
    if "auc" not in result:
        for key, value in result.items():
            yield from figures(value, (*name, key))
        return
    accuracy = result.get("accuracy")
    exams = str(accuracy["n"]) if isinstance(accuracy, Mapping) and "n" in accuracy else "-"
    values = [interval(result.get(key)) for key in ("auc", "accuracy", "sensitivity", "specificity")]
    yield [", ".join(name) or "all", exams, *values]


def interval(figure: Any) -> str:
    """`0.871 (0.800 to 0.921)`, or a bare value, or a dash."""
    if isinstance(figure, int | float):
        return f"{figure:.3f}"
    if not isinstance(figure, Mapping):
        return "-"
    value = interval(figure.get("value", figure.get("auc")))
    ends = [figure.get("low"), figure.get("high")]
    return value + (f" ({ends[0]:.3f} to {ends[1]:.3f})" if all(isinstance(end, int | float) for end in ends) else "")


def read_json(path: Path) -> Any:
    """What a JSON file holds; nothing where it is not there.

    Raises:
        UserError: it is not JSON.
    """
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not readable JSON; run `kneessl evaluate` again, or remove it") from error
