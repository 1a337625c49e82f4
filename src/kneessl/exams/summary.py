"""What is said of an exam folder as a whole: how much it holds, and whether its knees are synthetic."""

from kneessl.exams.folder import SPLITS, ExamFolder


def data_rows(folder: ExamFolder, plane: str) -> list[dict[str, str | int | float]]:
    """One table row for each split that has exams of a plane: how many, and how many slices they have."""
    rows: list[dict[str, str | int | float]] = []
    for split in SPLITS:
        exams = folder.exams(split, plane)
        if exams:
            counts = [folder.slices(split, plane, exam) for exam in exams]
            slices = f"{min(counts)} to {max(counts)}"
            rows.append({"split": split, f"{plane} exams": len(exams), "slices an exam": slices})
    return rows


def data_note(folder: ExamFolder) -> str:
    """A phantom is called a phantom wherever its figures stand; other folders need no note."""
    if folder.synthetic:
        return "These knees are a synthetic phantom: no figure here says anything about patients."
    return ""
