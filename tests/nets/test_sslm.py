"""SSLM's network: size as published, nine separate branches, and a ConvLSTM that is an LSTM on one pixel."""

import pytest
import torch
from torch import nn

from kneessl.nets.sslm import ConvLSTM, SSLMEncoder, SSLMHead


@pytest.fixture
def encoder() -> SSLMEncoder:
    torch.manual_seed(0)
    return SSLMEncoder(width=2).eval()


def test_the_published_width_has_the_number_of_weights_counted_by_hand():
    with torch.device("meta"):
        encoder, head = SSLMEncoder(), SSLMHead(4096, 1)
    branch = 9 * 256 + 3 * 9 * 256**2 + 4 * 2 * 256  # three convolutions 256 -> 256, four batch norms
    join = 2304 * 1024 + 2 * 1024
    residual1, residual2 = 2 * (9 * 1024**2 + 2 * 1024), 2 * (9 * 2048**2 + 2 * 2048)
    reduction1, reduction2 = residual1 + 1024**2 + 2 * 1024, residual2 + 2048**2 + 2 * 2048
    total = 9 * branch + join + residual1 + reduction1 + residual2 + reduction2
    assert total == 212_343_040
    assert sum(p.numel() for p in encoder.parameters()) == total
    assert encoder.features == 4096
    lstms = 4 * 512 * (9 * (4096 + 512) + 1) + 4 * 512 * (9 * (512 + 512) + 1)
    assert sum(p.numel() for p in head.parameters()) == lstms + 512 + 1


def test_published_maps_of_tiles_and_of_whole_slices():
    """A tile of 64 gives 4 x 4 x 4096, a slice of 256 gives 16 x 16 x 4096."""
    with torch.device("meta"):
        encoder = SSLMEncoder()
        assert encoder.tile_maps(torch.zeros(2, 9, 64, 64)).shape == (2, 4096, 4, 4)
        assert encoder.maps(torch.zeros(2, 1, 256, 256)).shape == (2, 4096, 16, 16)


@pytest.mark.parametrize("side", [4, 8, 15, 16, 21, 53, 64])
def test_tiles_of_any_side_pass(encoder, side):
    maps = encoder.tile_maps(torch.rand(2, 9, side, side))
    assert maps.shape[:2] == (2, 32)
    assert maps.isfinite().all()


def test_each_place_has_a_branch_of_its_own(encoder):
    tiles = torch.randn(1, 1, 16, 16).expand(1, 9, 16, 16).clone().requires_grad_()
    seen = [branch(tiles[:, i, None]) for i, branch in enumerate(encoder.branches)]
    assert all(not torch.equal(seen[0], other) for other in seen[1:]), "the same tile looks different to each"
    seen[4].sum().backward()
    assert tiles.grad[0, 4].abs().sum() > 0
    assert tiles.grad[0, [0, 1, 2, 3, 5, 6, 7, 8]].abs().sum() == 0
    shuffled = torch.randn(1, 9, 16, 16)
    assert not torch.allclose(encoder.tile_maps(shuffled), encoder.tile_maps(shuffled.flip(1)))


def test_a_slice_goes_through_all_branches_and_is_pooled(encoder):
    clips = torch.randn(2, 3, 32, 32)
    maps = torch.stack([encoder.tile_maps(clip[:, None].repeat(1, 9, 1, 1)) for clip in clips])
    torch.testing.assert_close(encoder.maps(clips[0][:, None]), maps[0])
    torch.testing.assert_close(encoder(clips), maps.max(1).values.flatten(2).mean(2))
    assert encoder(clips).shape == (2, encoder.features)
    torch.testing.assert_close(encoder(clips[:, [2, 0, 1]]), encoder(clips), msg="the order of slices is no matter")
    assert encoder.trunk.state_dict().keys() == encoder.state_dict().keys()


def test_residual_adds_a_quarter(encoder):
    residual = encoder.join[1]
    x = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(residual(x), x + residual.block(x) / 4)


def test_on_one_pixel_a_convlstm_is_an_lstm():
    torch.manual_seed(0)
    conv, lstm = ConvLSTM(3, 4).double(), nn.LSTM(3, 4, batch_first=True).double()
    assert conv.from_input.bias.tolist() == [0.0] * 4 + [1.0] * 4 + [0.0] * 8, "the forget gate starts open"
    with torch.no_grad():
        conv.from_input.bias.normal_()
        lstm.weight_ih_l0.copy_(conv.from_input.weight[:, :, 1, 1])
        lstm.weight_hh_l0.copy_(conv.from_state.weight[:, :, 1, 1])
        lstm.bias_ih_l0.copy_(conv.from_input.bias)
        lstm.bias_hh_l0.zero_()
    sequence = torch.randn(2, 6, 3, dtype=torch.float64)
    torch.testing.assert_close(conv(sequence[..., None, None])[..., 0, 0], lstm(sequence)[0])


def test_a_convlstm_sees_neighbours_and_the_past_but_not_the_future():
    torch.manual_seed(0)
    conv = ConvLSTM(1, 2).double()
    sequence = torch.randn(1, 4, 1, 9, 9, dtype=torch.float64)
    other = sequence.clone()
    other[0, 1, 0, 4, 4] += 1
    changed = (conv(sequence) != conv(other))[0].any(1)  # (step, row, column)
    assert not changed[0].any()
    for step, reach in ((1, 1), (2, 2), (3, 3)):  # one pixel further with each step
        expected = torch.zeros(9, 9, dtype=torch.bool)
        expected[4 - reach : 5 + reach, 4 - reach : 5 + reach] = True
        assert torch.equal(changed[step], expected)


def test_the_head_gives_a_logit_for_each_task_from_the_last_state():
    torch.manual_seed(0)
    head, where = SSLMHead(32, 2), torch.zeros(3, 5)
    maps = torch.randn(3, 5, 32, 2, 2)
    logits = head(maps, where)
    last = head.lstm(maps)[:, 4]
    assert last.shape == (3, 4, 2, 2)
    torch.testing.assert_close(logits, head.linear(last.flatten(2).mean(2)))
    assert not torch.allclose(logits, head(maps.flip(1), where)), "the order of slices matters here"
    logits.sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in head.parameters())
