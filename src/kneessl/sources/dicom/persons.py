"""Whose images these are: one person by PatientID and its issuer, though either may be missing here and there."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from kneessl.errors import UserError
from kneessl.sources.dicom.image import Image
from kneessl.sources.dicom.stack import name_of
from kneessl.sources.notes import Notes


class Persons:
    """Tells the persons among some images apart.

    A missing issuer is no other person: where an ID has an issuer in some images only, all images of that ID are one
    person's. A missing ID is that of the other images of its study, where those have just one; else each study without
    an ID counts as a person of its own.
    """

    def __init__(self, images: Iterable[Image]) -> None:
        self._issuers: dict[str, set[str]] = defaultdict(set)
        self._patients: dict[str, set[str]] = defaultdict(set)
        for image in images:
            self._issuers[image.patient].add(image.issuer)
            self._patients[image.study].add(image.patient)

    def of(self, image: Image) -> str:
        """A key for the person of an image; not to be written anywhere."""
        named = self._patients[image.study] - {""}
        if not image.patient and len(named) != 1:
            return f"study {image.study}"
        patient = image.patient or min(named)
        issuers = self._issuers[patient]
        by_issuer = len(issuers) > 1 and "" not in issuers
        return f"patient {patient} of {image.issuer}" if by_issuer and image.patient else f"patient {patient}"

    def note(self, notes: Notes) -> None:
        """Say what was assumed of whom."""
        partly = sum(bool(patient) and "" in issuers and len(issuers) > 1 for patient, issuers in self._issuers.items())
        notes.assume("patient IDs that have an issuer in some files only, each taken as one person's", partly)
        unnamed = sum(patients == {""} for patients in self._patients.values())
        notes.assume("studies without a PatientID, each taken as a person of its own", unnamed)
        mixed = sum("" in patients and len(patients) == 2 for patients in self._patients.values())
        notes.assume("studies of which some files lack the PatientID, taken as that of the others", mixed)


def by_person(images: Sequence[Image], persons: Persons, notes: Notes) -> dict[str, list[Image]]:
    """The images of one study by person; a series of several persons is a fault, and in no one's.

    Raises:
        UserError: such a series, unless `notes` skips faults.
    """
    owners: dict[str, set[str]] = defaultdict(set)
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
    result: dict[str, list[Image]] = defaultdict(list)
    for image in images:
        if len(owners[image.series]) == 1:
            result[persons.of(image)].append(image)
    return result
