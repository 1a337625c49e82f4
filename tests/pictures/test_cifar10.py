import hashlib
import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kneessl.errors import UserError
from kneessl.pictures.cifar10 import Cifar10, Pictures, picture_hash, read_cifar10

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
FILES = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
WHERE = re.escape("the binary version is cifar-10-binary.tar.gz at https://www.cs.toronto.edu/~kriz/cifar.html")


def record(label: int, seed: int = 0) -> bytes:
    return bytes([label]) + np.random.default_rng([seed, label]).bytes(3072)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Three records in every file, each with its own label and pixels."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for number, name in enumerate(FILES):
        records = (record((3 * number + place) % 10, number) for place in range(3))
        (folder / name).write_bytes(b"".join(records))
    (folder / "batches.meta.txt").write_text("\n".join([*NAMES, "", ""]))  # as published, with an empty line
    return folder


def refusal(folder: Path, match: str) -> None:
    """It is refused with one sentence that says where to get the data."""
    with pytest.raises(UserError, match=match) as error:
        read_cifar10(folder)
    assert "\n" not in str(error.value)
    assert re.search(WHERE, str(error.value))


def test_every_byte_lands_where_the_layout_says(made):
    data = read_cifar10(made)
    assert data.classes == NAMES
    assert len(data.train) == 15
    assert len(data.test) == 3
    for pictures, names in ((data.train, FILES[:5]), (data.test, FILES[5:])):
        assert pictures.pixels.dtype == np.uint8
        assert pictures.labels.dtype == np.int64
        content = b"".join((made / name).read_bytes() for name in names)
        for index in range(len(pictures)):
            of_record = content[3073 * index : 3073 * (index + 1)]
            assert pictures.labels[index] == of_record[0]
            for channel in range(3):
                for row in range(32):
                    start = 1 + 1024 * channel + 32 * row
                    assert pictures.pixels[index, channel, row].tobytes() == of_record[start : start + 32]


def test_red_comes_first_and_rows_run_from_the_top_left(made):
    pixels = bytearray(3072)
    pixels[1] = 10  # red, first row, second column
    pixels[1024 + 32] = 20  # green, second row, first column
    pixels[2048 + 1023] = 30  # blue, last row, last column
    (made / "test_batch.bin").write_bytes(b"\x09" + pixels)
    test = read_cifar10(made).test
    assert test.labels.tolist() == [9]
    assert np.argwhere(test.pixels[0]).tolist() == [[0, 0, 1], [1, 1, 0], [2, 31, 31]]
    assert test.pixels[0][test.pixels[0] > 0].tolist() == [10, 20, 30]


def test_files_follow_one_another_by_number_and_may_differ_in_length(made):
    for number, name in enumerate(FILES):
        (made / name).write_bytes(record(number) * (number + 1))
    data = read_cifar10(made)
    assert data.train.labels.tolist() == [number for number in range(5) for _ in range(number + 1)]
    assert data.test.labels.tolist() == [5] * 6


def test_the_folder_that_it_was_unpacked_in_will_do(made):
    inside, above = read_cifar10(made), read_cifar10(made.parent)
    np.testing.assert_array_equal(above.train.pixels, inside.train.pixels)
    np.testing.assert_array_equal(above.test.labels, inside.test.labels)


def test_a_missing_folder_says_where_to_get_the_data(tmp_path):
    refusal(tmp_path / "nothing", "nothing is not a folder; name the one with CIFAR-10")
    (tmp_path / "file").touch()
    refusal(tmp_path / "file", "file is not a folder")


def test_missing_files_are_named_together(made):
    (made / "data_batch_2.bin").unlink()
    (made / "test_batch.bin").unlink()
    refusal(made, re.escape(f"{made} lacks data_batch_2.bin, test_batch.bin of CIFAR-10; unpack it again"))
    refusal(made.parent, re.escape(f"{made} lacks data_batch_2.bin"))


def test_the_python_version_and_any_other_folder_are_refused(tmp_path):
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x02}q\x01.")
    refusal(tmp_path, r"lacks data_batch_1\.bin, .*, test_batch\.bin, batches\.meta\.txt")


def test_a_folder_in_the_place_of_a_file_counts_as_missing(made):
    (made / "data_batch_4.bin").unlink()
    (made / "data_batch_4.bin").mkdir()
    refusal(made, r"lacks data_batch_4\.bin of CIFAR-10")


@pytest.mark.parametrize("name", ["data_batch_3.bin", "test_batch.bin"])
def test_an_empty_file_is_refused(made, name):
    (made / name).write_bytes(b"")
    refusal(made, re.escape(f"{made / name} is empty; unpack it again"))


