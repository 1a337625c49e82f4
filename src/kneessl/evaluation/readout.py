"""What a classifier of pictures gets right: in all, by class, and by how many training images a class had."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kneessl.evaluation.imbalance import shot_groups
from kneessl.evaluation.metrics import Proportion


@dataclass(frozen=True)
class Readout:
    """One classifier on one test set, every share with Wilson's interval."""

    accuracy: Proportion
    per_class: dict[str, Proportion]
    groups: dict[str, Proportion]
    """Of the classes with many, medium and few training images; see `shot_groups`."""
    confusion: list[list[int]]
    """Test images by true class (row) and predicted class (column)."""

    @classmethod
    def of(
        cls, truth: NDArray[np.int64], predicted: NDArray[np.int64], classes: Sequence[str], counts: Sequence[int]
    ) -> "Readout":
        """Compare predictions with the truth.

        Args:
            truth: `(m,)`, indices into `classes`, every class at least once.
            predicted: `(m,)`.
            classes: Their names.
            counts: Training images of each.
        """
        confusion = np.zeros((len(classes), len(classes)), np.int64)
        np.add.at(confusion, (truth, predicted), 1)
        right, total = confusion.diagonal(), confusion.sum(1)

        def share(members: Sequence[int]) -> Proportion:
            return Proportion.of(int(right[members].sum()), int(total[members].sum()))

        return cls(
            accuracy=share(range(len(classes))),
            per_class={name: share([k]) for k, name in enumerate(classes)},
            groups={name: share(members) for name, members in shot_groups(counts).items()},
            confusion=confusion.tolist(),
        )
