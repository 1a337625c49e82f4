"""The table of series beside a folder of studies, as the RSNA 2026 challenge has it: which plane each series is of."""

import csv
from pathlib import Path

from kneessl.errors import UserError
from kneessl.exams.folder import PLANES, Plane

_SERIES, _PLANE = "SeriesInstanceUID", "Anatomical_Plane"


def told_planes(src: Path) -> dict[str, Plane]:
    """SeriesInstanceUID to plane, by `train_series.csv` beside a folder `train_series`; empty where there is none.

    Raises:
        UserError: the table cannot be read, or has another plane than sagittal, coronal, axial or blank.
    """
    path = src.resolve().parent / f"{src.resolve().name}.csv"
    if not src.is_dir() or not path.is_file():
        return {}
    planes: dict[str, Plane] = {}
    known: dict[str, Plane] = {plane: plane for plane in PLANES}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            if not {_SERIES, _PLANE} <= set(reader.fieldnames or ()):
                return {}
            for row in reader:
                plane = (row[_PLANE] or "").strip().lower()
                if plane and plane not in known:
                    raise UserError(f"{path}, line {reader.line_num}: {_PLANE} is none of {', '.join(PLANES)}")
                if plane:
                    planes[(row[_SERIES] or "").strip()] = known[plane]
    except (UnicodeDecodeError, csv.Error):
        raise UserError(f"{path} is damaged or not CSV in UTF-8; get it again, or move it away") from None
    return planes
