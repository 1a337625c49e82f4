"""The steps of an import, each of which begins where the one before left the index.

List the files, read their headers in batches, then go study by study: choose, decode and write the series beside; at
last give all their names. The first three never hold more than a few batches or studies, and what is written depends
neither on the number of processes nor on the order in which files are found.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kneessl.exams.folder import Plane, write_provenance
from kneessl.progress import progress
from kneessl.sources.archive import finish
from kneessl.sources.archive.finish import Naming
from kneessl.sources.archive.index import Index
from kneessl.sources.archive.records import Source
from kneessl.sources.archive.salt import Salt
from kneessl.sources.archive.studies import (
    HeaderBatch,
    StudyTask,
    Work,
    Written,
    import_study,
    import_volumes,
    read_batch,
)
from kneessl.sources.archive.workspace import Workspace
from kneessl.sources.dicom.series import OWN_STUDY_UID, digest
from kneessl.sources.exam import FEWEST_SLICES, FoundExam, ImportSettings
from kneessl.sources.files import SourceFile, entries, files_in, no_entry
from kneessl.sources.notes import Notes
from kneessl.workers.executor import executor, in_order

_BATCH = 256
"""Files whose headers are read at a time."""
_AHEAD = 3
"""Batches or studies a process that wait, or whose results do."""
_WORKERS_OF_CLUSTER = 128
"""At most so many have enough to do; their number may change meanwhile."""

_WORTH_A_START = 8
"""Batches or studies: fewer are done sooner than two processes have started."""


@dataclass(frozen=True)
class Importer:
    """One kind of source that is not DICOM."""

    recognise: Callable[[Path, Sequence[SourceFile]], list[SourceFile]]
    """Which files of those in a source are of this kind, by their names and the folder alone."""
    find: Callable[[Path, Sequence[SourceFile], ImportSettings, Notes], list[FoundExam]]
    """The exams in these files, in an order that depends on no file name."""


@dataclass(frozen=True)
class Steps:
    """An import that goes step by step."""

    src: Path
    """A file or folder."""
    space: Workspace
    settings: ImportSettings
    strict: bool
    workers: int
    importers: Mapping[str, Importer]
    """Each takes its files of those that the ones before it have left; DICOM takes all that are left then."""
    planes: Mapping[str, Plane]
    """SeriesInstanceUID to plane, where a table tells it."""
    cluster: Executor | None = None
    """Does all work, where there is one; `src` is absolute then."""

    @property
    def index(self) -> Index:
        """What is known so far."""
        return self.space.index

    def list_files(self) -> None:
        """Find and number all files."""
        notes, links, closed = Notes(skip_faulty=not self.strict), 0, False
        root = self.src.parent if self.src.is_file() else self.src

        def files() -> Iterator[bytes]:
            nonlocal links, closed
            for kind, path in progress(entries(self.src), title="files", unit="file", delay=2):
                links += kind == "link"
                closed |= kind == "closed"
                if kind == "file":
                    yield os.fsencode(path.relative_to(root))

        self.index.number_files(files())
        for name in files_in(self.src).closed if closed else ():
            notes.fault(no_entry(name))
        if links:
            notes.leave_out("links that lead to a folder or nowhere", links)
        self.index.add_notes(notes.lines())
        self.index.finish("listed")

    @property
    def work(self) -> Work:
        """What the tasks share, once files are listed."""
        alone = str(self.src) if self.src.is_file() else ""
        root = self.src.parent if alone else self.src
        return Work(Source(root, self.index.files, alone), self.settings, self.strict, self.space.staging.absolute())

    def read_headers(self) -> dict[str, list[SourceFile]]:
        """Read the headers of all files that no importer of volumes takes; returns those that one does, by its name."""
        volumes: dict[str, list[SourceFile]] = {name: [] for name in self.importers}
        done = {first for (first,) in self.index.db.execute("SELECT first FROM batches")}
        total = self.index.files
        bar = progress(title="headers", unit="file", total=total, initial=min(total, len(done) * _BATCH))
        with bar, self._executor(total // _BATCH) as pool:
            batches = self._batches(volumes, done)
            for batch in in_order(pool, partial(read_batch, self.work), batches, self._ahead):
                self._record(batch)
                bar.update(batch.files)
        if self.index.phase == "listed":
            self.index.gather_studies()
            self.index.note_persons()
            self._leave_out_single_images()
            self.index.finish("headers")
        return volumes

    def _batches(self, volumes: dict[str, list[SourceFile]], done: set[int]) -> Iterator[list[tuple[int, bytes]]]:
        source, last = self.work.source, 0
        while files := self.index.files_after(last, _BATCH):
            last = files[-1][0]
            left = [SourceFile(source.path(path), source.name(number)) for number, path in files]
            taken = set()
            for name, importer in self.importers.items():
                of_kind = importer.recognise(self.src, left)
                volumes[name] += of_kind
                taken |= set(of_kind)
                left = [file for file in left if file not in taken]
            names = {file.name for file in left}
            mine = [(number, path) for number, path in files if source.name(number) in names]
            if mine and mine[0][0] not in done:
                yield mine

    def _record(self, batch: HeaderBatch) -> None:
        self.index.add_batch(batch.first, batch.records, batch.series)
        self.index.add_notes(batch.notes)
        self.index.db.commit()

    def _leave_out_single_images(self) -> None:
        """Studies of one image each are an anonymiser's fault."""
        single = self.index.db.execute("SELECT study, uid FROM studies WHERE images = 1").fetchall()
        for study, uid in single if len(single) >= FEWEST_SLICES else ():
            notes = Notes()
            notes.leave_out(OWN_STUDY_UID, study=uid)
            self.index.add_notes(notes.lines())
            self.index.done(study)

    def skip_known(self, salt: Salt) -> None:
        """Leave out the studies that the exam folder has already."""
        for study, uid in self.index.studies_to_do():
            if self.index.one("SELECT 1 FROM known WHERE hash = ?", salt.hash(f"study {uid}")):
                self.index.skip_known(study)
        self.index.db.commit()

    def import_studies(self) -> None:
        """Choose, decode and write the series of each DICOM study that is not done yet."""
        done, total = self.index.db.execute("SELECT count(*) FILTER (WHERE done > 0), count(*) FROM studies").fetchone()
        tasks = (
            StudyTask(study, self.index.records_of(study), self.index.owners_of(study), self._planes_of(study))
            for study, _ in self.index.studies_to_do()
        )
        with self._executor(total - done) as pool:
            written = in_order(pool, partial(import_study, self.work), tasks, self._ahead)
            for one in progress(written, title="studies", unit="study", total=total, initial=done):
                self._finish(0, one)

    def import_volumes(self, volumes: Mapping[str, Sequence[SourceFile]]) -> None:
        """Write the exams of volumes; which those are is found out in one process."""
        names = [name for name in self.importers if volumes[name]]
        for rank, name in enumerate(reversed(list(self.importers)), start=1):
            if name not in names:
                continue
            notes = Notes(skip_faulty=not self.strict)
            exams = self.importers[name].find(self.src, volumes[name], self.settings, notes)
            self.index.db.execute("DELETE FROM notes WHERE study = ?", (name,))
            self.index.add_notes(notes.lines(), study=name)
            left = [exam for exam in exams if not self.index.is_done(digest(exam.study))]
            with self._executor(len(left)) as pool:
                written = in_order(pool, partial(import_volumes, self.work), left, self._ahead)
                bar = progress(written, title=name, unit="exam", total=len(exams), initial=len(exams) - len(left))
                for exam, one in zip(left, bar, strict=True):
                    self._add_paths(exam)
                    self._finish(rank, one)

    def _add_paths(self, exam: FoundExam) -> None:
        root = self.work.source.folder
        paths = (os.fsdecode(file.relative_to(root)) for file in exam.files)
        self.index.add_series((digest(exam.study), "", "", "", "", "", path) for path in paths)

    def _finish(self, rank: int, written: Written) -> None:
        study = digest(written.study)
        self.index.done(study, written.study)
        if rank and any(self._known(content) for _, content in written.exams):
            self.index.skip_known(study)
        else:
            self.index.add_exams(rank, study, written.exams)
            self.index.add_notes(written.notes, study)
        self.index.db.commit()

    def _known(self, content: Mapping[str, Any]) -> bool:
        """Whether the exam folder has one of a volume's series already."""
        digests = [series["line"]["source_sha256"] for series in content["series"]]
        return any(self.index.one("SELECT 1 FROM known WHERE hash = ?", one) for one in digests)

    def redo_damaged(self) -> None:
        """Have studies done again whose series a power cut left shorter than they were."""
        for _, _, study, content, *_ in self.index.exams():
            for series in content["series"]:
                file = self.space.staging / series["file"]
                if not file.exists() or file.stat().st_size != series["bytes"]:
                    self.index.undo(study)
        self.index.db.commit()

    def _planes_of(self, study: str) -> dict[str, Plane]:
        if not self.planes:
            return {}
        uids = {row[1] for row in self.index.series_of(study)}
        return {uid: self.planes[uid] for uid in uids if uid in self.planes}

    @property
    def _ahead(self) -> int:
        """Batches or studies that wait, or whose results do."""
        return _AHEAD * (_WORKERS_OF_CLUSTER if self.cluster else self.workers)

    def _executor(self, tasks: int) -> AbstractContextManager[Executor]:
        """The cluster, or processes, where there are enough tasks to make up for their start."""
        if self.cluster:
            return nullcontext(self.cluster)
        return executor(self.workers if tasks >= _WORTH_A_START else 1)

    def place(self, root: Path, before: Path, naming: Naming) -> None:
        """Write the tables of an exam folder and put the series into it; may be done again from the beginning.

        The table of exams comes first and labels come last: whoever reads meanwhile finds exams without a series, but
        no series without its patient's group.
        """
        write_provenance(root, finish.lines(self.index, naming, before))
        finish.move_series(self.index, self.space.staging, root)
        finish.write_published_labels(self.index, root)
        finish.extend_tables(root)
        finish.write_import_table(self.index, root, naming.salt)
