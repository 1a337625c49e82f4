"""`kneessl fuse`: models of several planes as one, which answers from whichever of them an exam has."""

import json
import shutil
from pathlib import Path

from kneessl.errors import UserError
from kneessl.files import new_folder, write_text
from kneessl.model.card import MODEL_CARD, model_card
from kneessl.model.crossfit import OutOfFold
from kneessl.model.locked import DECISIONS, FAMILIARITY, OUT_OF_FOLD, WEIGHTS, lock_fused
from kneessl.model.model import load_plane
from kneessl.training.runs import read_record

COPIED = (WEIGHTS, FAMILIARITY, "run.json", "config.yaml", "metrics.csv", OUT_OF_FOLD, DECISIONS)


def fuse(models: list[Path], out: Path) -> None:
    """Fuse models of different planes by logistic stacking on their out-of-fold predictions.

    Each must have been fine-tuned with --folds, on the same tasks. Every set of planes has a fusion of its own, with
    recalibration and operating points of its own, so that an exam that lacks a plane is answered from the others.

    Args:
        models: Run folders of `kneessl finetune`, one a plane.
        out: Folder to write; it holds copies of the models, and needs nothing else.

    Raises:
        UserError: two models of one plane, or of different tasks, or one without out-of-fold predictions.
    """
    loaded = [load_plane(path) for path in models]
    planes = [model.plane for model in loaded]
    if len(models) < 2 or len(set(planes)) < len(planes):
        raise UserError(f"the models are of planes {', '.join(planes)}; name two or three models of different planes")
    if len({model.tasks for model in loaded}) > 1:
        raise UserError("the models answer different tasks; fuse models that were fine-tuned with the same --task")
    predictions: dict[str, OutOfFold] = {
        plane: OutOfFold.read(path / OUT_OF_FOLD) for plane, path in zip(planes, models, strict=True)
    }
    with new_folder(out) as folder:
        for plane, path in zip(planes, models, strict=True):
            (folder / plane).mkdir()
            for name in COPIED:
                if (path / name).is_file():
                    shutil.copyfile(path / name, folder / plane / name)
        lock_fused(folder, predictions)
        records = {plane: read_record(path) for plane, path in zip(planes, models, strict=True)}
        write_text(folder / "run.json", json.dumps(
            {"kind": "fuse", "tasks": list(loaded[0].tasks), "planes": planes,
             "from": {plane: str(path) for plane, path in zip(planes, models, strict=True)},
             "versions": records[planes[0]]["versions"]}, indent=2) + "\n")  # fmt: skip
    write_text(out / MODEL_CARD, model_card(out))
    print(f"model: {out}, from {', '.join(planes)}")
