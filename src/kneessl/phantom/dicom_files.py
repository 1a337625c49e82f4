"""DICOM files of one series: one a slice as classic MR, or one for all as enhanced MR; compressed or not."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import gdcm
import numpy as np
from pydicom import Dataset
from pydicom.charset import convert_encodings
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_file_meta_info
from pydicom.uid import UID

from kneessl.phantom.dicom_headers import (
    CHARACTERS,
    frames_header,
    leftover_header,
    series_header,
    slice_header,
    stack_header,
)
from kneessl.phantom.dicom_pictures import Stack, stacks_of
from kneessl.phantom.dicom_study import Study, StudySeries

_WRITER = UID("2.25.94412318876151520914187513262846310153")
"""ImplementationClassUID: a random one."""


def files_of(study: Study, series: StudySeries) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file of a series, one of them damaged where the study's plan says so."""
    damage = study.damage if series == study.damaged_series else ""
    stacks = stacks_of(study, series)
    if damage == "slice missing":
        stacks = [_without_middle(stack) for stack in stacks]
    parts = list(_parts(study, series, stacks))
    for instance, (encoder, own, frames) in enumerate(parts, start=1):
        own.InstanceNumber = instance
        own.SOPInstanceUID = study.settings.uid("instance", study.number, series.number, instance)
        here = damage if instance == len(parts) // 2 + 1 else ""
        if here == "no orientation":
            _spoil_orientation(own)
        if here == "another PatientID":
            own.PatientID = "KP-SOMEBODY-ELSE"
        content = encoder.file(own, frames)
        kept = {"cut short": len(content) * 3 // 5, "empty": 0}.get(here, len(content))
        yield study.scanner.vendor.file_name(series.number, instance, own.SOPInstanceUID), content[:kept]


def leftover_of(study: Study) -> tuple[str, bytes]:
    """Name and content of the file beside the series that each vendor's studies have."""
    shared, own = leftover_header(study), Dataset()
    own.SOPInstanceUID = study.settings.uid("leftover", study.number)
    frames = np.zeros((1, shared.Rows, shared.Columns), "<u2") if "Rows" in shared else None
    content = FileEncoder(shared, study.syntax).file(own, frames)
    return study.scanner.vendor.file_name(shared.SeriesNumber, 1, own.SOPInstanceUID), content


def _parts(
    study: Study, series: StudySeries, stacks: list[Stack]
) -> Iterator[tuple["FileEncoder", Dataset, np.ndarray]]:
    """For each file of a series, what encodes it, what it has for itself, and its frames."""
    shared = series_header(study, series, stacks[0])
    if study.scanner.enhanced:
        frames = np.concatenate([stack.stored for stack in stacks])
        yield FileEncoder(shared, study.syntax), frames_header(study, series, stacks), frames
        return
    for stack in stacks:
        shared.update(stack_header(study, series, stack))
        encoder = FileEncoder(shared, study.syntax)
        for index in range(len(stack.stored)):
            yield encoder, slice_header(study, series, stack, index), stack.stored[index : index + 1]


def _spoil_orientation(own: Dataset) -> None:
    """Take it from a classic file, or from the first frame of an enhanced one."""
    if "PerFrameFunctionalGroupsSequence" in own:
        del own.PerFrameFunctionalGroupsSequence[0].PlaneOrientationSequence
    else:
        own.ImageOrientationPatient = None


def _without_middle(stack: Stack) -> Stack:
    middle = len(stack.stored) // 2
    stored, positions = (np.delete(values, middle, axis=0) for values in (stack.stored, stack.positions_mm))
    return replace(stack, stored=stored, positions_mm=positions)


class FileEncoder:
    """Encodes the files of one series: what they share is encoded once.

    Args:
        shared: What stands in every file.
        syntax: The transfer syntax of all.
    """

    def __init__(self, shared: Dataset, syntax: UID) -> None:
        self._syntax = syntax
        self._class = shared.SOPClassUID
        self._bits, self._signed = int(shared.get("BitsStored", 0)), bool(shared.get("PixelRepresentation", 0))
        self._shared = self._encoded(shared)

    def file(self, own: Dataset, frames: np.ndarray | None) -> bytes:
        """A whole file, with what stands in this one alone.

        Args:
            own: Elements of this file.
            frames: int16 or uint16 `(frames, rows, columns)`; None where it is no image.
        """
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = self._class, own.SOPInstanceUID
        meta.TransferSyntaxUID, meta.ImplementationClassUID = self._syntax, _WRITER
        meta.ImplementationVersionName = "KNEESSL_PHANTOM"
        head = DicomBytesIO()
        write_file_meta_info(head, meta)
        if frames is not None and self._syntax.is_encapsulated:
            own.add_new("PixelData", "OB", encapsulate([self._compressed(frame) for frame in frames]))
            own["PixelData"].is_undefined_length = True
        elif frames is not None:
            own.add_new("PixelData", "OW", frames.tobytes())
        elements = self._shared | self._encoded(own)
        return b"".join((bytes(128), b"DICM", head.getvalue(), *(elements[tag] for tag in sorted(elements))))

    def _encoded(self, data: Dataset) -> dict[int, bytes]:
        """Each element by its tag."""
        encodings = convert_encodings(CHARACTERS)
        buffer = DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, self._syntax.is_implicit_VR
        ends = [0]
        for element in data:
            write_data_element(buffer, element, encodings)
            ends.append(buffer.tell())
        content = buffer.getvalue()
        return {
            int(tag): content[start:end] for tag, (start, end) in zip(sorted(data.keys()), pairwise(ends), strict=True)
        }

    def _compressed(self, frame: np.ndarray) -> bytes:
        """One frame, without loss, by GDCM: pydicom offers it for RLE alone."""
        writer = gdcm.ImageWriter()
        image = writer.GetImage()
        image.SetNumberOfDimensions(2)
        image.SetDimensions((frame.shape[1], frame.shape[0], 1))
        grey = gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2)
        image.SetPhotometricInterpretation(grey)
        image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ExplicitVRLittleEndian))
        image.SetPixelFormat(gdcm.PixelFormat(1, 16, self._bits, self._bits - 1, int(self._signed)))
        pixels = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
        pixels.SetByteStringValue(frame.tobytes())
        image.SetDataElement(pixels)
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(self._syntax)))
        change.SetInput(image)
        if not change.Change():
            raise RuntimeError(f"GDCM could not encode a frame as {self._syntax.name}")
        fragments = change.GetOutput().GetDataElement().GetSequenceOfFragments()
        parts = (fragments.GetFragment(i).GetByteValue().GetBuffer() for i in range(fragments.GetNumberOfFragments()))
        return b"".join(part.encode("utf-8", "surrogateescape") for part in parts)
