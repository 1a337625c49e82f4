"""The index of an import: all that is known so far, in one SQLite file that only this user may read.

It holds what identifies patients, lies in a folder beside the exam folder, and is gone once the import is done. Each
step is recorded in a transaction of its own, so that whatever ends the process, the next one knows what is done.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kneessl.sources.dicom.persons import PARTLY_ISSUED, PARTLY_NAMED, UNNAMED, Owner
from kneessl.sources.dicom.series import digest
from kneessl.sources.notes import Note

_SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE found (path BLOB);
CREATE TABLE files (number INTEGER PRIMARY KEY, path BLOB);
CREATE TABLE batches (first INTEGER PRIMARY KEY);
CREATE TABLE records (study TEXT, first INTEGER, images INTEGER, record BLOB);
CREATE INDEX records_of_study ON records (study, first);
CREATE TABLE series (study TEXT, StudyInstanceUID TEXT, SeriesInstanceUID TEXT, AccessionNumber TEXT, PatientID TEXT,
    issuer TEXT, path TEXT,
    UNIQUE (study, StudyInstanceUID, SeriesInstanceUID, AccessionNumber, PatientID, issuer, path));
CREATE INDEX series_of_patient ON series (PatientID);
CREATE TABLE patients (PatientID TEXT, issuer TEXT, PRIMARY KEY (PatientID, issuer)) WITHOUT ROWID;
CREATE TABLE notes (study TEXT, kind TEXT, what TEXT, count INTEGER, of_study INTEGER);
CREATE TABLE studies (study TEXT PRIMARY KEY, uid TEXT, images INTEGER, done INTEGER DEFAULT 0);
CREATE TABLE exams (source INTEGER, key TEXT, study TEXT, content TEXT, exam TEXT, split TEXT, person_group TEXT,
    PRIMARY KEY (source, key));
CREATE INDEX exams_of_study ON exams (study);
CREATE TABLE persons (id TEXT, issuer TEXT, person_group TEXT, split TEXT, earlier INTEGER);
CREATE INDEX persons_of_id ON persons (id);
CREATE TABLE known (hash TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_PAGE = 500
ESCAPED = "surrogateescape"
"""How bytes that are no text stand in strings, as in Python's file names."""


