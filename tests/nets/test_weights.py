import os
import pickle
from argparse import Namespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kneessl.errors import UserError
from kneessl.nets.encoder import SliceEncoder
from kneessl.nets.weights import load_weights, read_tensors


class Net(nn.Module):
    """A small trunk: a first convolution of three channels, a batch norm, and layers to be missing."""

    def __init__(self, layers=1):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(2)
        self.layer1 = nn.ModuleList(nn.Linear(2, 2) for _ in range(layers))


def weights_of(seed, layers=1):
    torch.manual_seed(seed)
    net = Net(layers)
    net.bn1.running_mean += torch.randn(2)
    net.bn1.num_batches_tracked += 7
    return {k: v.clone() for k, v in net.state_dict().items()}


def save(content, path):
    save_file(content, path) if path.suffix == ".safetensors" else torch.save(content, path)
    return path


def assert_equal(net, state):
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, state[name]), name


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pt", "W.PTH"])
@pytest.mark.parametrize("prefix", ["", "module.", "encoder.", "backbone.", "module.encoder_q."])
def test_every_format_and_prefix_loads_all(tmp_path, name, prefix):
    state = weights_of(1)
    path = save({prefix + k: v for k, v in state.items()}, tmp_path / name)
    net = Net()
    said = load_weights(net, path)
    assert_equal(net, state)
    under = f" under the prefix {prefix}" if prefix else ""
    assert said == f"8 of 8 tensors taken from {path}{under}; missing: none; unexpected: none"


def test_a_wrapped_state_dict_loads_and_what_stands_beside_it_is_left(tmp_path):
    state = weights_of(1)
    content = {"epoch": 3, "arch": "resnet18", "state_dict": state, "optimizer": {"lr": [0.1]}}
    net = Net()
    load_weights(net, save(content, tmp_path / "w.pth"))
    assert_equal(net, state)


