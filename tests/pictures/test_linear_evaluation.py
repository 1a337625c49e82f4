import csv
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression

from kneessl import cli
from kneessl.errors import UserError
from kneessl.nets.encoder import ClipEncoder, save_weights
from kneessl.pictures.folder import Images, ImageSet, find_images
from kneessl.pictures.linear_evaluation import (
    BATCH,
    IMAGENET,
    Channels,
    Start,
    calibration_files,
    image_features,
    probe,
    read_out,
    summarise_answers,
)
from kneessl.sources.notes import Notes
from kneessl.views.preprocess import Preprocessing

COLOURS = {"blue": (30, 30, 220), "green": (30, 200, 30), "grey": (128, 128, 128), "pink": (240, 130, 200),
           "red": (220, 30, 30), "white": (250, 250, 250)}  # fmt: skip


def paint(folder, colour, count, rng):
    folder.mkdir(parents=True)
    for i in range(count):
        pixels = np.array(colour) + rng.normal(0, 6, (32, 32, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:02d}.png")


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    """Six classes that anyone can tell apart."""
    root, rng = tmp_path_factory.mktemp("coloured"), np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 3)):
        for name, colour in COLOURS.items():
            paint(root / part / name, colour, count, rng)
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What the probe reads of a pre-training run."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(3)
    save_weights(ClipEncoder("max").trunk, folder / "encoder.safetensors")
    record = {"kind": "pretrain", "preprocessing": {"size": 32, "mean": 0.25, "std": 0.125}}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module")
def floor(coloured, tmp_path_factory):
    out = tmp_path_factory.mktemp("floor") / "probe"
    probe(coloured, out, size=32)
    return out


