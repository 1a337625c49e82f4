"""Long-tailed training sets: how many of each class, which ones, and which classes are called rare."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kneessl.errors import UserError

GROUPS = ("many", "medium", "few")


def long_tail_counts(n_max: int, classes: int, ratio: float) -> list[int]:
    """Images of each class, falling exponentially: floor(n_max * ratio^(k / (classes - 1))), k = 0, 1, ...

    Cao et al. 2019, section 5.1 (CIFAR10-LT): with 5,000, 10 and .01 they are 5000, 2997, 1796, ..., 50.

    Args:
        n_max: Images of the commonest class.
        classes: How many classes, at least 2.
        ratio: Of the rarest class to the commonest, above 0 and up to 1, which is balanced.

    Raises:
        UserError: a number is out of range, or the rarest class would have no image.
    """
    if classes < 2:
        raise UserError(f"classes is {classes}; an imbalance needs at least 2")
    if not 0 < ratio <= 1:
        raise UserError(f"ratio is {ratio}; it is that of the rarest class to the commonest, above 0 and up to 1")
    counts = _tail(n_max, classes, ratio)
    if counts[-1] < 1:
        raise UserError(
            f"with {n_max} images of the commonest class and ratio {ratio} the rarest has none; take more images or a "
            "larger ratio"
        )
    return counts


def _tail(n_max: int, classes: int, ratio: float) -> list[int]:
    # Products of exact decimals, such as 200 * .07, must not fall short of their whole numbers.
    return [math.floor(n_max * ratio ** (k / (classes - 1)) * (1 + 1e-12)) for k in range(classes)]


def counts_of(images: int, available: int, classes: int, ratio: float) -> list[int]:
    """`long_tail_counts` for a training set of so many images in all: the most that is not more.

    Sets of another ratio and the same number differ by fewer images than there are classes.

    Args:
        images: In all.
        available: Images that there are of each class.
        classes: How many classes.
        ratio: As `long_tail_counts`.

    Raises:
        UserError: as `long_tail_counts`, or a class has not so many images.
    """
    most = sum(long_tail_counts(available, classes, ratio))
    if images > most:
        raise UserError(
            f"images is {images}; with {available} images a class, ratio {ratio} allows at most {most}, so take fewer"
        )
    n_max = images // classes
    while n_max < available and sum(_tail(n_max + 1, classes, ratio)) <= images:
        n_max += 1
    return long_tail_counts(n_max, classes, ratio)


def choose(labels: NDArray[np.int64], counts: Sequence[int], seed: int) -> NDArray[np.int64]:
    """Which images make up a set with `counts` of each class: a smaller set is part of every larger one.

    Args:
        labels: int `(n,)`, 0 to classes - 1.
        counts: Wanted of each class.
        seed: Each class is shuffled by it, and its first images are taken.

    Returns:
        Indices in rising order.

    Raises:
        UserError: a class has not so many.
    """
    chosen = []
    for k, count in enumerate(counts):
        members = np.flatnonzero(labels == k)
        if count > len(members):
            raise UserError(f"class {k} has {len(members)} images, and {count} are asked for; take fewer")
        chosen.append(np.random.default_rng([seed, k]).permutation(members)[:count])
    return np.sort(np.concatenate(chosen))


def shot_groups(counts: Sequence[int]) -> dict[str, list[int]]:
    """Classes by how many training images they have, in thirds: many, medium and few, the first ones the larger.

    Thresholds of ImageNet-LT (above 100, below 20) would call every class of CIFAR10-LT but two "many".
    """
    order = np.argsort(-np.asarray(counts), kind="stable")
    return {name: sorted(part.tolist()) for name, part in zip(GROUPS, np.array_split(order, 3), strict=True)}
