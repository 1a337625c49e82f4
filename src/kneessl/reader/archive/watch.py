"""`kneessl watch`: studies that come into an Orthanc archive are answered, and the answers go back into it."""

import math
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from pydicom import Dataset, dcmread

from kneessl.errors import UserError, fault_text
from kneessl.reader.answer.assess import Assessor, NoKneeError
from kneessl.reader.answer.assessment import Assessment, ModelFacts
from kneessl.reader.archive.orthanc import Orthanc, StoredSeries, StoredStudy
from kneessl.reader.dicom.returned import IDENTITY, SIDES, result_uids
from kneessl.reader.dicom.structured import result_objects
from kneessl.reader.intake.connection import MissingError, UnreachableError
from kneessl.sources.dicom.image import quietly
from kneessl.sources.dicom.series import Knee
from kneessl.sources.files import private_folder
from kneessl.sources.limits import Limits
from kneessl.sources.unzip import unpack

_TRIES = 3
"""How often a study is fetched that the archive breaks off at, before it is left alone."""
_LONGEST_WAIT_S = 60.0


def watch(model: Path, url: str, interval: float = 5.0, once: bool = False) -> None:
    """Answer the knee studies of an Orthanc archive: SR and capture go back to it, once for a study, side and model.

    Args:
        model: A run folder of `kneessl finetune` or `kneessl fuse`.
        url: The archive's REST address, such as http://127.0.0.1:8042. Credentials come from the environment:
            KNEESSL_ORTHANC_USER and KNEESSL_ORTHANC_PASSWORD.
        interval: Seconds between two looks at what is new.
        once: Answer what is there and end, with status 1 where something could not be assessed.

    Raises:
        UserError: the model or the address is wrong, or the archive refuses access.
        SystemExit: `once`, and a study could not be assessed.
    """
    if not 0 < interval < math.inf:
        raise UserError(f"--interval {interval:g}: give the seconds between two looks, such as 5")
    archive = Orthanc(url)
    watcher = Watcher(archive, Assessor(model))
    # Ended by a service manager as by a person: what was downloaded is deleted on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if once:
        watcher.look()
        if watcher.unassessed:
            raise SystemExit(1)
        return
    _say("watching for stable studies; Ctrl-C ends it")
    follow(watcher, interval)


class Assesses(Protocol):
    """What a watcher needs of `kneessl.reader.answer.assess.Assessor`."""

    facts: ModelFacts

    def knees(self, files: Sequence[Path]) -> list[Knee]:
        """The knees in some DICOM files; raises NoKneeError where there is none."""

    def assess(self, knee: Knee) -> Assessment:
        """The answer on one of them."""


def follow(watcher: "Watcher", interval: float) -> None:
    """Look at an archive again and again, less often while it does not answer."""
    losses = 0
    while True:
        try:
            watcher.look()
            losses = 0
        except UnreachableError as error:
            losses += 1
            wait = min(interval * 2**losses, max(interval, _LONGEST_WAIT_S))
            _say(f"{error}; next try in {wait:g} s")
            time.sleep(wait)
            continue
        time.sleep(interval)