def lines(out):
    with (out / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_classes_that_can_be_told_apart_are(floor):
    result = json.loads((floor / "result.json").read_text())
    for key in ("linear_top1", "linear_top5", "knn_top1"):
        assert (result[key]["value"], result[key]["n"]) == (1.0, 18), key
        assert 0.75 < result[key]["low"] < 0.9, "Wilson's interval of 18 of 18"
    assert result["commonest_class"]["successes"] == 3
    assert {name: p["successes"] for name, p in result["linear_top1_of_class"].items()} == dict.fromkeys(COLOURS, 3)
    for line in lines(floor):
        top = line["top5"].split("/")
        assert line["file"].startswith(f"val/{line['class']}/")
        assert line["class"] == line["predicted"] == top[0]
        assert len(set(top)) == 5


def test_the_run_says_what_was_done(floor):
    record = json.loads((floor / "run.json").read_text())
    assert (record["kind"], record["start"], record["size"]) == ("probe", "random weights", 32)
    assert record["recalibrated"] is True, "random weights always are"
    assert record["split"] == "folders train and val"
    assert record["channels"]["mean"] == [0.485, 0.456, 0.406]
    assert len(record["data_sha256"]) == 64


def test_the_same_again_and_another_seed_otherwise(coloured, floor, tmp_path):
    for seed in (0, 1):
        probe(coloured, tmp_path / str(seed), size=32, seed=seed)
    for name in ("result.json", "predictions.csv", "run.json"):
        assert (tmp_path / "0" / name).read_bytes() == (floor / name).read_bytes()
    ranked = [[line["top5"] for line in lines(tmp_path / seed)] for seed in ("0", "1")]
    assert ranked[0] != ranked[1], "other random weights"


def test_labels_that_mean_nothing_give_chance(tmp_path, capsys):
    rng = np.random.default_rng(5)
    colours = list(COLOURS.values())
    for part, count in (("train", 40), ("test", 30)):
        for name in ("a", "b", "c"):
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.array(colours[rng.integers(len(colours))]) + rng.normal(0, 6, (32, 32, 3))
                image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                image.save(tmp_path / "data" / part / name / f"{i}.png")
    probe(tmp_path / "data", tmp_path / "out", size=32)
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    for key in ("linear_top1", "knn_top1"):
        assert abs(result[key]["value"] - 1 / 3) < 4 * math.sqrt(2 / 9 / 90), key
    assert result["linear_top5"] is None, "of three classes the first five are always right"
    assert "top-5" not in capsys.readouterr().out


@pytest.fixture(scope="module")
def clouds():
    """Overlapping clouds of points: features (n, dim) and labels of 8 classes, in two parts."""
    rng = np.random.default_rng(1)
    centres = 0.5 * rng.normal(size=(8, 10))

    def draw(n):
        labels = np.concatenate([np.arange(8), np.arange(8), rng.integers(0, 8, n)])
        return 5 + centres[labels] + rng.normal(size=(len(labels), 10)), labels

    return *draw(150), *draw(60)


def test_the_ranking_is_that_of_a_multinomial_regression(clouds):
    train, labels, test, truth = clouds
    answers = read_out(train, labels, test)
    mean, std = train.mean(0), train.std(0)
    model = LogisticRegression(C=answers.strength, max_iter=5000, tol=1e-8).fit((train - mean) / std, labels)
    scores = ((test - mean) / std) @ model.coef_.T + model.intercept_
    hits = 0
    for row, ranked, label in zip(scores, answers.ranked, truth, strict=True):
        better = sum(value > row[label] for value in row)
        hits += better < 5
        assert ranked[0] == row.argmax() or np.ptp(np.sort(row)[-2:]) < 1e-3
    images = Images([*"abcdefgh"], ImageSet([], labels), ImageSet([], truth), "", Notes())
    result = summarise_answers(images, answers)
    found = result["linear_top5"].successes
    assert abs(found - hits) <= 1, "at most one near-tie apart"
    assert len(truth) * 5 / 8 < found < len(truth), "neither chance nor certain"
    assert result["linear_top1"].successes == sum(
        ranked[0] == y for ranked, y in zip(answers.ranked, truth, strict=True)
    )
    shares = result["linear_top1_of_class"].values()
    assert sum(p.successes for p in shares) == result["linear_top1"].successes < found
    assert sum(p.n for p in shares) == len(truth)


def test_neighbours_vote_by_weight(clouds):
    train, labels, test, _ = clouds
    answers = read_out(train, labels, test)
    mean, std = train.mean(0), train.std(0)
    for row, answer in zip(test, answers.neighbours, strict=True):
        x = (row - mean) / std
        cosines = [float(x @ y / math.sqrt(x @ x) / math.sqrt(y @ y)) for y in (train - mean) / std]
        votes = [0.0] * 8
        for i in sorted(range(len(train)), key=lambda i: -cosines[i])[:20]:
            votes[labels[i]] += math.exp(cosines[i] / 0.07)
        assert answer == int(np.argmax(votes))


def test_nothing_is_chosen_on_the_test(clouds):
    train, labels, test, _ = clouds
    whole, alone = read_out(train, labels, test), read_out(train, labels, test[7:8])
    assert whole.strength == alone.strength
    assert (whole.ranked[7] == alone.ranked[0]).all()


def test_regularisation_is_chosen_by_cross_validation():
    rng = np.random.default_rng(2)
    labels = np.arange(60) % 2
    signal = np.where(labels, 1.0, -1.0)[:, None] + rng.normal(size=(60, 1))
    noisy = np.hstack([signal, rng.normal(size=(60, 300))])
    strong = read_out(noisy, labels, noisy).strength
    sharp = rng.normal(size=(400, 2))
    sharp[:, 1] *= 0.1
    easy = (np.diff(sharp, axis=1)[:, 0] + 0.8 * np.abs(sharp[:, 0]) > 0.3).astype(int)
    assert strong < read_out(sharp, easy, sharp).strength


@pytest.mark.parametrize("count", [2, 3, 20])
def test_two_images_of_a_class_are_enough(count):
    rng = np.random.default_rng(0)
    labels = np.array([0] * count + [1] * 2)
    points = rng.normal(size=(len(labels), 4)) + 9 * labels[:, None]
    answers = read_out(points, labels, points)
    assert answers.ranked.shape == (len(labels), 2)


def test_channels_are_standardised_one_by_one():
    pictures = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 3), dtype=np.uint8)
    found = IMAGENET(pictures, torch.device("cpu"))
    assert found.shape == (2, 3, 3, 4)
    for c, (mean, std) in enumerate(zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)):
        assert np.allclose(found[:, c].numpy(), (pictures[..., c] / 255 - mean) / std, atol=1e-6)


