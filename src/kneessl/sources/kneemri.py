"""KneeMRI, the public data set of the Clinical Hospital Centre Rijeka (Štajduhar et al. 2017): its layout and volumes.

917 sagittal proton-density volumes with fat suppression from a Siemens Avanto of 1.5 T, 2006 to 2014: `metadata.csv`
with a line a volume, and each volume as a pickled NumPy array, 12 bits in uint16, in one of the folders `vol01` to
`vol10`. Public loaders read them under Python 3 by a bare `pickle.load`. Here nothing that a pickle names is ever
called: it is read for the shape, type and bytes of one array, whichever Python wrote it.

Not published, as far as we found: the spacing of pixels and slices; which value of `kneeLR` is the left knee (public
code says 0 in one place, 1 in another, and "verify" in a third); which exams are of one person. Our reading: pixels are
square, and pictures lie as in MRNet, superior above and anterior on the left.
"""

import csv
import io
import math
import pickle
import pickletools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kneessl.errors import UserError
from kneessl.exams.folder import Split
from kneessl.sources.exam import FEWEST_SLICES, FoundExam, ImportedSeries, ImportSettings, Person
from kneessl.sources.files import SourceFile
from kneessl.sources.notes import Notes
from kneessl.sources.resample import WINDOW, pictures_of
from kneessl.sources.volume import DISPLAY, Volume, directions_of

SPLIT_OF_FOLDER: dict[str, Split] = {
    **dict.fromkeys(("vol03", "vol04", "vol06", "vol07", "vol08", "vol09"), "train"),
    **dict.fromkeys(("vol05", "vol10"), "valid"),
    **dict.fromkeys(("vol01", "vol02"), "test"),
}
"""The split of MRNet's authors, who validated on KneeMRI (Bien et al. 2018)."""
_COLUMNS = ("volumeFilename", "examId", "seriesNo", "aclDiagnosis")
_LARGEST_BYTES = 2**27  # of a file; a published volume has about 6 million


@dataclass(frozen=True)
class KneeVolume:
    """A line of `metadata.csv` whose volume is there."""

    exam: int
    """Number of the examination, of which there may be several volumes."""
    series: int
    diagnosis: int
    """Of the anterior cruciate ligament: 0 healthy, 1 partially ruptured, 2 completely ruptured."""
    file: Path

    @property
    def name(self) -> str:
        """Folder and file, such as `vol01/329637-8.pck`."""
        return f"{self.file.parent.name}/{self.file.name}"

    @property
    def split(self) -> Split:
        """The published split."""
        return SPLIT_OF_FOLDER[self.file.parent.name]

    @property
    def labels(self) -> dict[str, int]:
        """Task to label: any rupture, and a complete one."""
        return {"acl": int(self.diagnosis > 0), "acl-complete": int(self.diagnosis == 2)}


def kneemri_files(src: Path, files: Sequence[SourceFile]) -> list[SourceFile]:
    """All files, where a folder has KneeMRI's `metadata.csv`; else none."""
    path = src / "metadata.csv"
    if not path.is_file():
        return []
    with path.open("rb") as file:
        header = file.readline(10_000).decode("utf-8-sig", errors="replace")
    return list(files) if set(_COLUMNS) <= set(header.strip().split(",")) else []


def kneemri_exams(src: Path, files: Sequence[SourceFile], settings: ImportSettings, notes: Notes) -> list[FoundExam]:
    """One exam a volume, in its published split and with its labels."""
    return [_exam(volume) for volume in find_volumes(src, notes)]


def _exam(knee: KneeVolume) -> FoundExam:
    key, person = f"{knee.exam:012d}-{knee.series:012d}", Person(f"KneeMRI {knee.exam}")
    parts, files = (partial(_read, knee),), (knee.file,)
    return FoundExam(key, f"KneeMRI {key}", person, parts, knee.split, knee.labels, files=files)


def _read(knee: KneeVolume) -> Iterator[ImportedSeries]:
    # One millimetre stands for the spacing that is not published: only the pixels' shape matters to the pictures.
    volume = Volume(read_knee(knee.file, knee.name), directions_of(DISPLAY["sagittal"]), (1.0,) * 3, position=None)
    pictures, _ = pictures_of(knee.name, volume)
    size = " x ".join(map(str, volume.voxels.shape[1:]))
    reasons = (f"KneeMRI {knee.name}", f"spacing not published; {size} square pixels assumed", "laterality unknown")
    yield ImportedSeries(
        plane="sagittal",
        volume=pictures,
        pixel_mm=0.0,
        slice_mm=0.0,
        laterality="",
        source="KneeMRI",
        source_sha256=volume.sha256(),
        choice="; ".join((*reasons, WINDOW)),
        weighting="PD",
        fat_suppressed=True,
    )


def find_volumes(src: Path, notes: Notes) -> list[KneeVolume]:
    """The volumes that `metadata.csv` names and the folder or its subfolders hold, by exam and series.

    Raises:
        UserError: a damaged `metadata.csv`, a volume outside the folders vol01 to vol10, or one that is there twice.
    """
    files: dict[str, list[Path]] = {}
    for path in sorted(src.rglob("*.pck")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(src).parts):
            files.setdefault(path.name, []).append(path)
    volumes = []
    for name, (exam, series, diagnosis) in _metadata(src / "metadata.csv").items():
        paths = files.pop(name, [])
        if not paths:
            notes.leave_out("volumes that metadata.csv names and the folder lacks (unpack vol01.7z to vol10.7z)")
        elif len(paths) > 1:
            raise UserError(f"{name} is in {len(paths)} folders of {src}; keep the one that the data set has it in")
        elif paths[0].parent.name not in SPLIT_OF_FOLDER:
            raise UserError(
                f"{name} lies in no folder vol01 to vol10; keep these folders, they are the published split"
            )
        else:
            volumes.append(KneeVolume(exam, series, diagnosis, paths[0]))
    if files:
        notes.leave_out("pickles that metadata.csv does not name", sum(map(len, files.values())))
    return sorted(volumes, key=lambda volume: (volume.exam, volume.series))