class Watcher:
    """Finds the studies of an archive that are still to be answered, and answers them.

    What is answered is read off the archive itself, so nothing needs to be kept from one start to the next.

    Args:
        archive: Where studies come from and answers go.
        assessor: Who answers.
        limits: On a study.
    """

    def __init__(self, archive: Orthanc, assessor: Assesses, limits: Limits = Limits()) -> None:  # noqa: B008  frozen
        self.archive = archive
        self.assessor = assessor
        self.limits = limits
        self.unassessed = 0
        """Studies that could not be assessed, or not in full."""
        self._change: int | None = None
        self._waiting: dict[str, int] = {}
        """Studies to look at, with how often the archive broke off at each."""
        self._settled: dict[str, tuple[StoredSeries, ...]] = {}
        """Studies that are dealt with, with the MR series that each had then."""

    def look(self) -> None:
        """Deal with all stable studies at first, then with those that became stable since.

        Raises:
            UnreachableError: the archive does not answer; what was not dealt with is kept for the next look.
            UserError: the archive refuses access, or is no Orthanc.
        """
        self._find()
        while self._waiting:
            study = next(iter(self._waiting))
            try:
                self._deal_with(study)
            except UnreachableError as error:
                self.archive.last_change()  # raises where it is not the study that the archive breaks off at
                self._put_off(study, error)
            else:
                del self._waiting[study]

    def _find(self) -> None:
        if self._change is None:
            change = self.archive.last_change()
            self._await(self.archive.studies())
            self._change = change
        done = False
        while not done:
            studies, last, done = self.archive.stable_since(self._change)
            self._await(studies)
            if last < self._change:
                self._change = None  # the archive was emptied and counts anew
                return self._find()
            self._change = last
        return None

    def _await(self, studies: Sequence[str]) -> None:
        for study in studies:
            self._waiting.setdefault(study, 0)

    def _put_off(self, study: str, error: UnreachableError) -> None:
        """Let the others go first, and give up a study that the archive always breaks off at."""
        tries = self._waiting.pop(study) + 1
        if tries < _TRIES:
            self._waiting[study] = tries
        else:
            self._fail(study, f"given up after {tries} tries: {error}")

    def _fail(self, study: str, why: str) -> None:
        self.unassessed += 1
        _say(why, study)

    def _deal_with(self, study: str) -> None:
        stored = self.archive.study(study)
        if stored is None or not stored.stable:
            return  # deleted, or there will be word of it once it is stable
        pictures = mr_series(stored)
        if self._settled.get(study) == pictures:
            return
        if not pictures:
            _say("not a knee MR: no MR series", study)
        elif not is_answered(stored, self.assessor.facts.sha256):
            try:
                self._answer(study, stored.uid, pictures)
            except UnreachableError:
                raise
            except _ChangedError:
                _say("changed meanwhile; it will be answered once it is stable again", study)
                return
            except UserError as error:
                self._fail(study, str(error))
            except Exception as error:  # one study never ends the watch; the text may quote an identity
                self._fail(study, f"could not be assessed, because of a fault in kneessl ({fault_text(error)})")
        self._settled[study] = pictures

    def _answer(self, study: str, uid: str, pictures: tuple[StoredSeries, ...]) -> None:
        with private_folder() as folder:
            try:
                zipped = self.archive.download(study, folder / "zip", self.limits)
            except MissingError:
                raise _ChangedError from None
            files = unpack(zipped, folder / "files", self.limits)
            zipped.unlink()
            try:
                knees = self.assessor.knees(files)
            except NoKneeError as error:
                _say(f"not a knee MR: {error}", study)
                return
            assessments = [filed_under(self.assessor.assess(knee), uid) for knee in knees]
            results = [
                result
                for knee, assessment in zip(knees, assessments, strict=True)
                for result in result_objects(assessment, identity_of(knee))
            ]
        now = self.archive.study(study)
        if now is None or mr_series(now) != pictures:
            raise _ChangedError
        self._store(study, assessments, results)

    def _store(self, study: str, assessments: Sequence[Assessment], results: Sequence[Dataset]) -> None:
        # Every capture before the first SR: `is_answered` can tell from that whether this came to its end.
        new = [self.archive.store(result) for result in sorted(results, key=lambda result: result.Modality == "SR")]
        done = "SR and capture stored" if any(new) else "SR and capture were there already"
        for assessment in assessments:
            missing = [finding.task for finding in assessment.findings if finding.probability is None]
            but = f"; not assessed: {', '.join(missing)}" if missing else ""
            _say(f"{SIDES[assessment.laterality]}: {done}{but}", study)
        self.unassessed += not all(assessment.assessed for assessment in assessments)


class _ChangedError(Exception):
    """The study changed in the archive while it was being answered."""


def mr_series(stored: StoredStudy) -> tuple[StoredSeries, ...]:
    """The MR series of a study: an answer may depend on these alone."""
    return tuple(series for series in stored.series if series.modality == "MR")


def is_answered(stored: StoredStudy, model_sha256: str) -> bool:
    """Whether the archive holds the model's whole answer on a study, given after the last MR image came.

    A study may show both knees, and which it shows is not known before it is read. But all captures are stored before
    the first SR, so as many SRs as captures are all.
    """
    held = {series.uid: series for series in stored.series}
    uids = [result_uids(stored.uid, side, model_sha256) for side in SIDES]
    reports = [held[each.sr_series] for each in uids if each.sr_series in held]
    captures = [each for each in uids if each.capture_series in held]
    if not reports or len(reports) != len(captures):
        return False
    return max(series.updated for series in mr_series(stored)) < min(report.updated for report in reports)


def filed_under(assessment: Assessment, uid: str) -> Assessment:
    """The answer under the archive's own StudyInstanceUID: where that is invalid, another was read in its place."""
    return assessment if assessment.study_uid == uid else replace(assessment, study_uid=uid)


def identity_of(knee: Knee) -> Dataset:
    """The header that an answer on a knee is filed by, read from one of its images."""
    image = next(iter(knee.candidates.values()))[0].images[0]
    with quietly():
        return dcmread(image.file, stop_before_pixels=True, specific_tags=list(IDENTITY))


def _say(text: str, study: str = "") -> None:
    """One line of the log; a study is named by the start of Orthanc's ID, which is a hash."""
    print(f"study {study[:8]}: {text}" if study else text, flush=True)
