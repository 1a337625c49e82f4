from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.nn import functional as F

from kneessl.nets import winograd
from kneessl.nets.winograd import Winograd


@pytest.mark.parametrize("height", [1, 3, 4, 7, 10])
@pytest.mark.parametrize("width", [2, 4, 5, 8])
@pytest.mark.parametrize(("channels", "results"), [(1, 3), (6, 4)])
def test_it_is_a_convolution_of_3_x_3(height, width, channels, results):
    draw = torch.Generator().manual_seed(height * 10 + width)
    weight = torch.randn(results, channels, 3, 3, generator=draw, dtype=torch.float64)
    bias = torch.randn(results, generator=draw)
    x = torch.randn(2, channels, height, width, generator=draw)
    found = Winograd(weight, bias)(x)
    right = F.conv2d(x.double(), weight, bias.double(), padding=1)
    assert found.dtype == torch.float32
    assert found.shape == right.shape
    assert (found - right).abs().max() < 1e-5 * right.abs().max()


@pytest.mark.parametrize("cut", [slice(None), slice(0, 5)])
def test_the_layout_of_what_comes_in_does_not_matter(cut):
    draw = torch.Generator().manual_seed(0)
    convolution = Winograd(torch.randn(8, 8, 3, 3, generator=draw), torch.randn(8, generator=draw))
    x = torch.randn(2, 8, 9, 9, generator=draw)
    there = x[:, :, cut, cut]
    in_channels_last = x.to(memory_format=torch.channels_last)[:, :, cut, cut]
    assert torch.equal(convolution(there), convolution(in_channels_last))
    assert torch.equal(convolution(there), convolution(there.contiguous()))


def test_what_goes_out_lies_as_convolutions_in_channels_last_want_it():
    convolution = Winograd(torch.randn(8, 8, 3, 3), torch.randn(8))
    assert convolution(torch.randn(2, 8, 8, 8)).is_contiguous(memory_format=torch.channels_last)


def test_a_pixel_reaches_no_further_than_its_neighbours():
    convolution = Winograd(torch.randn(2, 2, 3, 3), torch.zeros(2))
    x = torch.zeros(1, 2, 12, 12)
    x[..., 5, 6] = 1
    found = convolution(x)[0].abs().amax(0)
    assert (found[4:7, 5:8] > 1e-2).all()
    found[4:7, 5:8] = 0
    assert found.max() < 1e-5


@pytest.mark.parametrize("together", [1, 400, 10**9])
def test_how_many_pictures_go_together_does_not_matter(monkeypatch, together):
    draw = torch.Generator().manual_seed(0)
    convolution = Winograd(torch.randn(8, 8, 3, 3, generator=draw), torch.randn(8, generator=draw))
    x = torch.randn(5, 8, 9, 6, generator=draw)
    monkeypatch.setattr(winograd, "TOGETHER", together)
    found, one_by_one = convolution(x), torch.cat([convolution(one) for one in x.split(1)])
    assert (found - one_by_one).abs().max() < 1e-5 * one_by_one.abs().max()


def test_threads_do_not_share_their_scratch_memory():
    draw = torch.Generator().manual_seed(0)
    convolution = Winograd(torch.randn(16, 16, 3, 3, generator=draw), torch.randn(16, generator=draw))
    pictures = [torch.randn(3, 16, 30, 30, generator=draw) for _ in range(24)]
    alone = [convolution(x) for x in pictures]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(convolution, pictures * 4))
    assert all(torch.equal(a, b) for a, b in zip(alone * 4, together, strict=True))


def test_what_went_out_stays_when_the_next_one_comes_in():
    convolution = Winograd(torch.randn(4, 4, 3, 3), torch.randn(4))
    first = convolution(torch.randn(2, 4, 8, 8))
    before = first.clone()
    convolution(torch.randn(2, 4, 8, 8))
    assert torch.equal(first, before)


def test_inference_mode_leaves_nothing_that_others_cannot_write_to():
    convolution, x = Winograd(torch.randn(4, 4, 3, 3), torch.randn(4)), torch.randn(2, 4, 40, 40)

    def both() -> bool:
        with torch.inference_mode():
            inside = convolution(x)
        return torch.equal(inside, convolution(x))

    with ThreadPoolExecutor(1) as fresh:  # a thread's scratch memory is its own
        assert fresh.submit(both).result()
