"""`kneessl predict`: studies as they come from a scanner, and a model's answer on each knee in them."""

import csv
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from tqdm import tqdm

from kneessl.errors import UserError, fault_text
from kneessl.exams.folder import Plane, Weighting
from kneessl.files import occupied, replacing, sweep
from kneessl.progress import progress
from kneessl.reader.answer.assess import Assessor
from kneessl.reader.answer_folder import REPORT, RESULT, result_record, write_answer
from kneessl.reader.intake.intake import files_of
from kneessl.reader.submission import require_submission, write_submission
from kneessl.sources.archive.series_table import told_planes
from kneessl.sources.dicom.laterality import SIDES
from kneessl.sources.dicom.series import Knee
from kneessl.sources.exam import DEFAULT_ECHO_MS

STUDIES = "studies.csv"
FAULT = "the study could not be assessed, because of a fault in kneessl ({})"


@dataclass(frozen=True)
class KneeRow:
    """One knee, or one study without any, in `studies.csv`."""

    number: int
    """Number of the study, in the order of names; the names themselves may be a patient's."""
    study: str = ""
    side: str = ""
    answers: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    uid: str = ""
    """StudyInstanceUID; for a submission alone."""
    probabilities: Mapping[str, float | None] = field(default_factory=dict)


def predict(
    model: Path,
    study: str,
    out: Path,
    each: bool = False,
    echo: float = DEFAULT_ECHO_MS,
    weighting: dict[Plane, Weighting] | None = None,
    dicom: bool = False,
    submission: Path | None = None,
) -> None:
    """Answer a knee study from a scanner: probabilities, key slices, heat maps and a page, or why there is no answer.

    Ends with status 0 where every finding was assessed, 1 where one was not or a study could not be used.

    Args:
        model: Run folder of `kneessl finetune` or `kneessl fuse`.
        study: Folder, zip or file of DICOM, or a DICOMweb address such as http://127.0.0.1:8042/dicom-web/studies/1.2.3.
        out: Folder to write: result.json, report.html, slices, heat; of several knees a folder each, and studies.csv.
        each: STUDY is a folder of studies, a zip or a folder each; a bad one is listed, and the others go on.
        echo: Echo time in ms that is wanted of a series with several, as the model's training exams were imported.
        weighting: What is wanted of a plane with several series, such as {coronal: T1}; by default fluid-sensitive.
        dicom: Also write the answer as DICOM, a structured report and a picture, without any identity.
        submission: With --each, a file to write as the RSNA 2026 challenge takes it: StudyInstanceUID and the
            probability of each finding.
    """
    if submission:
        if not each:
            raise UserError("--submission is of many studies; give --each, and the folder that holds them")
        require_submission(submission)
    if occupied(out) and not (out / STUDIES).is_file():
        raise UserError(f"{out} exists and is no earlier batch of answers; name a new folder with --out")
    sweep(out)
    if dicom:
        import_module("kneessl.reader.dicom.structured")  # says now, not after the work, that it is not installed
    sources = studies_in(Path(study)) if each else [study]
    planes = told_planes(Path(study)) if each else {}
    assessor = Assessor(model)
    rows: list[KneeRow] = []
    owners: dict[str, int] = {}
    try:
        for number, source in enumerate(progress(sources, title="studies", unit="study", hidden=not each), 1):
            try:
                with files_of(source) as files:
                    knees = assessor.knees(files, echo, weighting, planes)
                    alone = not each and len(knees) == 1
                    if not alone and not (out / STUDIES).is_file():  # a batch that is killed is known as one by it
                        write_rows(out / STUDIES, assessor.facts.tasks, rows)
                    for knee in knees:
                        folder = out if alone else out / folder_name(knee.key[:16], number, owners)
                        row = answer_knee(assessor, knee, number, folder, dicom)
                        rows.append(row if alone else replace(row, study=folder.name))
            except UserError as error:
                if not each:
                    raise
                rows.append(KneeRow(number, problem=str(error), uid=uid_in(source)))
            except Exception as error:  # one study never ends a batch; the error's text may quote a patient's data
                if not each:
                    raise
                rows.append(KneeRow(number, problem=FAULT.format(fault_text(error)), uid=uid_in(source)))
    finally:
        if each or len(rows) > 1:
            write_rows(out / STUDIES, assessor.facts.tasks, rows)
    if each or len(rows) > 1:
        print(f"{out / STUDIES}: knees {sum(not row.problem for row in rows)}, "
              f"without an answer {sum(bool(row.problem) for row in rows)}")  # fmt: skip
    if submission:
        submit(submission, assessor.facts.tasks, rows)
    if any(row.problem or "not assessed" in row.answers.values() for row in rows):
        sys.exit(1)


