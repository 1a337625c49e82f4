"""DICOM studies whose files disagree: each relation makes a whole study, and then breaks what should hold in it."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from pydicom import Dataset

from campaign.dicom_inputs import Random, set_oddly, through_a_door
from campaign.studies import SECRET, save, series, study_of, uid

Relation = Callable[[Random], list[Dataset]]


def _copy(images: Sequence[Dataset]) -> list[Dataset]:
    return [copy.deepcopy(data) for data in images]


def _some(rng: Random, images: Sequence[Dataset], at_least: int = 1) -> list[Dataset]:
    count = int(rng.integers(at_least, max(at_least + 1, len(images) // 2)))
    return [images[int(i)] for i in rng.choice(len(images), count, replace=False)]


def two_persons_in_a_study(rng: Random) -> list[Dataset]:
    """Two patients whose series share a StudyInstanceUID, on the same side or not."""
    own = uid(rng)
    planes = ("sagittal", "coronal", "axial")
    other = series(
        rng, planes[int(rng.integers(3))], study=own, person=f"{SECRET[2]}-B", tag="RL"[int(rng.integers(2))]
    )
    return study_of(rng, planes[: int(rng.integers(1, 4))]) + other if rng.random() < 0.2 else [
        *series(rng, planes[int(rng.integers(3))], study=own), *other
    ]  # fmt: skip


def two_persons_in_a_series(rng: Random) -> list[Dataset]:
    """Some images of a series bear another patient's ID."""
    images = series(rng)
    for data in _some(rng, images):
        data.PatientID = f"{SECRET[2]}-B"
    return images


