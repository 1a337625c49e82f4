"""An answer as a DICOM structured report: a measurement report (TID 1500), one measurement group (TID 1501) a finding.

It is a Comprehensive SR: nothing in it has coordinates, and every viewer that reads structured reports reads these. No
person has verified it and a device observed it, and so it says, in `VerificationFlag` and TID 1002. What is for
research only stands in a comment before the findings and in the name of every answer, since viewers show groups alone.

Importing this raises UserError where highdicom, of the extra `reader`, is not installed.
"""

import re

from pydicom import Dataset
from pydicom.config import IGNORE
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import (
    UID,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from kneessl.errors import UserError

try:  # before the capture, which needs it too
    from highdicom import sr
    from highdicom.coding_schemes import CodingSchemeIdentificationItem
except ModuleNotFoundError:
    raise UserError('highdicom missing for DICOM results; run `pip install "kneessl[reader]"` first') from None

from kneessl.reader.answer.assessment import Assessment, TaskAssessment
from kneessl.reader.dicom.capture import summary_capture
from kneessl.reader.dicom.returned import (
    SIDES,
    ascii_text,
    copy_identity,
    maker_attributes,
    notices,
    result_uids,
    study_uid_of,
    uid_of,
)
from kneessl.report.wording import percent_text
from kneessl.sources.dicom.image import Image, quietly

SCHEME = "99KNEESSL"
"""Private: codes of our own, for what no public scheme has a sure code."""
FINDINGS = {
    "abnormal": codes.SCT.Abnormal,
    "acl": Code("444470001", "SCT", "Injury of anterior cruciate ligament"),
    "mcl": Code("444448004", "SCT", "Injury of medial collateral ligament of knee"),
    "meniscus": Code("239720000", "SCT", "Tear of meniscus of knee"),
    "medial_meniscus": Code("medial_meniscus", SCHEME, "Tear of medial meniscus"),
    "lateral_meniscus": Code("lateral_meniscus", SCHEME, "Tear of lateral meniscus"),
    "medial_oa": Code("medial_oa", SCHEME, "Osteoarthritis of medial compartment of knee"),
    "lateral_oa": Code("lateral_oa", SCHEME, "Osteoarthritis of lateral compartment of knee"),
    "pf_oa": Code("pf_oa", SCHEME, "Osteoarthritis of patellofemoral joint"),
    "effusion": Code("202381003", "SCT", "Knee joint effusion"),
    "synovitis": Code("synovitis", SCHEME, "Synovitis of knee"),
    "baker_s": Code("baker_s", SCHEME, "Baker's cyst"),
    "contusion": Code("contusion", SCHEME, "Bone contusion of knee"),
    "fracture": Code("125605004", "SCT", "Fracture of bone"),
}
"""By task, in small letters with one underscore for anything else: those of MRNet and of RSNA's knee challenge."""
REFERENCED = frozenset(
    (
        MRImageStorage,
        EnhancedMRImageStorage,
        LegacyConvertedEnhancedMRImageStorage,
        SecondaryCaptureImageStorage,
        MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    )
)
"""The standard's classes of MR images and of pictures made from them; a viewer could not open any other."""
ANSWER = Code("answer", SCHEME, "Answer of a research model, not a diagnosis")
ANSWERS = {
    "yes": codes.SCT.Present,
    "doubt": codes.SCT.Undetermined,
    "no": codes.SCT.Absent,
    "not assessed": Code("not_assessed", SCHEME, "Not assessed"),
    "no operating points": Code("no_points", SCHEME, "Probability only: the model has no operating points"),
}
"""By `TaskAssessment.answer`; the first three are CID 240."""
INTERVAL = (
    Code("probability_low", SCHEME, "Probability, lower limit of its 95 % interval"),
    Code("probability_high", SCHEME, "Probability, upper limit of its 95 % interval"),
)
LATERALITY = {"L": codes.SCT.Left, "R": codes.SCT.Right}


def result_objects(assessment: Assessment, identity: Dataset | None) -> list[Dataset]:
    """Return an answer as DICOM objects of the study that it is of: a structured report and a picture.

    Args:
        assessment: The answer.
        identity: A header of that study; its patient and study are copied, for objects that go back to its archive.
            None leaves them empty; only UIDs then lead back to the study.
    """
    with quietly():  # a study's UIDs may be any text, which pydicom's warnings would quote
        return [structured_report(assessment, identity), summary_capture(assessment, identity)]


def structured_report(assessment: Assessment, identity: Dataset | None) -> Dataset:
    """Return the structured report; for the arguments see `result_objects`."""
    study_uid = study_uid_of(assessment, identity)
    uids = result_uids(assessment.study_uid, assessment.laterality, assessment.model.sha256)
    images = [
        image
        for plane_result in assessment.planes.values()
        for image in plane_result.series.images
        if can_be_referenced(image)
    ]
    # Of a study of which nothing could be read there is no evidence, but highdicom wants some.
    evidence = [_reference(image) for image in images] or [_study(study_uid)]
    report = sr.ComprehensiveSR(
        evidence=evidence,
        content=_content(assessment),
        series_instance_uid=uids.sr_series,
        sop_instance_uid=uids.sr_instance,
        is_complete=assessment.assessed,
        coding_schemes=[CodingSchemeIdentificationItem(SCHEME, name="kneessl", responsible_organization="kneessl")],
        **maker_attributes(assessment, "sr"),
    )
    if not images:
        del report.CurrentRequestedProcedureEvidenceSequence
    copy_identity(report, identity)
    return report


def finding_code(task: str) -> Code:
    """Return what a task looks for: a public code where its meaning is sure, else a private one."""
    name = re.sub(r"[^a-z0-9]+", "_", ascii_text(task).lower()).strip("_")
    return FINDINGS.get(name) or Code(name or "finding", SCHEME, ascii_text(task)[:64])


def _content(assessment: Assessment) -> sr.MeasurementReport:
    model = assessment.model
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=uid_of("model", model.sha256),
        name="kneessl",
        manufacturer_name="kneessl",
        model_name=ascii_text(model.name),
    )
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=sr.ObserverContext(codes.DCM.Device, device)),
        procedure_reported=codes.LN.MRIUnspecifiedBodyRegion,
        imaging_measurements=[_group(assessment, finding) for finding in assessment.findings],
    )
    items = report[0].ContentSequence
    for text in notices(assessment):
        items.insert(len(items) - 1, _comment(text))  # before the findings
    return report


