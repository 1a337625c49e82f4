"""The one thread that answers studies, in the order in which they came."""

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from threading import Event, Thread
from typing import Protocol

from kneessl.errors import UserError, out_of_space
from kneessl.reader.answer.assessment import Assessment, ModelFacts
from kneessl.reader.answer_folder import write_answer
from kneessl.reader.web.faults import as_sentence, log_fault
from kneessl.reader.web.schema import FindingLine, KneeLine
from kneessl.reader.web.security import NO_SPACE
from kneessl.reader.web.store import Store
from kneessl.sources.dicom.series import Knee
from kneessl.sources.limits import Limits
from kneessl.sources.unzip import is_zip, unpack

UNFORESEEN = "The study could not be answered because of a fault in kneessl; its log names the place."
_SWEEP_SECONDS = 30.0


class Engine(Protocol):
    """Answers studies, as `kneessl.reader.answer.assess.Assessor` does."""

    facts: ModelFacts

    def knees(self, files: Sequence[Path]) -> list[Knee]:
        """The knees in some files."""

    def assess(self, knee: Knee) -> Assessment:
        """The answer on one of them."""


class Worker:
    """Takes studies that wait in a store, one by one, and deletes those that were kept long enough.

    Args:
        engine: Only this thread calls it.
        store: Where the studies lie.
        limits: On what a zip may hold.
    """

    def __init__(self, engine: Engine, store: Store, limits: Limits) -> None:
        self.engine, self.store, self.limits, self.dicom = engine, store, limits, has_dicom_objects()
        self._wake, self._stop = Event(), Event()
        self._thread = Thread(target=self._run, name="kneessl-worker", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Say that a study waits."""
        self._wake.set()

    def stop(self, seconds: float) -> None:
        """Take no more studies, and wait so long for the one at hand."""
        self._stop.set()
        self._wake.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.store.sweep()
                study = self.store.take()
                if study is not None:
                    self.answer(study)
                    continue
            except Exception as error:  # such as a full disk: others may come through
                log_fault("the worker", error)
            self._wake.wait(_SWEEP_SECONDS)
            self._wake.clear()

    def answer(self, study: int) -> None:
        """Answer one study, or say why not; what was uploaded goes in any case."""
        try:
            self.store.publish(study, self._write_answers(study))
        except UserError as error:
            self.store.fail(study, as_sentence(without_folder(str(error), self.store.root)))
        except Exception as error:
            log_fault(f"study {study}", error)
            self.store.fail(study, NO_SPACE if out_of_space(error) else UNFORESEEN)

    def _write_answers(self, study: int) -> list[KneeLine]:
        knees = self.engine.knees(unpacked(self.store.incoming(study), self.limits))
        lines = []
        for number, knee in enumerate(knees, start=1):
            self.store.set_stage(study, "model")
            assessment = self.engine.assess(knee)
            self.store.set_stage(study, "writing")
            write_answer(self.store.working(study) / str(number), assessment, self.dicom)
            lines.append(knee_line(number, assessment))
        return lines


def unpacked(folder: Path, limits: Limits) -> list[Path]:
    """The files of an upload in their order, those in zips among them; all of them together keep to the limits.

    Raises:
        UserError: they do not, or a zip is damaged.
    """
    files: list[Path] = []
    for path in sorted(folder.iterdir()):
        if is_zip(path):
            left = replace(limits, files=limits.files - len(files), bytes=limits.bytes - sum(map(bytes_of, files)))
            files += unpack(path, path.with_name(f"{path.name}-unzipped"), left)
            path.unlink()
        else:
            files.append(path)
    limits.require_all(map(bytes_of, files))
    return files


def bytes_of(path: Path) -> int:
    """How large a file is."""
    return path.stat().st_size


def has_dicom_objects() -> bool:
    """Whether answers can be written as DICOM; loads what that takes, so that no study has to wait for it."""
    try:
        import_module("kneessl.reader.dicom.structured")
    except UserError:  # it says that highdicom is not installed
        return False
    return True


def knee_line(number: int, assessment: Assessment) -> KneeLine:
    """An answer in the list of studies."""
    findings = [
        FindingLine.model_validate({"task": f.task, "answer": f.answer, "probability": f.probability})
        for f in assessment.findings
    ]
    return KneeLine(knee=number, side=assessment.laterality, findings=findings)


def without_folder(text: str, folder: Path) -> str:
    """Remove a folder of the server from a message to its user."""
    return text.replace(f"{folder}/", "").replace(str(folder), "the upload")
