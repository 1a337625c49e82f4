"""Headers as the makers of scanners write them, and the contrast that they have."""

import numpy as np
import pytest
from helpers.dicom import write_dicom
from pydicom import Dataset

from kneessl.sources.dicom.contrast import contrast_of
from kneessl.sources.dicom.image import images
from kneessl.sources.notes import Notes


def contrast(folder, **tags):
    write_dicom(folder, np.zeros((1, 4, 4)), **tags)
    (file,) = folder.iterdir()
    (image,) = images(file, "file 1 of 1", Notes())
    return contrast_of(image)


def item(**tags) -> Dataset:
    data = Dataset()
    for name, value in tags.items():
        setattr(data, name, value)
    return data


GE = {"ScanningSequence": "SE", "SequenceVariant": "SK"}
SIEMENS = {"ScanningSequence": "SE", "SequenceVariant": ["SK", "SP", "OSP"]}
PHILIPS = {"ScanningSequence": "SE", "SequenceVariant": "SK", "SequenceName": ""}

CASES = {
    # spin echo, by TR and TE
    "GE PD FS": (
        {**GE, "RepetitionTime": 2500, "EchoTime": 31.2, "ScanOptions": ["FAST_GEMS", "EDR_GEMS", "FS", "PFF"]},
        "PD", True, "TR 2500 ms, TE 31.2 ms, ScanOptions FS",
    ),
    "GE PD": (
        {**GE, "RepetitionTime": 2500, "EchoTime": 31.2, "ScanOptions": ["FAST_GEMS", "SAT_GEMS", "PFP"]},
        "PD", False, "TR 2500 ms, TE 31.2 ms, no fat suppression among its options",
    ),
    "GE T1": ({**GE, "RepetitionTime": 650, "EchoTime": 11.5}, "T1", None, "TR 650 ms, TE 11.5 ms"),
    "GE T2 FS": (
        {**GE, "RepetitionTime": 4000, "EchoTime": 68, "ScanOptions": ["FAST_GEMS", "FS"]},
        "T2", True, "TR 4000 ms, TE 68 ms, ScanOptions FS",
    ),
    "Siemens PD FS": (
        {**SIEMENS, "RepetitionTime": 3200, "EchoTime": 34, "ScanOptions": ["PFP", "FS"], "SequenceName": "*tse2d1_7"},
        "PD", True, "TR 3200 ms, TE 34 ms, ScanOptions FS",
    ),
    "Siemens T1": (
        {**SIEMENS, "RepetitionTime": 750, "EchoTime": 12, "ScanOptions": "", "SequenceName": "*tse2d1_3"},
        "T1", None, "TR 750 ms, TE 12 ms",
    ),
    "Siemens SPACE PD at its shortest TR": (
        {**SIEMENS, "RepetitionTime": 900, "EchoTime": 38, "ScanOptions": "PFP", "SequenceName": "*spc3d1"},
        "PD", False, "TR 900 ms, TE 38 ms",
    ),
    "Philips PD SPAIR": (
        {**PHILIPS, "RepetitionTime": 3000, "EchoTime": 30, "ScanOptions": "FS", "InversionTime": 0},
        "PD", True, "TR 3000 ms, TE 30 ms, ScanOptions FS",
    ),
    "water excitation": (
        {**PHILIPS, "RepetitionTime": 3000, "EchoTime": 30, "ScanOptions": "WE"}, "PD", True, "ScanOptions WE",
    ),
    "partial Fourier is not fat": (
        {**GE, "RepetitionTime": 3000, "EchoTime": 30, "ScanOptions": ["PFF", "PFP"]}, "PD", False, "no fat supp",
    ),
    "intermediate TE is PD": ({**GE, "RepetitionTime": 3000, "EchoTime": 59}, "PD", None, "TE 59 ms"),
    "60 ms is T2": ({**GE, "RepetitionTime": 3000, "EchoTime": 60}, "T2", None, "TE 60 ms"),
    "899 ms is T1": ({**GE, "RepetitionTime": 899, "EchoTime": 29}, "T1", None, "TR 899 ms"),
    "short TR, long TE": ({**GE, "RepetitionTime": 600, "EchoTime": 80}, "unknown", None, "TR 600 ms, TE 80 ms"),
    # inversion
    "Siemens TIRM": (
        {"ScanningSequence": ["SE", "IR"], "RepetitionTime": 4500, "EchoTime": 36, "InversionTime": 160,
         "SequenceName": "*tir2d1_11"},
        "T2", True, "inversion with TI 160 ms (STIR)",
    ),
    "GE STIR": (
        {"ScanningSequence": "IR", "RepetitionTime": 4000, "EchoTime": 42, "InversionTime": 150},
        "T2", True, "inversion with TI 150 ms (STIR)",
    ),
    "STIR by its sequence's name only": (
        {"RepetitionTime": 4000, "EchoTime": 42, "InversionTime": 220, "SequenceName": "tir2d1"},
        "T2", True, "inversion with TI 220 ms (STIR)",
    ),
    "a TI alone is no inversion": (
        {**PHILIPS, "RepetitionTime": 3000, "EchoTime": 30, "InversionTime": 100}, "PD", None, "TI 100 ms",
    ),
    "dark fluid": (
        {"ScanningSequence": ["SE", "IR"], "RepetitionTime": 9000, "EchoTime": 90, "InversionTime": 2500},
        "unknown", None, "TI 2500 ms",
    ),
    # gradient echo
    "Siemens FLASH WE": (
        {"ScanningSequence": "GR", "SequenceVariant": ["SP", "OSP"], "RepetitionTime": 20, "EchoTime": 7.57,
         "FlipAngle": 12, "ScanOptions": "WE", "SequenceName": "*fl3d1"},
        "T1", True, "gradient echo, TR 20 ms, TE 7.57 ms, flip angle 12 degrees, ScanOptions WE",
    ),
    "Siemens DESS WE": (
        {"ScanningSequence": "GR", "SequenceVariant": ["SS", "OSP"], "RepetitionTime": 16.3, "EchoTime": 4.7,
         "FlipAngle": 25, "ScanOptions": "WE", "SequenceName": "*de3d1"},
        "unknown", True, "gradient echo",
    ),
    "Philips T2* FFE": (
        {"ScanningSequence": "GR", "RepetitionTime": 500, "EchoTime": 14, "FlipAngle": 25}, "T2*", None, "TE 14 ms",
    ),
    "spoiled with a small angle": (
        {"ScanningSequence": "GR", "SequenceVariant": "SP", "RepetitionTime": 30, "EchoTime": 5, "FlipAngle": 5},
        "unknown", None, "flip angle 5 degrees",
    ),
    "a TR too short for a spin echo": ({"RepetitionTime": 40, "EchoTime": 15}, "T2*", None, "gradient echo, TR 40 ms"),
    "a gradient echo by its name": (
        {"RepetitionTime": 400, "EchoTime": 15, "SequenceName": "*me2d1"}, "T2*", None, "gradient echo",
    ),
    # Dixon
    "Dixon water": (
        {**GE, "ImageType": ["DERIVED", "PRIMARY", "DIXON", "WATER"], "RepetitionTime": 3000, "EchoTime": 35},
        "PD", True, "ImageType WATER",
    ),
    "Philips mDixon water": (
        {**PHILIPS, "ImageType": ["ORIGINAL", "PRIMARY", "W", "W", "SE"], "RepetitionTime": 700, "EchoTime": 12},
        "T1", True, "ImageType WATER",
    ),
    "Dixon in phase": (
        {**GE, "ImageType": ["DERIVED", "PRIMARY", "DIXON", "IN_PHASE"], "RepetitionTime": 3000, "EchoTime": 35},
        "PD", False, "ImageType IN_PHASE",
    ),
    # descriptions
    "times outweigh the description": (
        {**GE, "RepetitionTime": 600, "EchoTime": 12, "SeriesDescription": "SAG T2 TSE"}, "T1", None, "TR 600 ms",
    ),
    "no times": ({"EchoTime": None, "SeriesDescription": "t2_tse_sag"}, "T2", None, "its description"),
    "fat suppression by the description": (
        {**GE, "RepetitionTime": 3000, "EchoTime": 30, "ScanOptions": "FAST_GEMS", "SeriesDescription": "Cor PDFS"},
        "PD", True, "fat suppression by its description",
    ),
    "the protocol's name": ({"EchoTime": None, "ProtocolName": "t1 cor spair"}, "T1", True, "its description"),
    "an ambiguous description": ({"EchoTime": None, "SeriesDescription": "PD/T2 dual"}, "unknown", None, "nothing"),
    "T2* in a description": ({"EchoTime": None, "SeriesDescription": "ax_t2_star"}, "T2*", None, "its description"),
    "a name is no hint": (
        {"EchoTime": None, "SeriesDescription": "Howe^Fsx Stirling Pdorf"}, "unknown", None, "nothing in its header",
    ),
    # damage says nothing
    "nothing": ({"EchoTime": None}, "unknown", None, "nothing in its header"),
    "several flip angles": (
        {"ScanningSequence": "GR", "SequenceVariant": "SP", "RepetitionTime": 30, "EchoTime": 5, "FlipAngle": [15, 5]},
        "T1", None, "flip angle 15 degrees",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("tags", "weighting", "fat_suppressed", "reason"), CASES.values(), ids=CASES)
def test_contrast(tmp_path, tags, weighting, fat_suppressed, reason):
    found = contrast(tmp_path / "src", **tags)
    assert (found.weighting, found.fat_suppressed) == (weighting, fat_suppressed)
    assert reason in found.reason


def enhanced(echo_ms=30.0, modifier=(), contrast="UNKNOWN", timing=(), **tags):
    shared = {
        "MRTimingAndRelatedParametersSequence": [item(**{"RepetitionTime": 3000, "FlipAngle": 90, **dict(timing)})],
        "MRModifierSequence": [item(InversionRecovery="NO", SpectrallySelectedExcitation="NONE", **dict(modifier))]
        if "InversionRecovery" not in dict(modifier)
        else [item(**dict(modifier))],
        "PixelMeasuresSequence": [item(PixelSpacing=[1, 1], SliceThickness=3)],
    }
    own = {
        "MRImageFrameTypeSequence": [
            item(FrameType=["ORIGINAL", "PRIMARY", "M", "NONE"], AcquisitionContrast=contrast)
        ],
        "MREchoSequence": [item(EffectiveEchoTime=echo_ms)],
    }
    return {
        "EchoTime": None,
        "NumberOfFrames": 1,
        "SharedFunctionalGroupsSequence": [item(**shared)],
        "PerFrameFunctionalGroupsSequence": [item(**own)],
        **tags,
    }


ENHANCED = {
    "Siemens XA PD FS": (
        enhanced(34.0, EchoPulseSequence="SPIN", SpectrallySelectedSuppression="FAT"),
        "PD", True, "TR 3000 ms, TE 34 ms, SpectrallySelectedSuppression FAT",
    ),
    "Philips PD": (
        enhanced(34.0, EchoPulseSequence="SPIN", SpectrallySelectedSuppression="NONE", ScanOptions="OTHER"),
        "PD", False, "no fat suppression among its options",
    ),
    "fat suppression in the modifier": (
        enhanced(34.0, [("SpectrallySelectedSuppression", "FAT")]), "PD", True, "SpectrallySelectedSuppression FAT",
    ),
    "STIR": (
        enhanced(40.0, [("InversionRecovery", "YES"), ("InversionTimes", 190.0)], contrast="STIR"),
        "T2", True, "inversion with TI 190 ms (STIR)",
    ),
    "water excitation": (
        enhanced(
            7.0, [("InversionRecovery", "NO"), ("SpectrallySelectedExcitation", "WATER"), ("Spoiling", "RF")],
            timing=[("RepetitionTime", 20), ("FlipAngle", 15)], EchoPulseSequence="GRADIENT",
        ),
        "T1", True, "gradient echo, TR 20 ms, TE 7 ms, flip angle 15 degrees, SpectrallySelectedExcitation WATER",
    ),
    "stated where times do not tell": (
        enhanced(4.0, contrast="PROTON_DENSITY", EchoPulseSequence="GRADIENT"), "PD", False, "AcquisitionContrast PD",
    ),
    "times outweigh what is stated": (enhanced(80.0, contrast="T1"), "T2", False, "TE 80 ms"),
}  # fmt: skip


@pytest.mark.parametrize(("tags", "weighting", "fat_suppressed", "reason"), ENHANCED.values(), ids=ENHANCED)
def test_contrast_of_enhanced_images(tmp_path, tags, weighting, fat_suppressed, reason):
    found = contrast(tmp_path / "src", **tags)
    assert (found.weighting, found.fat_suppressed) == (weighting, fat_suppressed)
    assert reason in found.reason


def test_every_echo_of_the_real_knee_is_pd_without_fat_suppression(real_data):
    for file in sorted(real_data("knee_mese").iterdir())[::24]:
        (image,) = images(file, "a file", Notes())
        found = contrast_of(image)
        assert (found.weighting, found.fat_suppressed) == ("PD", False)
        assert str(found) == "PD without fat suppression"


@pytest.mark.parametrize(("name", "weighting"), [("philips.dcm", "T1"), ("siemens_xa10.dcm", "T2*")])
def test_contrast_of_real_enhanced_files(real_data, monkeypatch, name, weighting):
    """A series with TE 1.5 ms that Philips states to be T1, and an echo-planar one."""
    monkeypatch.setattr("kneessl.sources.dicom.image._ELSEWHERE", frozenset())
    found = contrast_of(images(real_data("dicom_formats/enhanced") / name, name, Notes())[0])
    assert found.reason.startswith("gradient echo")
    assert found.weighting == weighting
