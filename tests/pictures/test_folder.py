import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from kneessl.errors import UserError
from kneessl.pictures.folder import find_images, read_images


def picture(seed: int = 0, height: int = 40, width: int = 40, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def fill(root, names, count=4):
    """`count` small images in each of the folders `names`."""
    for k, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(picture(100 * k + i, 8, 8)).save(root / name / f"{i:03d}.png")
    return root


def named(images, part):
    part = getattr(images, part)
    return [(images.classes[label], file.name) for file, label in zip(part.files, part.labels, strict=True)]


@pytest.mark.parametrize("test", ["test", "valid", "val"])
def test_a_folder_with_a_split_keeps_it(tmp_path, test):
    root = fill(tmp_path, [f"{part}/{name}" for part in ("train", test) for name in ("cat", "dog")], 3)
    (root / test / "dog" / "000.png").rename(root / test / "dog" / "sub.PNG")
    images = find_images(root, 0)
    assert images.classes == ["cat", "dog"]
    assert named(images, "train") == [(c, f"{i:03d}.png") for c in ("cat", "dog") for i in range(3)]
    assert [name for _, name in named(images, "test")] == [
        "000.png",
        "001.png",
        "002.png",
        "001.png",
        "002.png",
        "sub.PNG",
    ]
    assert images.split == f"folders train and {test}"
    assert all(file.parent.parent.name == test for file in images.test.files)
    assert not images.left_out.left_out


def test_of_two_test_folders_test_is_read_and_the_other_named(tmp_path):
    images = find_images(fill(tmp_path, ["train/a", "train/b", "val/a", "val/b", "test/a", "test/b"]), 0)
    assert {file.parent.parent.name for file in images.test.files} == {"test"}
    assert images.split == "folders train and test; val not read"


def test_a_class_without_test_images_stays(tmp_path):
    images = find_images(fill(tmp_path, ["train/a", "train/b", "val/b"]), 0)
    assert images.classes == ["a", "b"]
    assert set(images.test.labels) == {1}


def test_the_split_is_a_fifth_of_each_class_and_depends_on_the_seed_alone(tmp_path):
    root = fill(tmp_path, ["a"], 20)
    fill(tmp_path, ["b"], 10)
    fill(tmp_path, ["c"], 3)
    first, again, other = (find_images(root, seed) for seed in (0, 0, 1))
    assert np.bincount(first.test.labels).tolist() == [4, 2, 1]
    assert np.bincount(first.train.labels).tolist() == [16, 8, 2]
    everything = set(first.train.files) | set(first.test.files)
    assert len(everything) == len(first.train.files) + len(first.test.files) == 33
    assert (first.train.files, first.test.files) == (again.train.files, again.test.files)
    assert first.test.files != other.test.files
    assert "80%/20%" in first.split
    assert "seed 0" in first.split


def test_other_files_are_left_out_and_counted(tmp_path):
    root = fill(tmp_path, ["a", "b", "b/deeper", "empty", ".git"])
    for path in (root / "empty").iterdir():
        path.unlink()
    for name in ("README.md", "a/.DS_Store", "a/.hidden.png", "a/notes.txt", "a/Thumbs.db"):
        (root / name).write_text("x")
    (root / "a" / "gone.png").symlink_to(root / "nowhere.png")
    os.mkfifo(root / "b" / "pipe.png")
    images = find_images(root, 0)
    assert images.classes == ["a", "b"]
    assert len(images.train.files) + len(images.test.files) == 4 + 8
    assert images.left_out.left_out == {
        "hidden": 3,
        "outside the class folders": 1,
        "not an image": 2,
        "not a file": 2,
        "class folder without images": 1,
    }


def test_links_are_followed_but_loops_are_not(tmp_path):
    root = fill(tmp_path / "data", ["a", "b"])
    elsewhere = fill(tmp_path / "elsewhere", ["more"])
    (root / "c").symlink_to(elsewhere / "more")
    (root / "a" / "loop").symlink_to(root / "a")
    (root / "b" / "up").symlink_to(root)
    (root / "whole").symlink_to(root)
    (root / "b" / "self").symlink_to(root / "b" / "self")
    images = find_images(root, 0)
    assert images.classes == ["a", "b", "c"]
    assert len(images.train.files) + len(images.test.files) == 12
    assert images.left_out.left_out["link back to a folder"] == 3


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ([], "no subfolders with images"),
        (["a"], "one class only, a"),
        (["train/a", "train/b"], "train but none of test, valid, val"),
        (["val/a", "val/b"], "has val but no train"),
        (["train/a", "train/b", "val/a", "val/c"], "has the class c, which"),
        (["train", "val/a"], "train has no subfolders with images"),
        (["train/a", "train/b", "val"], "val has no subfolders with images"),
    ],
)
def test_folders_that_do_not_do_are_refused_in_a_sentence(tmp_path, folders, message):
    with pytest.raises(UserError, match=message) as refusal:
        find_images(fill(tmp_path, folders), 0)
    assert "\n" not in str(refusal.value)


def test_too_few_images_of_a_class_are_refused(tmp_path):
    root = fill(fill(tmp_path, ["a"]), ["b"], 2)
    with pytest.raises(UserError, match="leaves 1 training images of the class b"):
        find_images(root, 0)
    with pytest.raises(UserError, match="is not a folder"):
        find_images(root / "a" / "000.png", 0)


