import numpy as np
import pytest
from helpers.cifar import write_cifar

from kneessl.errors import UserError
from kneessl.pictures.cifar10 import read_cifar10
from kneessl.pictures.sets import choose_sets


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    return read_cifar10(write_cifar(tmp_path_factory.mktemp("data") / "cifar", 40))


def names(pictures):
    """Pictures by their pixels: no two made ones are alike."""
    return {p.tobytes() for p in pictures.pixels}


def chosen(cifar, ratio=0.1, images=None, labels=None, test=None, held_out=0, seed=0):
    return choose_sets(cifar, ratio, images, labels, test, held_out, seed)


def test_by_default_all_that_the_ratio_allows(cifar):
    sets = chosen(cifar)
    assert sets.counts == [40, 30, 23, 18, 14, 11, 8, 6, 5, 4]
    assert np.bincount(sets.train.labels).tolist() == sets.counts
    assert (len(sets.labelled), len(sets.test)) == (400, 20)


def test_numbers_asked_for_are_kept_to(cifar):
    sets = chosen(cifar, images=100, labels=7, test=1)
    assert sum(sets.counts) == len(sets.train) <= 100
    assert np.bincount(sets.labelled.labels).tolist() == [7] * 10
    assert np.bincount(sets.test.labels).tolist() == [1] * 10


def test_a_seed_chooses_its_own_images_and_a_smaller_set_is_part_of_a_larger(cifar):
    first, again, other = (names(chosen(cifar, images=60, seed=seed).train) for seed in (0, 0, 1))
    assert first == again != other
    assert first <= names(chosen(cifar, images=100).train)


def test_what_is_held_out_is_in_nothing_else(cifar):
    sets = chosen(cifar, ratio=1, held_out=10)
    assert np.bincount(sets.test.labels).tolist() == [10] * 10
    assert not names(sets.test) & (names(sets.train) | names(sets.labelled) | names(cifar.test))
    assert len(sets.train) == len(sets.labelled) == 300
    assert names(chosen(cifar, ratio=1, held_out=10, seed=5).test) == names(sets.test)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ratio": 2.0}, "ratio is 2"),
        ({"images": 1000}, "at most"),
        ({"images": 0}, "the rarest has none"),
        ({"labels": 41}, "labels is 41; .* from 1 to 40"),
        ({"labels": 0}, "labels is 0"),
        ({"test": 3}, "test is 3; .* from 1 to 2"),
        ({"held_out": 40}, "held_out is 40; .* from 1 to 39"),
        ({"held_out": -1}, "held_out is -1"),
        ({"ratio": 0.01}, "the rarest has none"),
    ],
)
def test_more_than_there_is_is_refused(cifar, changes, message):
    with pytest.raises(UserError, match=message):
        chosen(cifar, **changes)