def studies_in(folder: Path) -> list[str]:
    """The zips and folders in a folder, by name.

    Raises:
        UserError: it is no folder, or holds none.
    """
    paths = sorted(p for p in folder.iterdir() if p.is_dir() or p.suffix.lower() == ".zip") if folder.is_dir() else []
    studies = [str(path) for path in paths if not path.name.startswith(".")]
    if not studies:
        raise UserError(f"{folder} holds no studies; with --each, name a folder with a folder or zip for each study")
    return studies


def folder_name(key: str, number: int, owners: dict[str, int]) -> str:
    """Where a knee's answer goes: its key; with the study's number where an earlier study has the same UID.

    Args:
        key: Of the knee, a hash over its study's UID and its side.
        number: Of the study in the batch.
        owners: Which study has which key; a new key is added.
    """
    return key if owners.setdefault(key, number) == number else f"{key}-{number}"


def answer_knee(assessor: Assessor, knee: Knee, number: int, out: Path, dicom: bool) -> KneeRow:
    """Answer one knee, unless this very model has answered it into `out` before."""
    result = earlier_result(out / RESULT)
    if result.get("model", {}).get("sha256") != assessor.facts.sha256:
        assessment = assessor.assess(knee)
        write_answer(out, assessment, dicom)
        result = result_record(assessment)
        print_answer(result, out)
    answers = {finding["task"]: finding["answer"] for finding in result["findings"]}
    probabilities = {finding["task"]: finding["probability"] for finding in result["findings"]}
    side = result["laterality"]["side"]
    return KneeRow(number, result["study"], side, answers, uid=knee.study, probabilities=probabilities)


def uid_in(source: str) -> str:
    """The StudyInstanceUID that a study's folder is named by, as in the RSNA challenge; empty where it is not."""
    return Path(source).name if re.fullmatch(r"[0-9]+(\.[0-9]+)+", Path(source).name) else ""


def submit(path: Path, tasks: Sequence[str], rows: Sequence[KneeRow]) -> None:
    """Write a submission, and say which studies it has no probability for."""
    studies, blank = write_submission(path, tasks, ((row.uid, row.probabilities) for row in rows if row.uid))
    print(f"{path}: studies {studies}, with a blank cell {blank}")
    unnamed = sum(not row.uid for row in rows)
    if blank or unnamed:
        print(
            f"note: {blank} studies have a blank cell and {unnamed} no line, since they could not be assessed; the "
            f"challenge takes neither, and {STUDIES} says why",
            file=sys.stderr,
        )


def earlier_result(result: Path) -> dict[str, Any]:
    """The content of a `result.json`; empty where there is none yet."""
    return json.loads(result.read_text(encoding="utf-8")) if result.is_file() else {}


def print_answer(result: Mapping[str, Any], out: Path) -> None:
    """Print one answer in a few lines."""
    side = SIDES.get(result["laterality"]["side"], "side unknown")
    lines = [f"knee {result['study']} ({side})"]
    for finding in result["findings"]:
        words = finding["answer"]
        if finding["probability"] is not None:
            words += f", probability {finding['probability']:.2f}"
            if finding["interval"]:
                words += " (95 % {:.2f} to {:.2f})".format(*finding["interval"])
            words += f", from {' and '.join(finding['planes'])}"
        lines += [f"  {finding['task']:<12} {words}", *(f"  {'':<12} {reason}" for reason in finding["reasons"])]
    lines += [f"  note: {flag['text']}" for flag in result["flags"]]
    tqdm.write("\n".join([*lines, f"  {out / REPORT}"]))


def write_rows(path: Path, tasks: Sequence[str], rows: Sequence[KneeRow]) -> None:
    """Write `studies.csv`."""
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["number", "study", "side", *tasks, "problem"])
        for row in rows:
            answers = [row.answers.get(task, "") for task in tasks]
            writer.writerow([row.number, row.study, row.side, *answers, row.problem])
