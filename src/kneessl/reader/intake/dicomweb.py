"""A study from a DICOMweb archive (WADO-RS, PS3.18 section 10.4): streamed to disk, never held in memory."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kneessl.errors import UserError
from kneessl.reader.intake.connection import Connection, MissingError, UnreachableError
from kneessl.reader.intake.limits import Inbox, Limits

try:
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header
except ModuleNotFoundError:
    raise UserError('python-multipart missing for archives; run `pip install "kneessl[reader]"` first') from None

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

CREDENTIALS = "KNEESSL_DICOMWEB"
_STUDY = re.compile(r"(?P<service>https?://[^/?#]+(/\S*?)?)(?P<study>/studies/[0-9.]{1,64})/?")
_ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'
"""`*`: each file in the encoding that it is kept in, and not in one that the archive makes."""


def retrieve_study(address: str, into: Path, limits: Limits) -> list[Path]:
    """Write the DICOM files of one study into a folder, as `00001.dcm` and so on.

    Args:
        address: `http(s)://host[:port]/dicom-web/studies/UID`. Credentials come from the environment alone:
            `KNEESSL_DICOMWEB_TOKEN`, else `KNEESSL_DICOMWEB_USER` and `KNEESSL_DICOMWEB_PASSWORD`.
        into: The folder; made if it is missing.
        limits: On what comes.

    Raises:
        UserError: no such study, no access, no answer, one that breaks off, or more than the limits. No file is left
            then.
    """
    parts = _STUDY.fullmatch(address)
    if parts is None:
        raise UserError("the study's address is none; give one such as https://host:port/dicom-web/studies/UID")
    connection = Connection(parts["service"], CREDENTIALS)
    try:
        with connection.stream(parts["study"], _ACCEPT) as (headers, pieces), Inbox(into, limits) as inbox:
            message = _Message(headers.get("Content-Type", ""), inbox)
            for piece in pieces:
                message.write(piece)
            message.require_end()
    except MissingError:
        raise UserError("the archive does not have this study; is its address right?") from None
    if not inbox.files:
        raise UserError("the archive has no files of this study")
    return inbox.files


class _Message:
    """A multipart message, each part of which becomes a file."""

    def __init__(self, content_type: str, inbox: Inbox) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind.lower() != b"multipart/related" or not boundary:
            raise UserError("the address does not answer with DICOM files; give that of a study in a DICOMweb service")
        self._inbox = inbox
        self._ended = False
        callbacks: MultipartCallbacks = {
            "on_part_begin": lambda: inbox.start(".dcm"),
            "on_part_data": lambda data, start, end: inbox.write(data[start:end]),
            "on_part_end": inbox.finish,
            "on_end": self._end,
        }
        # The parser's warnings quote the message.
        logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
        with _parsing():
            self._parser = MultipartParser(boundary, callbacks)

    def write(self, piece: bytes) -> None:
        with _parsing():
            self._parser.write(piece)

    def require_end(self) -> None:
        """Tell of a message that broke off: without a Content-Length, only its last boundary tells the end."""
        if not self._ended:
            raise UnreachableError("the archive broke off in the middle of the study; try again")

    def _end(self) -> None:
        self._ended = True


@contextmanager
def _parsing() -> Iterator[None]:
    try:
        yield
    except FormParserError:
        raise UserError("the archive's answer is damaged; try again") from None