@pytest.mark.parametrize("size", [1, 3072, 3074, 2 * 3073 - 1])
def test_a_file_that_is_not_of_whole_records_is_refused(made, size):
    (made / "data_batch_1.bin").write_bytes(bytes(size))
    refusal(made, re.escape(f"{made / 'data_batch_1.bin'} has {size:,} bytes, which are not whole records of 3,073"))


@pytest.mark.parametrize("label", [10, 255])
def test_a_label_above_nine_is_refused(made, label):
    (made / "data_batch_5.bin").write_bytes(record(9) + record(label) + record(200))
    where = f"{made / 'data_batch_5.bin'}, record 2 of 3, has the label {label}, where CIFAR-10 has 0 to 9"
    refusal(made, re.escape(where))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "0 lines, 0"),
        ("\n".join(NAMES[:9]).encode(), "9 lines, 9"),
        ("\n".join([*NAMES, "zebra"]).encode(), "11 lines, 11"),
        ("\n".join([*NAMES[:9], "cat"]).encode(), "10 lines, 9"),
        ("\n".join([*NAMES[:9], "tr\x1buck"]).encode(), "10 lines, 10"),
        (b"x" * 20_000, "1 lines, 1"),
    ],
)
def test_names_other_than_ten_different_lines_are_refused(made, content, found):
    (made / "batches.meta.txt").write_bytes(content)
    refusal(made, f"{re.escape(str(made / 'batches.meta.txt'))} must hold 10 different class names.* {found} of them")


def test_names_may_end_lines_as_windows_does(made):
    (made / "batches.meta.txt").write_bytes("\r\n".join(NAMES).encode())
    assert read_cifar10(made).classes == NAMES


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from([*FILES, "batches.meta.txt"]),
    content=st.one_of(
        st.binary(max_size=4000),
        st.tuples(st.integers(0, 255), st.integers(0, 3), st.integers(-1, 1)).map(
            lambda drawn: (record(drawn[0]) * drawn[1] + b"\x00")[: 3073 * drawn[1] + drawn[2]]
        ),
    ),
)
def test_whatever_a_file_holds_it_is_read_whole_or_refused(tmp_path_factory, name, content):
    folder = tmp_path_factory.mktemp("hostile")
    for file in FILES:
        (folder / file).write_bytes(record(1))
    (folder / "batches.meta.txt").write_text("\n".join(NAMES))
    (folder / name).write_bytes(content)
    whole = name in FILES and content and len(content) % 3073 == 0
    if not whole or any(label > 9 for label in content[::3073]):
        refusal(folder, re.escape(str(folder / name)))
        return
    data = read_cifar10(folder)
    assert len(data.train) + len(data.test) == 5 + len(content) // 3073
    assert {*data.train.labels, *data.test.labels} == {1, *content[::3073]}


def test_the_hash_of_a_whole_file_is_that_of_its_pictures(made):
    test = read_cifar10(made).test
    assert picture_hash(test) == hashlib.sha256((made / "test_batch.bin").read_bytes()).hexdigest()


def test_the_hash_tells_pixels_labels_choice_and_order_apart(made):
    train = read_cifar10(made).train
    pixels, labels = train.pixels.copy(), train.labels.copy()
    pixels[2, 2, 31, 31] ^= 1
    labels[2] ^= 1
    hashes = [
        picture_hash(train[np.array([0, 2])]),
        picture_hash(train[np.array([2, 0])]),
        picture_hash(train[np.array([0, 2, 2])]),
        picture_hash(train[np.array([0, 3])]),
        picture_hash(Pictures(pixels, train.labels)[np.array([0, 2])]),
        picture_hash(Pictures(train.pixels, labels)[np.array([0, 2])]),
    ]
    assert len(set(hashes)) == len(hashes)
    assert picture_hash(train[np.array([0, 2])]) == hashes[0]


@pytest.fixture(scope="module")
def real() -> Cifar10:
    if not (folder := os.environ.get("KNEESSL_CIFAR10")):
        pytest.skip("real data missing: KNEESSL_CIFAR10 names no folder with CIFAR-10's binary version")
    return read_cifar10(Path(folder))


def test_the_real_data_set_has_its_published_counts(real):
    assert real.classes == NAMES
    assert real.train.pixels.shape == (50_000, 3, 32, 32)
    assert real.test.pixels.shape == (10_000, 3, 32, 32)
    assert np.bincount(real.train.labels).tolist() == [5_000] * 10
    assert np.bincount(real.test.labels).tolist() == [1_000] * 10


def test_the_real_data_set_has_its_published_mean_colours(real):
    mean = real.train.pixels.mean((0, 2, 3)) / 255
    np.testing.assert_allclose(mean, (0.4914, 0.4822, 0.4465), atol=5e-4)  # as in every paper's normalisation
