import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from kneessl.errors import UserError
from kneessl.nets.encoder import ClipEncoder, SliceEncoder, load_encoder, save_weights
from kneessl.nets.resnet import ResNet18


def torchvision_keys() -> set[str]:
    """The names in torchvision's `resnet18().state_dict()`, without `fc`."""

    def norm(name: str) -> set[str]:
        return {f"{name}.{k}" for k in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}

    keys = {"conv1.weight"} | norm("bn1")
    for layer in range(1, 5):
        for block in range(2):
            prefix = f"layer{layer}.{block}"
            keys |= {f"{prefix}.conv1.weight", f"{prefix}.conv2.weight"} | norm(f"{prefix}.bn1") | norm(f"{prefix}.bn2")
        if layer > 1:
            keys |= {f"layer{layer}.0.downsample.0.weight"} | norm(f"layer{layer}.0.downsample.1")
    return keys


def test_keys_and_first_shapes_are_torchvisions():
    state = SliceEncoder().trunk.state_dict()
    assert set(state) == torchvision_keys()
    assert state["conv1.weight"].shape == (64, 3, 7, 7)
    assert state["layer4.0.downsample.0.weight"].shape == (512, 256, 1, 1)


def test_one_channel_equals_three_in_values_and_gradients():
    torch.manual_seed(0)
    encoder = SliceEncoder().double().eval()
    x = torch.randn(2, 1, 64, 64, dtype=torch.float64)
    grey = x.requires_grad_()
    one = encoder(grey)
    one.pow(2).sum().backward()
    gradients = [p.grad.clone() for p in encoder.parameters()]
    input_gradient = grey.grad.clone()
    encoder.zero_grad()
    grey.grad = None
    three = encoder(grey.expand(-1, 3, -1, -1))
    three.pow(2).sum().backward()
    torch.testing.assert_close(one, three, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(input_gradient, grey.grad, rtol=1e-9, atol=1e-12)
    for a, p in zip(gradients, encoder.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("small", [False, True])
def test_it_is_monais_resnet_from_the_same_seed(small):
    from monai.networks.nets import resnet18

    torch.manual_seed(0)
    theirs = resnet18(
        spatial_dims=2, n_input_channels=3, conv1_t_size=3 if small else 7, conv1_t_stride=1 if small else 2,
        no_max_pool=small, bias_downsample=False, feed_forward=False,
    )  # fmt: skip
    torch.manual_seed(0)
    ours = ResNet18(small)
    for (name, a), (other, b) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(a, b), name
    x = torch.randn(4, 3, 64, 64)
    for mode in (True, False):  # batch statistics, then running ones
        a, b = ours.train(mode)(x).mean((2, 3)), theirs.train(mode)(x)
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-5, atol=1e-6)


def test_the_stem_for_small_pictures_keeps_their_size():
    encoder = SliceEncoder("cifar")
    state = encoder.trunk.state_dict()
    assert set(state) == torchvision_keys()
    assert state["conv1.weight"].shape == (64, 3, 3, 3)
    assert encoder(torch.randn(2, 3, 32, 32)).shape == (2, 512, 4, 4)
    assert (encoder.grid.first, encoder.grid.step) == (0, 8)


def test_a_colour_clip_is_its_slices_in_three_channels():
    torch.manual_seed(0)
    encoder = ClipEncoder("none", "cifar").eval()
    clips = torch.randn(2, 3, 3, 32, 32)
    with torch.no_grad():
        each = torch.cat([encoder(clips[i, s][None, None]) for i in range(2) for s in range(3)])
        torch.testing.assert_close(encoder(clips), each, rtol=1e-4, atol=1e-5)
        grey = clips[:, :, :1]
        torch.testing.assert_close(
            encoder(grey[:, :, 0]), encoder(grey.expand(-1, -1, 3, -1, -1)), rtol=1e-4, atol=1e-5
        )


def test_maximum_over_slices_does_not_depend_on_their_order():
    torch.manual_seed(0)
    encoder = ClipEncoder("max").double().eval()
    clip = torch.randn(2, 5, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(
            encoder(clip), encoder(clip[:, torch.tensor([3, 1, 4, 0, 2])]), rtol=1e-12, atol=1e-12
        )
        torch.testing.assert_close(encoder(clip), encoder(torch.cat([clip, clip[:, :2]], 1)), rtol=1e-12, atol=1e-12)


def test_pooling_against_slices_one_by_one():
    torch.manual_seed(0)
    encoder = ClipEncoder("max").eval()
    clip = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        maps = torch.stack([encoder.slices(clip[:, s : s + 1]) for s in range(3)], 1)
        expected = {"max": maps.amax(1).mean((2, 3)), "mean": maps.mean(1).mean((2, 3))}
        expected["none"] = maps.mean((3, 4)).flatten(0, 1)
        for pool, value in expected.items():
            encoder.pool = pool
            torch.testing.assert_close(encoder(clip), value, rtol=1e-4, atol=1e-5)


def test_weights_come_back_as_saved(tmp_path):
    torch.manual_seed(0)
    a, b = ClipEncoder(), ClipEncoder()
    a(torch.randn(1, 2, 32, 32))
    save_weights(a.trunk, tmp_path / "encoder.safetensors")
    load_encoder(b, tmp_path / "encoder.safetensors")
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(x, y), name


def test_foreign_files_are_refused_in_a_sentence(tmp_path):
    encoder = ClipEncoder()
    with pytest.raises(UserError, match=r"missing\.safetensors is missing"):
        load_encoder(encoder, tmp_path / "missing.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(UserError, match="not a readable safetensors"):
        load_encoder(encoder, tmp_path / "text.safetensors")
    save_file({"w": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="ResNet-18"):
        load_encoder(encoder, tmp_path / "other.safetensors")


def test_convolution_keeps_stride_and_padding():
    encoder = SliceEncoder().eval()
    x = torch.randn(1, 1, 224, 224)
    assert encoder(x).shape == (1, 512, 7, 7)
    assert F.conv2d(x, encoder.trunk.conv1.weight.sum(1, keepdim=True), stride=2, padding=3).shape[-1] == 112


@pytest.mark.parametrize("side", [16, 18, 40])
def test_gradients_in_bfloat16_are_right_on_small_tiles_too(side):
    """Of 16 pixels nothing but one is left before the last layer, whose gradient PyTorch 2.13 leaves unwritten."""
    for seed in range(4):
        torch.manual_seed(seed)
        encoder = SliceEncoder().to(memory_format=torch.channels_last)
        tiles = torch.randn(144, 1, side, side)
        gradients = []
        for narrow in (False, True):
            encoder.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
                maps = encoder(tiles)
            maps.float().pow(2).mean().backward()
            gradients.append(encoder.trunk.layer4[0].conv1.weight.grad.clone())
        assert torch.isfinite(gradients[1]).all()
        assert (gradients[0] - gradients[1]).norm() < 0.3 * gradients[0].norm()


@pytest.mark.parametrize("channels", [1, 3])
def test_every_batch_norm_gets_channels_last(channels):
    """In the other layout a step took a quarter longer, and only the first layers were in it."""
    encoder = ClipEncoder().slices
    layouts = []
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(
                lambda _, inputs: layouts.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
            )
    encoder(torch.randn(2, channels, 64, 64).contiguous())
    assert len(layouts) == 20
    assert all(layouts)
