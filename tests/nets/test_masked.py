import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kneessl.nets.encoder import SliceEncoder
from kneessl.nets.masked import enlarge, join_patches, masked_maps, masked_norm, split_patches

SIDE = 96


@pytest.fixture
def encoder() -> SliceEncoder:
    torch.manual_seed(0)
    return SliceEncoder()


def slices(seed: int = 1, n: int = 2) -> torch.Tensor:
    return torch.randn(n, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


VISIBLE = torch.tensor([[[1, 0, 0], [0, 1, 0], [1, 1, 0]], [[0, 0, 1], [0, 0, 1], [1, 0, 0]]]).bool()


def test_patches_are_cut_row_by_row_and_joined_again():
    x = torch.randn(2, 3, 4, 6)
    patches = split_patches(x, 2, 3)
    assert patches.shape == (12, 3, 2, 2)
    for i in range(2):
        for row in range(2):
            for column in range(3):
                expected = x[i, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
                assert torch.equal(patches[i * 6 + row * 3 + column], expected)
    assert torch.equal(join_patches(patches, 2, 3), x)


def test_a_mask_is_enlarged_to_the_maps_size():
    large = enlarge(VISIBLE, torch.zeros(2, 5, 12, 12))
    assert large.shape == (2, 1, 12, 12)
    for i, row, column in torch.cartesian_prod(torch.arange(2), torch.arange(12), torch.arange(12)).tolist():
        assert large[i, 0, row, column] == VISIBLE[i, row // 4, column // 4]


def test_masked_norm_takes_statistics_over_visible_positions_only():
    torch.manual_seed(0)
    norm, x = nn.BatchNorm2d(5), 3 * torch.randn(2, 5, 12, 12) + 2
    with torch.no_grad():
        norm.weight.uniform_()
        norm.bias.uniform_()
    mask = enlarge(VISIBLE, x)
    seen = x.movedim(1, 3)[mask[:, 0]]
    expected = torch.zeros_like(x)
    standard = (seen - seen.mean(0)) / (seen.var(0, correction=0) + norm.eps).sqrt() * norm.weight + norm.bias
    expected.movedim(1, 3)[mask[:, 0]] = standard.detach()
    torch.testing.assert_close(masked_norm(norm, x, VISIBLE), expected)
    torch.testing.assert_close(norm.running_mean, 0.1 * seen.mean(0))
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * seen.var(0))
    again = masked_norm(norm, torch.where(mask, x, 1e6), VISIBLE)
    torch.testing.assert_close(again, expected, msg="hidden positions count for nothing")


@pytest.mark.parametrize("training", [True, False])
def test_hidden_pixels_never_influence_visible_features(encoder, training):
    encoder.train(training)
    x = slices()
    changed = torch.where(enlarge(VISIBLE, x), x, 100 * slices(2))
    assert not torch.equal(x, changed)
    for a, b in zip(masked_maps(encoder.trunk, x, VISIBLE), masked_maps(encoder.trunk, changed, VISIBLE), strict=True):
        assert torch.equal(a, b)
        assert (a.movedim(1, 3)[~enlarge(VISIBLE, a)[:, 0]] == 0).all()
        assert a.movedim(1, 3)[enlarge(VISIBLE, a)[:, 0]].abs().sum() > 0


def test_a_visible_pixel_does_influence(encoder):
    x = slices()
    x[0, 0, 3, 3] += 5
    pairs = zip(masked_maps(encoder.trunk, x, VISIBLE), masked_maps(encoder.trunk, slices(), VISIBLE), strict=True)
    assert all(not torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("training", [True, False])
def test_with_everything_visible_it_is_the_dense_resnet(encoder, training):
    encoder.train(training)
    with torch.no_grad():
        for p in encoder.parameters():
            p.add_(0.01 * torch.randn_like(p))
    twin = copy.deepcopy(encoder)
    maps = masked_maps(encoder.trunk, slices(), torch.ones(2, 3, 3, dtype=torch.bool))
    assert [tuple(m.shape) for m in maps] == [(2, 64, 24, 24), (2, 128, 12, 12), (2, 256, 6, 6), (2, 512, 3, 3)]
    torch.testing.assert_close(maps[-1], twin(slices()), rtol=1e-4, atol=1e-4)
    for name, buffer in encoder.named_buffers():
        torch.testing.assert_close(buffer, twin.get_buffer(name), rtol=1e-4, atol=1e-5, msg=name)


def test_it_is_the_sparse_convolution_written_out(encoder):
    """The first two layers with the mask multiplied in after each, in evaluation mode."""
    trunk = encoder.eval().trunk
    x = slices()
    at = {side: enlarge(VISIBLE, torch.zeros(2, 1, side, side)) for side in (96, 48, 24)}
    y = F.conv2d((x * at[96]).expand(-1, 3, -1, -1), trunk.conv1.weight, stride=2, padding=3) * at[48]
    y = F.max_pool2d(torch.relu(trunk.bn1(y) * at[48]), 3, 2, 1) * at[24]
    for block in trunk.layer1:
        z = torch.relu(block.bn1(block.conv1(y)) * at[24])
        y = torch.relu(block.bn2(block.conv2(z)) * at[24] + y)
    torch.testing.assert_close(masked_maps(trunk, x, VISIBLE)[0], y, rtol=1e-4, atol=1e-5)
