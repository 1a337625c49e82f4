"""The part of Orthanc's REST interface that `kneessl watch` needs."""

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydicom import Dataset, dcmwrite

from kneessl.errors import UserError
from kneessl.reader.intake.connection import Connection, MissingError, UnreachableError
from kneessl.sources.dicom.image import quietly
from kneessl.sources.limits import Inbox, Limits

CREDENTIALS = "KNEESSL_ORTHANC"
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}")
_CHANGES_A_PAGE = 1000


@dataclass(frozen=True)
class StoredSeries:
    """One series as the archive holds it."""

    uid: str
    modality: str
    instances: int
    updated: str
    """When the last instance came; `YYYYMMDDTHHMMSS`, so it sorts."""


@dataclass(frozen=True)
class StoredStudy:
    """One study as the archive holds it."""

    uid: str
    stable: bool
    """Nothing came for as long as the archive's StableAge."""
    series: tuple[StoredSeries, ...]


class Orthanc:
    """An Orthanc archive; its studies are named by its own IDs, which are hashes.

    Args:
        url: Its REST interface, such as `http://127.0.0.1:8042`. Credentials come from the environment alone:
            `KNEESSL_ORTHANC_USER` and `KNEESSL_ORTHANC_PASSWORD` (or `KNEESSL_ORTHANC_TOKEN`, for a proxy before it).

    Raises:
        UserError: as `Connection`, for each method too.
    """

    def __init__(self, url: str) -> None:
        self._connection = Connection(url, CREDENTIALS)

    def last_change(self) -> int:
        """The number of the newest change."""
        with _understood():
            return int(self._connection.json("/changes?last")["Last"])

    def stable_since(self, change: int) -> tuple[list[str], int, bool]:
        """Studies that became stable after a change.

        Returns:
            Their IDs, the number of the last change that was looked at (below `change` where the archive was
            emptied and counts anew), and whether that is the newest.
        """
        with _understood():
            page = self._connection.json(f"/changes?since={change}&limit={_CHANGES_A_PAGE}")
            stable = [_id(each["ID"]) for each in page["Changes"] if each["ChangeType"] == "StableStudy"]
            return stable, int(page["Last"]), bool(page["Done"])

    def studies(self) -> list[str]:
        """The IDs of all studies."""
        with _understood():
            studies = self._connection.json("/studies")
            if not isinstance(studies, list):
                raise ValueError
            return [_id(study) for study in studies]

    def study(self, study: str) -> StoredStudy | None:
        """What it holds of a study; None where that was deleted."""
        try:
            about = self._connection.json(f"/studies/{study}")
            lines = self._connection.json(f"/studies/{study}/series")
        except MissingError:
            return None
        with _understood():
            series = [
                StoredSeries(
                    uid=str(line["MainDicomTags"]["SeriesInstanceUID"]),
                    modality=str(line["MainDicomTags"].get("Modality", "")).strip(),
                    instances=len(line["Instances"]),
                    updated=str(line["LastUpdate"]),
                )
                for line in lines
            ]
            return StoredStudy(
                uid=str(about["MainDicomTags"]["StudyInstanceUID"]),
                stable=bool(about["IsStable"]),
                series=tuple(sorted(series, key=lambda each: each.uid)),
            )

    def download(self, study: str, folder: Path, limits: Limits) -> Path:
        """Stream a study to disk.

        Returns:
            A zip in `folder`.

        Raises:
            MissingError: it was deleted.
            UnreachableError: it broke off.
            UserError: it is larger than the limits allow.
        """
        whole = Limits(files=1, bytes=limits.bytes, file_bytes=limits.bytes)
        with self._connection.stream(f"/studies/{study}/archive") as (_, pieces), Inbox(folder, whole) as inbox:
            inbox.start()
            for piece in pieces:
                inbox.write(piece)
        # Orthanc sends no Content-Length with it, so HTTP itself cannot tell a whole one.
        if not zipfile.is_zipfile(inbox.files[0]):
            raise UnreachableError("the archive broke off in the middle of the study")
        return inbox.files[0]

    def store(self, instance: Dataset) -> bool:
        """Upload one instance; returns whether it is new there."""
        content = BytesIO()
        with quietly():
            dcmwrite(content, instance, enforce_file_format=True)
        with _understood():
            answer = self._connection.json("/instances", method="POST", body=content.getvalue())
            return str(answer["Status"]) != "AlreadyStored"


def _id(text: object) -> str:
    """An ID that may stand in a path and a log."""
    if not isinstance(text, str) or not _ID.fullmatch(text):
        raise ValueError
    return text


@contextmanager
def _understood() -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError("the archive does not answer as Orthanc does; give the address of its REST interface") from None
