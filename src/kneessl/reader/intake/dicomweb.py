"""A study from a DICOMweb archive (WADO-RS, PS3.18 section 10.4): streamed to disk, never held in memory."""

import re
from pathlib import Path

from kneessl.errors import UserError
from kneessl.reader.intake.connection import Connection, MissingError, UnreachableError
from kneessl.reader.intake.multipart import DamagedMessageError, MultipartFiles, boundary_of
from kneessl.sources.limits import Inbox, Limits

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
        raise UserError("this is not the address of a study; give one such as https://host:port/dicom-web/studies/UID")
    connection = Connection(parts["service"], CREDENTIALS)
    try:
        with connection.stream(parts["study"], _ACCEPT) as (headers, pieces), Inbox(into, limits) as inbox:
            boundary = boundary_of(headers.get("Content-Type", ""), "multipart/related")
            if boundary is None:
                raise UserError(
                    "the address does not answer with DICOM files; give that of a study in a DICOMweb service"
                )
            message = MultipartFiles(boundary, inbox, ".dcm")
            for piece in pieces:
                message.write(piece)
            if not message.complete:
                raise UnreachableError("the archive broke off in the middle of the study; try again")
    except MissingError:
        raise UserError("the archive does not have this study; is its address right?") from None
    except DamagedMessageError:
        raise UserError("the archive's answer is damaged; try again") from None
    if not inbox.files:
        raise UserError("the archive has no files of this study")
    return inbox.files
