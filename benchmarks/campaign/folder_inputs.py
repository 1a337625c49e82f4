"""Exam folders: label files, tables of labels, exams.csv and series that are odd or damaged."""

import csv
from pathlib import Path

import numpy as np

from campaign.judge import REFUSED, RIGHT, SAID, Wrong, tell
from kneessl.exams.check import inspect
from kneessl.exams.folder import ExamFolder
from kneessl.exams.splits import patient_groups
from kneessl.model.labels import UNKNOWN, labelled_exams

Random = np.random.Generator
EXAMS = tuple(f"{number:04d}" for number in range(8))
CELLS = (
    "1",
    "0",
    "",
    " 1",
    "1.0",
    "2",
    "-1",
    "nan",
    "yes",
    "True",
    "0 ",
    '"1"',
    "1;",
    "１",
    "٠",
    "1e0",
    "01",
    "+1",
    "NA",
)
NAMES = ("0000", "7", "0007.npy", "0007.0", " 0007", "0007 ", "", "9999", "P01", '"0003"', "0003\x00", "０００1")
EVERYWHERE = (0, 0, 0, 0, 0, 1, 1, 1, 2)


def labels_text(rng: Random, header: str) -> tuple[str, str]:
    """Lines of labels with something odd in some, and the encoding to write them in."""
    lines = [f"{exam},{rng.integers(2)}" + (f",{rng.integers(2)}" if header else "") for exam in EXAMS]
    for _ in range(int(rng.choice(EVERYWHERE))):
        at = int(rng.integers(len(lines)))
        cells = lines[at].split(",")
        match int(rng.integers(10)):
            case 0 | 1:
                cells[-1] = CELLS[int(rng.integers(len(CELLS)))]
            case 2 | 3:
                cells[0] = NAMES[int(rng.integers(len(NAMES)))]
            case 4:
                cells.append("1")
            case 5:
                cells.pop()
            case 6:
                lines.append(lines[at])
            case 7:
                lines.insert(at, ("", " ", "\x0c", "#", ",", "exam,label", "\u2028")[int(rng.integers(7))])
            case 8:
                cells = [";".join(cells)]
            case 9:
                del lines[at]
                continue
        lines[min(at, len(lines) - 1)] = ",".join(cells)
    if header:
        lines.insert(0, header)
    if rng.random() < 0.1:
        lines = [line.lstrip("0") or "0" for line in lines]
    end = ("\n", "\n", "\r\n", "\r")[int(rng.integers(4))]
    return end.join(lines) + end * int(rng.integers(2)), ("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16")[
        int(rng.integers(5))
    ]


