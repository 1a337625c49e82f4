"""DICOM studies in other encodings, whole or damaged: implicit, big endian, deflated, compressed, enhanced, bare."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import gdcm
import numpy as np
from pydicom import Dataset, dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from campaign.dicom_inputs import damaged, through_a_door
from campaign.studies import SECRET, file_of, series

Random = np.random.Generator


def again(data: Dataset) -> Dataset:
    """As it is read back, so that pydicom may write it in another way."""
    return dcmread(io.BytesIO(file_of(data)))


def saved(data: Dataset) -> bytes:
    content = io.BytesIO()
    data.save_as(content, enforce_file_format=True)
    return content.getvalue()


def in_syntax(data: Dataset, syntax: str) -> bytes:
    data = again(data)
    data.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        swapped = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
        copy = Dataset()
        copy.update({element.tag: element for element in data})
        copy.file_meta, copy["PixelData"].value = data.file_meta, swapped
        data = copy
    return saved(data)


def run_length(data: Dataset) -> bytes:
    data = again(data)
    data.compress(RLELossless, generate_instance_uid=False)
    return saved(data)


def by_gdcm(data: Dataset, folder: Path, syntax: int) -> bytes:
    """Compressed by GDCM: JPEG lossless, JPEG-LS or JPEG 2000."""
    path = folder / "gdcm"
    path.write_bytes(file_of(data))
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    change.Change()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(path))
    writer.Write()
    content = path.read_bytes()
    path.unlink()
    return content


def group(**elements: object) -> Dataset:
    data = Dataset()
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    return data


def enhanced(rng: Random, images: Sequence[Dataset]) -> bytes:
    """One file of all slices, its frames in any order, now and then with something wrong between them."""
    data = again(images[0])
    frames = [images[int(i)] for i in rng.permutation(len(images))]
    data.SOPClassUID, data.NumberOfFrames = EnhancedMRImageStorage, len(frames)
    shared = group(
        PixelMeasuresSequence=[group(PixelSpacing=data.PixelSpacing, SliceThickness=data.SliceThickness)],
        PlaneOrientationSequence=[group(ImageOrientationPatient=data.ImageOrientationPatient)],
        MREchoSequence=[group(EffectiveEchoTime=30.0)],
    )
    each = [group(PlanePositionSequence=[group(ImagePositionPatient=one.ImagePositionPatient)]) for one in frames]
    pixels = b"".join(one.PixelData for one in frames)
    victim = each[int(rng.integers(len(each)))]
    match int(rng.integers(14)):
        case 0:
            del victim.PlanePositionSequence
        case 1:
            victim.PlanePositionSequence = each[0].PlanePositionSequence
        case 2:
            data.NumberOfFrames = int(rng.integers(0, 2 * len(frames)))
        case 3:
            pixels = pixels[: int(rng.integers(len(pixels)))]
        case 4:
            victim.PlaneOrientationSequence = [group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]
        case 5:
            del shared.PixelMeasuresSequence
        case 6:
            victim.MRImageFrameTypeSequence = [group(FrameType=["ORIGINAL", "PRIMARY", "PHASE MAP", "NONE"])]
        case 7:
            victim.MREchoSequence = [group(EffectiveEchoTime=60.0)]
        case 8:
            victim.PixelValueTransformationSequence = [group(RescaleSlope=2, RescaleIntercept=-10, RescaleType="US")]
        case 9:
            each.pop()
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "EchoTime"):
        del data[keyword]
    data.SharedFunctionalGroupsSequence, data.PerFrameFunctionalGroupsSequence = [shared], each
    data.PixelData = pixels
    return saved(data)


def encodings(rng: Random, work: Path) -> str:
    """A series in another encoding, damaged in a third of all."""
    images = series(rng)
    ways: tuple[Callable[[Dataset], bytes], ...] = (
        lambda one: in_syntax(one, ImplicitVRLittleEndian),
        lambda one: in_syntax(one, ExplicitVRBigEndian),
        lambda one: in_syntax(one, DeflatedExplicitVRLittleEndian),
        run_length,
        lambda one: by_gdcm(one, work, gdcm.TransferSyntax.JPEGLosslessProcess14_1),
        lambda one: by_gdcm(one, work, gdcm.TransferSyntax.JPEGLSLossless),
        lambda one: by_gdcm(one, work, gdcm.TransferSyntax.JPEG2000Lossless),
        lambda one: file_of(one)[132:],
        lambda one: file_of(one)[file_of(one).index(b"\x08\0\x08\0CS") :],
    )
    if rng.random() < 0.35:
        contents = [enhanced(rng, images)]
    else:
        way = ways[int(rng.integers(len(ways)))]
        contents = (
            [way(one) for one in images] if rng.random() < 0.7 else [*map(way, images[:3]), *map(file_of, images[3:])]
        )
    if rng.random() < 0.33:
        victim = int(rng.integers(len(contents)))
        contents[victim] = damaged(rng, contents[victim], contents[victim - 1])
    (work / "in").mkdir()
    files = []
    for number, content in enumerate(contents):
        files.append(work / "in" / f"{SECRET[0]}{number}")
        files[-1].write_bytes(content)
    return through_a_door(rng, work / "in", work, files)
