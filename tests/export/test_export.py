import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from safetensors.torch import load_file
from scipy.special import expit
from torch import nn

import kneessl
from kneessl.classifier.classifier import Classifier, build_classifier
from kneessl.classifier.heads import HEADS
from kneessl.errors import UserError
from kneessl.evaluation.calibration import Recalibration
from kneessl.evaluation.decisions import lock
from kneessl.exams.folder import ExamFolder
from kneessl.export import export as module
from kneessl.export.bundle import inference, metadata
from kneessl.export.export import (
    OneImage,
    ScannedLSTM,
    SeriesClassifier,
    captured,
    export,
    largest_difference,
    program_logits,
    series_to_check,
    write_onnx,
)
from kneessl.model.card import model_card
from kneessl.model.locked import Decision, write_decisions
from kneessl.model.model import PlaneModel, load_plane
from kneessl.model.predict import series_logits
from kneessl.nets.encoder import save_weights
from kneessl.nets.sslm import ConvLSTM, SSLMHead
from kneessl.sources.importer import import_exams
from kneessl.training.runs import write_record
from kneessl.views.preprocess import Preprocessing

TASKS = ["acl", "meniscus"]
COUNTS = (1, 2, 5, 24, 64)


def make_run(folder, network, head, preprocessing, plane="sagittal", **facts):
    """A run folder as `kneessl finetune` leaves it, with random weights."""
    torch.manual_seed(0)
    classifier = build_classifier(network, head, 2, {"branches.0.0.0.weight": torch.zeros(4, 1, 3, 3)})
    for name, buffer in classifier.named_buffers():  # as after training: no mean is 0, no variance 1
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.1, 1)
    save_weights(classifier, folder / "model.safetensors")
    write_record(
        folder, preprocessing, [], kind="finetune", network=network, head=head, tasks=TASKS, plane=plane, **facts
    )
    return folder