def test_features_of_a_grey_image_are_those_of_a_slice(tmp_path):
    grey = np.random.default_rng(1).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.stack([grey] * 3, -1)).save(tmp_path / "rgb.png")
    torch.manual_seed(0)
    encoder = ClipEncoder("none")
    preprocessing = Preprocessing(56)
    channels = Channels((preprocessing.mean,) * 3, (preprocessing.std,) * 3, "")
    images = ImageSet([tmp_path / "grey.png", tmp_path / "rgb.png"], np.array([0, 1]))
    found = image_features(images, 56, Start("", encoder.slices, channels), "")
    assert found.digests[0] == found.digests[1]
    middle = torch.from_numpy(grey[4:60, 4:60].copy())[None, None].float() / 255
    with torch.no_grad():
        expected = encoder.eval()(preprocessing.standardise(middle)).numpy()
    assert found.values.shape == (2, 512)
    assert np.abs(found.values - expected).max() < 1e-4 * np.abs(expected).max()


def test_features_do_not_depend_on_company(coloured):
    torch.manual_seed(0)
    images = find_images(coloured, 0).test
    start = Start("", ClipEncoder("none").slices, IMAGENET)
    together = image_features(images, 32, start, "").values
    alone = image_features(ImageSet(images.files[:1], images.labels[:1]), 32, start, "").values
    assert np.allclose(together[0], alone[0], rtol=1e-4, atol=1e-6)


def test_calibration_images_are_mixed_and_in_whole_batches():
    assert sorted(calibration_files(list(range(5)), 0)) == list(range(5))
    chosen = calibration_files(list(range(3 * BATCH + 1)), 0)
    assert len(chosen) == len(set(chosen)) == 3 * BATCH
    assert chosen != sorted(chosen)
    many = calibration_files(list(range(10_000)), 0)
    assert len(set(many)) == 2048
    assert max(many) > 9000, "from all, not from the first classes"


def test_an_encoder_of_kneessl_gets_its_own_standardisation(coloured, run, tmp_path, capsys):
    probe(coloured, tmp_path / "same", from_run=run, size=32)
    assert "channels standardised as in pre-training (mean 0.250 0.250 0.250" in (said := capsys.readouterr()).out
    assert "recalibrated" not in said.out
    assert "note" not in said.err
    record = json.loads((tmp_path / "same" / "run.json").read_text())
    assert record["channels"]["std"] == [0.125] * 3
    assert record["recalibrated"] is False
    probe(coloured, tmp_path / "other", from_run=run, size=48, recalibrate=True)
    assert "pre-trained on 32 pixels, this is 48" in (said := capsys.readouterr()).err
    assert "batch norm recalibrated" in said.out


def test_a_file_of_weights_gets_that_of_imagenet(coloured, run, tmp_path, capsys):
    probe(coloured, tmp_path / "out", weights=run / "encoder.safetensors", size=32)
    said = capsys.readouterr().out
    assert "as for ImageNet (mean 0.485 0.456 0.406, std 0.229 0.224 0.225)" in said
    assert "missing" in said
    assert f"weights {run / 'encoder.safetensors'}" in said


def test_recalibrating_changes_the_features_and_the_weights_matter(coloured, run, floor, tmp_path):
    for name, settings in (("plain", {}), ("renewed", {"recalibrate": True})):
        probe(coloured, tmp_path / name, weights=run / "encoder.safetensors", size=32, **settings)
    plain, renewed, random = (
        [line["top5"] for line in lines(out)] for out in (tmp_path / "plain", tmp_path / "renewed", floor)
    )
    assert plain != renewed
    assert renewed != random