def _group(assessment: Assessment, finding: TaskAssessment) -> sr.MeasurementsAndQualitativeEvaluations:
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=uid_of("finding", assessment.study_uid, assessment.laterality, finding.task),
            identifier=ascii_text(f"{finding.task}, {SIDES[assessment.laterality]}"),
        ),
        finding_type=finding_code(finding.task),
        algorithm_id=_algorithm(assessment),
        finding_sites=[sr.FindingSite(codes.SCT.KneeJoint, LATERALITY.get(assessment.laterality))],
        measurements=_measurements(finding),
        qualitative_evaluations=[sr.QualitativeEvaluation(ANSWER, ANSWERS[finding.answer])],
        source_images=[
            sr.SourceImageForMeasurementGroup(key.image.sop_class, key.image.instance, _frames(key.image))
            for key in finding.key_slices
            if can_be_referenced(key.image)
        ],
    )
    group[0].ContentSequence.extend(_comment(text) for text in _remarks(finding))
    return group


def _measurements(finding: TaskAssessment) -> list[sr.Measurement]:
    """The probability and its interval in per cent; nothing where it was not assessed."""
    if finding.probability is None:
        return []
    named = [(codes.DCM.Probability, finding.probability), *zip(INTERVAL, finding.interval or (), strict=False)]
    return [_percent(name, value) for name, value in named]


def _percent(name: Code, share: float) -> sr.Measurement:
    """A share in (0, 1): to two digits for eyes, never 0 or 100, and as it is for programs (`FloatingPointValue`)."""
    measurement = sr.Measurement(name, 100 * share, codes.UCUM.Percent)
    measurement[0].MeasuredValueSequence[0].NumericValue = f"{min(max(100 * share, 0.01), 99.99):.2f}"
    return measurement


def _remarks(finding: TaskAssessment) -> list[str]:
    """Reasons, operating points and key slices of a finding, in sentences."""
    remarks = list(finding.reasons)
    if finding.points:
        out, into = percent_text(finding.points.rule_out), percent_text(min(finding.points.rule_in, 1.0))
        remarks.append(f"Operating points, locked beforehand: no below {out}, yes from {into}.")
    for key in finding.key_slices:
        share = f"{100 * key.share:.0f} % of what speaks for the finding"
        remarks.append(f"Key slice: {key.plane}, {key.index + 1} of {key.of}, {share}.")
    return remarks


def _algorithm(assessment: Assessment) -> sr.AlgorithmIdentification:
    model = assessment.model
    parameters = [f"model {model.name}", f"model SHA-256 {model.sha256}"]
    parameters += [f"{plane} preprocessing {value}" for plane, value in model.preprocessing.items()]
    parameters += [f"{plane} training data SHA-256 {value}" for plane, value in model.data_sha256.items()]
    if model.synthetic:
        parameters.append("trained on synthetic knees (a phantom)")
    return sr.AlgorithmIdentification("kneessl", ascii_text(model.version), [ascii_text(text) for text in parameters])


def _comment(text: str) -> sr.TextContentItem:
    return sr.TextContentItem(codes.DCM.Comment, ascii_text(text), sr.RelationshipTypeValues.CONTAINS)


def can_be_referenced(image: Image) -> bool:
    """Whether the report may refer to an image: its class is one of `REFERENCED`, and its UIDs are UIDs.

    Anonymisers and scanners write classes of their own, and files on disk may lack what every image in an archive has.
    A UID that is none may be a name.
    """
    uids = (image.study, image.series, image.instance)
    return image.sop_class in REFERENCED and all(UID(uid, IGNORE).is_valid for uid in uids)


def _frames(image: Image) -> list[int] | None:
    return None if image.sop_class == MRImageStorage else [image.frame + 1]


def _study(study_uid: str) -> Dataset:
    """A stand-in for an image of the study, without patient data."""
    image = Dataset()
    image.StudyInstanceUID, image.SeriesInstanceUID = study_uid, study_uid
    image.SOPClassUID, image.SOPInstanceUID = MRImageStorage, study_uid
    for keyword in (
        "PatientID",
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
        "AccessionNumber",
        "StudyID",
        "StudyDate",
        "StudyTime",
        "ReferringPhysicianName",
    ):
        setattr(image, keyword, None)
    return image


def _reference(image: Image) -> Dataset:
    """The entry of the evidence list for an image, without reading its file again."""
    reference = _study(image.study)
    reference.SeriesInstanceUID = image.series
    reference.SOPClassUID, reference.SOPInstanceUID = image.sop_class, image.instance
    return reference
