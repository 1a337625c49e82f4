"""The end of an import: exams get names and groups, series their places, and the tables are written."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kneessl.errors import UserError
from kneessl.exams.folder import (
    PLANES,
    SPLITS,
    ExamFolder,
    LabelTable,
    Provenance,
    Split,
    read_provenance,
    write_labels,
    write_table,
)
from kneessl.files import replacing
from kneessl.progress import progress
from kneessl.sources.archive.index import Index
from kneessl.sources.archive.keys import KeyRow
from kneessl.sources.archive.salt import Salt
from kneessl.sources.exam import Person
from kneessl.sources.notes import Note

_COLUMNS = ("study_hash", "exams", "kind", "what", "count")
"""Of `import.csv`."""
VOLUMES = ("NIfTI", "npy", "KneeMRI")
"""Sources whose exams have no identity but their voxels."""
_TWO_PERSONS = (
    "its PatientID is that of persons in different splits, and it has no issuer to tell which; give it one, and add it "
    "again"
)


@dataclass(frozen=True)
class Naming:
    """How exams get their places."""

    split: Split
    same_patient: bool
    salt: Salt


def learn(index: Index, out: Path, salt: Salt) -> None:
    """Record the studies and persons that an exam folder has already.

    Raises:
        UserError: another version of kneessl, or one with another salt, imported it.
    """
    for line in read_provenance(out / "exams.csv"):
        if line.source in VOLUMES:  # nothing but their voxels tells what they are
            index.db.execute("INSERT OR IGNORE INTO known VALUES (?)", (line.source_sha256,))
            continue
        if not line.study_hash:
            raise UserError(
                f"--add: {out / 'exams.csv'} has no hashes of its studies, as an earlier version or another "
                "tool wrote it; import it again as a new folder"
            )
        if not line.study_hash.startswith(f"{salt.name}-"):
            raise UserError(
                f"--add: {out} was imported with another salt than this user's, so that its studies and persons "
                "cannot be recognised; use that of whoever imported it (~/.config/kneessl/salt)"
            )
        name, _, issuer = line.person_hash.partition("/")
        index.db.execute("INSERT OR IGNORE INTO known VALUES (?)", (line.study_hash,))
        index.add_person(name, issuer, line.patient_group, line.split, earlier=True)
    index.db.commit()


def name_exams(index: Index, before: Path, naming: Naming) -> None:
    """Give each exam its name, split and group, in an order that depends on no file name; not yet committed.

    Args:
        index: Of the import.
        before: The `exams.csv` of the folder as it was, if there was one.
        naming: How.
    """
    number, groups = _taken(before)
    for source, key, study, content, *_ in index.exams():
        person = Person("", "") if naming.same_patient else Person(*content["person"])
        known = _known(index, person, naming.salt)
        if known is None:
            index.add_notes([Note(content["uid"], "fault", _TWO_PERSONS, 1)], study)
            index.db.execute("DELETE FROM exams WHERE source = ? AND key = ?", (source, key))
            continue
        group, split = known
        if not group:
            group, groups = f"g{groups:04d}", groups + 1
            split = content["split"] or naming.split
            index.add_person(*_hashes(person, naming.salt), group, split, earlier=False)
        elif not split:
            split = content["split"] or naming.split
        elif split != (content["split"] or naming.split):
            index.add_notes([Note("", "assumed", "exams put into the split that their patient is in already", 1)])
        index.place(source, key, f"{number:04d}", split, group)
        number += 1


def _taken(before: Path) -> tuple[int, int]:
    """The first number for a name, and for a group, that no line of an `exams.csv` has."""
    number = groups = 0
    for line in read_provenance(before):
        number = max(number, int(line.exam) + 1 if line.exam.isdecimal() else 0)
        groups = max(groups, int(line.patient_group[1:]) + 1 if line.patient_group[1:].isdecimal() else 0)
    return number, groups


def _known(index: Index, person: Person, salt: Salt) -> tuple[str, str] | None:
    """Group of a person, and their split where they have exams in the folder already; both empty for a new person.

    None where it may be one of several, whose exams lie in different splits.
    """
    name, issuer = _hashes(person, salt)
    persons = index.persons(name)
    for known_issuer, group, split, earlier in persons:
        if known_issuer == issuer:
            return group, split if earlier else ""
    # A missing issuer is no other person.
    alike = [(group, split) for known, group, split, earlier in persons if earlier and not (known and issuer)]
    if len({split for _, split in alike}) > 1:
        return None
    return alike[0] if alike else ("", "")


def _hashes(person: Person, salt: Salt) -> tuple[str, str]:
    """Of an ID and its issuer; both empty where all exams are of one person who is not named."""
    name = salt.hash(person.name) if person.name else ""
    return name, salt.hash(f"issuer {person.issuer}")[-16:] if person.issuer else ""


def lines(index: Index, naming: Naming, before: Path) -> Iterator[Provenance]:
    """The lines of `exams.csv`: those that were there, kept in the file `before`, then those of the import."""
    yield from read_provenance(before)
    for source, _, _, content, exam, split, group in index.exams():
        person = Person("", "") if naming.same_patient else Person(*content["person"])
        name, issuer = _hashes(person, naming.salt)
        place = {"split": split, "exam": exam, "patient_group": group}
        if not source:
            place["study_hash"] = naming.salt.hash(f"study {content['uid']}")
            place["person_hash"] = f"{name}/{issuer}" if issuer else name
        for series in content["series"]:
            yield Provenance(**(series["line"] | place))


def move_series(index: Index, staging: Path, root: Path) -> None:
    """Give each series its place in an exam folder; those that have it already are left."""
    for _, _, _, content, exam, split, _ in progress(index.exams(), title="places", unit="exam", delay=2):
        for series in content["series"]:
            place = root / split / series["line"]["plane"] / f"{exam}.npy"
            if (staging / series["file"]).exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                (staging / series["file"]).rename(place)


def write_published_labels(index: Index, root: Path) -> None:
    """Write labels that came with a source, in MRNet's form, beside those that are there."""
    known: dict[tuple[str, str], dict[str, int]] = {}
    for _, _, _, content, exam, split, _ in index.exams():
        for task, label in content["labels"].items():
            if (split, task) not in known:
                there = (root / f"{split}-{task}.csv").is_file()
                known[split, task] = ExamFolder(root).read_labels(split, task) if there else {}
            known[split, task][exam] = label
    for (split, task), labels in known.items():
        write_labels(root, split, task, labels)


