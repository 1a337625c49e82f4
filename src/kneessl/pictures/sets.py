"""Which of CIFAR-10's images a cell of the experiment trains on, reads labels of, and is tested on."""

from dataclasses import dataclass

import numpy as np

from kneessl.errors import UserError
from kneessl.evaluation.imbalance import choose, counts_of, long_tail_counts
from kneessl.pictures.cifar10 import Cifar10, Pictures


@dataclass(frozen=True, eq=False)
class Sets:
    """Training and test images of one cell."""

    train: Pictures
    """As long-tailed as asked for."""
    counts: list[int]
    """Of each class in `train`."""
    labelled: Pictures
    """As many of each class."""
    test: Pictures


def choose_sets(
    cifar: Cifar10, ratio: float, images: int | None, labels: int | None, test: int | None, held_out: int, seed: int
) -> Sets:
    """Choose a cell's images; the first class is the commonest.

    Args:
        cifar: All of them.
        ratio: Of the rarest class to the commonest.
        images: Training images in all; None for the most that the ratio allows.
        labels: Images of each class in `labelled`; None for all that there are.
        test: Test images of each class; None for all.
        held_out: Training images of each class, the same whatever the seed, to test on in place of the test images.
        seed: Chooses the images for training, labels and test; a smaller set is part of a larger one.

    Raises:
        UserError: a number is out of range, or more than there are.
    """
    classes = len(cifar.classes)
    pool, tested = cifar.train, cifar.test
    if held_out:
        require_count("held_out", held_out, smallest_class(pool) - 1)
        apart = choose(pool.labels, [held_out] * classes, 0)
        tested, pool = pool[apart], pool[np.setdiff1d(np.arange(len(pool)), apart)]
    available = smallest_class(pool)
    for name, wanted, most in (("labels", labels, available), ("test", test, smallest_class(tested))):
        if wanted is not None:
            require_count(name, wanted, most)
    if images is None:
        counts = long_tail_counts(available, classes, ratio)
    else:
        counts = counts_of(images, available, classes, ratio)
    return Sets(
        train=pool[choose(pool.labels, counts, seed)],
        counts=counts,
        labelled=pool if labels is None else pool[choose(pool.labels, [labels] * classes, seed)],
        test=tested if test is None else tested[choose(tested.labels, [test] * classes, seed)],
    )


def smallest_class(pictures: Pictures) -> int:
    """Images of the class that has fewest."""
    return int(np.bincount(pictures.labels).min())


def require_count(name: str, wanted: int, most: int) -> None:
    """Raise a user error for a number of images of each class that is out of range."""
    if not 1 <= wanted <= most:
        raise UserError(f"{name} is {wanted}; it is a number of images of each class, from 1 to {most} here")
