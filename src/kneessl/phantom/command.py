"""`kneessl phantom`: an exam folder of synthetic knees with labels."""

import hashlib
import math
from functools import partial
from itertools import zip_longest
from pathlib import Path

import numpy as np

from kneessl.errors import UserError
from kneessl.exams.folder import PLANES, Plane, Provenance, write_labels, write_provenance, write_series
from kneessl.exams.lesions import LesionBox, write_lesions
from kneessl.files import new_folder
from kneessl.phantom.dicom_archive import write_archive
from kneessl.phantom.dicom_study import ArchiveSettings
from kneessl.phantom.knee import TASKS, Plan, draw_knee, scan_knee
from kneessl.phantom.scanner import FAT_SUPPRESSED_PD, SEQUENCES
from kneessl.progress import progress
from kneessl.workers.executor import executor

LABELS = 2**31
"""Spawn key of the labels; no exam has this number."""


def phantom(
    out: Path,
    exams: int = 120,
    seed: int = 0,
    valid_fraction: float = 0.25,
    abnormal: float = 0.806,
    acl: float = 0.233,
    meniscus: float = 0.371,
    planes: tuple[Plane, ...] = PLANES,
    labelled: int | None = None,
    workers: int = 2,
    cluster: str | None = None,
    dicom: bool = False,
    matrix: int | None = None,
    slices: int | None = None,
    knees: int | None = None,
    damaged: float = 0.0,
) -> None:
    """Write an exam folder of synthetic knees with labels, in three planes; or the same as a scanner's DICOM archive.

    No patient's data goes into it: every knee is made of implicit shapes. Findings are dealt out so that each split has
    its share to the nearest exam; ACL and meniscal tears fall independently of each other among the abnormal exams. As
    in patients, an ACL tear comes with a bone bruise in half of the exams and with an effusion in half, a meniscal tear
    with an effusion in three of ten and a cartilage defect in two of ten; nothing else in a picture goes with its
    labels. `lesions.csv` gives each lesion's box by plane and slice; its column `finding` says `abnormal` for what is
    no tear.

    With `dicom` the folder has `dicom/` as an archive holds it: studies with several series a plane, localisers,
    repeats and reformats, now and then both knees, by scanners of GE, Siemens and Philips, in classic and enhanced
    files, compressed and not, of persons who do not exist; `labels.csv` by accession number; and `truth.csv`, which
    says what import should make of it. Each study is drawn by itself, so that a larger archive of the same seed begins
    with the smaller one.

    Args:
        out: Folder to make; it must not exist yet.
        exams: Number of exams, train and valid together; of studies with `dicom`.
        seed: The same seed gives the same files; exam k of a seed has the same anatomy however many exams there are.
        valid_fraction: Share of the exams in the valid split, 0 to 1; an archive has no splits.
        abnormal: Share of the exams with any finding (MRNet's by default), 0 to 1.
        acl: Share of the exams with an ACL tear, 0 to `abnormal`.
        meniscus: Share of the exams with a meniscal tear, 0 to `abnormal`.
        planes: The planes to write, such as [sagittal]; each looks the same whichever others are written.
        labelled: How many training exams get their labels, with their shares of ACL tears and of none, and evenly
            over the sequences of the first plane; by default all.
        workers: Number of processes; the files do not depend on it.
        cluster: Address of a Dask scheduler whose workers draw instead, such as tcp://10.0.0.1:8786.
        dicom: Write an archive of DICOM studies instead of an exam folder.
        matrix: Rows and columns of the archive's pictures, even, 32 to 1024; without, as each scanner has them.
        slices: At most so many slices a series of the archive, 5 or more: the middle ones.
        knees: Draw only so many knees for the archive, which then take turns under other identities: much quicker.
        damaged: Share of the archive's studies with one damaged series, 0 to 1.

    Raises:
        UserError: A number is out of range, or `out` holds something already; or as `executor`.
    """
    prevalences = {"abnormal": abnormal, "acl": acl, "meniscus": meniscus}
    _check(exams, seed, valid_fraction, prevalences, planes, workers, digits=6 if dicom else 4)
    archive = ArchiveSettings(seed, (abnormal, acl, meniscus), tuple(planes), matrix, slices, knees, damaged)
    if dicom and labelled is not None:
        raise UserError("labelled is for exam folders; an archive's labels.csv has all studies, so leave it out")
    if dicom:
        write_archive(Path(out), archive, exams, workers, cluster)
        return
    if archive != ArchiveSettings(seed, (abnormal, acl, meniscus), tuple(planes)):
        raise UserError("matrix, slices, knees and damaged shape a DICOM archive; add --dicom, or leave them out")
    plans = plan_exams(exams, seed, valid_fraction, prevalences)
    known = {split: [plan for plan in plans if plan.split == split] for split in ("train", "valid")}
    if labelled is not None:
        known["train"] = few(known["train"], labelled, planes[0], seed)
    with new_folder(Path(out)) as folder:
        written = partial(_write_exam, folder.absolute(), planes)
        with executor(min(workers, exams), cluster, writes=folder) as pool:
            results = list(progress(pool.map(written, plans), total=exams, title="phantom", unit="exam"))
        for split in ("train", "valid"):
            for task in TASKS:
                write_labels(folder, split, task, {plan.exam: int(plan.labels[task]) for plan in known[split]})
        write_provenance(folder, [line for lines, _ in results for line in lines])
        write_lesions(folder, [row for _, rows in results for row in rows])


