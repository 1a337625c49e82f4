"""The files of one study: from a folder, a file, a zip, or a DICOMweb archive."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kneessl.errors import UserError
from kneessl.sources.files import Listing, files_in, no_entry, private_folder
from kneessl.sources.limits import Limits
from kneessl.sources.unzip import is_zip, unpack


@contextmanager
def files_of(source: str, limits: Limits = Limits()) -> Iterator[list[Path]]:  # noqa: B008  frozen
    """The files of a study; what had to be fetched or unpacked for it is gone afterwards.

    Args:
        source: A folder of any depth, a file, a zip, or `http(s)://host[:port]/dicom-web/studies/UID` with the
            credentials in the environment (see `reader.intake.dicomweb.retrieve_study`). In a folder, hidden files
            and links that lead out of it are skipped.
        limits: What is refused.

    Raises:
        UserError: there is nothing there, it cannot be fetched or unpacked, or it is larger than the limits. The
            message holds no path, name or address.
    """
    if source.startswith(("http://", "https://")):
        from kneessl.reader.intake.dicomweb import (
            retrieve_study,  # only an address needs what `kneessl[reader]` installs
        )

        with private_folder() as folder:
            yield retrieve_study(source, folder, limits)
        return
    path = Path(source)
    if path.is_file() and is_zip(path):
        with private_folder() as folder:
            yield unpack(path, folder, limits)
        return
    files = [path] if path.is_file() else _inside(path)
    limits.require_all(file.stat().st_size for file in files)
    yield files


def _inside(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError("the study does not exist; name a folder, a file, a zip, or an address of DICOMweb")
    root = folder.resolve()
    try:
        listing = files_in(folder)
    except UserError:  # it names the folder, which may be named after the patient
        listing = Listing([], [])
    if listing.closed:
        raise no_entry(f"{listing.closed[0]} of the study")
    files = [file for file in listing.files if file.resolve().is_relative_to(root)]
    if not files:
        raise UserError("the study's folder holds no files; name one with DICOM files")
    return files
