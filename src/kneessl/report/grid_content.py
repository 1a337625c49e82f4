"""What the page, the table and the figures of an imbalance grid are made of."""

from collections.abc import Mapping
from dataclasses import dataclass

from kneessl.evaluation.gap import Cell, GapPoint, OverSeeds

READOUTS: Mapping[str, str] = {
    "linear_balanced": "linear classifier, balanced labels",
    "linear": "linear classifier, the training set's own labels",
    "trained": "the trained network itself",
}
"""How the features of a cell are turned into classes; the first is A(n, r)."""
A = "linear_balanced"


@dataclass(frozen=True)
class ReadoutOverSeeds:
    """One readout's accuracy over seeds: of all test images, of groups of classes, and of each class."""

    accuracy: OverSeeds
    groups: Mapping[str, OverSeeds]
    """many, medium, few: the thirds of the classes by how many training images they have."""
    per_class: Mapping[str, OverSeeds]


@dataclass(frozen=True)
class GridRow:
    """One cell of the grid over all its seeds; without any where all failed."""

    cell: Cell
    counts: tuple[int, ...]
    """Training images of each class."""
    domains: Mapping[str, GapPoint]
    """`IN_DOMAIN`, and `OUT_OF_DOMAIN` where another data set was given."""
    readouts: Mapping[str, ReadoutOverSeeds]
    """By the names of `READOUTS`; those that the cell has."""


IN_DOMAIN, OUT_OF_DOMAIN = "in domain", "out of domain"


def ratio_text(ratio: float) -> str:
    """Return a ratio as short as it is exact: `"1"`, `"0.01"`."""
    return f"{ratio:.12g}"
