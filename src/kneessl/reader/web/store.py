"""Where `kneessl serve` keeps studies: a SQLite file for the list, and a folder each for what came and what was said.

    STORE/studies.sqlite3    numbers, times, stages and answers
    STORE/incoming/12/       what was uploaded; gone as soon as there is an answer
    STORE/working/12/        an answer being written
    STORE/answers/12/1/      the answer on the first knee of study 12 (`reader.answer`), and its DICOM objects

Nothing here bears a name that a client gave.
"""

import json
import shutil
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import RLock

from pydantic import TypeAdapter

from kneessl.errors import UserError
from kneessl.reader.web.schema import KneeLine, Stage, StudyLine

LIST = "studies.sqlite3"
PARTS = ("incoming", "working", "answers")
STOPPED = "The server stopped before this study was done; send it again."
VERSION = 1
_TABLE = """
create table if not exists studies (
    id integer primary key autoincrement,
    received text not null,
    finished text,
    stage text not null,
    sentence text not null default '',
    knees text not null default '[]'
)
"""
_WAITING = "stage not in ('done', 'failed')"
_KNEES = TypeAdapter(list[KneeLine])


class Full(Exception):
    """The limit of waiting studies is reached."""


class Store:
    """Studies on disk; any thread may call any method.

    Studies that were under way when the last server on this folder stopped are marked as failed.

    Args:
        root: The folder; made if it does not exist.
        keep_hours: For how long a finished study stays.
        temporary: Whether all goes when the store is closed.

    Raises:
        UserError: the folder holds something else, or another server uses it.
    """

    def __init__(self, root: Path, keep_hours: float, temporary: bool) -> None:
        self.root, self.keep, self.temporary = Path(root), timedelta(hours=keep_hours), temporary
        self._lock = RLock()
        self._late: dict[int, str | None] = {}
        """Studies that have failed (why) or are to go (None) while the list could not be written: the disk was full."""
        self._take_folder()
        self._list = self._open_list()
        self._recover()

    def close(self) -> None:
        """Let the folder go, or delete it if it was a temporary one."""
        with self._lock:
            self._list.close()
            if self.temporary:
                shutil.rmtree(self.root, ignore_errors=True)

    def add(self, most_waiting: int) -> int:
        """Make room for a study whose files are about to come.

        Returns:
            Its number, which no other study ever bears; `incoming` has a folder for it.

        Raises:
            Full: `most_waiting` others are not finished.
        """
        with self._lock:
            if self._list.execute(f"select count(*) from studies where {_WAITING}").fetchone()[0] >= most_waiting:
                raise Full
            made = self._list.execute("insert into studies (received, stage) values (?, 'receiving')", [_now()])
            study = int(made.lastrowid or 0)
            try:
                self.incoming(study).mkdir(mode=0o700)
            except OSError:
                self.delete(study)
                raise
            return study

    def incoming(self, study: int) -> Path:
        """Where the files of a study that is not finished lie."""
        return self.root / "incoming" / str(study)

    def working(self, study: int) -> Path:
        """Where its answers are written, each in a folder `1`, `2`, ..."""
        return self.root / "working" / str(study)

    def answer(self, study: int, knee: int) -> Path:
        """The folder of the answer on one knee."""
        return self.root / "answers" / str(study) / str(knee)

    def set_stage(self, study: int, stage: Stage) -> None:
        """Say how far a study is."""
        with self._lock:
            self._list.execute("update studies set stage = ? where id = ?", [stage, study])

    def take(self) -> int | None:
        """The study that has waited longest; it then waits no more. None if none waits."""
        with self._lock:
            row = self._list.execute("select min(id) from studies where stage = 'queued'").fetchone()
            if row[0] is not None:
                self.set_stage(row[0], "reading headers")
            return row[0]

    def publish(self, study: int, knees: Sequence[KneeLine]) -> None:
        """Make what was written in `working` the study's answers, unless it was deleted meanwhile; its upload goes."""
        with self._lock:
            if self._has(study):
                self.working(study).replace(self.root / "answers" / str(study))
            self._finish(study, "done", knees=json.dumps([knee.model_dump() for knee in knees]))

    def fail(self, study: int, sentence: str) -> None:
        """Say why a study has no answer; its upload goes."""
        with self._lock:
            self._late[study] = sentence
            shutil.rmtree(self.root / "answers" / str(study), ignore_errors=True)
            self._finish(study, "failed", sentence=sentence)
            del self._late[study]

    def delete(self, study: int) -> bool:
        """Delete all of a study, at whatever stage it is; False if there is none."""
        with self._lock:
            self._late[study] = None
            self._forget_upload(study)
            shutil.rmtree(self.root / "answers" / str(study), ignore_errors=True)
            existed = self._list.execute("delete from studies where id = ?", [study]).rowcount > 0
            del self._late[study]
            return existed

    def sweep(self) -> None:
        """Delete the studies that have been kept long enough, and write down what could not be before."""
        with self._lock:
            for study, sentence in list(self._late.items()):
                self.delete(study) if sentence is None else self.fail(study, sentence)
            limit = (datetime.now(UTC) - self.keep).isoformat()
            for (study,) in self._list.execute("select id from studies where finished <= ?", [limit]).fetchall():
                self.delete(study)

    def studies(self) -> list[StudyLine]:
        """All studies, the newest first."""
        with self._lock:
            return self._lines("select * from studies order by id desc", [])

    def study(self, study: int) -> StudyLine | None:
        """One study; None if there is none."""
        with self._lock:
            return next(iter(self._lines("select * from studies where id = ?", [study])), None)

    def _lines(self, query: str, values: Sequence[int]) -> list[StudyLine]:
        queued = [row[0] for row in self._list.execute(f"select id from studies where {_WAITING} order by id")]
        return [self._line(row, queued) for row in self._list.execute(query, values)]

    def _line(self, row: sqlite3.Row, waiting: Sequence[int]) -> StudyLine:
        return StudyLine(
            id=row["id"],
            received=row["received"],
            stage=row["stage"],
            ahead=waiting.index(row["id"]) if row["stage"] == "queued" else 0,
            sentence=row["sentence"],
            expires=datetime.fromisoformat(row["finished"]) + self.keep if row["finished"] else None,
            knees=_KNEES.validate_json(row["knees"]),
        )

    def _has(self, study: int) -> bool:
        return self._list.execute("select 1 from studies where id = ?", [study]).fetchone() is not None

    def _finish(self, study: int, stage: Stage, sentence: str = "", knees: str = "[]") -> None:
        self._forget_upload(study)
        self._list.execute(
            "update studies set stage = ?, sentence = ?, knees = ?, finished = ? where id = ?",
            [stage, sentence, knees, _now(), study],
        )

    def _forget_upload(self, study: int) -> None:
        for folder in (self.incoming(study), self.working(study)):
            shutil.rmtree(folder, ignore_errors=True)

    def _take_folder(self) -> None:
        if self.root.exists() and not self.root.is_dir():
            raise UserError(f"--store {self.root} is not a folder; name a folder for the studies")
        if self.root.is_dir() and any(self.root.iterdir()) and not (self.root / LIST).is_file():
            raise UserError(f"--store {self.root} holds something else; name a new folder, or one of an earlier server")
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in PARTS:
            (self.root / part).mkdir(mode=0o700, exist_ok=True)

    def _open_list(self) -> sqlite3.Connection:
        """Open the list for this process alone: a second server would take the first one's studies for broken."""
        studies = sqlite3.connect(self.root / LIST, timeout=0, isolation_level=None, check_same_thread=False)
        studies.row_factory = sqlite3.Row
        try:
            studies.execute("pragma locking_mode = exclusive")
            studies.execute("pragma secure_delete = on")
            studies.execute("begin exclusive")
            version = studies.execute("pragma user_version").fetchone()[0]
            if version not in {0, VERSION}:
                raise UserError(f"--store {self.root} was written by another version of kneessl; name a new folder")
            studies.execute(_TABLE)
            studies.execute(f"pragma user_version = {VERSION}")
            studies.execute("commit")
        except sqlite3.DatabaseError as error:
            studies.close()
            wrong = "is in use by another server; stop it" if "locked" in str(error) else "cannot be read; remove it"
            raise UserError(f"--store {self.root} {wrong} or name another") from None
        except UserError:
            studies.close()
            raise
        return studies

    def _recover(self) -> None:
        """Mark what was cut off as failed, and delete all that belongs to no answer."""
        with self._lock:
            self._list.execute("delete from studies where stage = 'receiving'")
            for (study,) in self._list.execute(f"select id from studies where {_WAITING}").fetchall():
                self.fail(study, STOPPED)
            done = {str(row[0]) for row in self._list.execute("select id from studies where stage = 'done'")}
            for part in PARTS:
                for folder in (self.root / part).iterdir():
                    if part != "answers" or folder.name not in done:
                        shutil.rmtree(folder, ignore_errors=True)
            self.sweep()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
