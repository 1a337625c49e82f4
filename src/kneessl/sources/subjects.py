"""Whose volumes these are, by their names and folders, as BIDS, nnU-Net and folders by subject have them."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_MOST_LABELS = 32
"""A picture has hundreds of different values, a map of tissues rarely more than these."""
_MOST_NAMED_LABELS = 256
"""Of a file whose name says that it is one."""
_MOST_SERIES = 12
"""A folder with more volumes is no person's."""
_SPLIT_NAME = re.compile(r"(train|valid|val|test|images|labels)\w*", re.IGNORECASE)
_LABEL_NAME = re.compile(r"(mask|seg|label|roi|annot)", re.IGNORECASE)
_SERIES_WORDS = frozenset(
    (
        *(
            "sag",
            "sagittal",
            "cor",
            "coronal",
            "ax",
            "axial",
            "tra",
            "tse",
            "fse",
            "se",
            "gre",
            "dess",
            "space",
            "cube",
        ),
        *(
            "t1",
            "t1w",
            "t2",
            "t2w",
            "pd",
            "pdw",
            "fs",
            "fatsat",
            "stir",
            "spair",
            "image",
            "img",
            "volume",
            "vol",
            "mri",
        ),
        *("mr", "scan", "series", "mask", "masks", "seg", "segmentation", "label", "labels", "roi", "knee", "star"),
    )
)
"""Words that tell a series from another of the same knee."""
_SIDE = re.compile(r"l|r|lt|rt|left|right", re.IGNORECASE)
_VISIT = re.compile(r"(v|visit|session|timepoint|followup|baseline)\d*", re.IGNORECASE)
"""With the sides, words that tell an exam from another of the same person."""
_SUBJECT = re.compile(r"sub-([A-Za-z0-9]+)")
_SESSION = re.compile(r"ses-([A-Za-z0-9]+)")
_CHANNEL = re.compile(r"(.+)_\d{4}")


@dataclass(frozen=True)
class Subject:
    """Which exam a volume is of; both are names of files, and not to be written anywhere."""

    person: str
    exam: str


def subjects(src: Path, files: Sequence[Path]) -> list[Subject]:
    """The subject of each volume.

    BIDS: `sub-01` in a name, with `ses-02` for each of their exams. nnU-Net: `knee_007_0001` in a folder `imagesTr` is
    channel 1 of case knee_007. Else volumes of one folder whose names differ only in words for series, such as `sag`
    and `cor`, are one exam, and those that differ in `left` and `right` or their visit are of one person. Where several
    folders have the same few names of files in them, each is a person. A folder that is called by a side or a visit is
    no person: the one that it is in may be.

    Args:
        src: What the user named.
        files: The volumes in it.
    """
    names: dict[Path, list[str]] = defaultdict(list)
    for file in files:
        names[file.parent].append(_plain(file))
    inside = {folder: tuple(sorted(stems)) for folder, stems in names.items()}
    alike = Counter(inside.values())
    return [
        _subject(src, file, alike[inside[file.parent]] > 1 and _may_be_a_person(file.parent, names)) for file in files
    ]


def _may_be_a_person(folder: Path, names: Mapping[Path, Sequence[str]]) -> bool:
    return len(names[folder]) <= _MOST_SERIES and not _SPLIT_NAME.fullmatch(folder.name)


def _subject(src: Path, file: Path, by_folder: bool) -> Subject:
    within = str(file.relative_to(src.parent)) if src != file else file.name
    if found := _SUBJECT.search(within):
        session = _SESSION.search(within)
        return Subject(f"sub {found[1]}", f"{found[1]} {session[1] if session else ''}")
    stem, folder = _plain(file), str(file.parent)
    if file.parent.name.lower().startswith(("images", "labels")) and (channel := _CHANNEL.fullmatch(stem)):
        stem = channel[1]
    home = _without_exam(file.parent, src)
    if by_folder and (home == file.parent or home != src):
        return Subject(str(home), folder)
    rest = [word for word in re.split(r"[^a-z0-9]+", stem.lower()) if word not in _SERIES_WORDS]
    whose = [word for word in rest if not _SIDE.fullmatch(word)]
    whose = [word for word in whose if not _VISIT.fullmatch(word)] or whose
    return Subject(" ".join((str(home), *whose)), " ".join((folder, *rest)))


def _without_exam(folder: Path, src: Path) -> Path:
    """The folder, or the nearest above it, up to `src`, that is not called by a side or a visit alone."""
    while folder != src and (_SIDE.fullmatch(folder.name) or _VISIT.fullmatch(folder.name)):
        folder = folder.parent
    return folder


def _plain(file: Path) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", file.name, flags=re.IGNORECASE)


def is_label_map(voxels: np.ndarray, name: str) -> bool:
    """Whether a volume is a mask or a map of labels: few different whole numbers, or no more than a byte's by name."""
    values = np.unique(voxels)
    if not np.array_equal(values, np.round(values)):
        return False
    named = bool(_LABEL_NAME.search(name))
    return 1 < len(values) <= _MOST_LABELS or (named and len(values) <= _MOST_NAMED_LABELS)
