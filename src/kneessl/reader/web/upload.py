"""An upload, written to disk as it comes: numbered files, and an end to it as soon as it is too large."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import HTTPException, Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from kneessl.errors import UserError
from kneessl.reader.intake.limits import Inbox, Limits
from kneessl.reader.web.faults import sentence

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

STALLED_SECONDS = 60.0
"""A client that sends nothing for so long has gone."""
CUT_OFF = "The upload was cut off or damaged on its way; send it again."


async def receive(request: Request, folder: Path, limits: Limits) -> int:
    """Write the files of a multipart body into a folder, named by their place: `00001`, `00002`, ...

    What the client calls them is not even looked at. Empty ones are left out.

    Returns:
        How many files there are.

    Raises:
        HTTPException: 413 too large or too many files; 400 or 415 no multipart body, cut off or empty; 408 stalled.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise HTTPException(415, "Send the study as multipart/form-data: a zip, or DICOM files, one part each.")
    announced = request.headers.get("content-length", "")
    # A zip may be as large as a study: what is in it is measured when it is unpacked.
    limits = replace(limits, file_bytes=limits.bytes)
    try:
        limits.require(0, 0, int(announced) if announced.isdecimal() else 0)
        with Inbox(folder, limits) as inbox:
            parts = _Parts(inbox)
            await _parse(request, MultipartParser(options[b"boundary"], parts.callbacks()))
    except UserError as error:
        raise HTTPException(413, sentence(str(error))) from None
    except (FormParserError, ClientDisconnect):
        raise HTTPException(400, CUT_OFF) from None
    except TimeoutError:
        raise HTTPException(408, "The upload stalled; send it again.") from None
    if not parts.ended:
        raise HTTPException(400, CUT_OFF)
    if not inbox.files:
        raise HTTPException(400, "There is no file in the upload; send a zip, or DICOM files.")
    return len(inbox.files)


async def _parse(request: Request, parser: MultipartParser) -> None:
    now = asyncio.get_running_loop().time
    async with asyncio.timeout(STALLED_SECONDS) as patience:
        async for chunk in request.stream():
            patience.reschedule(now() + STALLED_SECONDS)
            parser.write(chunk)


class _Parts:
    """The parts of a multipart body, as files of an inbox.

    Args:
        inbox: Counts what is written.
    """

    def __init__(self, inbox: Inbox) -> None:
        self.inbox, self.ended, self._begun = inbox, False, False

    def callbacks(self) -> "MultipartCallbacks":
        """For `MultipartParser`; none takes a part's headers, so that no name gets here."""
        return {"on_part_begin": self._begin, "on_part_data": self._data, "on_end": self._end}

    def _begin(self) -> None:
        self._begun = False

    def _data(self, data: bytes, start: int, end: int) -> None:
        if not self._begun:
            self.inbox.start()
            self._begun = True
        self.inbox.write(data[start:end])

    def _end(self) -> None:
        self.ended = True
