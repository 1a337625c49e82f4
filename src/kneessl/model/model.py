"""A fine-tuned model as it comes back from its run folder: one classifier a plane, ready to predict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from kneessl.classifier.classifier import Classifier, build_classifier
from kneessl.errors import UserError
from kneessl.evaluation.familiarity import Familiarity
from kneessl.exams.folder import PLANES, Plane
from kneessl.model.locked import WEIGHTS, Decisions, digest_of, files_sha256, read_decisions, read_familiarity
from kneessl.nets.encoder import each_slice
from kneessl.nets.fast_maps import Maps, fast_maps
from kneessl.nets.fine_maps import fine_encoder, finer_by
from kneessl.training.runs import read_record
from kneessl.views.preprocess import Preprocessing


@dataclass(frozen=True)
class PlaneModel:
    """A classifier of one plane's series with its preprocessing; its logits are in the order of `tasks`."""

    classifier: Classifier
    tasks: tuple[str, ...]
    plane: Plane
    preprocessing: Preprocessing
    tta: bool = False
    """Whether a prediction is the average over small shifts (`kneessl.model.predict.SHIFTS`)."""
    familiarity: Familiarity | None = None
    """The distribution of its training exams' features; None where it was trained without folds."""
    synthetic: bool | None = None
    """Whether it was trained on a phantom; None where an older run does not record it."""

    def maps(self, clips: Tensor) -> Tensor:
        """float `(B, S, H, W)` -> feature maps `(B, S, C, h, w)`, by the fastest way that this machine has."""
        fast = self._fast_maps
        return self.classifier.maps(clips) if fast is None else fast(each_slice(clips)).unflatten(0, clips.shape[:2])

    def fine_maps(self, clips: Tensor, maps: Tensor) -> Tensor:
        """What `maps` gave for clips, with the places between its cells: `(B, S, C, k h, k w)`; k may be 1."""
        fine = self._fine_encoder
        return maps if fine is None else fine(each_slice(clips)).unflatten(0, clips.shape[:2])

    @cached_property
    def finer(self) -> int:
        """k of `fine_maps`: cells along a side for each of the encoder's own."""
        return finer_by(self.classifier.encoder, self.preprocessing.size)

    @cached_property
    def _fine_encoder(self) -> nn.Module | None:
        return fine_encoder(self.classifier.encoder, self.finer)

    @cached_property
    def _fast_maps(self) -> Maps | None:
        return fast_maps(self.classifier.encoder)


@dataclass(frozen=True)
class Model:
    """What a run folder of `kneessl finetune` or `kneessl fuse` holds."""

    folder: Path
    planes: Mapping[Plane, PlaneModel]
    tasks: tuple[str, ...]
    decisions: Decisions | None
    """Recalibration, fusion and operating points; None where a model of one plane has none."""
    sha256: str
    """Hash of `decisions.json`, which holds hashes of the model's files; without it, a hash over those hashes."""

    @property
    def synthetic(self) -> bool | None:
        """Whether any of its planes was trained on a phantom; None where an older run does not record it."""
        answers = {plane.synthetic for plane in self.planes.values()}
        return True if True in answers else None if None in answers else False


def load_model(run: Path) -> Model:
    """Load a run folder that `kneessl finetune` or `kneessl fuse` has written, on the GPU where there is one.

    Raises:
        UserError: not such a folder, damaged, or preprocessed otherwise than this version does.
    """
    record = read_record(run)
    if record.get("kind") != "fuse":
        plane = load_plane(run)
        decisions = read_decisions(run)
        _require_fit(run, plane.tasks, [plane.plane], decisions)
        sha256 = decisions.sha256 if decisions else digest_of(files_sha256(run))
        return Model(run, {plane.plane: plane}, plane.tasks, decisions, sha256)
    planes = {plane: load_plane(run / plane) for plane in PLANES if (run / plane).is_dir()}
    decisions = read_decisions(run)
    if not planes or len({model.tasks for model in planes.values()}) > 1 or decisions is None:
        raise UserError(f"{run} is damaged: it lacks planes or decisions.json, or its planes answer different tasks")
    tasks = next(iter(planes.values())).tasks
    _require_fit(run, tasks, list(planes), decisions)
    return Model(run, planes, tasks, decisions, decisions.sha256)


def _require_fit(run: Path, tasks: Sequence[str], planes: Sequence[Plane], decisions: Decisions | None) -> None:
    """Refuse a model whose tasks or planes are not those that its decisions were locked for."""
    locked = decisions.decisions if decisions else {}
    locked_planes = {plane for sets in locked.values() for key in sets for plane in key.split("+")}
    if locked and (list(locked) != list(tasks) or not locked_planes <= set(planes)):
        raise UserError(f"{run} is damaged: its tasks or planes are not those of decisions.json; fine-tune again")


def load_plane(run: Path) -> PlaneModel:
    """Load one plane's classifier; see `load_model`."""
    record = read_record(run)
    if record.get("kind") != "finetune":
        raise UserError(f"{run} is not a fine-tuned model; run `kneessl finetune DATA --from {run} --out MODEL` first")
    path = run / WEIGHTS
    try:
        preprocessing = Preprocessing(**record["preprocessing"])
        if preprocessing.fingerprint() != record["fingerprint"]:
            raise UserError(
                f"{run} was trained under preprocessing {record['fingerprint']}, and this version of kneessl does "
                f"{preprocessing.fingerprint()}; predict with the version that trained it, or fine-tune again"
            )
        tensors = load_file(path)
        # Runs of version 0.1 name neither network nor head, and have one task.
        tasks = tuple(record["tasks"] if "tasks" in record else [record["task"]])
        classifier = build_classifier(record.get("network", "resnet18"), record.get("head"), len(tasks), tensors)
        classifier.load_state_dict(tensors)
        classifier.to("cuda" if torch.cuda.is_available() else "cpu")
        return PlaneModel(
            classifier.eval(), tasks, record["plane"], preprocessing, bool(record.get("tta")), read_familiarity(run),
            record.get("synthetic"),
        )  # fmt: skip
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; the run has not finished: resume it with `kneessl finetune`") from error
    except (SafetensorError, RuntimeError, KeyError, TypeError) as error:
        raise UserError(f"{run} is damaged: run.json and model.safetensors do not fit together") from error
