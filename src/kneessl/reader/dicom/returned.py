"""What the structured report and the capture share: UIDs, patient and study, maker and time.

UIDs are made from names (UUIDs of version 5, RFC 9562; PS3.5 B.2), so one study, side and model always give the same
ones, and an archive can be asked whether it holds them. The time is that of writing, the one thing in which two runs
differ: the study's own would claim that the answer was there before its model was.
"""

from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

from pydicom import Dataset
from pydicom.config import IGNORE
from pydicom.uid import UID

from kneessl.reader.answer.assessment import NO_DIAGNOSIS, NOTICE, Assessment
from kneessl.sources.dicom.image import quietly

SERIES_NUMBERS = {"sr": 9901, "capture": 9902}
"""Beyond those that scanners give, so that results come last in a list."""
IDENTITY = (
    "SpecificCharacterSet",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "StudyDescription",
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "ReferringPhysicianName",
)
"""What an archive files a study by, of the patient, general study and patient study modules; UIDs apart."""
SIDES = {"L": "left knee", "R": "right knee", "": "knee, side unknown"}
_NAMES = UUID("00c91f42-538e-42ee-b650-4d4b81564d1b")
_ASCII = str.maketrans({"“": '"', "”": '"', "’": "'", "–": "-", "—": "-", "−": "-", "·": "-"})


@dataclass(frozen=True)
class ResultUIDs:
    """UIDs of the structured report and the capture, each in a series of its own."""

    sr_series: str
    sr_instance: str
    capture_series: str
    capture_instance: str


def result_uids(study_uid: str, side: str, model_sha256: str) -> ResultUIDs:
    """Return the UIDs of what a model says of one knee; the same for the same arguments, always.

    Args:
        study_uid: StudyInstanceUID.
        side: `L`, `R` or empty.
        model_sha256: `ModelFacts.sha256`.
    """
    kinds = ("sr series", "sr instance", "capture series", "capture instance")
    return ResultUIDs(*(uid_of(kind, study_uid, side, model_sha256) for kind in kinds))


def uid_of(*names: str) -> str:
    """Return a UID, of at most 44 characters, that depends on the names and their order alone."""
    return f"2.25.{uuid5(_NAMES, chr(10).join(names)).int}"


def study_uid_of(assessment: Assessment, identity: Dataset | None) -> str:
    """Return the StudyInstanceUID of both objects: the study's own, so that they are filed with it.

    Some anonymisers and exports write a name where a UID should be. What is no UID is replaced by one made from it,
    unless the objects carry the patient's identity anyway.

    Args:
        assessment: The answer.
        identity: A header of the study; None where the objects are to carry no identity.
    """
    uid = assessment.study_uid
    return uid if identity is not None or UID(uid, IGNORE).is_valid else uid_of("study", uid)


def maker_attributes(assessment: Assessment, kind: str) -> dict[str, Any]:
    """Return the series, maker and time of either object, as arguments of highdicom.

    Args:
        assessment: The answer.
        kind: A key of `SERIES_NUMBERS`.
    """
    now = datetime.now().replace(microsecond=0)
    return {
        "series_number": SERIES_NUMBERS[kind],
        "series_description": "kneessl research result",
        "series_date": now.date(),
        "series_time": now.time(),
        "instance_number": 1,
        "manufacturer": "kneessl",
        "manufacturer_model_name": "kneessl",
        "software_versions": ascii_text(assessment.model.version),
        "content_date": now.date(),
        "content_time": now.time(),
    }


def copy_identity(result: Dataset, identity: Dataset | None) -> None:
    """Copy the patient and study of a header into a DICOM object; None leaves them empty.

    Values are taken as they are, in the study's own character set: an archive finds the patient by them.
    """
    if identity is None:
        return
    with quietly():
        for keyword in IDENTITY:
            if keyword in identity:
                result.add(deepcopy(identity[keyword]))


def ascii_text(text: str) -> str:
    """Return text in ASCII (other characters as `?`), so that it can be written in any study's character set."""
    return text.translate(_ASCII).encode("ascii", "replace").decode()


def notices(assessment: Assessment) -> list[str]:
    """Return what a reader must know before the answers, each a sentence or two, the gravest first."""
    flags = [flag.text for flag in assessment.flags if flag.text != NO_DIAGNOSIS]
    return [NOTICE, *([NO_DIAGNOSIS] if assessment.model.synthetic else []), *flags]
