"""What `kneessl localise` finds, exam by exam: what its measures are summed up from, and its pictures drawn of."""

from dataclasses import dataclass

from kneessl.evaluation.localisation import Outcomes, Point, Region
from kneessl.exams.folder import SIDE, Plane
from kneessl.exams.lesions import LesionBox
from kneessl.model.model import PlaneModel
from kneessl.views.preprocess import central


@dataclass(frozen=True)
class Found:
    """What a model makes of one exam that has the finding on at least one slice of the plane."""

    exam: str
    kinds: tuple[str, ...]
    """Of its lesions of the finding."""
    area: float
    """Of the largest box; in mm^2, or in pixels where the folder does not know millimetres."""
    logit: float
    """Without test-time shifts."""
    point: Point
    """The highest pixel: slice, row, column."""
    outcomes: Outcomes
    fall: float | None
    """How far the logit falls with the lesion hidden; None where no control fits beside it, or it lies out of sight."""
    control_fall: float | None


@dataclass(frozen=True)
class Result:
    """One task in one plane."""

    plane: Plane
    task: str
    exact: bool
    """Exact class activation, or Grad-CAM."""
    margin: int
    """Of `near_box`, in pixels: one cell of the network's map."""
    found: list[Found]


def has(box: LesionBox, task: str) -> bool:
    """Whether a lesion answers a task: a tear is abnormal too."""
    return task in ("abnormal", box.finding)


def region_of(model: PlaneModel, slices: int) -> Region:
    """What a model looks at of a series."""
    side = central(SIDE, model.preprocessing.field)
    return model.preprocessing.middle(slices), side, side
