"""What the REST interface answers, as types: the page, other programs and `/openapi.json` all read them."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from kneessl.exams.folder import Plane
from kneessl.reader.answer.assessment import FlagKind

Stage = Literal["receiving", "queued", "reading headers", "model", "writing", "done", "failed"]
AnswerWord = Literal["yes", "doubt", "no", "not assessed", "no operating points"]


class Problem(BaseModel):
    """Why a request was not done, in one sentence."""

    detail: str


class FindingLine(BaseModel):
    """A finding in the list of studies."""

    task: str
    answer: AnswerWord
    probability: float | None


class KneeLine(BaseModel):
    """A knee in the list of studies."""

    knee: int = Field(description="1, 2, ... within the study: the parameter `knee` of the other addresses.")
    side: str = Field(description="L, R or empty.")
    findings: list[FindingLine]


class StudyLine(BaseModel):
    """A study in the list: a number, times and answers, never a name."""

    id: int
    received: datetime
    stage: Stage
    ahead: int = Field(description="Studies that come before this one; 0 once it is being worked on.")
    sentence: str = Field(description="Why it failed; otherwise empty.")
    expires: datetime | None = Field(description="When it is deleted; none while it is being worked on.")
    knees: list[KneeLine]


class OperatingPoints(BaseModel):
    """Below `rule_out` the answer is no, at or above `rule_in` yes; `rule_in` above 1 means that yes is never said."""

    rule_out: float
    rule_in: float
    target_sensitivity: float
    target_specificity: float


class KeySlice(BaseModel):
    """A slice that speaks for a finding."""

    plane: Plane
    slice: int = Field(description="From 1, as the viewer counts.")
    of: int
    share: float = Field(description="Of all that speaks for the finding in the exam, 0 to 1.")
    instance_number: int | None = Field(description="The source image's.")
    picture: str = Field(description="Its file in an answer's folder, with the heat.")


class Finding(BaseModel):
    """The answer on one task."""

    task: str
    answer: AnswerWord
    probability: float | None
    interval: tuple[float, float] | None = Field(description="95 %, of the probability.")
    calibrated: bool
    planes: list[Plane]
    reasons: list[str]
    operating_points: OperatingPoints | None
    key_slices: list[KeySlice]


class PlaneSeries(BaseModel):
    """The series that was used in one plane; its slices are 256 x 256."""

    slices: int
    pixel_mm: float
    slice_mm: float
    series: int = Field(description="Its number in `series`.")
    source_sha256: str
    heat: dict[str, str] = Field(description="By task its file in an answer's folder.")
    heat_exact: bool = Field(description="Whether the heat deals the logit out exactly; otherwise it is Grad-CAM's.")


class Laterality(BaseModel):
    """Which knee, and how that is known."""

    side: str = Field(description="L, R or empty.")
    source: str = Field(alias="from")


class Flag(BaseModel):
    """Something that a reader must know before trusting the answer."""

    kind: FlagKind
    plane: Plane | None
    text: str


class Series(BaseModel):
    """One series of the study, used or not, and why."""

    number: int
    plane: Plane
    obliquity_deg: float
    slices: int
    slice_mm: float | None
    echo_ms: float | None
    weighting: str
    fat_suppressed: bool | None
    contrast_from: str
    laterality: str
    used: bool
    reason: str


class Model(BaseModel):
    """Which model answered."""

    name: str
    sha256: str
    version: str = Field(description="Of kneessl.")
    tasks: list[str]
    planes: list[Plane]
    preprocessing: dict[Plane, str]
    training_data_sha256: dict[Plane, str]
    synthetic: bool | None = Field(description="Trained on a phantom; none where an older model does not say.")
    locked: bool


class Answer(BaseModel):
    """What is said of one knee: `result.json`."""

    format: Literal["kneessl answer 1"] = Field(alias="schema")
    study: str
    notice: str
    laterality: Laterality
    findings: list[Finding]
    planes: dict[Plane, PlaneSeries]
    missing_planes: list[Plane]
    series: list[Series]
    left_out: list[str]
    flags: list[Flag]
    model: Model
    seconds: float


class Study(StudyLine):
    """A study with its answers, one a knee, in the order of `knees`; none before it is done."""

    answers: list[Answer]
    objects: bool = Field(description="Whether the DICOM objects can be had.")


class Accepted(BaseModel):
    """A study that was taken in."""

    id: int


class ServerLimits(BaseModel):
    """What an upload may be."""

    files: int
    bytes: int = Field(description="Of all files together, after decompression.")
    file_bytes: int
    waiting: int = Field(description="Studies that may wait at once.")


class Server(BaseModel):
    """What answers here."""

    version: str
    notice: str
    model: Model
    limits: ServerLimits
    keep_hours: float
    directions: dict[Plane, str] = Field(description="Where slices, rows and columns lead, such as LIP.")