def extend_tables(root: Path) -> None:
    """Give each exam that was added a line in the table of labels of its split, where there is one."""
    folder = ExamFolder(root)
    for split in SPLITS:
        table = folder.table(split)
        exams = set().union(*(folder.exams(split, plane) for plane in PLANES)) if table.tasks else set()
        if missing := exams - table.rows.keys():
            rows = table.rows | dict.fromkeys(missing, (None,) * len(table.tasks))
            write_table(root, split, LabelTable(table.tasks, dict(sorted(rows.items()))))


def write_import_table(index: Index, root: Path, salt: Salt) -> None:
    """Write `import.csv`: what was left out of which study, and why; lines of other studies stay."""
    path = root / "import.csv"
    index.gather_hashes(salt.hash)
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(_of_other_studies(index, path))
        for study, kind, what, count in index.notes():
            uid = index.one("SELECT uid FROM studies WHERE study = ? AND images", study)
            exams = index.one("SELECT count(*) FROM exams WHERE study = ?", study)
            of_study = [salt.hash(f"study {uid}"), exams] if uid else ["", ""]
            writer.writerow([*of_study, kind, what, count])


def _of_other_studies(index: Index, path: Path) -> Iterator[list[str]]:
    """The lines of an earlier `import.csv` on studies that were not read again."""
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.reader(file):
                name = row[0] if len(row) == len(_COLUMNS) else ""
                if "-" in name and not index.one("SELECT 1 FROM hashes WHERE study_hash = ?", name):
                    yield row


def key_rows(index: Index) -> Iterator[KeyRow]:
    """All that an import's exams are known by, then the studies that gave none."""
    for _, _, study, content, exam, split, _ in index.exams():
        side = content["series"][0]["line"]["laterality"]
        for uid, series, accession, patient, path in index.series_of(study):
            if content["of_series"] is None or series in content["of_series"]:
                yield KeyRow(exam, split, side, uid, series, accession, patient, path)
    for (study,) in index.studies_without_exams():
        for uid, series, accession, patient, path in index.series_of(study):
            yield KeyRow("", "", "", uid, series, accession, patient, path)


@dataclass(frozen=True)
class Counts:
    """What an import brought."""

    exams: int
    series: int
    splits: tuple[str, ...]


def counts(index: Index) -> Counts:
    """How many exams and series there are, and in which splits."""
    exams = series = 0
    splits: dict[str, None] = {}
    for _, _, _, content, _, split, _ in index.exams():
        exams, series = exams + 1, series + len(content["series"])
        splits[split] = None
    return Counts(exams, series, tuple(splits))


def remarks(index: Index) -> Iterator[str]:
    """What is said of each series and exam, in the order of their names."""
    for _, _, _, content, exam, _, _ in index.exams():
        for series in content["series"]:
            yield from (f"{exam} {series['line']['plane']}: {text}" for text in series["quality"])
        yield from (f"{exam}: {text}" for text in content["remarks"])