def test_a_resnet_from_torchvision_has_a_head_that_nobody_misses(tmp_path):
    torch.manual_seed(0)
    source, target = SliceEncoder().trunk, SliceEncoder().trunk
    state = {**source.state_dict(), "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    old = {k: v for k, v in state.items() if "num_batches_tracked" not in k}
    said = load_weights(target, save(old, tmp_path / "resnet18.pth"))
    assert said.startswith("100 of 120 tensors taken")
    assert said.endswith("missing: none; unexpected: none")
    assert all(torch.equal(v, state[k]) for k, v in target.state_dict().items() if "num_batches" not in k)


def test_missing_and_unexpected_names_are_said_and_the_missing_stay(tmp_path):
    state = weights_of(1)
    kept = {k: v for k, v in state.items() if k not in {"layer1.0.bias", "bn1.running_var"}}
    extra = {f"layer9.{i}.weight": torch.zeros(1) for i in range(11)}
    net = Net()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    said = load_weights(net, save(kept | extra, tmp_path / "w.pth"))
    assert "6 of 8 tensors" in said
    assert "missing: bn1.running_var, layer1.0.bias; unexpected: layer9.0.weight, layer9.1" in said
    assert said.endswith("layer9.7.weight and 3 more")
    assert_equal(net, state | {k: before[k] for k in ("layer1.0.bias", "bn1.running_var")})


def test_the_prefix_is_the_one_under_which_most_is_found_and_the_first_of_equals(tmp_path):
    a, b = weights_of(1), weights_of(2)
    few = {"conv1.weight": torch.full((2, 3, 3, 3), 9.0)}
    content = few | {f"online.{k}": v for k, v in a.items()} | {f"target.{k}": v for k, v in b.items()}
    net = Net()
    said = load_weights(net, save(content, tmp_path / "w.pth"))
    assert_equal(net, a)
    assert "under the prefix online." in said
    assert "unexpected: conv1.weight, target." in said


def test_one_channel_spreads_so_that_grey_slices_give_the_same(tmp_path):
    state = weights_of(1)
    one = torch.randn(2, 1, 3, 3)
    net = Net().eval()
    load_weights(net, save(state | {"conv1.weight": one}, tmp_path / "w.safetensors"))
    grey = torch.randn(1, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(net.conv1(grey.expand(-1, 3, -1, -1)), nn.functional.conv2d(grey, one))


def numbered(state, names=("0", "1", "4")):
    """Names as `nn.Sequential(conv1, bn1, ReLU, pool, layer1)` gives them."""
    called = dict(zip(("conv1", "bn1", "layer1"), names, strict=True))
    return {".".join([called[key.partition(".")[0]], key.partition(".")[2]]): v for key, v in state.items()}


def under(prefix, state):
    return {prefix + key: v for key, v in state.items()}


def classifier(prefix):
    return {f"{prefix}weight": torch.zeros(5, 2), f"{prefix}bias": torch.zeros(5)}


PUBLISHED = {
    # torchvision and timm: the state dict itself, with a classifier.
    "timm": (lambda a, b: {**a, **classifier("fc.")}, ""),
    # facebookresearch/moco: epoch, arch, state_dict, optimizer; two encoders, each with its head, and a queue.
    "moco": (
        lambda a, b: {
            "epoch": 200,
            "arch": "resnet18",
            "state_dict": {
                **under("module.encoder_q.", {**a, **classifier("fc.0.")}),
                **under("module.encoder_k.", {**b, **classifier("fc.0.")}),
                "module.queue": torch.zeros(2, 4),
            },
            "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 0.03}]},
        },
        "module.encoder_q.",
    ),
    "moco v3": (
        lambda a, b: {
            "state_dict": {**under("module.base_encoder.", a), **under("module.momentum_encoder.", b)},
            "args": Namespace(lr=0.6),
        },
        "module.base_encoder.",
    ),
    # facebookresearch/dino, the full checkpoint: the student comes first, the teacher is what its authors evaluate.
    "dino": (
        lambda a, b: {
            "student": under("module.backbone.", b),
            "teacher": under("module.backbone.", a),
            "epoch": 100,
            "args": Namespace(arch="resnet18", lr=0.03),
        },
        "teacher.module.backbone.",
    ),
    # facebookresearch/vissl.
    "vissl": (
        lambda a, b: {
            "phase_idx": 100,
            "classy_state_dict": {
                "base_model": {"model": {"trunk": under("_feature_blocks.", a), "heads": classifier("0.clf.")}},
            },
        },
        "classy_state_dict.base_model.model.trunk._feature_blocks.",
    ),
    # solo-learn: a checkpoint of Lightning.
    "solo-learn": (
        lambda a, b: {
            "epoch": 399,
            "state_dict": {
                **under("backbone.", a),
                **classifier("classifier."),
                **under("momentum_backbone.", b),
                **classifier("projector.0."),
            },
            "hyper_parameters": {"max_epochs": 400},
        },
        "backbone.",
    ),
    # lightly's examples: `nn.Sequential(*list(resnet.children())[:-1])`, which numbers the layers.
    "lightly": (
        lambda a, b: {
            "state_dict": {
                **under("backbone.", numbered(a)),
                **classifier("projection_head.layers.0."),
                **under("backbone_momentum.", numbered(b)),
            }
        },
        "backbone.",
    ),
    # OpenMMLab's MMPretrain, and its older form with a Sequential of backbone and neck.
    "mmpretrain": (
        lambda a, b: {"meta": {"epoch": 1}, "state_dict": {**under("backbone.", a), **classifier("head.fc.")}},
        "backbone.",
    ),
    "densecl": (
        lambda a, b: {"state_dict": {**under("encoder_q.0.", a), **under("encoder_k.0.", b)}},
        "encoder_q.0.",
    ),
    # MONAI's and many others' training scripts.
    "model": (lambda a, b: {"model": a, "epoch": 3, "lr": 0.1}, ""),
    "wrapped twice": (lambda a, b: {"model": {"state_dict": under("module.", a)}}, "module."),
    # Names of one's own in a network of the same layers.
    "renamed": (
        lambda a, b: {"net": numbered(a, ("stem", "norm", "stages"))},
        "net.",
    ),
}


@pytest.mark.parametrize("layout", PUBLISHED)
def test_the_layouts_that_others_publish_load_all(tmp_path, layout):
    content, prefix = PUBLISHED[layout]
    state = weights_of(1)
    net = Net()
    said = load_weights(net, save(content(state, weights_of(2)), tmp_path / "w.pth"))
    assert_equal(net, state if layout != "renamed" else state | {"bn1.num_batches_tracked": torch.tensor(0)})
    assert f" of 8 tensors taken from {tmp_path / 'w.pth'}" in said
    assert "; missing: none; " in said
    assert ("under the prefix " in said) == bool(prefix)
    assert f"under the prefix {prefix}" in said or not prefix
    assert ("by the order of its layers" in said) == (layout in {"lightly", "renamed"})


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.ckpt", "w.pth.tar", "w.torch", "w.bin"])
def test_numbered_layers_are_taken_by_their_numbers_however_the_file_sorts_its_names(tmp_path, name):
    state = weights_of(1)
    content = under("backbone.", numbered(state, ("0", "2", "10")))
    content = dict(sorted(content.items())) | {"backbone.12.weight": torch.zeros(5, 2)}
    net = Net()
    said = load_weights(net, save(content, tmp_path / name))
    assert_equal(net, state)
    assert said.endswith(
        "under the prefix backbone., by the order of its layers; missing: none; unexpected: backbone.12.weight"
    )


def test_a_resnet_18_of_lightly_gives_the_same_maps(tmp_path):
    torch.manual_seed(0)
    source, target = SliceEncoder().trunk.eval(), SliceEncoder().trunk.eval()
    layers = dict(zip(("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"), "014567", strict=True))
    content = {
        f"backbone.{layers[k.partition('.')[0]]}.{k.partition('.')[2]}": v for k, v in source.state_dict().items()
    }
    load_weights(target, save({"state_dict": content}, tmp_path / "lightly.pth"))
    picture = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(target(picture), source(picture))


@pytest.mark.parametrize("change", ["fewer", "shape", "kind"])
def test_unnamed_layers_that_do_not_fit_the_whole_network_are_refused(tmp_path, change):
    content = under("net.", numbered(weights_of(1)))
    if change == "fewer":
        del content["net.4.0.bias"]
    elif change == "shape":
        content["net.4.0.weight"] = torch.zeros(3, 2)
    else:
        content["net.4.0.weights"] = content.pop("net.4.0.weight")
    net = Net()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(UserError, match="has no weights for this network"):
        load_weights(net, save(content, tmp_path / "w.pth"))
    assert_equal(net, before)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["conv1.weight", "bn1.running_var"])
def test_weights_that_are_not_finite_are_refused_and_nothing_is_taken(tmp_path, name, value):
    state = weights_of(1)
    state[name].view(-1)[-1] = value
    net = Net()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(UserError, match=rf"not finite \(NaN or infinity\): module\.{name}; the training"):
        load_weights(net, save(under("module.", state), tmp_path / "w.pth"))
    assert_equal(net, before)


def test_what_is_not_taken_may_be_anything(tmp_path):
    state = weights_of(1)
    load_weights(Net(), save(state | {"fc.weight": torch.full((2,), float("nan"))}, tmp_path / "w.pth"))


def test_a_file_that_holds_itself_ends(tmp_path):
    content = {"conv1.weight": torch.zeros(2, 3, 3, 3)}
    content["again"] = content
    read = read_tensors(save(content, tmp_path / "w.pth"))
    assert set(list(read)[:2]) == {"conv1.weight", "again.conv1.weight"}


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("conv1.weight", torch.zeros(2, 3, 5, 5), r"conv1\.weight \(2, 3, 5, 5\) instead of \(2, 3, 3, 3\)"),
        ("layer1.0.bias", torch.zeros(3), r"layer1\.0\.bias \(3,\) instead of \(2,\)"),
        ("layer1.0.bias", torch.zeros(2, dtype=torch.int8), r"layer1\.0\.bias"),
        ("conv1.weight", torch.zeros(2, 1, 3, 3, dtype=torch.int64), r"conv1\.weight"),
    ],
)
def test_other_shapes_and_kinds_are_refused_by_name_and_nothing_is_taken(tmp_path, name, tensor, message):
    net = Net()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(UserError, match=message):
        load_weights(net, save(weights_of(1) | {name: tensor}, tmp_path / "w.pth"))
    assert_equal(net, before)