def plainly_read(path: Path, column: int, header: bool) -> dict[str, int]:
    """A label file by the csv module alone: exam to label; blank lines and blank cells left away."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file)][header:]
    return {row[0]: int(row[column]) for row in rows if any(row) and row[column] != ""}


def make_folder(rng: Random, root: Path) -> None:
    """Eight exams with few slices; now and then one is missing or in another plane."""
    volumes = rng.integers(0, 256, (len(EXAMS), 1, 16, 16), dtype=np.uint8).repeat(16, 2).repeat(16, 3)
    for exam, volume in zip(EXAMS, volumes, strict=True):
        plane = "coronal" if rng.random() < 0.05 else "sagittal"
        (root / "train" / plane).mkdir(parents=True, exist_ok=True)
        if rng.random() > 0.03:
            np.save(root / "train" / plane / f"{exam}.npy", volume)


def labels(rng: Random, work: Path) -> str:
    """A label file or a table, through every door that reads labels."""
    make_folder(rng, work)
    table = bool(rng.random() < 0.4)
    header = ("exam,acl,meniscus", "exam,acl,acl", "acl,meniscus", "exam,1,2", "id,meniscus,acl")[
        int(rng.choice([0, 0, 0, 0, 1, 2, 3, 4]))
    ]
    text, encoding = labels_text(rng, header if table else "")
    path = work / ("train.csv" if table else "train-acl.csv")
    path.write_bytes(text.encode(encoding))
    choice = ("refuse", "ok", None)[int(rng.integers(3))]
    folder = ExamFolder(work, choice)  # type: ignore[arg-type]
    found = tell(lambda: inspect(folder))
    told = tell(lambda: folder.labels("train", "acl"))
    chosen = tell(lambda: labelled_exams(folder, ["acl"], "sagittal", None, 0))
    if told.refusal:
        if not chosen.refusal:
            raise Wrong("one door refuses the labels, another takes them")
        return REFUSED
    column = header.split(",").index("acl") if table else 1
    truth = plainly_read(path, column, table)
    there = {file.stem for file in work.rglob("*.npy")}
    if choice != "ok" and set(truth) - there:
        raise Wrong(f"{len(set(truth) - there)} labels have no series, and are left away unsaid")
    wanted = {exam: label for exam, label in truth.items() if exam in there}
    if told.value != wanted:
        raise Wrong(f"labels differ: {dict(set(told.value.items()) ^ set(wanted.items()))}")
    if not chosen.refusal:
        exams, taken = chosen.value
        got = dict(zip(exams, taken[:, 0].tolist(), strict=True))
        if got != {exam: wanted.get(exam, UNKNOWN) for exam in exams}:
            raise Wrong("training would see other labels")
    if set(truth) - there and not found.value.faults:
        raise Wrong("check is silent on labels without a series")
    return SAID if found.value.faults or found.value.notices else RIGHT


def damaged_series(rng: Random, path: Path) -> None:
    """One series of an exam folder, damaged or of another shape or type."""
    volume = np.load(path)
    match int(rng.integers(9)):
        case 0:
            np.save(path, volume.astype((np.float32, np.int16, bool, "S1", object)[int(rng.integers(5))]))
        case 1:
            np.save(path, (volume[0], volume[None], volume[:, :255], volume[:0])[int(rng.integers(4))])
        case 2:
            np.save(path, np.asfortranarray(volume))
        case 3:
            path.write_bytes(path.read_bytes()[: int(rng.integers(66_000))])
        case 4 | 5:
            content = bytearray(path.read_bytes())
            content[int(rng.integers(128))] ^= 1 << int(rng.integers(8))
            path.write_bytes(content)
        case 6:
            path.write_bytes(path.read_bytes() + rng.bytes(100))
        case 7:
            path.unlink()
            path.mkdir()
        case 8:
            path.unlink()
            path.symlink_to("nowhere.npy")


def series(rng: Random, work: Path) -> str:
    """Damaged series: refused by name, or the very array that NumPy reads."""
    make_folder(rng, work)
    files = sorted(work.rglob("*.npy"))
    victims = [files[int(i)] for i in rng.choice(len(files), int(rng.integers(1, 3)), replace=False)]
    for victim in victims:
        damaged_series(rng, victim)
    folder = ExamFolder(work)
    found = tell(lambda: inspect(folder)).value
    refused = 0
    for file in files:
        plane = file.parent.name
        told = tell(lambda plane=plane, file=file: np.array(folder.series("train", plane, file.stem)))  # type: ignore[misc]
        counted = tell(lambda plane=plane, file=file: folder.slices("train", plane, file.stem))  # type: ignore[misc]
        if bool(told.refusal) != bool(counted.refusal):
            raise Wrong(f"a series is refused by its header or its pixels alone: {told.refusal or counted.refusal}")
        if told.refusal:
            refused += 1
            if str(file) not in told.refusal:
                raise Wrong("a series is refused without its name")
            continue
        truth = np.load(file)
        if truth.dtype != np.uint8 or truth.shape[1:] != (256, 256) or not np.array_equal(truth, told.value):
            raise Wrong("a series is not what its file holds")
    if refused > len(found.faults):
        raise Wrong("check finds fewer faults than there are")
    return REFUSED if refused else SAID if found.faults else RIGHT


COLUMNS = (
    *("split", "exam", "plane", "patient_group", "laterality", "row_mm", "column_mm", "slice_mm"),
    *("source_sha256", "choice", "source", "synthetic", "weighting", "fat_suppressed", "echo_ms"),
)


def provenance(rng: Random, work: Path) -> str:
    """A table of exams with odd cells: persons and numbers come back as they stand there, or it is refused."""
    make_folder(rng, work)
    rows = [
        ["train", exam, "sagittal", f"g{int(exam) // 2}", "R", "0.6", "0.6", "4", exam * 16, "words, more", "DICOM",
         "0", "PD", "1", "30"]
        for exam in EXAMS
    ]  # fmt: skip
    for _ in range(int(rng.integers(0, 4))):
        row, column = rows[int(rng.integers(len(rows)))], int(rng.integers(len(COLUMNS)))
        odd = ("", "x", "nan", "1e400", "2", "-1", 'a"b', "a\nb", "valid", "0003", "g0", "é")
        row[column] = odd[int(rng.integers(len(odd)))]
    columns = list(COLUMNS)
    match int(rng.integers(12)):
        case 0:
            columns[int(rng.integers(15))] = ("", "exam", "other")[int(rng.integers(3))]
        case 1:
            rows[int(rng.integers(8))].append("more")
        case 2:
            rows[int(rng.integers(8))].pop()
        case 3:
            columns, rows = columns[:10], [row[:10] for row in rows]
        case 4:
            rows.append(list(rows[0]))
    path = work / "exams.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    if rng.random() < 0.1:
        path.write_bytes(path.read_bytes()[: int(rng.integers(900))] + b"\xff\x00" * int(rng.integers(2)))
    folder = ExamFolder(work)
    told = tell(folder.provenance)
    tell(lambda: inspect(folder))
    groups = tell(lambda: patient_groups(folder, "train", folder.exams("train", "sagittal")))
    if told.refusal:
        if not groups.refusal:
            raise Wrong("one door refuses exams.csv, another takes it")
        return REFUSED
    with path.open(newline="") as file:
        truth = list(csv.DictReader(file))
    if [(line.split, line.exam, line.plane, line.patient_group) for line in told.value] != [
        (row["split"], row["exam"], row["plane"], row["patient_group"]) for row in truth
    ]:
        raise Wrong("lines of exams.csv differ")
    of_exam: dict[str, set[str]] = {}
    for row in truth:
        if row["split"] == "train" and row["patient_group"]:
            of_exam.setdefault(row["exam"], set()).add(row["patient_group"])
    exams = folder.exams("train", "sagittal")
    for one, group in zip(exams, groups.value, strict=True):
        for other, others in zip(exams, groups.value, strict=True):
            if of_exam.get(one, set()) & of_exam.get(other, set()) and group != others:
                raise Wrong("exams of one person count as of two")
    return RIGHT