def session_of(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def plain_model(run):
    """Without test-time augmentation, which the graphs leave out."""
    return replace(load_plane(run), tta=False)


@pytest.fixture(scope="module")
def exams(real_data, tmp_path_factory):
    """An exam folder of the real knee: 24 sagittal slices."""
    out = tmp_path_factory.mktemp("real") / "real_knee"
    import_exams(real_data("knee_mese"), out, split="valid")
    return out


@pytest.fixture(scope="module")
def exported(exams, tmp_path_factory):
    """Run folder and what was exported from it."""
    root = tmp_path_factory.mktemp("exported")
    run = make_run(root / "run", "resnet18", "transformer", Preprocessing(64, 0.8, 0.5), tta=True)
    export(run, root / "out", data=exams)
    return run, root / "out"


def real_series(exams, count):
    """So many real slices: the knee's, over and over, each time brighter, so that no two are alike."""
    folder = ExamFolder(exams)
    series = folder.series("valid", "sagittal", folder.exams("valid", "sagittal")[0])
    rounds = np.arange(count) // len(series)
    return np.clip(series[np.arange(count) % len(series)] * (1 + 0.2 * rounds[:, None, None]), 0, 255).astype(np.uint8)


def agree_on_real_slices(onnx, model, exams):
    session = session_of(onnx)
    seen = []
    for count in COUNTS:
        series = real_series(exams, count)
        logits, probabilities = session.run(None, {"series": series})
        seen.append(series_logits(model, series))
        np.testing.assert_allclose(logits, seen[-1], atol=1e-4, rtol=0)
        np.testing.assert_allclose(probabilities, expit(seen[-1]), atol=1e-4, rtol=0)
    assert np.ptp(seen, axis=0).min() > 1e-3  # the logits tell the series apart, so that equality says something


def test_exported_onnx_gives_pytorchs_logits_on_real_slices_of_any_number(exported, exams):
    run, out = exported
    agree_on_real_slices(out / "model.onnx", plain_model(run), exams)


class OneConvolution(nn.Module):
    """An encoder that takes no time to export."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1, 16, 8, stride=8)

    def maps(self, slices):
        return self.convolution(slices)


@torch.no_grad()
@pytest.mark.parametrize(("head", "depth"), [("max", 0.5), ("attention", 0.5), ("conv_lstm", 1.0)])
def test_other_heads_give_pytorchs_logits_on_real_slices_of_any_number(head, depth, exams, tmp_path):
    torch.manual_seed(0)
    classifier = Classifier(OneConvolution(), HEADS[head](16, 2)).eval()
    model = PlaneModel(classifier, tuple(TASKS), "sagittal", Preprocessing(64, 0.8, depth))
    write_onnx(SeriesClassifier(model), model, tmp_path / "model.onnx")
    agree_on_real_slices(tmp_path / "model.onnx", model, exams)


@torch.no_grad()
def test_conv_lstm_program_holds_for_any_number_of_slices(tmp_path):
    torch.manual_seed(0)
    model = PlaneModel(
        Classifier(OneConvolution(), SSLMHead(16, 2)).eval(), tuple(TASKS), "sagittal", Preprocessing(32)
    )
    program = captured(OneImage(SeriesClassifier(model)), "image", torch.zeros(1, 1, 2, 256, 256), axis=2)
    torch.export.save(program, tmp_path / "model.pt2")
    rng = np.random.default_rng(1)
    for count in COUNTS[:4]:
        series = rng.integers(0, 256, (count, 256, 256), dtype=np.uint8)
        logits = program_logits(tmp_path / "model.pt2")(series)
        np.testing.assert_allclose(logits, series_logits(model, series), atol=1e-4, rtol=0)


def test_model_json_says_what_the_graph_is(exported, exams):
    run, out = exported
    about, session = json.loads((out / "model.json").read_text()), session_of(out / "model.onnx")
    (given,), (logits, probabilities) = session.get_inputs(), session.get_outputs()
    assert (about["tasks"], about["plane"]) == (TASKS, "sagittal")
    assert (given.name, given.type, given.shape) == ("series", "tensor(uint8)", about["input"]["shape"])
    assert [o["name"] for o in about["outputs"]] == [logits.name, probabilities.name]
    assert [o["shape"] for o in about["outputs"]] == [logits.shape, probabilities.shape] == [[2], [2]]
    assert session.get_modelmeta().custom_metadata_map["tasks"] == "acl,meniscus"
    assert about["preprocessing"]["fingerprint"] == load_plane(run).preprocessing.fingerprint()
    assert about["checked"]["series"] == 2
    assert about["checked"]["from"] == "real_knee"
    assert all(0 <= d <= 1e-4 for d in about["checked"]["largest difference of a logit"].values())
    assert about["averaged over shifts by kneessl, not by the graphs"] == load_plane(run).tta


def test_weights_are_the_runs_and_load_as_the_card_says(exported):
    run, out = exported
    about = json.loads((out / "model.json").read_text())
    content = (out / "model.safetensors").read_bytes()
    assert content == (run / "model.safetensors").read_bytes()
    assert about["weights"]["sha256"] == hashlib.sha256(content).hexdigest()
    tensors = load_file(out / "model.safetensors")
    classifier = build_classifier(about["network"], about["head"], len(about["tasks"]), tensors)
    classifier.load_state_dict(tensors)


def test_nothing_names_this_machine(exported):
    _, out = exported
    here = str(Path(kneessl.__file__).parents[1]).encode()
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) == 10
    assert [path.name for path in files if here in path.read_bytes()] == []


def test_exporting_twice_gives_the_same_bytes(tmp_path):
    run = make_run(tmp_path / "run", "mrnet_alexnet", "slice_max", Preprocessing(64, 1, 0.3))
    for name in ("one", "two"):
        export(run, tmp_path / name)
    files = [path for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert len(files) == 10
    for path in files:
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes(), path


def test_monai_runs_the_bundle_without_kneessl(exported, exams, tmp_path):
    run, out = exported
    (tmp_path / "series").mkdir()
    for count in COUNTS[:4]:
        np.save(tmp_path / "series" / f"{count:04d}.npy", real_series(exams, count))
    result = tmp_path / "predictions.json"
    words = [
        "run", "--config_file", str(out / "bundle" / "configs" / "inference.json"),
        "--bundle_root", str(out / "bundle"), "--dataset_dir", str(tmp_path / "series"), "--output_file", str(result),
    ]  # fmt: skip
    code = (
        "import runpy, sys; sys.modules['kneessl'] = None; sys.argv[0] = 'monai.bundle'; "
        "runpy.run_module('monai.bundle', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    predictions = json.loads(result.read_text())
    model = plain_model(run)
    assert [p["exam"] for p in predictions] == [f"{count:04d}" for count in COUNTS[:4]]
    for p in predictions:
        wanted = expit(series_logits(model, real_series(exams, int(p["exam"]))))
        np.testing.assert_allclose([p[task] for task in TASKS], wanted, atol=1e-4, rtol=0)


def test_bundle_loads_by_monai(exported, exams, monkeypatch):
    from monai.bundle import load

    run, out = exported
    weights = torch.load(out / "bundle" / "models" / "model.pt", weights_only=True)
    assert set(load_file(out / "model.safetensors")) <= {name.removeprefix("series.classifier.") for name in weights}
    monkeypatch.chdir(out / "bundle")  # where the config looks, as those of MONAI's model zoo do
    network = load("bundle", bundle_dir=str(out), workflow_type="inference", source="monaihosting", device="cpu")
    series = real_series(exams, 7)
    with torch.no_grad():
        logits = network(torch.from_numpy(series).float()[None, None])
    np.testing.assert_allclose(logits[0], series_logits(plain_model(run), series), atol=1e-4, rtol=0)


def test_metadata_holds_what_monais_schema_asks_for():
    model = PlaneModel(None, ("acl", "meniscus"), "sagittal", Preprocessing(64))
    content = metadata(model)
    strings = ("schema", "version", "monai_version", "pytorch_version", "numpy_version", "task", "description")
    assert all(isinstance(content[name], str) for name in (*strings, "authors", "copyright"))
    assert isinstance(content["required_packages_version"], dict)
    assert "Not a medical device" in content["intended_use"]
    tensors = [content["network_data_format"]["inputs"]["image"], content["network_data_format"]["outputs"]["pred"]]
    for tensor in tensors:
        assert {"type", "format", "num_channels", "spatial_shape", "dtype", "value_range"} <= tensor.keys()
    assert tensors[1]["channel_def"] == {"0": "acl", "1": "meniscus"}
    assert inference(model)["tasks"] == TASKS


@torch.no_grad()
def test_scanned_lstm_equals_the_loop():
    torch.manual_seed(0)
    lstm = ConvLSTM(6, 4).double()
    for shape in ((1, 1, 6, 3, 2), (2, 5, 6, 3, 2)):
        sequence = torch.randn(shape, dtype=torch.float64)
        torch.testing.assert_close(ScannedLSTM(lstm)(sequence), lstm(sequence))


@torch.no_grad()
@pytest.mark.parametrize("depth", [1.0, 0.5, 0.1])
def test_series_classifier_keeps_the_slices_that_preprocessing_keeps(depth):
    torch.manual_seed(0)
    model = PlaneModel(
        build_classifier("resnet18", "max", 2, {}).eval(), ("a", "b"), "axial", Preprocessing(32, 1, depth)
    )
    seen = []
    whole = SeriesClassifier(model)
    whole.classifier.forward = lambda clip, where: (seen.append((clip[0], where[0])), torch.zeros(1, 2))[1]
    for total in (1, 2, 3, 5, 7, 15):
        series = torch.arange(total, dtype=torch.uint8)[:, None, None].expand(-1, 256, 256) * 10
        whole(series)
        clip, where = seen.pop()
        kept = range(total)[model.preprocessing.middle(total)]
        grey = (clip.mean((1, 2)) * model.preprocessing.std + model.preprocessing.mean) * 255 / 10
        np.testing.assert_allclose(grey, list(kept), atol=1e-3)
        np.testing.assert_allclose(where, [k / (total - 1) if total > 1 else 0.5 for k in kept], atol=1e-6)


def test_a_graph_that_gives_other_logits_is_refused(tmp_path, monkeypatch, capsys):
    model = load_plane(make_run(tmp_path / "run", "resnet18", "max", Preprocessing(32)))
    series = series_to_check("sagittal", None)[:2]
    right = lambda one: series_logits(model, one)  # noqa: E731
    assert largest_difference(right, model, series, Path("x")) == 0
    assert largest_difference(lambda one: right(one) + 5.04e-5, model, series, Path("x")) == 5e-5
    for wrong in (lambda one: right(one) + np.array([0, 2e-4]), lambda one: right(one) * np.nan):
        with pytest.raises(UserError, match=r"model.onnx gives logits up to (2.0e-04|nan) away"):
            largest_difference(wrong, model, series, Path("model.onnx"))
    for name in ("write_onnx", "write_bundle"):
        monkeypatch.setattr(module, name, lambda *arguments: None)
    monkeypatch.setattr(module, "program_logits", lambda path: right)
    monkeypatch.setattr(module, "onnx_logits", lambda path: lambda one: right(one) + 1)
    with pytest.raises(UserError, match="nothing is exported"):
        export(tmp_path / "run", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_errors_are_one_sentence(tmp_path, knees, monkeypatch):
    run = make_run(tmp_path / "run", "resnet18", "max", Preprocessing(32), plane="axial")
    with pytest.raises(UserError, match=r"has no axial series to check"):
        export(run, tmp_path / "out", data=knees)
    lstm = make_run(tmp_path / "lstm", "sslm", "conv_lstm", Preprocessing(32, 1, 0.5))
    with pytest.raises(UserError, match=r"conv_lstm and depth 0.5"):
        export(lstm, tmp_path / "out")
    with pytest.raises(UserError, match="is not a run folder"):
        export(tmp_path, tmp_path / "out")
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "onnx" else 1)
    with pytest.raises(
        UserError, match=r'^onnx missing for the exported forms; run `pip install "kneessl\[export\]"` first$'
    ):
        export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_series_to_check_take_valid_exams_and_one_slice(knees):
    series = series_to_check("sagittal", knees)
    assert [len(one) for one in series] == [12, 12, 12, 1]
    folder = ExamFolder(knees)
    assert np.array_equal(series[0], folder.series("valid", "sagittal", folder.exams("valid", "sagittal")[0]))
    assert np.array_equal(series[3], series[0][:1])


@pytest.fixture
def fused(tmp_path):
    """A run folder as `kneessl fuse` leaves it."""
    folder = tmp_path / "fused"
    for plane in ("sagittal", "axial"):
        run = make_run(folder / plane, "resnet18", "max", Preprocessing(32), plane=plane, exams=30, positives=[9, 4])
        (run / "config.yaml").write_text("data: /home/jane_doe/knees\n")
    points = lock([0, 0, 1, 1], [0.1, 0.4, 0.3, 0.9])
    decision = {"sagittal": Decision(Recalibration(2.0, -1.0), points)}
    write_decisions(folder, dict.fromkeys(TASKS, decision), {})
    (folder / "run.json").write_text(
        json.dumps(
            {"kind": "fuse", "tasks": TASKS, "planes": ["sagittal", "axial"], "from": {"axial": "/home/jane_doe"}}
        )
    )
    return folder


def test_fused_models_go_plane_by_plane_with_what_is_locked(fused, tmp_path, monkeypatch):
    planes = []

    def noted(run, model, series, source, out):
        out.mkdir()
        planes.append((run, model.plane, source, out.name))

    monkeypatch.setattr(module, "export_plane", noted)
    export(fused, tmp_path / "out")
    assert planes == [(fused / plane, plane, "noise", plane) for plane in ("sagittal", "axial")]
    assert (tmp_path / "out" / "decisions.json").read_bytes() == (fused / "decisions.json").read_bytes()
    about = json.loads((tmp_path / "out" / "model.json").read_text())
    assert (about["kind"], about["planes"], about["tasks"]) == ("fuse", ["sagittal", "axial"], TASKS)
    locked = about["decisions"]["decisions"]["acl"]["sagittal"]
    assert locked["recalibration"] == {"slope": 2.0, "intercept": -1.0, "covariance": None}
    assert "rule_in" in locked["points"]
    assert "jane_doe" not in "".join(path.read_text() for path in (tmp_path / "out").iterdir() if path.is_file())


def test_card_of_a_fused_model(fused):
    card = model_card(fused)
    assert "acl, meniscus from sagittal, axial MRI of the knee" in card
    assert card.count("Trained on `knees`: 30 exams (9 with acl, 4 with meniscus)") == 2
    assert "operating points are in decisions.json" in card
    assert "jane_doe" not in card


def test_card_has_front_matter_figures_and_limits(tmp_path):
    run = make_run(
        tmp_path / "run", "resnet18", "max", Preprocessing(64), exams=40, positives=[12, 7], epochs=30, seed=3,
        parameters=11_177_538, start="/home/jane_doe/runs/encoder",
    )  # fmt: skip
    result = {
        "run": {
            "acl": {
                "auc": {"auc": 0.8714, "low": 0.8, "high": 0.921},
                "accuracy": {"value": 0.8, "low": 0.7, "high": 0.9, "successes": 80, "n": 100},
                "specificity": None,
            }
        }
    }
    (run / "result.json").write_text(json.dumps(result))
    card = model_card(run)
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["library_name"] == "kneessl"
    assert {"knee", "mri", "acl", "meniscus"} <= set(front["tags"])
    assert front["license"] == "other"
    assert "| run, acl | 100 | 0.871 (0.800 to 0.921) | 0.800 (0.700 to 0.900) | - | - |" in card
    assert "11,177,538 parameters" in card
    assert "40 exams (12 with acl, 7 with meniscus); from `encoder`, 30 epochs, seed 3" in card
    assert "Not a medical device" in card
    assert "Nothing was recalibrated" in card
    assert "jane_doe" not in card
    assert "InferenceSession" not in card
    for words in ("InferenceSession", "monai.bundle run", "load_file"):
        assert words in model_card(run, exported=True)


def test_card_without_figures_and_of_damaged_folders(tmp_path):
    run = make_run(tmp_path / "run", "resnet18", "max", Preprocessing(64))
    assert "None yet: `kneessl evaluate" in model_card(run)
    (run / "result.json").write_text("{")
    with pytest.raises(UserError, match=r"result.json is not readable JSON"):
        model_card(run)
    (run / "run.json").write_text('{"kind": "finetune"}')
    with pytest.raises(UserError, match="is damaged"):
        model_card(run)
