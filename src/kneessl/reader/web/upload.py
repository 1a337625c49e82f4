"""Uploads, written to disk as they come in: numbered files, and refused as soon as they are too large."""

import asyncio
from dataclasses import replace
from pathlib import Path

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

from kneessl.errors import UserError
from kneessl.reader.intake.multipart import DamagedMessageError, MultipartFiles, boundary_of
from kneessl.reader.web.faults import as_sentence
from kneessl.sources.limits import Inbox, Limits

STALLED_SECONDS = 60.0
"""A client that sends nothing for so long is taken to be gone."""
CUT_OFF = "The upload was cut off or damaged on its way; send it again."


async def receive(request: Request, folder: Path, limits: Limits) -> int:
    """Write the files of a multipart body into a folder, named by their place: `00001`, `00002`, ...

    The names that the client gives them are never looked at. Empty ones are left out.

    Returns:
        How many files there are.

    Raises:
        HTTPException: 413 too large or too many files; 400 or 415 no multipart body, cut off or empty; 408 stalled.
    """
    boundary = boundary_of(request.headers.get("content-type", ""), "multipart/form-data")
    if boundary is None:
        raise HTTPException(415, "Send the study as multipart/form-data: a zip, or DICOM files, one part each.")
    announced = request.headers.get("content-length", "")
    # A zip may be as large as a study: what is in it is measured when it is unpacked.
    limits = replace(limits, file_bytes=limits.bytes)
    try:
        limits.require(0, 0, int(announced) if announced.isdecimal() else 0)
        with Inbox(folder, limits) as inbox:
            message = MultipartFiles(boundary, inbox, skip_empty=True)
            await _receive_pieces(request, message)
    except UserError as error:
        raise HTTPException(413, as_sentence(str(error))) from None
    except (DamagedMessageError, ClientDisconnect):
        raise HTTPException(400, CUT_OFF) from None
    except TimeoutError:
        raise HTTPException(408, "The upload stalled; send it again.") from None
    if not message.complete:
        raise HTTPException(400, CUT_OFF)
    if not inbox.files:
        raise HTTPException(400, "There is no file in the upload; send a zip, or DICOM files.")
    return len(inbox.files)


async def _receive_pieces(request: Request, message: MultipartFiles) -> None:
    now = asyncio.get_running_loop().time
    async with asyncio.timeout(STALLED_SECONDS) as patience:
        async for chunk in request.stream():
            patience.reschedule(now() + STALLED_SECONDS)
            message.write(chunk)
