"""An answer as files: `result.json`, the slices and the heat as arrays, key slices as pictures, and a page."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from kneessl.exams.folder import Plane
from kneessl.files import new_folder, write_text
from kneessl.reader.answer.assessment import NOTICE, Assessment, KeySlice, TaskAssessment
from kneessl.reader.answer.page import write_report
from kneessl.reader.answer.pictures import key_slice_png
from kneessl.sources.dicom.image import quietly

SCHEMA = "kneessl answer 1"
RESULT = "result.json"
REPORT = "report.html"
STRUCTURED = "sr.dcm"
CAPTURE = "capture.dcm"


def write_answer(folder: Path, assessment: Assessment, dicom: bool = False) -> None:
    """Write the folder of one answer, whole or not at all.

    Args:
        folder: A new one.
        assessment: What to write.
        dicom: Also as DICOM, `sr.dcm` and `capture.dcm`, without any identity.

    Raises:
        UserError: `folder` exists and is not empty.
    """
    with new_folder(folder) as partial:
        for name in ("slices", "heat", "key-slices"):
            (partial / name).mkdir()
        for plane, plane_result in assessment.planes.items():
            np.save(partial / "slices" / f"{plane}.npy", plane_result.series.volume, allow_pickle=False)
            for task, heat in plane_result.heat.items():
                np.save(partial / heat_file(assessment, plane, task), heat, allow_pickle=False)
        for finding in assessment.findings:
            for key in finding.key_slices:
                picture = key_slice_png(assessment.planes[key.plane], finding.task, key.index)
                (partial / picture_file(assessment, finding.task, key)).write_bytes(picture)
        if dicom:
            write_objects(partial, assessment)
        write_report(partial / REPORT, assessment)
        write_text(partial / RESULT, json.dumps(result_record(assessment), indent=2, ensure_ascii=False) + "\n")


def write_objects(folder: Path, assessment: Assessment) -> None:
    """Write the answer as DICOM, a structured report and a picture, without any identity."""
    from kneessl.reader.dicom.structured import result_objects  # highdicom takes a second to import, and is an extra

    for name, dataset in zip((STRUCTURED, CAPTURE), result_objects(assessment, None), strict=True):
        with quietly():
            dataset.save_as(folder / name, enforce_file_format=True)


def heat_file(assessment: Assessment, plane: Plane, task: str) -> str:
    """Path of a task's heat in the folder; by number, since a task's name may not be a valid file name."""
    return f"heat/{plane}-{assessment.model.tasks.index(task) + 1}.npy"


def picture_file(assessment: Assessment, task: str, key: KeySlice) -> str:
    """Path of a key slice's picture in the folder."""
    return f"key-slices/{assessment.model.tasks.index(task) + 1}-{key.plane}-{key.index + 1}.png"


def result_record(assessment: Assessment) -> dict[str, Any]:
    """The content of `result.json`, without identity and without UIDs."""
    return {
        "schema": SCHEMA,
        "study": assessment.key,
        "notice": NOTICE,
        "laterality": {"side": assessment.laterality, "from": assessment.laterality_from},
        "findings": [finding_record(assessment, finding) for finding in assessment.findings],
        "planes": {
            plane: {
                "slices": len(plane_result.series.volume),
                "pixel_mm": round(plane_result.series.pixel_mm, 4),
                "slice_mm": round(plane_result.series.slice_mm, 4),
                "series": plane_result.facts.number,
                "source_sha256": plane_result.series.source_sha256,
                "heat": {task: heat_file(assessment, plane, task) for task in plane_result.heat},
                "heat_exact": plane_result.exact,
            }
            for plane, plane_result in assessment.planes.items()
        },
        "missing_planes": list(assessment.missing),
        "series": [asdict(facts) for facts in assessment.series],
        "left_out": list(assessment.left_out),
        "flags": [asdict(flag) for flag in assessment.flags],
        "model": {
            "name": assessment.model.name,
            "sha256": assessment.model.sha256,
            "version": assessment.model.version,
            "tasks": list(assessment.model.tasks),
            "planes": list(assessment.model.planes),
            "preprocessing": dict(assessment.model.preprocessing),
            "training_data_sha256": dict(assessment.model.data_sha256),
            "synthetic": assessment.model.synthetic,
            "locked": assessment.model.locked,
        },
        "seconds": round(assessment.seconds, 3),
    }


def finding_record(assessment: Assessment, finding: TaskAssessment) -> dict[str, Any]:
    """The entry of one finding in `result.json`."""
    points = finding.points
    return {
        "task": finding.task,
        "answer": finding.answer,
        "probability": finding.probability,
        "interval": None if finding.interval is None else list(finding.interval),
        "calibrated": finding.calibrated,
        "planes": list(finding.planes),
        "reasons": list(finding.reasons),
        "operating_points": None
        if points is None
        else {
            "rule_out": points.rule_out,
            "rule_in": points.rule_in,
            "target_sensitivity": points.target_sensitivity,
            "target_specificity": points.target_specificity,
        },
        "key_slices": [
            {
                "plane": key.plane,
                "slice": key.index + 1,
                "of": key.of,
                "share": round(key.share, 4),
                "instance_number": key.image.instance_number,
                "picture": picture_file(assessment, finding.task, key),
            }
            for key in finding.key_slices
        ],
    }