def test_the_middle_seven_eighths_are_cut_out(tmp_path):
    pixels = picture(0, 64, 64)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    assert np.array_equal(read_images([tmp_path / "x.png"], 56)[0], pixels[4:60, 4:60])
    wide = picture(1, 64, 100)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert np.array_equal(read_images([tmp_path / "wide.png"], 56)[0], wide[4:60, 22:78])


def test_one_resampling_equals_resizing_and_then_cropping(tmp_path):
    image = Image.fromarray(picture(2, 128, 192))
    image.save(tmp_path / "x.png")
    two_steps = np.asarray(image.resize((96, 64), Image.Resampling.BICUBIC))[4:60, 20:76]
    found = read_images([tmp_path / "x.png"], 56)[0]
    assert np.abs(found.astype(int) - two_steps).max() <= 1


def test_resizing_is_antialiased(tmp_path):
    stripes = np.tile(np.array([0, 255], np.uint8), (512, 256))
    Image.fromarray(stripes).save(tmp_path / "x.png")
    found = read_images([tmp_path / "x.png"], 56).astype(int)
    assert np.abs(found - 127.5).max() < 8, "the mean of the stripes, not one of them"


def test_a_long_thin_image_takes_no_room(tmp_path):
    Image.fromarray(picture(0, 1, 60_000)).save(tmp_path / "x.png")
    assert read_images([tmp_path / "x.png"], 224).shape == (1, 224, 224, 3)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "TIFF", "jpg", "jpeg", "webp"])
def test_every_format_is_read(tmp_path, suffix):
    smooth = np.linspace(40, 200, 64, dtype=np.uint8)[:, None, None] * np.ones((1, 64, 3), np.uint8)
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(smooth).save(tmp_path / f"x.{suffix}", **options)
    found = read_images([tmp_path / f"x.{suffix}"], 56)[0]
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - smooth[4:60, 4:60]).max() <= (3 if suffix.startswith("jp") else 0)


def test_grey_equals_three_equal_channels(tmp_path):
    grey = picture(3, 90, 70, 1)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.stack([grey] * 3, -1)).save(tmp_path / "rgb.png")
    found = read_images([tmp_path / "grey.png", tmp_path / "rgb.png"], 32)
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0, ..., 0], found[0, ..., 2])
    assert np.ptp(found[0]) > 20


def test_palettes_and_alpha_become_colours(tmp_path):
    pixels = np.kron(np.array([[0, 1], [2, 3]], np.uint8), np.ones((32, 32), np.uint8))
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [250, 250, 0]], np.uint8)
    palette = Image.fromarray(pixels).convert("P")
    palette.putpalette(colours.tobytes())
    palette.save(tmp_path / "palette.png", transparency=bytes([0, 128, 255, 255]))
    rgba = np.concatenate([colours[pixels], np.full((64, 64, 1), 7, np.uint8)], -1)
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_images([tmp_path / "palette.png", tmp_path / "rgba.png"], 56)
    for each in found:
        assert np.array_equal(each, colours[pixels][4:60, 4:60])


def test_exif_orientation_is_applied(tmp_path):
    upright = picture(4, 64, 64)
    for orientation, stored in ((3, upright[::-1, ::-1]), (6, np.rot90(upright, 1)), (2, upright[:, ::-1])):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / f"{orientation}.png", exif=exif)
        found = read_images([tmp_path / f"{orientation}.png"], 56)[0]
        assert np.array_equal(found, upright[4:60, 4:60]), orientation


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
def test_a_file_cut_short_is_named(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(picture(5, 64, 64)).save(path)
    whole = path.read_bytes()
    for share in (0.0, 0.01, 0.3, 0.9):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(UserError, match=rf"x\.{suffix} is not a readable image"):
            read_images([path], 32)


def test_other_formats_under_an_image_name_are_refused(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "x.gif")
    (tmp_path / "x.gif").rename(tmp_path / "gif.png")
    (tmp_path / "eps.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    (tmp_path / "text.jpg").write_text("hello")
    for name in ("gif.png", "eps.png", "text.jpg"):
        with pytest.raises(UserError, match=f"{name} is not a readable image"):
            read_images([tmp_path / name], 32)


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 50_000])  # Pillow warns of the first, and refuses the second
def test_decompression_bombs_are_refused(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(png(side, side))
    with pytest.raises(UserError, match=r"bomb\.png has more than 89478485 pixels"):
        read_images([tmp_path / "bomb.png"], 32)


def test_what_has_no_defined_white_or_several_frames_is_refused(tmp_path):
    deep = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(deep.astype(np.float32)).save(tmp_path / "float.tif")
    frames = [Image.fromarray(picture(i)) for i in range(2)]
    for name in ("pages.tif", "moving.webp", "moving.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    for name, reason in (("deep.png", "type I;16"), ("float.tif", "type F"), ("pages.tif", "several frames"),
                         ("moving.webp", "several frames"), ("moving.png", "several frames")):  # fmt: skip
        with pytest.raises(UserError, match=f"{name} has .*{reason}"):
            read_images([tmp_path / name], 32)


def test_order_is_kept_over_threads(tmp_path):
    values = list(range(0, 250, 5))
    for value in values:
        Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(tmp_path / f"{value}.png")
    found = read_images([tmp_path / f"{value}.png" for value in values], 32)
    assert found.reshape(len(values), -1).mean(1).tolist() == values