class Index:
    """An import's index.

    Args:
        path: Its file; made if it is missing.
    """

    def __init__(self, path: Path) -> None:
        fresh = not path.exists()
        self.db = sqlite3.connect(path, timeout=0)
        path.chmod(0o600)
        self.db.text_factory = lambda text: text.decode(errors=ESCAPED)
        # Exclusive: one process at a time, and no shared memory, which network file systems do not have.
        self.db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = NORMAL")
        if fresh or self.one("SELECT count(*) FROM sqlite_master") == 0:
            self.db.executescript(f"BEGIN; {_SCHEMA} COMMIT;")

    def close(self) -> None:
        """Close the file; what was not committed is lost."""
        self.db.close()

    def one(self, query: str, *values: Any) -> Any:
        """The first value of the first row; None where there is none."""
        row = self.db.execute(query, values).fetchone()
        return None if row is None else row[0]

    def pages(self, query: str, *after: Any) -> Iterator[tuple[Any, ...]]:
        """Rows of a query whose parameters are the first cells of the row before, and whose limit the last.

        Between pages nothing is read, so that rows may be written meanwhile.
        """
        while rows := self.db.execute(query, (*after, _PAGE)).fetchall():
            yield from rows
            after = rows[-1][: len(after)]

    # ---- how far it is

    @property
    def phase(self) -> str:
        """The last step that was finished; empty before the first."""
        return self.about("phase") or ""

    def finish(self, phase: str) -> None:
        """Record that a step is finished, and all that it wrote."""
        self.set_about(phase=phase)

    def about(self, name: str) -> str | None:
        """Something that is known of the import as a whole."""
        return self.one("SELECT value FROM about WHERE name = ?", name)

    def set_about(self, **values: str) -> None:
        """Set what is known of the import as a whole, and commit."""
        self.db.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", values.items())
        self.db.commit()

    # ---- files

    def number_files(self, paths: Iterable[bytes]) -> None:
        """Number files by their relative paths, whatever order they come in."""
        self.db.execute("DELETE FROM found")
        self.db.executemany("INSERT INTO found VALUES (?)", ((path,) for path in paths))
        self.db.execute("DELETE FROM files")
        self.db.execute("INSERT INTO files (path) SELECT path FROM found ORDER BY path")
        self.db.execute("DELETE FROM found")

    @property
    def files(self) -> int:
        """How many there are."""
        return self.one("SELECT count(*) FROM files")

    def files_after(self, number: int, most: int) -> list[tuple[int, bytes]]:
        """The next files by number."""
        query = "SELECT number, path FROM files WHERE number > ? ORDER BY number LIMIT ?"
        return self.db.execute(query, (number, most)).fetchall()

    # ---- headers

    def add_batch(self, first: int, records: Iterable[tuple[str, int, bytes]], series: Iterable[Sequence[str]]) -> None:
        """What was read of a batch of files; not yet committed.

        Args:
            first: Number of its first file.
            records: StudyInstanceUID, how many images, and the record.
            series: The columns of `series` after the study.
        """
        self.db.executemany(
            "INSERT INTO records VALUES (?, ?, ?, ?)",
            ((digest(study), first, images, record) for study, images, record in records),
        )
        rows = [(digest(row[0]), *row) for row in series]
        self.add_series(rows)
        cells = ((row[4].encode(errors=ESCAPED), row[5].encode(errors=ESCAPED)) for row in rows)
        self.db.executemany("INSERT OR IGNORE INTO patients VALUES (CAST(? AS TEXT), CAST(? AS TEXT))", cells)
        self.db.execute("INSERT INTO batches VALUES (?)", (first,))

    def add_series(self, rows: Iterable[Sequence[str]]) -> None:
        """The keys of some series, as their columns stand."""
        cells = (tuple(cell.encode(errors=ESCAPED) for cell in row) for row in rows)
        marks = ", ".join(["CAST(? AS TEXT)"] * 7)
        self.db.executemany(f"INSERT OR IGNORE INTO series VALUES ({marks})", cells)

    def add_notes(self, notes: Iterable[Note], study: str = "") -> None:
        """What was left out or assumed; not yet committed.

        Args:
            notes: With the UID of its study each, where it is known.
            study: The key of the study that was worked on, so that what is said of it is forgotten with that work.
        """
        rows = ((digest(note.study) if note.study else study, *note[1:], bool(study)) for note in notes)
        self.db.executemany("INSERT INTO notes VALUES (?, ?, ?, ?, ?)", rows)

    def undo(self, study: str) -> None:
        """Forget the exams of a study and what was said of them, so that it is done again; not yet committed."""
        self.db.execute("DELETE FROM exams WHERE study = ?", (study,))
        self.db.execute("DELETE FROM notes WHERE study = ? AND of_study", (study,))
        self.db.execute("UPDATE studies SET done = 0 WHERE study = ?", (study,))

    def gather_studies(self) -> None:
        """List the studies of all records."""
        self.db.execute(
            "INSERT INTO studies (study, uid, images) SELECT study, (SELECT StudyInstanceUID FROM series "
            "WHERE series.study = records.study LIMIT 1), sum(images) FROM records GROUP BY study"
        )

    def note_persons(self) -> None:
        """Say what was assumed of whom, as `Persons.note` does."""
        by_patient = (
            "SELECT count(*) FROM (SELECT 1 FROM patients WHERE PatientID <> '' GROUP BY PatientID "
            "HAVING count(*) > 1 AND min(issuer) = '')"
        )
        by_study = (
            "SELECT count(*) FROM (SELECT 1 FROM series WHERE StudyInstanceUID <> '' GROUP BY study "
            "HAVING min(PatientID) = '' AND count(DISTINCT PatientID) = ?)"
        )
        counts = {
            PARTLY_ISSUED: self.one(by_patient),
            UNNAMED: self.one(by_study, 1),
            PARTLY_NAMED: self.one(by_study, 2),
        }
        self.add_notes(Note("", "assumed", what, count) for what, count in counts.items() if count)

    # ---- studies

    def studies_to_do(self) -> Iterator[tuple[str, str]]:
        """Key and UID of each study that is not done, by key."""
        query = "SELECT study, uid FROM studies WHERE study > ? AND NOT done ORDER BY study LIMIT ?"
        return self.pages(query, "")  # type: ignore[return-value]

    def records_of(self, study: str) -> tuple[bytes, ...]:
        """The records of a study, by the numbers of their files."""
        rows = self.db.execute("SELECT record FROM records WHERE study = ? ORDER BY first", (study,))
        return tuple(record for (record,) in rows)

    def owners_of(self, study: str) -> tuple[Owner, ...]:
        """The owners of a study's images, and all other owners of their IDs."""
        rows = self.db.execute(
            "SELECT DISTINCT StudyInstanceUID, PatientID, issuer FROM series WHERE study = ?1 UNION "
            "SELECT '', PatientID, issuer FROM patients "
            "WHERE PatientID IN (SELECT PatientID FROM series WHERE study = ?1)",
            (study,),
        )
        return tuple(Owner(*row) for row in rows)

    def series_of(self, study: str) -> list[tuple[str, ...]]:
        """The keys of a study's series: UIDs of study and series, accession number, patient's ID and path."""
        return self.db.execute(
            "SELECT DISTINCT StudyInstanceUID, SeriesInstanceUID, AccessionNumber, PatientID, path FROM series "
            "WHERE study = ? ORDER BY 2, 5, 3, 4",
            (study,),
        ).fetchall()

    def done(self, study: str, uid: str = "") -> None:
        """Record that a study is done; not yet committed."""
        self.db.execute(
            "INSERT INTO studies (study, uid, images, done) VALUES (?, ?, 0, 1) "
            "ON CONFLICT (study) DO UPDATE SET done = 1",
            (study, uid),
        )

    def is_done(self, study: str) -> bool:
        """Whether a study is done."""
        return bool(self.one("SELECT done FROM studies WHERE study = ?", study))

    def skip_known(self, study: str) -> None:
        """Leave out a study that the exam folder has already, and what was noted of it; not yet committed."""
        self.db.execute("DELETE FROM notes WHERE study = ?", (study,))
        self.db.execute("UPDATE studies SET done = 2 WHERE study = ?", (study,))

    @property
    def skipped(self) -> int:
        """How many studies the exam folder had already."""
        return self.one("SELECT count(*) FROM studies WHERE done = 2")

    def studies_without_exams(self) -> Iterator[tuple[str]]:
        """The keys of studies that were read and gave no exam."""
        query = (
            "SELECT study FROM studies WHERE study > ? AND done = 1 AND study NOT IN (SELECT study FROM exams) "
            "ORDER BY study LIMIT ?"
        )
        return self.pages(query, "")  # type: ignore[return-value]

    def gather_hashes(self, salted: Callable[[str], str]) -> None:
        """Have the salted hash of each study that was read; not committed."""
        self.db.create_function("salted", 1, lambda uid: salted(f"study {uid}"))
        self.db.execute("CREATE TEMPORARY TABLE IF NOT EXISTS hashes (study_hash TEXT PRIMARY KEY) WITHOUT ROWID")
        self.db.execute("INSERT OR IGNORE INTO hashes SELECT salted(uid) FROM studies WHERE done = 1 AND images")

    # ---- exams

    def add_exams(self, source: int, study: str, exams: Iterable[tuple[str, dict[str, Any]]]) -> None:
        """The exams that came of a study: of each its key and what is to be known of it."""
        self.db.executemany(
            "INSERT INTO exams (source, key, study, content) VALUES (?, ?, ?, ?)",
            ((source, key, study, json.dumps(content)) for key, content in exams),
        )

    def exams(self) -> Iterator[tuple[int, str, str, dict[str, Any], str, str, str]]:
        """Source, key, study, content, name, split and group of each exam, in the order of their names.

        A name is empty before it is given.
        """
        query = (
            "SELECT source, key, study, content, coalesce(exam, ''), coalesce(split, ''), coalesce(person_group, '') "
            "FROM exams WHERE (source, key) > (?, ?) ORDER BY source, key LIMIT ?"
        )
        for source, key, study, content, *place in self.pages(query, -1, ""):
            yield source, key, study, json.loads(content), *place

    def place(self, source: int, key: str, exam: str, split: str, group: str) -> None:
        """Give an exam its place; not yet committed."""
        self.db.execute(
            "UPDATE exams SET exam = ?, split = ?, person_group = ? WHERE source = ? AND key = ?",
            (exam, split, group, source, key),
        )

    def add_person(self, id: str, issuer: str, group: str, split: str, earlier: bool) -> None:
        """A person by the hashes of ID and issuer; not yet committed."""
        same = "SELECT 1 FROM persons WHERE id = ? AND issuer = ? AND person_group = ?"
        if not self.one(same, id, issuer, group):
            self.db.execute("INSERT INTO persons VALUES (?, ?, ?, ?, ?)", (id, issuer, group, split, earlier))

    def persons(self, id: str) -> list[tuple[str, str, str, int]]:
        """Issuer's hash, group, split, and whether they were in the folder before, of all persons with an ID's hash."""
        query = "SELECT issuer, person_group, split, earlier FROM persons WHERE id = ? ORDER BY earlier DESC, 2"
        return self.db.execute(query, (id,)).fetchall()

    def notes(self) -> Iterator[tuple[str, str, str, int]]:
        """Study (empty for none), kind, words and count of all that was left out or assumed, in a fixed order."""
        query = (
            "SELECT study, kind, what, sum(count) FROM notes WHERE (study, kind, what) > (?, ?, ?) "
            "GROUP BY study, kind, what ORDER BY study, kind, what LIMIT ?"
        )
        return self.pages(query, "", "", "")  # type: ignore[return-value]