def plan_exams(exams: int, seed: int, valid_fraction: float, prevalences: dict[str, float]) -> list[Plan]:
    """Deal the labels out so that every split has its share of each finding to the nearest exam."""
    valid = round(exams * valid_fraction)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(LABELS,)))
    plans = []
    for split, first, count in (("train", 0, exams - valid), ("valid", exams - valid, valid)):
        share = {task: math.floor(count * prevalences[task] + 0.5) for task in TASKS}
        abnormal = rng.permutation(count)[: share["abnormal"]]
        positive = {
            "abnormal": set(abnormal.tolist()),
            "acl": set(rng.permutation(abnormal)[: share["acl"]].tolist()),
            "meniscus": set(rng.permutation(abnormal)[: share["meniscus"]].tolist()),
        }
        for i in range(count):
            plans.append(Plan(seed, first + i, split, {task: i in positive[task] for task in TASKS}))
    return plans


def few(plans: list[Plan], count: int, plane: Plane, seed: int) -> list[Plan]:
    """So many of the plans: with an ACL tear the same share as of all, and half of either kind by each sequence.

    Few exams chosen by chance alone may have their tears in one sequence and their sound ligaments in the other, and
    what is learnt from them is then the sequence.

    Raises:
        UserError: there are not so many, or there would be none with or without a tear.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(LABELS, 1)))
    shuffled = [plans[i] for i in rng.permutation(len(plans))]
    torn = math.floor(count * sum(plan.labels["acl"] for plan in plans) / max(len(plans), 1) + 0.5)
    chosen: list[Plan] = []
    for tear, share in ((True, torn), (False, count - torn)):
        by_sequence: dict[str, list[Plan]] = {sequence: [] for sequence in SEQUENCES}
        for plan in shuffled:
            if plan.labels["acl"] == tear:
                by_sequence[draw_knee(plan).scans[plane].sequence].append(plan)
        dealt = [plan for turn in zip_longest(*by_sequence.values()) for plan in turn if plan is not None]
        if not 1 <= share <= len(dealt):
            raise UserError(
                f"labelled is {count}: {share} training exams {'with' if tear else 'without'} an ACL tear, of "
                f"{len(dealt)}; ask for at least one of each kind and no more than there are"
            )
        chosen += dealt[:share]
    return sorted(chosen, key=lambda plan: plan.number)


def _write_exam(folder: Path, planes: tuple[Plane, ...], plan: Plan) -> tuple[list[Provenance], list[LesionBox]]:
    """Write the series of one exam; its lines for `exams.csv` and `lesions.csv`."""
    knee = draw_knee(plan)
    source = hashlib.sha256(f"kneessl phantom, seed {plan.seed}, exam {plan.number}".encode()).hexdigest()
    lines: list[Provenance] = []
    rows: list[LesionBox] = []
    for plane in planes:
        volume, boxes = scan_knee(knee, plane)
        write_series(folder, plan.split, plane, plan.exam, volume)
        scan = knee.scans[plane]
        pixel = round(scan.pixel_mm, 4)
        lines.append(
            Provenance(
                split=plan.split,
                exam=plan.exam,
                plane=plane,
                patient_group=f"phantom-{plan.exam}",
                laterality=knee.pose.laterality,
                row_mm=pixel,
                column_mm=pixel,
                slice_mm=round(scan.spacing_mm, 4),
                source_sha256=source,
                choice=f"synthetic phantom, {scan.sequence}",
                source="phantom",
                synthetic=True,
                weighting="PD",
                fat_suppressed=scan.sequence == FAT_SUPPRESSED_PD,
            )
        )
        for b in boxes:
            sides = (b.row_min, b.row_max, b.column_min, b.column_max)
            rows.append(LesionBox(plan.split, plan.exam, plane, b.slice, b.lesion.finding, b.lesion.kind, *sides))
    return lines, rows


def _check(
    exams: int,
    seed: int,
    valid_fraction: float,
    prevalences: dict[str, float],
    planes: tuple[Plane, ...],
    workers: int,
    digits: int,
) -> None:
    if exams < 1:
        raise UserError(f"exams is {exams}; ask for at least 1")
    if exams > 10**digits:
        number = {4: "four", 6: "six"}[digits]
        raise UserError(f"exams is {exams}; names have {number} digits, so ask for at most {10**digits}")
    if seed < 0:
        raise UserError(f"seed is {seed}; a seed is 0 or more")
    if not planes or len(set(planes)) < len(planes):
        raise UserError(f"planes is {list(planes)}; name one to three different planes, such as [sagittal,coronal]")
    if workers < 1:
        raise UserError(f"workers is {workers}; use at least 1")
    for name, share in {"valid_fraction": valid_fraction, **prevalences}.items():
        if not 0 <= share <= 1:
            raise UserError(f"{name} is {share}; it is a share of the exams, from 0 to 1")
    for task in ("acl", "meniscus"):
        if prevalences[task] > prevalences["abnormal"]:
            raise UserError(
                f"{task} is {prevalences[task]}, more than abnormal, {prevalences['abnormal']}; every exam "
                "with a tear is abnormal, so raise abnormal or lower the other"
            )
