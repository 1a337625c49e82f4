"""Stand-ins for what `kneessl watch` works with: an archive in memory, a model, and what it answers with."""

from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, SecondaryCaptureImageStorage, generate_uid

from helpers.sent import a_zip
from kneessl.reader.answer.assess import NoKneeError
from kneessl.reader.archive.orthanc import StoredSeries, StoredStudy
from kneessl.reader.intake.connection import UnreachableError

IDENTITY = ("Quaxolotl^Zyphira", "PID-7730041", "19230817", "Saint Wumbo Clinic", "ACC-55120")
ID = "0a1b2c3d-00000000-00000000-00000000-00000000"
OTHER = "ffeeddcc-00000000-00000000-00000000-00000000"


# ---- stand-ins: what answers, and what it answers with


def dicom(modality: str, study: str, series: str, instance: str, sop_class=SecondaryCaptureImageStorage, **tags):
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = sop_class, instance, modality
    data.StudyInstanceUID, data.SeriesInstanceUID = study, series
    for name, value in tags.items():
        setattr(data, name, value)
    return data


def written(data: pydicom.Dataset) -> bytes:
    content = BytesIO()
    data.save_as(content, enforce_file_format=True)
    return content.getvalue()


def uids(study: str, side: str, sha256: str) -> SimpleNamespace:
    names = ("sr_series", "sr_instance", "capture_series", "capture_instance")
    return SimpleNamespace(**{name: generate_uid(entropy_srcs=[study, side, sha256, name]) for name in names})


def objects(assessment, identity: pydicom.Dataset) -> list[pydicom.Dataset]:
    own = uids(assessment.study_uid, assessment.laterality, assessment.sha256)
    person = {"PatientID": identity.get("PatientID", ""), "PatientName": identity.get("PatientName", "")}
    return [
        dicom("SR", assessment.study_uid, own.sr_series, own.sr_instance, **person),
        dicom("OT", assessment.study_uid, own.capture_series, own.capture_instance, **person),
    ]


class StandIn:
    """Takes every study whose description is knee for a knee of each of `sides`."""

    def __init__(self, sha256: str = "a" * 64, sides: tuple[str, ...] = ("R",), tasks=("acl",)) -> None:
        self.facts = SimpleNamespace(sha256=sha256)
        self.sides, self.probability = sides, dict.fromkeys(tasks, 0.5)
        self.asked = 0

    def knees(self, files):
        self.asked += 1
        headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in files]
        mine = [(file, header) for file, header in zip(files, headers, strict=True) if header.Modality == "MR"]
        if mine[0][1].get("BodyPartExamined") != "KNEE":
            raise NoKneeError("images of another body part (BRAIN) (1)")
        image = SimpleNamespace(file=mine[0][0], study=str(mine[0][1].StudyInstanceUID))
        series = SimpleNamespace(images=(image,))
        return [SimpleNamespace(candidates={"sagittal": (series,)}, laterality=side) for side in self.sides]

    def assess(self, knee):
        findings = [SimpleNamespace(task=task, probability=value) for task, value in self.probability.items()]
        return SimpleNamespace(
            study_uid=knee.candidates["sagittal"][0].images[0].study,
            laterality=knee.laterality,
            sha256=self.facts.sha256,
            findings=findings,
            assessed=all(finding.probability is not None for finding in findings),
        )


def an_mr(study: str, part: str = "KNEE", number: int = 0) -> bytes:
    """One image with planted identity."""
    data = dicom("MR", study, f"{study}.1", f"{study}.1.{number + 1}", MRImageStorage, BodyPartExamined=part)
    data.PatientName, data.PatientID, data.PatientBirthDate, data.InstitutionName, data.AccessionNumber = IDENTITY
    data.Rows = data.Columns = 4
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.PixelData = np.full((4, 4), number, np.uint16).tobytes()
    return written(data)


# ---- an archive in memory, for what a real one does rarely


@dataclass
class Archive:
    """Studies by ID, each a list of files; `down` and `broken` say what fails, and how often yet."""

    held: dict[str, list[bytes]] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    unstable: set[str] = field(default_factory=set)
    broken: dict[str, Exception] = field(default_factory=dict)
    down: int = 0
    downloads: list[str] = field(default_factory=list)
    folder: Path | None = None
    clock: int = 0
    times: dict[str, int] = field(default_factory=dict)

    def add(self, study: str, content: bytes) -> bool:
        name = str(pydicom.dcmread(BytesIO(content), stop_before_pixels=True).SeriesInstanceUID)
        if content in self.held.get(study, []):
            return False
        self.clock += 1
        self.times[study + name] = self.clock
        self.held.setdefault(study, []).append(content)
        self.changes.append(study)
        return True

    def _up(self):
        if self.down:
            self.down -= 1
            raise UnreachableError("the archive does not answer, or broke off")

    def last_change(self):
        self._up()
        return len(self.changes)

    def stable_since(self, change):
        self._up()
        page = self.changes[change : change + 2]
        return page, min(change + 2, len(self.changes)), change + 2 >= len(self.changes)

    def studies(self):
        self._up()
        return list(self.held)

    def study(self, study):
        self._up()
        if study not in self.held:
            return None
        found: dict[str, list[pydicom.Dataset]] = {}
        for content in self.held[study]:
            data = pydicom.dcmread(BytesIO(content), stop_before_pixels=True)
            found.setdefault(str(data.SeriesInstanceUID), []).append(data)
        series = [
            StoredSeries(uid, data[0].Modality, len(data), f"{self.times[study + uid]:015d}")
            for uid, data in sorted(found.items())
        ]
        return StoredStudy(str(data.StudyInstanceUID), study not in self.unstable, tuple(series))

    def download(self, study, folder, limits):
        self._up()
        self.downloads.append(study)
        if study in self.broken:
            raise self.broken[study]
        folder.mkdir()
        self.folder = folder.parent
        return a_zip(folder / "z", {f"{n}.dcm": content for n, content in enumerate(self.held[study])})

    def store(self, data):
        self._up()
        study = next(name for name, files in self.held.items() if data.StudyInstanceUID.encode() in files[0])
        return self.add(study, written(data))

    def results(self, study: str) -> list[str]:
        modalities = [pydicom.dcmread(BytesIO(content)).Modality for content in self.held[study]]
        return sorted(modality for modality in modalities if modality != "MR")


def an_archive(*studies: str, part: str = "KNEE") -> Archive:
    archive = Archive()
    for number, study in enumerate(studies):
        archive.add(study, an_mr(f"1.2.{number + 1}", part))
    return archive