def _metadata(path: Path) -> dict[str, tuple[int, int, int]]:
    """File name to exam, series and diagnosis."""
    lines: dict[str, tuple[int, int, int]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            for row in reader:
                name, *numbers = (row[c] or "" for c in _COLUMNS)
                where = f"{path}, line {reader.line_num}"
                # Only digits get through, so no name leads out of the folder.
                if not re.fullmatch(r"[0-9]{1,12}-[0-9]{1,6}\.pck", name):
                    raise UserError(f"{where}: volumeFilename {name[:80]!r} is not of the form 329637-8.pck")
                if not all(re.fullmatch(r"[0-9]{1,12}", number) for number in numbers) or numbers[2] not in {
                    "0",
                    "1",
                    "2",
                }:
                    raise UserError(f"{where}: examId and seriesNo must be whole numbers, and aclDiagnosis 0, 1 or 2")
                if name in lines:
                    raise UserError(f"{where}: {name} stands here twice; keep one line")
                lines[name] = (int(numbers[0]), int(numbers[1]), int(numbers[2]))
    except (KeyError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not KneeMRI's table: damaged or changed; get it again") from error
    return lines


def read_knee(file: Path, name: str) -> np.ndarray:
    """Read one volume without running anything that its pickle asks for.

    Args:
        file: A pickled array of integers, in protocol 0 to 5, by Python 2 or 3.
        name: How an error names it.

    Returns:
        float32 `(slices, rows, columns)`.

    Raises:
        UserError: too large, damaged, holding anything else, or fewer than 5 slices.
    """
    if file.stat().st_size > _LARGEST_BYTES:
        raise UserError(f"{name} has over {_LARGEST_BYTES} bytes, more than any volume of KneeMRI; get it again")
    try:
        array = _unpickle(file.read_bytes())
    except Exception:  # pickles raise nearly anything
        raise UserError(
            f"{name} is not a pickled array of integers (slices, rows, columns): damaged, cut short, or holding other "
            "Python objects; get it again"
        ) from None
    if len(array) < FEWEST_SLICES:
        raise UserError(f"{name} has {len(array)} slices; a series needs {FEWEST_SLICES}")
    return array.astype(np.float32)


class _Foreign(Exception):
    """A pickle that is no array."""


class _Record:
    """Stands in for an array or a dtype: keeps what the pickle says of it."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Array(_Record):
    """Protocols 0 to 4: all there is to know comes as its state."""


class _Buffer(_Record):
    """Protocol 5: voxels, dtype, shape and order come as arguments."""


class _Dtype(_Record):
    """Its kind comes as an argument, its byte order as its state."""


def _encode(text: str, encoding: str) -> bytes:
    """How Python 3 spells bytes in protocols 0 to 2."""
    if type(text) is not str or encoding != "latin1":
        raise _Foreign
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.numeric", "_frombuffer"): _Buffer,
    ("numpy._core.numeric", "_frombuffer"): _Buffer,
    ("numpy", "ndarray"): None,  # only ever an argument of _reconstruct
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}
_OPCODES = {
    *("PROTO", "FRAME", "STOP", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"),
    *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "MARK", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("NONE", "NEWTRUE", "NEWFALSE", "INT", "LONG", "LONG1", "BININT", "BININT1", "BININT2"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BYTEARRAY8"),  # of Python 2, and of protocol 5
}
_MOST_OPCODES = 200  # an array takes up to 70; so few can neither fill the memory nor nest deeply


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """A stand-in for the few names that an array needs; nothing is imported."""
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise _Foreign from None


def _unpickle(content: bytes) -> np.ndarray:
    """The array of integers, with three axes, that a pickle describes.

    Raises:
        Exception: of nearly any kind, where it describes anything else.
    """
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if count >= _MOST_OPCODES or opcode.name not in _OPCODES:
            raise _Foreign
        # An index into the memo makes room for twice as many entries: up to 64 GiB.
        if opcode.name in {"PUT", "BINPUT", "LONG_BINPUT"} and not 0 <= int(str(argument)) < _MOST_OPCODES:
            raise _Foreign
    array = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()  # Python 2's strings, byte by byte
    if type(array) is _Buffer:
        voxels, dtype, shape, order = array.arguments
        in_fortran_order = order == "F"
    elif type(array) is _Array:
        _, shape, dtype, in_fortran_order, voxels = array.state
    else:
        raise _Foreign
    if type(voxels) is str:
        voxels = voxels.encode("latin1")
    if type(dtype) is not _Dtype or not re.fullmatch("[iu][1248]", dtype.arguments[0]) or dtype.state[1] not in "<>|":
        raise _Foreign
    kind = np.dtype(dtype.state[1] + dtype.arguments[0])
    if type(shape) is not tuple or len(shape) != 3 or not all(type(n) is int and n > 0 for n in shape):
        raise _Foreign
    if type(voxels) not in {bytes, bytearray} or len(voxels) != math.prod(shape) * kind.itemsize:
        raise _Foreign
    return np.frombuffer(voxels, kind).reshape(shape, order="F" if in_fortran_order else "C")
