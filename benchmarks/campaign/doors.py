"""The doors of kneessl through which the inputs go, each followed by the judgement of what came out."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from campaign.judge import REFUSED, Told, Written, exams_of, judge, tell, temporary_in
from campaign.reading import Slice, slices_of
from kneessl.exams.folder import PLANES
from kneessl.reader.answer.assess import Assessor, readable, study_flags
from kneessl.reader.intake.intake import files_of
from kneessl.sources.importer import import_exams

Reading = Callable[[], tuple[list[Slice], int]]


def imported(src: Path, work: Path, reading: Reading, **settings: Any) -> str:
    """`kneessl import`.

    Args:
        src: What is imported.
        work: An empty folder.
        reading: The plain reading of the same.
        settings: Of the command.
    """
    (work / "made").mkdir()
    (work / "tmp").mkdir()
    out = work / "made" / "exams"
    with temporary_in(work / "tmp"):
        told = tell(lambda: import_exams(src, out, **settings), work / "made", work / "tmp")
    if told.refusal:
        return REFUSED
    return judge(exams_of(out), *reading(), told.text)


def read_by_predict(src: Path, work: Path, reading: Reading) -> str:
    """What `kneessl predict` takes of a study, before its model looks at it."""
    (work / "tmp").mkdir()

    def door() -> tuple[list[Written], str, int]:
        assessor = Assessor.__new__(Assessor)  # finding knees needs no model
        with files_of(str(src)) as files:
            knees = assessor.knees(files)
            written, text = [], ""
            spoken_of: dict[tuple[str, int], int] = {}
            for number, knee in enumerate(knees):
                used, facts = readable(knee, PLANES)
                flags = [flag.text for flag in study_flags(knee, used, facts)]
                words = [*flags, *knee.left_out, *(fact.reason for fact in facts), knee.laterality_from]
                text += "; ".join(words) + ("; left out" if knee.left_out else "")
                spoken_of |= {(knee.study, fact.number): fact.slices for fact in facts}
                written += [
                    Written(str(number), plane, one.volume, one.pixel_mm, one.slice_mm, knee.laterality, knee.person,
                            one.choice)
                    for plane, one in used.items()
                ]  # fmt: skip
        return written, text, sum(spoken_of.values())

    with temporary_in(work / "tmp"):
        told: Told = tell(door, work / "tmp")
    if told.refusal:
        return REFUSED
    written, text, spoken_of = told.value
    if not written:
        return REFUSED
    slices, unread = reading()
    return judge(written, slices, unread, text + "; left out" * (spoken_of >= len(slices) + unread))


def plain(files: Sequence[Path]) -> Reading:
    """The plain reading of DICOM files, when it is asked for."""
    return lambda: slices_of(files)