def an_issuer_here_and_there(rng: Random) -> list[Dataset]:
    """Two studies of one ID; some have an issuer, some another."""
    images = series(rng) + series(rng, person=["7730041", "7730042"][int(rng.integers(2))])
    issuers = [["", "A"], ["A", "A"], ["A", "B"], ["", ""]][int(rng.integers(4))]
    for index, data in enumerate(images):
        if issuer := issuers[index // 6]:
            data.IssuerOfPatientID = issuer
    return images


def no_patient(rng: Random) -> list[Dataset]:
    """Two studies, of which one or both lack the ID, wholly or in part."""
    images = series(rng) + series(rng, person=f"{SECRET[2]}-B")
    for data in (images[:6], images[3:9], images, images[:3])[int(rng.integers(4))]:
        data.PatientID = ""
    return images


def slices_missing(rng: Random) -> list[Dataset]:
    """Some slices are not there."""
    images = series(rng, slices=10)
    for index in sorted(rng.choice(10, int(rng.integers(1, 5)), replace=False), reverse=True):
        del images[int(index)]
    return images


def slices_twice(rng: Random) -> list[Dataset]:
    """Some slices stand there twice: copies, or other pixels at the same place."""
    images = series(rng)
    for data in _copy(_some(rng, images)):
        if rng.random() < 0.5:
            data.SOPInstanceUID = uid(rng)
        if rng.random() < 0.3:
            data.PixelData = rng.bytes(len(data.PixelData))
        images.append(data)
    return images


def positions_missing(rng: Random) -> list[Dataset]:
    """One, some or all slices lack their position; numbers may go the other way or be missing."""
    images = series(rng)
    for data in ([images[int(rng.integers(6))]], _some(rng, images, 2), images)[int(rng.integers(3))]:
        if rng.random() < 0.5:
            del data.ImagePositionPatient
        else:
            data.ImagePositionPatient = []
    if rng.random() < 0.3:
        for index, data in enumerate(images):
            data.InstanceNumber = 6 - index
    if rng.random() < 0.2:
        del _some(rng, images)[0].InstanceNumber
    return images


def numbers_against_positions(rng: Random) -> list[Dataset]:
    """InstanceNumbers are shuffled; positions are right."""
    images = series(rng, ("sagittal", "coronal", "axial")[int(rng.integers(3))])
    for data, number in zip(images, rng.permutation(6), strict=True):
        data.InstanceNumber = int(number)
    return images


def orientations_differ(rng: Random) -> list[Dataset]:
    """Orientation differs within a series: by nothing that can be measured, by a little, by a lot, or by sign."""
    images = series(rng)
    size = (1e-7, 1e-4, 3e-3, 0.05, 0.4)[int(rng.integers(5))]
    for data in _some(rng, images, 2):
        if rng.random() < 0.2:
            data.ImageOrientationPatient = [-float(v) for v in data.ImageOrientationPatient]
            continue
        c, s = np.cos(size), np.sin(size)
        row, column = np.array(data.ImageOrientationPatient, float).reshape(2, 3)
        turned = (c * row + s * column, -s * row + c * column)
        data.ImageOrientationPatient = [f"{v:.10g}" for v in np.concatenate(turned)]
    return images


def spacings_differ(rng: Random) -> list[Dataset]:
    """Pixel spacing or slice thickness differs within a series, or contradicts the positions."""
    images = series(rng)
    factor = (1 + 1e-7, 1.0001, 1.01, 2.0)[int(rng.integers(4))]
    for data in _some(rng, images, 2):
        if rng.random() < 0.5:
            data.PixelSpacing = [f"{float(v) * factor:.10g}" for v in data.PixelSpacing]
        else:
            data.SliceThickness, data.SpacingBetweenSlices = f"{4 * factor:.9g}", f"{factor:.9g}"
    return images


def sizes_differ(rng: Random) -> list[Dataset]:
    """Images of two sizes under one SeriesInstanceUID."""
    small, large = series(rng, slices=int(rng.integers(2, 7))), series(rng, side=48)
    for data in small:
        data.StudyInstanceUID, data.SeriesInstanceUID = large[0].StudyInstanceUID, large[0].SeriesInstanceUID
    return small + large


def echoes(rng: Random) -> list[Dataset]:
    """Several echoes under one SeriesInstanceUID, complete or not, their times written now so, now so."""
    first = series(rng)
    images = list(first)
    for number in range(int(rng.integers(1, 4))):
        again = series(rng, study=first[0].StudyInstanceUID, SeriesInstanceUID=first[0].SeriesInstanceUID)
        for data in again:
            data.EchoTime = f"{45 + 15 * number + rng.normal() * (1e-7, 1e-3, 1e-2)[int(rng.integers(3))]:.9g}"
        images += again[: (6, 6, 6, 5, 4, 2)[int(rng.integers(6))]]
    if rng.random() < 0.15:
        del images[-1].EchoTime
    return images


def both_knees(rng: Random) -> list[Dataset]:
    """Two knees in one study, in one series or two, tagged, not tagged or tagged wrongly."""
    own = uid(rng)
    right = series(rng, study=own, x_mm=-80, tag="R", slices=int(rng.integers(6, 10)))
    left = series(rng, study=own, x_mm=80, tag="L")
    if rng.random() < 0.5:
        for data in left:
            data.SeriesInstanceUID = right[0].SeriesInstanceUID
    match int(rng.integers(5)):
        case 0:
            for data in right + left:
                del data.Laterality
        case 1:
            for data in left:
                data.Laterality = "R"
        case 2:
            for data in left:
                del data.Laterality
        case 3:
            for data in right + left:
                data.Laterality = "RL"[int(rng.integers(2))]
    return right + left


def sides_contradict(rng: Random) -> list[Dataset]:
    """The tag says one side and the place the other, or images of a series differ."""
    images = study_of(rng, ("sagittal", "coronal"), x_mm=float(rng.choice([-80, -10, 0, 15, 25, 80])))
    for data in images if rng.random() < 0.4 else _some(rng, images):
        data.Laterality = "L" if rng.random() < 0.8 else ""
    return images


def uid_for_each(rng: Random) -> list[Dataset]:
    """Each image has a series or study UID of its own, as some anonymisers write."""
    images = series(rng)
    keyword = ("SeriesInstanceUID", "StudyInstanceUID", "SOPInstanceUID")[int(rng.integers(3))]
    for data in images if rng.random() < 0.7 else _some(rng, images):
        setattr(data, keyword, uid(rng))
    return images


def uids_shared(rng: Random) -> list[Dataset]:
    """Two series of different studies, persons or planes share a UID."""
    first = series(rng)
    second = series(
        rng, ("sagittal", "axial")[int(rng.integers(2))], person=["7730041", "7730042"][int(rng.integers(2))]
    )
    keywords = ("SeriesInstanceUID", "StudyInstanceUID", "SOPInstanceUID")
    for keyword in {keywords[int(rng.integers(3))] for _ in range(2)}:
        for one, other in zip(first, second, strict=True):
            setattr(other, keyword, getattr(one, keyword))
    return first + second


def uids_invalid(rng: Random) -> list[Dataset]:
    """UIDs that are none, with a name in them."""
    images = study_of(rng, ("sagittal", "axial"))
    text = (f"1.2.{SECRET[0]}", f"{SECRET[1]}.7", "1..2", "9" * 70)[int(rng.integers(4))]
    for data in images:
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"):
            if rng.random() < 0.4:
                value = (
                    text
                    if keyword == "StudyInstanceUID"
                    else f"{text}.{data.InstanceNumber}{data.ImageOrientationPatient[0]:g}"
                )
                set_oddly(data, keyword, value)
    return images


def other_images_among_them(rng: Random) -> list[Dataset]:
    """Localisers, derived, phase or colour images, or another modality, in a series of their own or in this one."""
    images = series(rng)
    wide = rng.random() < 0.3
    other = series(rng, study=images[0].StudyInstanceUID, slices=int(rng.integers(1, 8)), gap_mm=20.0 if wide else 4.0)
    kind = int(rng.integers(7))
    for data in other:
        if rng.random() < 0.95:
            data.ImageType = [["ORIGINAL", "PRIMARY", "LOCALIZER"], ["DERIVED", "SECONDARY", "MPR"],
                              ["ORIGINAL", "PRIMARY", "P"],
                              ["DERIVED", "PRIMARY", "OTHER"], ["ORIGINAL", "PRIMARY", "OTHER"],
                              ["ORIGINAL", "PRIMARY", "R"],
                              ["ORIGINAL", "PRIMARY", "M"]][kind]  # fmt: skip
        if kind == 4:
            data.Modality = ("CT", "SR", "", SECRET[0])[int(rng.integers(4))]
        if rng.random() < 0.5:
            data.SeriesInstanceUID = images[0].SeriesInstanceUID
    return images + other


def several_of_a_plane(rng: Random) -> list[Dataset]:
    """Two or three series of one plane: T1, fat-suppressed, of other lengths, or alike."""
    own = uid(rng)
    result = []
    for _ in range(int(rng.integers(2, 4))):
        one = series(rng, study=own, slices=int(rng.integers(5, 10)))
        for data in one:
            match int(rng.integers(2)) if data is one[0] else -1:
                case 0:
                    kind = {"ScanOptions": "FS"}
                case 1:
                    kind = {"RepetitionTime": 500, "EchoTime": 12}
            for keyword, value in kind.items():
                setattr(data, keyword, value)
        result += one
    return result


def scales_differ(rng: Random) -> list[Dataset]:
    """Slope, intercept, inversion, sign and padding, alike in all images or other in each."""
    images = series(rng)
    for data in images:
        data.RescaleSlope, data.RescaleIntercept = 1.5, -200
    every = rng.random() < 0.5
    for data in images if every else _some(rng, images):
        match int(rng.integers(5)) if not every else int(rng.integers(5)) * 0 + 3:
            case 0:
                data.RescaleSlope = "0.75"
            case 1:
                data.RescaleIntercept = "100"
            case 2:
                data.PhotometricInterpretation = "MONOCHROME1"
            case _:
                values = np.frombuffer(data.PixelData, "<u2").astype("<i2")
                values[: int(rng.integers(1, 300))] = -2000
                data.PixelData, data.PixelRepresentation = values.tobytes(), 1
                set_oddly(data, "PixelPaddingValue", 63536)
    return images


RELATIONS: tuple[Relation, ...] = (
    two_persons_in_a_study, two_persons_in_a_series, an_issuer_here_and_there, no_patient, slices_missing, slices_twice,
    positions_missing, numbers_against_positions, orientations_differ, spacings_differ, sizes_differ, echoes,
    both_knees, sides_contradict, uid_for_each, uids_shared, uids_invalid, other_images_among_them, several_of_a_plane,
    scales_differ,
)  # fmt: skip


def relations(rng: Random, work: Path) -> str:
    """Files that disagree with one another."""
    images = RELATIONS[int(rng.integers(len(RELATIONS)))](rng)
    order = [images[int(i)] for i in rng.permutation(len(images))]
    files = save(work / "in", order, rng)
    return through_a_door(rng, work / "in", work, files)
