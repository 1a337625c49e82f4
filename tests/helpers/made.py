"""An `Assessment` made by hand, from DICOM images made for it: nothing of it was said by a model.

The knee has a sagittal series of single-frame MR images and an axial one that is one enhanced multi-frame file. Of four
findings one is yes, one was held at doubt, one is no, and one was not assessed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage

from kneessl.evaluation.decisions import OperatingPoints
from kneessl.evaluation.metrics import Proportion
from kneessl.exams.folder import SIDE, Plane
from kneessl.reader.answer.assessment import (
    NO_DIAGNOSIS,
    Assessment,
    Flag,
    KeySlice,
    ModelFacts,
    PlaneResult,
    TaskAssessment,
)
from kneessl.sources.dicom.image import Image, read_headers
from kneessl.sources.dicom.series import Prepared, SeriesFacts
from kneessl.sources.notes import Notes

STUDY = "1.2.826.0.1.3680043.8.498.1"
KEY = "00c0ffee00c0ffee"
SLICES: Mapping[Plane, int] = {"sagittal": 6, "axial": 8}
_ORIENTATION: Mapping[Plane, list[float]] = {"sagittal": [0, 1, 0, 0, 0, -1], "axial": [1, 0, 0, 0, 1, 0]}
_NORMAL: Mapping[Plane, list[float]] = {"sagittal": [1, 0, 0], "axial": [0, 0, -1]}

IDENTITY = {
    "PatientName": "Planted^Paula",
    "PatientID": "PLANTED-4711",
    "IssuerOfPatientID": "PLANTED-ISSUER",
    "PatientBirthDate": "19631231",
    "PatientSex": "F",
    "StudyID": "PLANTEDSTUDY",
    "AccessionNumber": "PLANTEDACC",
    "StudyDate": "20191117",
    "StudyTime": "081503.777777",
    "StudyDescription": "Planted description",
    "SeriesDescription": "Planted series",
    "ReferringPhysicianName": "Planted^Referrer",
    "InstitutionName": "Planted Hospital",
}
"""What the made files say of a patient, for tests that search for it."""

POINTS = OperatingPoints(
    rule_out=0.2,
    rule_in=0.7,
    target_sensitivity=0.95,
    target_specificity=0.95,
    n=100,
    positives=40,
    sensitivity=Proportion.of(38, 40),
    specificity=Proportion.of(57, 60),
)

MODEL = ModelFacts(
    name="made",
    sha256="5e" * 32,
    version="0.1.0",
    tasks=("acl", "meniscus", "abnormal", "mcl"),
    planes=("sagittal", "coronal", "axial"),
    preprocessing={"sagittal": "p1" * 8, "coronal": "p2" * 8, "axial": "p3" * 8},
    data_sha256={"sagittal": "d1" * 32, "coronal": "d1" * 32, "axial": "d1" * 32},
    synthetic=True,
    locked=True,
)


@dataclass(frozen=True, eq=False)
class Made:
    """An answer, and the files that it is said to be of."""

    assessment: Assessment
    files: tuple[Path, ...]
    header: Dataset
    """Of one of the files: the identity for objects that go back to the archive."""


def made(folder: Path, identity: Mapping[str, object] = IDENTITY) -> Made:
    """Write the files into `folder` and make the answer; always the same."""
    files = {"sagittal": _single_frames(folder, identity), "axial": _enhanced(folder, identity)}
    planes = {plane: _plane(plane, files[plane], number) for number, plane in enumerate(SLICES, start=1)}
    assessment = Assessment(
        key=KEY,
        study_uid=STUDY,
        laterality="R",
        laterality_from="the tag of its series",
        findings=_findings(planes),
        planes=planes,
        missing=("coronal",),
        series=(*(seen.facts for seen in planes.values()), _unused()),
        left_out=("localisers (3)",),
        flags=(
            Flag("model", None, NO_DIAGNOSIS),
            Flag("quality", "axial", "The axial slices are 4.0 mm thick, more than any of training."),
        ),
        model=MODEL,
        seconds=1.25,
    )
    return Made(assessment, (*files["sagittal"], *files["axial"]), _header(identity))


def _findings(planes: Mapping[Plane, PlaneResult]) -> tuple[TaskAssessment, ...]:
    both: tuple[Plane, ...] = ("sagittal", "axial")
    alone = "said without coronal: no coronal series could be used"
    held = "held at doubt, since the model has seen nothing like this study in training"

    def key(plane: Plane, index: int, share: float) -> KeySlice:
        return KeySlice(plane, index, SLICES[plane], share, planes[plane].series.images[index])

    yes = [key("sagittal", 2, 0.5), key("axial", 5, 0.25), key("sagittal", 4, 0.125)]
    return (
        TaskAssessment("acl", "yes", 0.875, (0.75, 0.9375), True, both, (alone,), tuple(yes), POINTS),
        TaskAssessment(
            "meniscus", "doubt", 0.81, (0.4, 0.9), True, both, (alone, held), (key("axial", 3, 0.3),), POINTS
        ),
        TaskAssessment("abnormal", "no", 0.0625, (0.03125, 0.125), True, both, (alone,), (), POINTS),
        TaskAssessment(
            "mcl", None, None, None, False, (), ("nothing is locked with the model for sagittal alone",), (), None
        ),
    )


def _plane(plane: Plane, files: Sequence[Path], number: int) -> PlaneResult:
    found = tuple(read_headers(((file, "file 1 of 1") for file in files), Notes()))
    volume, heat = _volume(SLICES[plane]), _heat(SLICES[plane])
    prepared = Prepared(plane, volume, 0.625, 4.0, f"{number:02x}" * 32, found, "the only series of its plane")
    return PlaneResult(
        series=prepared,
        facts=replace(_unused(), number=number, plane=plane, slices=len(volume), used=True, reason="the only one"),
        maps={task: heat[:, ::32, ::32].astype(np.float32) / 127 for task in ("acl", "meniscus", "abnormal")},
        exact=True,
        heat={"acl": heat, "meniscus": heat // 2, "abnormal": -(heat // 4)},
    )


def _unused() -> SeriesFacts:
    return SeriesFacts(
        number=3,
        plane="coronal",
        obliquity_deg=2.5,
        slices=20,
        slice_mm=4.0,
        echo_ms=30.0,
        weighting="PD",
        fat_suppressed=True,
        contrast_from="TR 3000 ms, TE 30 ms",
        laterality="R",
        used=False,
        reason="slices are missing: a gap of 12.0 mm after slice 3",
    )


def _volume(slices: int) -> np.ndarray:
    """uint8 `(slices, 256, 256)`: two bright discs with a dark gap, on a ramp that differs from slice to slice."""
    row, column = np.mgrid[:SIDE, :SIDE]
    bones = np.minimum(np.hypot(row - 70, column - 128), np.hypot(row - 190, column - 128)) < 50
    return np.stack([20 + 10 * k + row // 8 + 120 * bones for k in range(slices)]).astype(np.uint8)


def _heat(slices: int) -> np.ndarray:
    """int8 `(slices, 256, 256)`: evidence for in the middle, strongest on slice 2, and against it at a corner."""
    row, column = np.mgrid[:SIDE, :SIDE]
    mine = np.exp(-np.hypot(row - 128, column - 128) / 30) - 0.5 * np.exp(-np.hypot(row - 30, column - 30) / 20)
    strength = 1 / (1 + np.abs(np.arange(slices) - 2))
    return np.rint(127 * strength[:, None, None] * mine / mine.max()).astype(np.int8)


def _header(identity: Mapping[str, object]) -> Dataset:
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 100"
    header.update(_elements(identity))
    header.StudyInstanceUID = STUDY
    header.SOPClassUID, header.SOPInstanceUID = MRImageStorage, f"{STUDY}.1.0"
    header.Modality = "MR"
    return header


def _elements(values: Mapping[str, object]) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def _single_frames(folder: Path, identity: Mapping[str, object]) -> list[Path]:
    files = []
    for index in range(SLICES["sagittal"]):
        image = _header(identity)
        image.SOPInstanceUID, image.SeriesInstanceUID = f"{STUDY}.1.{index}", f"{STUDY}.1"
        image.ImageType = ["ORIGINAL", "PRIMARY", "M"]
        image.InstanceNumber, image.Laterality = index + 1, "R"
        image.ImagePositionPatient = _position("sagittal", index)
        image.ImageOrientationPatient = _ORIENTATION["sagittal"]
        image.PixelSpacing, image.SliceThickness, image.EchoTime = [0.625, 0.625], 4, 30
        _add_pixels(image, _volume(SLICES["sagittal"])[index])
        files.append(_save(image, folder / f"planted-file-name-{index}.dcm"))
    return files


def _enhanced(folder: Path, identity: Mapping[str, object]) -> list[Path]:
    image = _header(identity)
    image.SOPClassUID = EnhancedMRImageStorage
    image.SOPInstanceUID, image.SeriesInstanceUID = f"{STUDY}.2.1", f"{STUDY}.2"
    image.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    image.NumberOfFrames = SLICES["axial"]
    plane = _elements({"ImageOrientationPatient": _ORIENTATION["axial"]})
    measures = _elements({"PixelSpacing": [0.625, 0.625], "SliceThickness": 4})
    image.SharedFunctionalGroupsSequence = [
        _elements({"PlaneOrientationSequence": [plane], "PixelMeasuresSequence": [measures]})
    ]
    image.PerFrameFunctionalGroupsSequence = [
        _elements({"PlanePositionSequence": [_elements({"ImagePositionPatient": _position("axial", index)})]})
        for index in range(SLICES["axial"])
    ]
    _add_pixels(image, _volume(SLICES["axial"]))
    return [_save(image, folder / "planted-file-name.dcm")]


def _position(plane: Plane, index: int) -> list[float]:
    return [4.0 * index * along - 60.0 * (1 - abs(along)) for along in _NORMAL[plane]]


def _add_pixels(image: Dataset, pixels: np.ndarray) -> None:
    image.Rows, image.Columns = pixels.shape[-2:]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.PixelData = pixels.astype("<u2").tobytes()


def _save(image: Dataset, path: Path) -> Path:
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dcmwrite(path, image, enforce_file_format=True)
    return path


def image_of(assessment: Assessment, plane: Plane, index: int) -> Image:
    """The header behind a slice."""
    return assessment.planes[plane].series.images[index]
