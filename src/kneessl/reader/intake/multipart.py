"""Multipart messages (RFC 2046), each part of which becomes a file while the message still comes in."""

import logging
from typing import TYPE_CHECKING

from kneessl.errors import UserError
from kneessl.sources.limits import Inbox

try:
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header
except ModuleNotFoundError:
    raise UserError('python-multipart missing for studies; run `pip install "kneessl[reader]"` first') from None

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks


class DamagedMessageError(Exception):
    """The message does not follow the multipart format."""


def boundary_of(content_type: str, kind: str) -> bytes | None:
    """The boundary between the parts of a message; None where it is of another kind or names no boundary.

    Args:
        content_type: The message's header `Content-Type`.
        kind: Such as `multipart/form-data`.
    """
    actual, options = parse_options_header(content_type)
    return options.get(b"boundary") or None if actual.lower() == kind.encode() else None


class MultipartFiles:
    """Writes the parts of a multipart message into an inbox, a file each.

    The headers of a part, and so a name that the sender gave it, are never looked at.

    Args:
        boundary: What `boundary_of` returned.
        inbox: Counts what is written, and refuses what passes its limits.
        suffix: Suffix of the files' names.
        skip_empty: Leave out empty parts, which browsers send for a form without a file.

    Raises:
        DamagedMessageError: the boundary is too long.
    """

    def __init__(self, boundary: bytes, inbox: Inbox, suffix: str = "", skip_empty: bool = False) -> None:
        self.complete = False
        """Whether the last boundary has come: without a Content-Length, nothing else tells the end."""
        self._inbox, self._suffix, self._skip_empty, self._started = inbox, suffix, skip_empty, False
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin,
            "on_part_data": self._write_part,
            "on_end": self._end,
        }
        # The parser's warnings quote the message.
        logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
        try:
            self._parser = MultipartParser(boundary, callbacks)
        except FormParserError:
            raise DamagedMessageError from None

    def write(self, piece: bytes) -> None:
        """Take in the next piece of the message.

        Raises:
            DamagedMessageError: it does not follow the format.
            UserError: more than the inbox's limits.
        """
        try:
            self._parser.write(piece)
        except FormParserError:
            raise DamagedMessageError from None

    def _begin(self) -> None:
        self._started = False
        if not self._skip_empty:
            self._start()

    def _start(self) -> None:
        self._inbox.start(self._suffix)
        self._started = True

    def _write_part(self, data: bytes, start: int, end: int) -> None:
        if not self._started:
            self._start()
        self._inbox.write(data[start:end])

    def _end(self) -> None:
        self.complete = True
