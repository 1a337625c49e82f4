"""One phantom's knee: what is planned of it, drawn of it, and scanned."""

from dataclasses import dataclass

import numpy as np

from kneessl.exams.folder import PLANES, Plane
from kneessl.phantom.anatomy import Anatomy, draw_anatomy
from kneessl.phantom.lesions import Lesion, draw_lesions
from kneessl.phantom.scanner import Box, Pose, Scan, draw_pose, draw_scan, render

TASKS = ("abnormal", "acl", "meniscus")


@dataclass(frozen=True)
class Plan:
    """What one exam is to be, before anything of it is drawn."""

    seed: int
    number: int
    split: str
    labels: dict[str, bool]

    @property
    def exam(self) -> str:
        """Its name, four digits as in MRNet."""
        return f"{self.number:04d}"

    def stream(self, *key: int) -> np.random.SeedSequence:
        """The source of one kind of randomness, which no other kind can disturb."""
        return np.random.SeedSequence(self.seed, spawn_key=(self.number, *key))


ANATOMY, POSE, LESIONS, SCAN, PICTURE = range(5)


@dataclass(frozen=True)
class PhantomKnee:
    """One drawn exam: everything that its pictures follow from."""

    anatomy: Anatomy
    pose: Pose
    scans: dict[Plane, Scan]
    lesions: list[Lesion]
    seeds: dict[Plane, np.random.SeedSequence]


def draw_knee(plan: Plan) -> PhantomKnee:
    """Draw one exam; only its lesions depend on its labels."""
    return PhantomKnee(
        anatomy=draw_anatomy(np.random.default_rng(plan.stream(ANATOMY))),
        pose=draw_pose(np.random.default_rng(plan.stream(POSE))),
        scans={plane: draw_scan(np.random.default_rng(plan.stream(SCAN, i)), plane) for i, plane in enumerate(PLANES)},
        lesions=draw_lesions(np.random.default_rng(plan.stream(LESIONS)), **plan.labels),
        seeds={plane: plan.stream(PICTURE, i) for i, plane in enumerate(PLANES)},
    )


def scan_knee(knee: PhantomKnee, plane: Plane, with_lesions: bool = True) -> tuple[np.ndarray, list[Box]]:
    """One series of a knee, uint8 `(slices, 256, 256)`, and the boxes of its lesions; or the same knee without them."""
    lesions = knee.lesions if with_lesions else []
    return render(knee.anatomy, knee.pose, knee.scans[plane], lesions, knee.seeds[plane])
