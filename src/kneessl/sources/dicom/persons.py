"""Whose images these are: one person by PatientID and its issuer, though either may be missing here and there."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kneessl.errors import UserError
from kneessl.sources.dicom.image import Image
from kneessl.sources.dicom.stack import name_of
from kneessl.sources.exam import Person
from kneessl.sources.notes import Notes

PARTLY_ISSUED = "patient IDs that have an issuer in some files only, each taken as one person's"
UNNAMED = "studies without a PatientID, each taken as a person of its own"
PARTLY_NAMED = "studies of which some files lack the PatientID, taken as that of the others"


class Owner(NamedTuple):
    """Who an image is said to be of."""

    study: str
    patient: str
    """PatientID, empty where it is blank, as for the issuer."""
    issuer: str


class Persons:
    """Tells the persons among some images apart.

    A missing issuer is no other person: where an ID has an issuer in some images only, all images of that ID are one
    person's. A missing ID is that of the other images of its study, where those have just one; else each study without
    an ID counts as a person of its own.

    Args:
        owners: Of the images. To tell those of one study apart, its own owners and all others of their IDs are enough.
    """

    def __init__(self, owners: Iterable[Owner]) -> None:
        self._issuers: dict[str, set[str]] = defaultdict(set)
        self._patients: dict[str, set[str]] = defaultdict(set)
        for study, patient, issuer in owners:
            self._issuers[patient].add(issuer)
            self._patients[study].add(patient)

    def of(self, image: Image) -> Person:
        """The person of an image."""
        named = self._patients[image.study] - {""}
        if not image.patient and len(named) != 1:
            return Person(f"study {image.study}", "")
        patient = image.patient or min(named)
        issuers = self._issuers[patient]
        if len(issuers) == 1:
            return Person(f"patient {patient}", min(issuers))
        by_issuer = "" not in issuers and image.patient
        return Person(f"patient {patient}", image.issuer if by_issuer else "")

    def note(self, notes: Notes) -> None:
        """Say what was assumed of whom."""
        partly = sum(bool(patient) and "" in issuers and len(issuers) > 1 for patient, issuers in self._issuers.items())
        notes.assume(PARTLY_ISSUED, partly)
        notes.assume(UNNAMED, sum(patients == {""} for patients in self._patients.values()))
        mixed = sum("" in patients and len(patients) == 2 for patients in self._patients.values())
        notes.assume(PARTLY_NAMED, mixed)


def owner_of(image: Image) -> Owner:
    """Who an image is said to be of."""
    return Owner(image.study, image.patient, image.issuer)


def by_person(images: Sequence[Image], persons: Persons, notes: Notes) -> dict[Person, list[Image]]:
    """The images of one study by person; a series of several persons is a fault, and in no one's.

    Raises:
        UserError: such a series, unless `notes` skips faults.
    """
    owners: dict[str, set[Person]] = defaultdict(set)
    for image in images:
        owners[image.series].add(persons.of(image))
    for series in sorted(series for series, people in owners.items() if len(people) > 1):
        first = [image for image in images if image.series == series]
        notes.fault(
            UserError(
                f"{name_of(first)} has images of {len(owners[series])} patients (PatientID) under one "
                "SeriesInstanceUID; part them, or correct the IDs, and export it again"
            ),
            first[0].study,
        )
    result: dict[Person, list[Image]] = defaultdict(list)
    for image in images:
        if len(owners[image.series]) == 1:
            result[persons.of(image)].append(image)
    return result
