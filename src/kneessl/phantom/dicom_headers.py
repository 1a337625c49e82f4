"""What stands in the headers: of a study, of a series, of one slice; and the frames of an enhanced file."""

from collections.abc import Iterator
from datetime import datetime, time, timedelta

import numpy as np
from pydicom import Dataset
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from kneessl.phantom.dicom_pictures import Stack
from kneessl.phantom.dicom_study import Study, StudySeries
from kneessl.phantom.vendors import contrast_name

CHARACTERS = "ISO_IR 100"


def series_header(study: Study, series: StudySeries, stack: Stack) -> Dataset:
    """What all files of a series share."""
    vendor, acquired = study.scanner.vendor, series.acquired
    data = _study_header(study)
    data.SOPClassUID = EnhancedMRImageStorage if study.scanner.enhanced else MRImageStorage
    began = _began(study, series)
    data.SeriesDate = data.AcquisitionDate = data.ContentDate = f"{began:%Y%m%d}"
    data.SeriesTime = data.AcquisitionTime = data.ContentTime = f"{began:%H%M%S.%f}"
    data.Modality = "MR"
    data.SeriesInstanceUID, data.SeriesNumber, data.AcquisitionNumber = series.uid, series.number, 1
    if study.described:
        data.SeriesDescription = vendor.description(acquired)
        data.ProtocolName = data.SeriesDescription if vendor.name != "GE" else "KNEE ROUTINE"
    data.BodyPartExamined = "KNEE"
    data.MRAcquisitionType = "2D"
    data.Laterality = series.tag
    data.MagneticFieldStrength = f"{study.scanner.tesla:g}"
    data.PatientPosition = "FFS"
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = stack.stored.shape[1:]
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, vendor.bits, vendor.bits - 1
    data.PixelRepresentation = int(vendor.signed)
    vendor.add_private(data, acquired)
    return data


def stack_header(study: Study, series: StudySeries, stack: Stack) -> Dataset:
    """What the slices of a stack share, in a classic series."""
    acquired = series.acquired
    data = Dataset()
    data.ImageType = study.scanner.vendor.image_type(acquired)
    data.ImageOrientationPatient = orientation(stack)
    data.PixelSpacing = _decimals([stack.pixel_mm] * 2)
    data.SliceThickness, data.SpacingBetweenSlices = _decimals([stack.thickness_mm, stack.spacing_mm])
    data.RepetitionTime, data.EchoTime = f"{acquired.repetition_ms:g}", f"{acquired.echo_ms:g}"
    data.FlipAngle, data.EchoTrainLength = ("20", 1) if acquired.gradient_echo else ("150", 8)
    data.NumberOfAverages, data.PixelBandwidth = "2", "200"
    data.AcquisitionMatrix = [acquired.matrix, 0, 0, stack.phase_lines]
    study.scanner.vendor.add_acquisition(data, acquired)
    return data


def slice_header(study: Study, series: StudySeries, stack: Stack, index: int) -> Dataset:
    """What one slice of a classic series has for itself."""
    data = Dataset()
    data.ImagePositionPatient = _decimals(stack.positions_mm[index])
    data.SliceLocation = f"{stack.positions_mm[index] @ stack.directions[0]:.8g}"
    study.scanner.vendor.add_grey_values(data, stack.stored[index], series.acquired)
    return data


def frames_header(study: Study, series: StudySeries, stacks: list[Stack]) -> Dataset:
    """What an enhanced file has beyond `series_header`: its frames and their functional groups."""
    acquired, vendor = series.acquired, study.scanner.vendor
    data = Dataset()
    data.ImageType = vendor.frame_type(acquired)
    data.AcquisitionDateTime = f"{_began(study, series):%Y%m%d%H%M%S.%f}"
    data.PixelPresentation, data.VolumetricProperties = "MONOCHROME", "VOLUME"
    data.VolumeBasedCalculationTechnique, data.ComplexImageComponent = "NONE", "MAGNITUDE"
    data.AcquisitionContrast = _contrast(study, series)
    data.ContentQualification = "PRODUCT"
    data.PulseSequenceName = {"GE": "FSE", "Siemens": "*tse2d1_9", "Philips": "TSE"}[vendor.name]
    data.EchoPulseSequence = "GRADIENT" if acquired.gradient_echo else "SPIN"
    fat = acquired.kind.fat_suppressed and not acquired.gradient_echo
    if vendor.name == "Philips":
        data.ScanOptions = "FS" if fat else "OTHER"
        data.InversionTime = "0"
    data.NumberOfFrames = sum(len(stack.stored) for stack in stacks)
    data.LossyImageCompression, data.BurnedInAnnotation = "00", "NO"
    data.PresentationLUTShape = "IDENTITY"
    data.SharedFunctionalGroupsSequence = [_shared_groups(study, series, fat)]
    data.PerFrameFunctionalGroupsSequence = [
        groups for number, stack in enumerate(stacks, start=1) for groups in _frames(study, series, stack, number)
    ]
    return data


def orientation(stack: Stack) -> list[str]:
    """ImageOrientationPatient: along a row, then down a column."""
    return _decimals([*stack.directions[2], *stack.directions[1]])


def leftover_header(study: Study) -> Dataset:
    """Of the file that is no part of any series: what the vendor's software leaves there besides."""
    data = _study_header(study)
    data.Modality, data.SeriesNumber, data.InstanceNumber = "MR", 999, 1
    data.SeriesInstanceUID = study.settings.uid("series", study.number, "leftover")
    study.scanner.vendor.add_leftover(data)
    return data


