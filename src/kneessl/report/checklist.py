"""Two reporting checklists, item by item: where this very report answers one, and what is left to a person.

Sources: V. Sounderajah et al., "The STARD-AI reporting guideline for diagnostic accuracy studies using artificial
intelligence", Nature Medicine 31, 2025, table 2 (40 items in 48 rows; the numbers are its own, not STARD 2015's);
A. S. Tejani et al., "Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024 update", Radiology:
Artificial Intelligence 6, 2024 (44 items). What an item asks for is said in our words and in short: the originals are
what counts. Which section answers it, and what that leaves open, is our reading.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Status = Literal["answered", "in part", "open"]


@dataclass(frozen=True)
class Item:
    """One item of a checklist, and what answers it."""

    number: str
    part: str
    asks: str
    where: tuple[str, ...] = ()
    """Kinds of sections that answer it together, such as "calibration"; none where only a person can."""
    rest: str = ""
    """What these sections leave open."""


@dataclass(frozen=True)
class Anchor:
    """A section of a page: what a link to it says, and its id."""

    label: str
    id: str


@dataclass(frozen=True)
class Row:
    """An item against one page."""

    item: Item
    status: Status
    links: list[Anchor]


@dataclass(frozen=True)
class Checklist:
    """One guideline against one page."""

    title: str
    source: str
    rows: list[Row]

    def count(self, *states: Status) -> int:
        """How many rows are in one of these states."""
        return sum(row.status in states for row in self.rows)


def checklists(page: Mapping[str, Sequence[Anchor]]) -> list[Checklist]:
    """Hold a page against both guidelines.

    Args:
        page: By kind, the sections that the page has. An item counts as answered only where each kind that it takes is
            among them; otherwise it is left to a person.
    """
    return [
        Checklist(title, source, [_row(item, page) for item in items])
        for title, source, items in (
            ("STARD-AI (2025)", "Nature Medicine 31, 3283 to 3289; doi:10.1038/s41591-025-03953-8", STARD_AI),
            ("CLAIM (2024 update)", "Radiology: Artificial Intelligence 6, e240300; doi:10.1148/ryai.240300", CLAIM),
        )
    ]


def _row(item: Item, page: Mapping[str, Sequence[Anchor]]) -> Row:
    if not item.where or not all(page.get(kind) for kind in item.where):
        return Row(item, "open", [])
    links = [anchor for kind in item.where for anchor in page[kind]]
    return Row(item, "in part" if item.rest else "answered", links)


STARD_AI = (
    Item("1", "Title", "says that the accuracy of an AI is studied, with a measure of it", ("summary",)),
    Item("2", "Abstract", "structured summary"),
    Item("3", "Introduction", "background, intended use, place in the workflow"),
    Item("4", "Introduction", "objectives and hypotheses"),
    Item("5", "Study design", "prospective or retrospective"),
    Item("6", "Ethics", "approval by an ethics committee, or why none was needed"),
    Item("7", "Participants", "inclusion and exclusion criteria, of people and of data"),
    Item("8", "Participants", "how they were found"),
    Item("9", "Participants", "setting, place and dates"),
    Item("10", "Participants", "consecutive, random or convenience series"),
    Item("11", "Data", "source, and what the data were collected for"),
    Item("12", "Data", "who annotated, with what experience, and how"),
    Item("13", "Data", "devices, and software with version", ("models",), "the scanners and their software"),
    Item("14", "Data", "acquisition and preprocessing", ("models",),
         "the acquisition, and what preceded the exam folder"),
    Item("15a", "Test methods", "index test, so that it can be replicated", ("models", "settings"), "where to get it"),
    Item("15b", "Test methods", "how the index test was developed, with sample sizes", ("models", "data"),
         "earlier work on the same exams"),
    Item("15c", "Test methods", "cut-offs of the index test, fixed beforehand or not", ("fixed", "decisions"),
         "why these cut-offs suit the intended use"),
    Item("15d", "Test methods", "who is to use the index test, with what expertise"),
    Item("16a", "Test methods", "reference standard, so that it can be replicated"),
    Item("16b", "Test methods", "why this reference standard"),
    Item("16c", "Test methods", "cut-offs of the reference standard"),
    Item("17a", "Test methods", "what the index test knew of the reference standard and the clinic", ("fixed",)),
    Item("17b", "Test methods", "what the assessors of the reference standard knew of the index test"),
    Item("18", "Analysis", "methods for accuracy and for comparisons", ("discrimination", "decisions", "calibration")),
    Item("19", "Analysis", "indeterminate results", ("doubt",), "those of the reference standard"),
    Item("20", "Analysis", "missing data", ("counts",), "why they are missing"),
    Item("21", "Analysis", "variability of accuracy, planned or exploratory", ("subgroups",)),
    Item("22", "Analysis", "intended sample size, and why"),
    Item("23", "Analysis", "analysis of errors, of bias and of fairness", ("mistakes", "subgroups"),
         "sex, age, origin and site, which exam folders do not tell"),
    Item("24", "Results: participants", "flow of participants, as a diagram", ("counts",),
         "the diagram, and who was left out before the exam folder was made"),
    Item("25", "Results: participants", "baseline characteristics of each set", ("data",),
         "demographic and clinical characteristics"),
    Item("26a", "Results: participants", "severity in those with the condition"),
    Item("26b", "Results: participants", "other diagnoses in those without it"),
    Item("27", "Results: participants", "time and treatment between index test and reference standard"),
    Item("28", "Results: participants", "whether the sets represent the intended population"),
    Item("29", "Results: participants", "how an external set differs from the others"),
    Item("30", "Results: test", "index test tabulated against the reference standard", ("decisions",)),
    Item("31", "Results: test", "estimates of accuracy with their precision", ("discrimination", "decisions")),
    Item("32", "Results: test", "adverse events"),
    Item("33", "Discussion", "limitations: bias, uncertainty, generalisability"),
    Item("34", "Discussion", "implications for practice"),
    Item("35", "Discussion", "ethics of use, and fairness"),
    Item("36", "Other", "registration"),
    Item("37", "Other", "where the protocol is"),
    Item("38", "Other", "funding, and the funders' role"),
    Item("39", "Other", "commercial interests"),
    Item("40a", "Other", "availability of data and code"),
    Item("40b", "Other", "whether outputs are kept and can be audited", ("fixed",)),
)  # fmt: skip

CLAIM = (
    Item("1", "Title", "says that AI is studied, and of what kind", ("summary",)),
    Item("2", "Abstract", "design, methods, results, conclusions"),
    Item("3", "Introduction", "background, intended use and role"),
    Item("4", "Introduction", "aims, objectives, hypotheses"),
    Item("5", "Study design", "prospective or retrospective"),
    Item("6", "Study design", "goal of the study"),
    Item("7", "Data", "sources"),
    Item("8", "Data", "inclusion and exclusion criteria"),
    Item("9", "Data", "preprocessing", ("models",), "what was done before the exam folder was made"),
    Item("10", "Data", "choice of subsets"),
    Item("11", "Data", "de-identification"),
    Item("12", "Data", "missing data", ("counts",), "why they are missing"),
    Item("13", "Data", "acquisition protocol"),
    Item("14", "Reference standard", "how it was obtained"),
    Item("15", "Reference standard", "why it was chosen"),
    Item("16", "Reference standard", "who annotated"),
    Item("17", "Reference standard", "annotation of the test set"),
    Item("18", "Reference standard", "variability between and within raters"),
    Item("19", "Partitions", "how exams were assigned", ("data",), "by what rule the splits were made"),
    Item("20", "Partitions", "level at which they are disjoint"),
    Item("21", "Test data", "intended sample size"),
    Item("22", "Model", "description", ("models",), "a drawing of the network, or a paper that describes it"),
    Item("23", "Model", "software with versions", ("models",)),
    Item("24", "Model", "where its parameters started", ("models",)),
    Item("25", "Training", "its details", ("settings", "curves")),
    Item("26", "Training", "how the final model was chosen"),
    Item("27", "Training", "ensembling", ("models",)),
    Item("28", "Evaluation", "measures of performance", ("discrimination", "decisions", "calibration", "utility"),
         "why these suit the question, and published models beside them"),
    Item("29", "Evaluation", "significance and uncertainty", ("discrimination", "decisions", "calibration")),
    Item("30", "Evaluation", "robustness or sensitivity", ("subgroups",), "artefacts, scanners, repeated training"),
    Item("31", "Evaluation", "explainability", ("heat",), "whether the maps were validated"),
    Item("32", "Evaluation", "on internal data", ("internal",)),
    Item("33", "Evaluation", "on external data", ("external",), "where and how these exams were collected"),
    Item("34", "Evaluation", "registration of the trial"),
    Item("35", "Results: data", "patients or exams included and excluded", ("counts",),
         "who was left out before the exam folder was made"),
    Item("36", "Results: data", "demographic and clinical characteristics of each partition"),
    Item("37", "Results: performance", "measures with their uncertainty", ("discrimination", "decisions"),
         "the other partitions"),
    Item("38", "Results: performance", "diagnostic performance and its precision", ("discrimination", "decisions")),
    Item("39", "Results: performance", "analysis of wrong results", ("mistakes",)),
    Item("40", "Discussion", "limitations"),
    Item("41", "Discussion", "implications for practice, intended use"),
    Item("42", "Other", "where the protocol or more detail is"),
    Item("43", "Other", "availability of software, model and data"),
    Item("44", "Other", "funding, and the funders' role"),
)  # fmt: skip