def test_one_folder_is_split_and_a_repeated_image_is_said(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name in ("red", "blue"):
        paint(tmp_path / "data" / name, COLOURS[name], 10, rng)
    same = tmp_path / "data" / "red" / "00.png"
    for i in range(1, 10):
        (tmp_path / "data" / "red" / f"{i:02d}.png").write_bytes(same.read_bytes())
    (tmp_path / "data" / "red" / "notes.txt").write_text("x")
    probe(tmp_path / "data", tmp_path / "out", size=32)
    said = capsys.readouterr()
    assert "2 classes, 16 images to train, 4 to test: split 80%/20% in each class" in said.out
    assert "not an image (1)" in said.out
    assert "note: 2 test images equal a training image" in said.err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"from_run": "run", "weights": "file"}, "give one of them"),
        ({"size": 31}, "size is 31"),
        ({"seed": -1}, "seed is -1"),
        ({"from_run": "nowhere"}, "not a run folder"),
        ({"weights": "nowhere.pth"}, "nowhere.pth"),
    ],
)
def test_wrong_settings_are_refused_in_a_sentence(coloured, tmp_path, monkeypatch, settings, message):
    monkeypatch.chdir(tmp_path)
    paths = {k: tmp_path / v if isinstance(v, str) else v for k, v in settings.items()}
    with pytest.raises(UserError, match=message):
        probe(coloured, tmp_path / "out", **{"size": 32, **paths})
    assert not list(tmp_path.iterdir())


def test_a_damaged_run_is_refused_in_a_sentence(coloured, run, tmp_path):
    for content, message in (({"kind": "finetune"}, "not a pre-training run"),
                             ({"kind": "pretrain"}, "how slices were standardised"),
                             ({"kind": "pretrain", "preprocessing": {"mean": "x"}}, "how slices"),
                             ({"kind": "pretrain", "preprocessing": {"size": None}}, "how slices")):  # fmt: skip
        (tmp_path / "encoder.safetensors").write_bytes((run / "encoder.safetensors").read_bytes())
        (tmp_path / "run.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match=message):
            probe(coloured, tmp_path / "out", from_run=tmp_path, size=32)


def test_weights_that_are_no_numbers_are_refused(coloured, tmp_path):
    encoder = ClipEncoder("none")
    with torch.no_grad():
        encoder.trunk.conv1.weight[0, 0, 0, 0] = float("nan")
    save_weights(encoder.trunk, tmp_path / "bad.safetensors")
    with pytest.raises(UserError, match="not finite"):
        probe(coloured, tmp_path / "out", weights=tmp_path / "bad.safetensors", size=32)


def test_a_damaged_image_is_named_and_nothing_is_left_behind(tmp_path):
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("red", "blue"):
            paint(tmp_path / "data" / part / name, COLOURS[name], 3, rng)
    (tmp_path / "data" / "test" / "red" / "01.png").write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match=r"test/red/01\.png is not a readable image"):
        probe(tmp_path / "data", tmp_path / "out", size=32)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_folder_in_use_is_not_written_over(coloured, floor):
    before = (floor / "result.json").read_bytes()
    with pytest.raises(UserError, match="already exists"):
        probe(coloured, floor, size=32)
    assert (floor / "result.json").read_bytes() == before


def test_the_command_line_fits(monkeypatch):
    example = "kneessl probe --data images --from runs/encoder --out runs/probe"
    command = cli.Command(
        "kneessl.pictures.linear_evaluation:probe", (), "linear evaluation on images by class", example
    )
    monkeypatch.setitem(cli.COMMANDS, "probe", command)
    parser, function, switches = cli.make_parser("probe")
    assert function is probe
    values = parser.parse_args(cli.normalise([*example.split()[2:], "--recalibrate"], switches))
    assert str(values.from_run) == "runs/encoder"
    assert values.recalibrate is True
    assert "nearest neighbours" in str(function.__doc__)
    assert "ResNet-18" in parser.format_help()
