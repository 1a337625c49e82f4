"""What `kneessl localise` measures, by plane, task and exam."""

from dataclasses import dataclass

from kneessl.evaluation.localisation import Outcomes, Point, Region
from kneessl.exams.folder import SIDE, Plane
from kneessl.exams.lesions import LesionBox
from kneessl.model.model import PlaneModel
from kneessl.views.preprocess import central


@dataclass(frozen=True)
class ExamMeasurement:
    """The measures of one exam that has the finding on at least one slice of the plane."""

    exam: str
    kinds: tuple[str, ...]
    """Kinds of its lesions of the finding."""
    area: float
    """Area of the largest box; in mm^2, or in pixels where the folder does not know millimetres."""
    logit: float
    """Without test-time shifts."""
    point: Point
    """The highest pixel: slice, row, column."""
    outcomes: Outcomes
    fall: float | None
    """How far the logit falls with the lesion hidden; None where no control fits beside it, or it lies out of sight."""
    control_fall: float | None


@dataclass(frozen=True)
class PlaneMeasurement:
    """The measures of one task in one plane."""

    plane: Plane
    task: str
    exact: bool
    """Whether the maps are exact class activations; otherwise they are Grad-CAM's."""
    margin: int
    """Margin of `Outcomes.near_box`, in pixels: one cell of the network's map."""
    exams: list[ExamMeasurement]


def matches_task(box: LesionBox, task: str) -> bool:
    """Whether a lesion makes an exam positive for a task: any lesion does for `abnormal`."""
    return task in ("abnormal", box.finding)


def region_of(model: PlaneModel, slices: int) -> Region:
    """The part of a series that a model's preprocessing keeps: slices, rows and columns."""
    side = central(SIDE, model.preprocessing.field)
    return model.preprocessing.middle(slices), side, side
