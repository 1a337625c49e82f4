"""`report.html` of one answer, from its assessment."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from kneessl.evaluate.mistakes import heat_text
from kneessl.exams.folder import PLANES, Plane
from kneessl.reader.answer.assessment import NO_DIAGNOSIS, Assessment, KeySlice, ModelFacts, PlaneResult, TaskAssessment
from kneessl.reader.answer.pictures import heated_slice
from kneessl.report.answer_page import write_answer_page
from kneessl.report.content import Answer, KeyPicture, Sheet
from kneessl.report.page import PageHead
from kneessl.report.wording import duration_text
from kneessl.sources.dicom.laterality import SIDES
from kneessl.sources.volume import edges_of

FLAGS = {
    "quality": "Quality",
    "unfamiliar": "Unlike the training data",
    "laterality": "Side",
    "data": "Data",
    "model": "Model",
}
NOT_RECORDED = "not recorded"
UNRECORDED = "it is not recorded whether the model was trained on patients or on a phantom"
TRAINED_ON = {True: "synthetic knees (a phantom)", False: "an exam folder that is no phantom", None: NOT_RECORDED}


def write_report(path: Path, assessment: Assessment) -> None:
    """Write the page of one answer, whole or not at all; the same assessment gives the same bytes."""
    model = assessment.model
    write_answer_page(
        path,
        PageHead(_title(assessment.laterality), facts=_facts(assessment)),
        alarm=NO_DIAGNOSIS if model.synthetic else "",
        flags=_flags(assessment),
        answers=[_answer(finding, assessment.planes) for finding in assessment.findings],
        sheets=[
            Sheet(plane, plane_result.series.volume, _key_tasks(assessment.findings, plane))
            for plane, plane_result in assessment.planes.items()
        ],
        series=assessment.series,
        missing=assessment.missing,
        left_out=assessment.left_out,
        edges={plane: edges_of(plane) for plane in PLANES},
        model=[*_model_rows(model), ("Time for this answer", duration_text(assessment.seconds))],
    )


def _title(laterality: str) -> str:
    knee = f"{SIDES[laterality].capitalize()} knee" if laterality else "Knee, side not known"
    return f"{knee}: what the model says"


def _flags(assessment: Assessment) -> list[tuple[str, str]]:
    """Heading and text of each flag but the alarm."""
    unrecorded = [(FLAGS["model"], UNRECORDED)] if assessment.model.synthetic is None else []
    return unrecorded + [
        (f"{FLAGS[flag.kind]}, {flag.plane}" if flag.plane else FLAGS[flag.kind], flag.text)
        for flag in assessment.flags
        if flag.text != NO_DIAGNOSIS
    ]


def _facts(assessment: Assessment) -> list[tuple[str, str]]:
    side, origin = SIDES.get(assessment.laterality), assessment.laterality_from
    read = ", ".join(assessment.planes) or "nothing"
    missing = f"; {', '.join(assessment.missing)} missing" if assessment.missing else ""
    return [
        ("Knee", f"{side}, from {origin}" if side else f"side not known{f' ({origin})' if origin else ''}"),
        ("Study", assessment.key),
        ("Model", assessment.model.name),
        ("Planes read", read + missing),
    ]


def _answer(finding: TaskAssessment, planes: Mapping[Plane, PlaneResult]) -> Answer:
    return Answer(
        task=finding.task,
        state=finding.state,
        probability=finding.probability,
        interval=finding.interval,
        calibrated=finding.calibrated,
        planes=finding.planes,
        reasons=finding.reasons,
        points=finding.points,
        key_slices=[_key_picture(key, finding.task, planes[key.plane]) for key in finding.key_slices],
        heat=_heat_text({plane: planes[plane].exact for plane in finding.planes}),
    )


def _key_picture(key: KeySlice, task: str, plane_result: PlaneResult) -> KeyPicture:
    number = key.image.instance_number
    instance = "" if number is None else f" (instance {number})"
    caption = f"{key.plane}, slice {key.index + 1} of {key.of}{instance}, {100 * key.share:.0f} % of what speaks for it"
    return KeyPicture(
        key.plane, caption, plane_result.series.volume[key.index], heated_slice(plane_result, task, key.index)
    )


def _heat_text(exact: Mapping[Plane, bool]) -> str:
    """What the colours mean; by plane where they mean different things."""
    kinds = set(exact.values())
    if len(kinds) <= 1:
        return "".join(map(heat_text, kinds))
    return " ".join(
        f"In {' and '.join(plane for plane in exact if exact[plane] is kind)} slices: {heat_text(kind)}"
        for kind in (True, False)
    )


def _key_tasks(findings: Sequence[TaskAssessment], plane: Plane) -> Mapping[int, list[str]]:
    tasks: dict[int, list[str]] = defaultdict(list)
    for finding in findings:
        for key in finding.key_slices:
            if key.plane == plane:
                tasks[key.index].append(finding.task)
    return tasks


def _model_rows(model: ModelFacts) -> list[tuple[str, str]]:
    def of(planes: Mapping[Plane, str]) -> list[tuple[Plane, str]]:
        return [(plane, planes.get(plane) or NOT_RECORDED) for plane in model.planes]

    return [
        ("Name", model.name),
        ("SHA-256", model.sha256),
        ("kneessl", model.version),
        ("Findings", ", ".join(model.tasks)),
        ("Planes", ", ".join(model.planes)),
        ("Trained on", TRAINED_ON[model.synthetic]),
        ("Operating points", "locked beforehand" if model.locked else "none"),
        *((f"Preprocessing, {plane}", fingerprint) for plane, fingerprint in of(model.preprocessing)),
        *((f"Training data, {plane}, SHA-256", digest) for plane, digest in of(model.data_sha256)),
    ]