@pytest.mark.parametrize("content", [{}, {"head.w": torch.zeros(2)}, {"a\nb.\x1b[31mw": torch.zeros(2)}])
def test_a_file_with_no_name_in_common_is_refused(tmp_path, content):
    with pytest.raises(UserError, match="has no weights for this network") as caught:
        load_weights(Net(), save(content, tmp_path / "w.pth"))
    assert str(caught.value).isprintable()


class Touch:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    ("write", "unsafe_read"),
    [
        (torch.save, lambda path: torch.load(path, weights_only=False)),
        (
            lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2)),
            lambda path: pickle.loads(path.read_bytes()),
        ),
    ],
)
def test_a_file_that_needs_pickle_is_refused_and_not_executed(tmp_path, write, unsafe_read):
    path = tmp_path / "w.pth"
    write({"state_dict": weights_of(1), "evil": Touch(tmp_path / "executed")}, path)
    with pytest.raises(UserError, match="Python objects"):
        load_weights(Net(), path)
    assert not (tmp_path / "executed").exists()
    unsafe_read(path)
    assert (tmp_path / "executed").exists(), "the file does execute where pickle is let in"


@pytest.mark.parametrize(
    "content",
    [
        [torch.zeros(2)],
        {"conv1.weight": [0.0]},
        {1: torch.zeros(2)},
        {"conv1.weight": torch.zeros(2, 3, 3, 3).to_sparse()},
        {"conv1.weight": torch.zeros(2, 3, 3, 3, device="meta")},
        {"conv1.weight": torch.zeros(2, 3, 3, 3, dtype=torch.complex64)},
        {"state_dict": {"conv1.weight": "text"}},
    ],
)
def test_anything_but_names_with_plain_tensors_is_refused(tmp_path, content):
    with pytest.raises(UserError, match="holds no state dict"):
        read_tensors(save(content, tmp_path / "w.pth"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pth", b"", "is damaged"),
        ("w.pth", b"PK\x03\x04 cut short", "is damaged"),
        ("w.safetensors", b"\xff" * 64, "not a readable safetensors"),
        ("w.npz", b"", "not a .safetensors, .pth or .pt file"),
        ("w.pth", None, "is missing"),
    ],
)
def test_unreadable_files_are_refused_in_a_sentence(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_tensors(tmp_path / name)


def test_a_folder_is_refused(tmp_path):
    (tmp_path / "w.pth").mkdir()
    with pytest.raises(UserError, match="not a file"):
        read_tensors(tmp_path / "w.pth")
