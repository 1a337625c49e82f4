"""From files to an answer: a model, loaded once, and the knees that it assesses."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from kneessl import __version__
from kneessl.errors import UserError
from kneessl.exams.folder import SIDE, Plane, Weighting
from kneessl.explain.analysis import SeriesAnalysis, analyse_series
from kneessl.model.locked import plane_folders
from kneessl.model.model import Model, load_model
from kneessl.model.predict import predict_task
from kneessl.reader.answer.assessment import NO_DIAGNOSIS, Assessment, Flag, ModelFacts, PlaneResult, TaskAssessment
from kneessl.reader.answer.evidence import Evidence, evidence_of, key_slices
from kneessl.reader.answer.quality import quality_flags
from kneessl.sources.dicom.exams import with_told_planes
from kneessl.sources.dicom.image import read_headers
from kneessl.sources.dicom.series import Knee, Prepared, SeriesFacts, find_knees
from kneessl.sources.exam import DEFAULT_ECHO_MS
from kneessl.sources.notes import Notes
from kneessl.training.runs import read_record

HELD = "held at doubt, since the model has seen nothing like this study in training"
UNMEASURED = (
    "Whether this study resembles what the model learned from is not known: it was fine-tuned without --folds, or by "
    "an older kneessl."
)
NO_POINTS = (
    "the model has no operating points (it was fine-tuned without --folds), and its probability is not calibrated"
)


class NoKneeError(UserError):
    """The files hold no MR of a knee, and none of them is damaged."""


class Assessor:
    """A model of `kneessl finetune` or `kneessl fuse`, ready to answer; one call at a time.

    Raises:
        UserError: as `load_model`.
    """

    def __init__(self, run: Path) -> None:
        self.model = load_model(run)
        self.facts = facts_of(self.model)
        for plane in self.model.planes.values():  # a network's first pass is slow; no study should wait for it
            analyse_series(plane, np.zeros((2, SIDE, SIDE), np.uint8))

    def knees(
        self,
        files: Sequence[Path],
        echo_ms: float = DEFAULT_ECHO_MS,
        weighting: Mapping[Plane, Weighting] | None = None,
        planes: Mapping[str, Plane] | None = None,
    ) -> list[Knee]:
        """The knees in some DICOM files; each records what of its study, and of those without a knee, is not used.

        Args:
            files: The files.
            echo_ms: Echo time that is wanted.
            weighting: What is wanted of some planes.
            planes: SeriesInstanceUID to plane, where a table tells it, as for `kneessl import`.

        Raises:
            NoKneeError: there is none; it says what the files are instead.
            UserError: there is none, but something is damaged or incomplete; or a study is of several patients, so that
                nobody could tell whose an answer is.
        """
        notes = Notes(skip_faulty=True)
        named = [(file, f"file {number} of {len(files)}") for number, file in enumerate(files, start=1)]
        images = with_told_planes(read_headers(named, notes), planes or {}, notes)
        knees = find_knees(images, echo_ms, every_echo=False, notes=notes, weighting=weighting)
        if not knees:
            error = UserError if notes.faults else NoKneeError
            raise error(f"there is no knee MR series that can be used here; left out: {str(notes) or 'nothing'}")
        if len({(knee.study, knee.person) for knee in knees}) > len({knee.study for knee in knees}):
            raise UserError(
                "one StudyInstanceUID has images of several patients (PatientID), so nobody could tell whose an answer "
                "is; part them, and give each study a UID of its own"
            )
        others = notes.of_other_studies({knee.study for knee in knees} | {""})
        return [replace(knee, left_out=(*knee.left_out, *others)) for knee in knees]

    def assess(self, knee: Knee) -> Assessment:
        """Answer every task from whichever of the model's planes the knee has.

        A finding is not assessed where the model has no locked decision for the set of planes that could be read.
        """
        started = time.perf_counter()
        used, facts = readable(knee, self.facts.planes)
        analyses = {plane: analyse_series(self.model.planes[plane], series.volume) for plane, series in used.items()}
        missing = tuple(plane for plane in self.facts.planes if plane not in used)
        strange = list(unfamiliar(self.model, analyses))
        findings, evidence = [], {}
        for task in self.model.tasks:
            finding = assess_task(self.model, task, analyses, missing, held=bool(strange))
            if finding.planes:
                evidence[task] = evidence_of(self.model, task, finding.planes, analyses)
                finding = replace(finding, key_slices=key_slices(evidence[task].maps, used))
            findings.append(finding)
        return Assessment(
            key=knee.key[:16],
            study_uid=next(iter(knee.candidates.values()))[0].images[0].study,
            laterality=knee.laterality,
            laterality_from=knee.laterality_from,
            findings=tuple(findings),
            planes={plane: plane_result(plane, used[plane], facts, analyses[plane], evidence) for plane in used},
            missing=missing,
            series=facts,
            left_out=knee.left_out,
            flags=(*model_flags(self.model), *strange, *study_flags(knee, used, facts)),
            model=self.facts,
            seconds=time.perf_counter() - started,
        )


def facts_of(model: Model) -> ModelFacts:
    """Which model this is, without its path."""
    records = {record["plane"]: record for record in map(read_record, plane_folders(model.folder))}
    return ModelFacts(
        name=model.folder.resolve().name,
        sha256=model.sha256,
        version=__version__,
        tasks=model.tasks,
        planes=tuple(model.planes),
        preprocessing={plane: one.preprocessing.fingerprint() for plane, one in model.planes.items()},
        data_sha256={plane: r["data_sha256"] for plane, r in records.items() if "data_sha256" in r},
        synthetic=model.synthetic,
        locked=model.decisions is not None,
    )


def readable(knee: Knee, planes: Sequence[Plane]) -> tuple[dict[Plane, Prepared], tuple[SeriesFacts, ...]]:
    """Decode the best series of each of some planes whose pixels can be read.

    Returns:
        The series, and the knee's facts with what became of each.
    """
    facts = {one.number: one for one in knee.facts}
    used: dict[Plane, Prepared] = {}
    for plane, candidates in knee.candidates.items():
        if plane not in planes:
            for series in candidates:
                why = f"the model does not look at {plane} series"
                facts[series.number] = replace(facts[series.number], used=False, reason=why)
            continue
        for series in candidates:
            one = facts[series.number]
            try:
                used[plane] = series.prepared()
            except UserError as error:
                facts[series.number] = replace(one, used=False, reason=str(error))
                continue
            why = one.reason if one.used else "a better series of its plane could not be read"
            facts[series.number] = replace(one, used=True, reason=why)
            break
    return used, tuple(facts.values())


def assess_task(
    model: Model, task: str, analyses: Mapping[Plane, SeriesAnalysis], missing: Sequence[Plane], held: bool
) -> TaskAssessment:
    """The answer on one task, without key slices.

    Args:
        model: Of one or several planes.
        task: One of its tasks.
        analyses: By plane, what was computed from each series that could be read.
        missing: The model's other planes.
        held: Answer doubt instead of yes or no.
    """
    absent = f"no {' or '.join(missing)} series could be used"
    if not analyses:
        return not_assessed(task, absent)
    predictions = predict_task(model, task, {plane: analysis.logits[None] for plane, analysis in analyses.items()})
    probability, state = float(predictions.probabilities[0]), predictions.states[0]
    if np.isnan(probability):
        unlocked = f"nothing is locked with the model for {' and '.join(analyses)} alone"
        return not_assessed(task, f"{absent}, and {unlocked}" if missing else unlocked)
    reasons = [f"said without {' and '.join(missing)}: {absent}"] if missing else []
    if model.decisions is None:
        reasons.append(NO_POINTS)
    if held and state in {"yes", "no"}:
        reasons.append(HELD)
        state = "doubt"
    decision = model.decisions and model.decisions.decisions[task][predictions.planes[0]]
    return TaskAssessment(
        task=task,
        state=state,
        probability=probability,
        interval=predictions.intervals[0],
        calibrated=decision is not None,
        planes=tuple(analyses),
        reasons=tuple(reasons),
        key_slices=(),
        points=decision.points if decision else None,
    )


def not_assessed(task: str, reason: str) -> TaskAssessment:
    """A finding that was not assessed, with the reason."""
    return TaskAssessment(task, None, None, None, False, (), (reason,), (), None)


def plane_result(
    plane: Plane,
    series: Prepared,
    facts: Sequence[SeriesFacts],
    analysis: SeriesAnalysis,
    evidence: Mapping[str, Evidence],
) -> PlaneResult:
    """Collect what the answer holds of one plane."""
    return PlaneResult(
        series=series,
        facts=next(one for one in facts if one.used and one.plane == plane),
        maps={task: one.maps[plane] for task, one in evidence.items()},
        exact=all(explanation.exact for explanation in analysis.explanations.values()),
        heat={task: one.heat[plane] for task, one in evidence.items()},
    )


def model_flags(model: Model) -> Iterator[Flag]:
    """Flags on the model itself."""
    if model.synthetic:
        yield Flag("model", None, NO_DIAGNOSIS)
    if any(plane.familiarity is None for plane in model.planes.values()):
        yield Flag("model", None, UNMEASURED)


def unfamiliar(model: Model, analyses: Mapping[Plane, SeriesAnalysis]) -> Iterator[Flag]:
    """A flag for each series that is unlike all training exams of its model."""
    for plane, analysis in analyses.items():
        familiarity = model.planes[plane].familiarity
        if familiarity is None:
            continue
        p_value = familiarity.p_value(analysis.features)
        if familiarity.unfamiliar(p_value):
            yield Flag(
                "unfamiliar",
                plane,
                f"This {plane} series is unlike the exams that the model learned from: it is farther from them than "
                f"{1 - p_value:.1%} of those exams were when they were held out of training.",
            )


def study_flags(knee: Knee, used: Mapping[Plane, Prepared], facts: Sequence[SeriesFacts]) -> Iterator[Flag]:
    """Flags on the study and on the series that were used."""
    for text in knee.flags:
        yield Flag("laterality", None, text)
    for text in knee.remarks:
        yield Flag("data", None, text)
    for one in facts:
        if one.used:
            yield from quality_flags(used[one.plane], one)
