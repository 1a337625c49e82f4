"""Made DICOM series, for tests."""

import random
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from kneessl.sources.volume import DISPLAY, directions_of

AXIAL = directions_of("IPL")


def write_dicom(
    folder: Path, voxels: np.ndarray, directions=AXIAL, spacing=(3.0, 1.0, 1.0), position=(40, 0, 0), **tags
):
    """One file a slice, with made-up UIDs; `tags` are set last, None deletes."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(voxels):
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, f"2.25.{random.getrandbits(64)}"
        data.StudyInstanceUID, data.SeriesInstanceUID, data.PatientID = "2.25.11", "2.25.12", "1"
        data.Modality, data.ImageType, data.EchoTime = "MR", ["ORIGINAL", "PRIMARY", "OTHER"], 30
        data.InstanceNumber, data.SliceThickness = index + 1, spacing[0]
        data.ImageOrientationPatient = [f"{value:.10g}" for value in (*directions[2], *directions[1])]
        data.ImagePositionPatient = [f"{v:.10g}" for v in np.array(position) + index * spacing[0] * directions[0]]
        data.PixelSpacing = list(spacing[1:])
        data.Rows, data.Columns = image.shape
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 0
        data.PixelData = image.astype("<u2").tobytes()
        for name, value in tags.items():
            if value is None:
                delattr(data, name)
            else:
                setattr(data, name, value)
        data.save_as(folder / f"{random.getrandbits(64)}.dcm", enforce_file_format=True)


def write_plane(folder: Path, plane: str, series: str, slices: int = 20, side: int = 160, seed: int = 0, **tags):
    """A series of smooth noise as a knee protocol has it: `side` mm of 1 mm pixels, slices 4 mm apart."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(100, 900, (slices, side // 16, side // 16))
    voxels = coarse.repeat(16, 1).repeat(16, 2)
    code = DISPLAY[plane]
    tags = {"SeriesInstanceUID": series, "Laterality": "R"} | tags
    write_dicom(folder, voxels, directions_of(code), (4.0, 1.0, 1.0), (-60, 0, 0), **tags)
