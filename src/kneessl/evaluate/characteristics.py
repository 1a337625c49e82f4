"""What is known of evaluated exams that may matter: scanner, field, side, sequence, and what about.csv adds."""

from collections.abc import Iterable, Sequence

import numpy as np

from kneessl.errors import UserError
from kneessl.exams.about import ABOUT, read_about
from kneessl.exams.folder import PLANES, ExamFolder
from kneessl.sources.dicom.laterality import SIDES

SEQUENCES = {True: "fat-suppressed", False: "not fat-suppressed", None: ""}
"""By whether fat is suppressed."""
MOST_GROUPS = 20
"""Texts of more values than this are names rather than groups."""


def characteristics_of(
    planes: Sequence[str], folder: ExamFolder, split: str, exams: Sequence[str], by: Sequence[str] = ()
) -> dict[str, list[str]]:
    """What is known of each exam that may matter, by characteristic; empty text where it is not known.

    Scanner, field, spacing and sequence are those of the first plane that each exam was answered from. Numbers, such as
    an age, become thirds.

    Args:
        planes: (n,) which planes each exam was answered from, such as axial+sagittal.
        folder: Exam folder.
        split: Of the exams.
        exams: (n,) their names.
        by: Characteristics that are asked for; none for all that tell exams apart.

    Raises:
        UserError: one that is asked for is not known, or the same for all exams, or no group but a name.
    """
    found = _of_series(planes, folder, split, exams)
    for name, values in read_about(folder).items():
        found[name] = _grouped([values.get((split, exam), "") for exam in exams])
    if not by:
        return {name: values for name, values in found.items() if _kinds(values) in range(2, MOST_GROUPS + 1)}
    for name in by:
        kinds = _kinds(found[name]) if name in found else 0
        if kinds not in range(2, MOST_GROUPS + 1):
            told = ", ".join(other for other, values in found.items() if _kinds(values) in range(2, MOST_GROUPS + 1))
            what = {0: "is not known of any", 1: "is the same for all"}.get(kinds, f"has {kinds} values for these")
            raise UserError(
                f"by: {name} {what} exam{'' if kinds == 0 else 's'} of {split}; choose among {told or 'nothing'}, or "
                f"say it in {folder.root / ABOUT} (split,exam,{name})"
            )
    return {name: found[name] for name in by}


def _kinds(values: Iterable[str]) -> int:
    return len(set(values) - {""})


def _of_series(planes: Sequence[str], folder: ExamFolder, split: str, exams: Sequence[str]) -> dict[str, list[str]]:
    """What `exams.csv` and the series themselves say."""
    lines = {(line.exam, line.plane): line for line in folder.provenance() if line.split == split}
    first = [next(plane for plane in PLANES if plane in key.split("+")) for key in planes]
    known = [lines.get((exam, plane)) for exam, plane in zip(exams, first, strict=True)]
    spacing = np.array([line.slice_mm if line and line.slice_mm > 0 else np.nan for line in known])
    found = {
        "scanner": [line.scanner if line else "" for line in known],
        "field": [line.field if line else "" for line in known],
        "laterality": [SIDES.get(line.laterality, "") if line else "" for line in known],
    }
    if np.isnan(spacing).all():
        series = zip(exams, first, strict=True)
        counts = np.array([folder.slices(split, plane, exam) for exam, plane in series], float)
        found["slices in the series"] = thirds(counts, "{:.0f} to {:.0f}")
    else:
        found["distance of slices"] = thirds(spacing, "{:.1f} to {:.1f} mm")
    found["sequence"] = [SEQUENCES[line.fat_suppressed] if line else "" for line in known]
    found["planes answered from"] = [key.replace("+", ", ") for key in planes]
    return found


def _grouped(values: list[str]) -> list[str]:
    """Values as they are; numbers of more than four values as thirds."""
    if _kinds(values) > 4:
        try:
            numbers = np.array([float(value) if value else np.nan for value in values])
        except ValueError:
            return values
        if np.isfinite(numbers).any() and not np.isinf(numbers).any():
            return thirds(numbers, "{:g} to {:g}")
    return values


def thirds(values: np.ndarray, words: str) -> list[str]:
    """The third that each value falls into, named by the lowest and highest of it; empty text for NaN."""
    cuts = np.nanquantile(values, (1 / 3, 2 / 3))
    known = ~np.isnan(values)
    place = np.where(known, np.searchsorted(cuts, values), -1)  # a value on a cut belongs to the lower third
    names = {k: words.format(values[place == k].min(), values[place == k].max()) for k in np.unique(place[known])}
    return [names.get(k, "") for k in place]