def _study_header(study: Study) -> Dataset:
    person, scanner = study.person, study.scanner
    data = Dataset()
    data.SpecificCharacterSet = CHARACTERS
    data.SyntheticData = "YES"
    data.StudyInstanceUID = study.uid
    data.FrameOfReferenceUID = study.settings.uid("frame of reference", study.number)
    data.AccessionNumber, data.StudyID = study.accession, str(study.number + 1)
    data.StudyDate, data.StudyTime = f"{study.date:%Y%m%d}", f"{_study_began(study):%H%M%S}"
    side = {"L": "LT", "R": "RT"}[study.knees[0].side]
    data.StudyDescription = "MR KNEE BOTH" if len(study.knees) == 2 else f"MR KNEE {side}"
    data.Manufacturer, data.ManufacturerModelName = scanner.vendor.manufacturer, scanner.model
    data.SoftwareVersions, data.DeviceSerialNumber = list(scanner.software), "00000"
    data.InstitutionName, data.StationName = "Phantom General Hospital", "MR1"
    data.ReferringPhysicianName = "Referrer^Made-up"
    data.PatientName, data.PatientID = person.name, person.patient_id
    data.PatientBirthDate, data.PatientSex = f"{person.birth:%Y%m%d}", person.sex
    data.PatientAge = f"{(study.date - person.birth).days // 365:03d}Y"
    return data


def _study_began(study: Study) -> datetime:
    return datetime.combine(study.date, time(7)) + timedelta(seconds=float(study.seconds) * 12 * 3600)


def _began(study: Study, series: StudySeries) -> datetime:
    return _study_began(study) + timedelta(minutes=series.minutes)


def _contrast(study: Study, series: StudySeries) -> str:
    """AcquisitionContrast; Siemens leaves it open."""
    if study.scanner.vendor.name == "Siemens":
        return "UNKNOWN"
    return contrast_name(series.acquired.kind)


def _shared_groups(study: Study, series: StudySeries, fat: bool) -> Dataset:
    acquired = series.acquired
    timing = Dataset()
    timing.RepetitionTime, timing.FlipAngle = f"{acquired.repetition_ms:g}", "20" if acquired.gradient_echo else "150"
    timing.EchoTrainLength = timing.RFEchoTrainLength = 1 if acquired.gradient_echo else 8
    modifier = Dataset()
    modifier.InversionRecovery, modifier.FlowCompensation, modifier.Spoiling = "NO", "NONE", "NONE"
    modifier.T2Preparation, modifier.SpectrallySelectedExcitation = "NO", "NONE"
    modifier.SpectrallySelectedSuppression = "FAT" if fat else "NONE"
    modifier.ParallelAcquisition, modifier.PartialFourier = "NO", "NO"
    averages = Dataset()
    averages.NumberOfAverages = "2"
    anatomy = Dataset()
    anatomy.FrameLaterality = series.tag or "U"
    region = Dataset()
    region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "T-D9200", "SRT", "Knee"
    anatomy.AnatomicRegionSequence = [region]
    groups = Dataset()
    groups.MRTimingAndRelatedParametersSequence = [timing]
    groups.MRModifierSequence = [modifier]
    groups.MRAveragesSequence = [averages]
    groups.FrameAnatomySequence = [anatomy]
    return groups


def _frames(study: Study, series: StudySeries, stack: Stack, number: int) -> Iterator[Dataset]:
    """The functional groups of each frame of a stack."""
    shared = _stack_groups(study, series, stack)
    slope = series.acquired.slope
    for index, stored in enumerate(stack.stored):
        content, position, window = Dataset(), Dataset(), Dataset()
        content.StackID, content.InStackPositionNumber, content.TemporalPositionIndex = str(number), index + 1, 1
        content.FrameAcquisitionNumber, content.DimensionIndexValues = 1, [number, index + 1]
        position.ImagePositionPatient = _decimals(stack.positions_mm[index])
        low, high = float(stored.min()) * slope, float(stored.max()) * slope
        window.WindowCenter, window.WindowWidth = f"{(low + high) / 2:.8g}", f"{max(high - low, 1):.8g}"
        groups = Dataset()
        groups.update(shared)
        groups.FrameContentSequence, groups.PlanePositionSequence = [content], [position]
        groups.FrameVOILUTSequence = [window]
        yield groups


def _stack_groups(study: Study, series: StudySeries, stack: Stack) -> Dataset:
    """What the frames of a stack have in common, though each has it for itself."""
    acquired = series.acquired
    echo, kind, direction, measures, scale = Dataset(), Dataset(), Dataset(), Dataset(), Dataset()
    echo.EffectiveEchoTime = float(acquired.echo_ms)
    kind.FrameType = study.scanner.vendor.frame_type(acquired)
    kind.PixelPresentation, kind.VolumetricProperties = "MONOCHROME", "VOLUME"
    kind.VolumeBasedCalculationTechnique, kind.ComplexImageComponent = "NONE", "MAGNITUDE"
    kind.AcquisitionContrast = _contrast(study, series)
    direction.ImageOrientationPatient = orientation(stack)
    measures.SliceThickness, measures.SpacingBetweenSlices = _decimals([stack.thickness_mm, stack.spacing_mm])
    measures.PixelSpacing = _decimals([stack.pixel_mm] * 2)
    scale.RescaleIntercept, scale.RescaleSlope, scale.RescaleType = "0", f"{acquired.slope:.10g}", "US"
    groups = Dataset()
    groups.MREchoSequence, groups.MRImageFrameTypeSequence = [echo], [kind]
    groups.PlaneOrientationSequence, groups.PixelMeasuresSequence = [direction], [measures]
    groups.PixelValueTransformationSequence = [scale]
    return groups


def _decimals(values: list[float] | np.ndarray) -> list[str]:
    """At most 16 characters each, as DICOM has it."""
    return [f"{value:.9g}" for value in values]
