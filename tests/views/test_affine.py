"""Known turns, shifts and scalings, and an independent float64 resampling."""

import math

import pytest
import torch

from kneessl.views.affine import affine


def pictures(n: int = 3, h: int = 8, w: int = 8, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(n, 2, h, w, generator=torch.Generator().manual_seed(0), dtype=dtype)


def same(n: int) -> dict[str, torch.Tensor]:
    return {"degrees": torch.zeros(n), "shift": torch.zeros(n, 2), "scale": torch.ones(n)}


def test_nothing_changes_nothing() -> None:
    x = pictures()
    torch.testing.assert_close(affine(x, **same(3)), x, atol=1e-6, rtol=0)


@pytest.mark.parametrize("side", [7, 8])
def test_quarter_turns_are_rot90(side: int) -> None:
    x = pictures(4, side, side)
    turned = affine(x, **same(4) | {"degrees": torch.tensor([0.0, 90, 180, -90])})
    for i, k in enumerate((0, 1, 2, 3)):
        torch.testing.assert_close(turned[i], x[i].rot90(k, (1, 2)), atol=1e-5, rtol=0)


def test_whole_shifts_move_pixels_and_leave_zeros() -> None:
    x = pictures(2, 6, 9)
    moved = affine(x, **same(2) | {"shift": torch.tensor([[2.0, -3.0], [-1.0, 4.0]])})
    expected = torch.zeros_like(x)
    expected[0, :, 2:, :-3] = x[0, :, :-2, 3:]
    expected[1, :, :-1, 4:] = x[1, :, 1:, :-4]
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=0)


def test_scale_two_doubles_the_middle() -> None:
    x = torch.zeros(1, 1, 12, 12)
    x[..., 4:8, 4:8] = 1  # a square of 4 pixels about the centre
    doubled = affine(x, **same(1) | {"scale": torch.tensor([2.0])})[0, 0]
    assert doubled[3:9, 3:9].min() == 1  # of 8 pixels, the inner ones whole
    assert doubled[:1].max() == 0
    assert doubled[:, 11:].max() == 0
    assert doubled.sum() == pytest.approx(64, rel=1e-3)


def test_any_map_against_pixel_by_pixel_resampling() -> None:
    """Turn, scale and shift together, on a picture that is not square: each pixel fetched with plain arithmetic."""
    x = pictures(1, 6, 10)[:, :1]
    degrees, down, right, scale = 25.0, 1.3, -0.7, 1.2
    found = affine(x, torch.tensor([degrees]), torch.tensor([[down, right]]), torch.tensor([scale]))[0, 0]
    a = math.radians(degrees)
    for r in range(6):
        for c in range(10):
            dy, dx = r - 2.5 - down, c - 4.5 - right
            source_c = 4.5 + (math.cos(a) * dx - math.sin(a) * dy) / scale
            source_r = 2.5 + (math.sin(a) * dx + math.cos(a) * dy) / scale
            value = 0.0
            for i in (math.floor(source_r), math.floor(source_r) + 1):
                for j in (math.floor(source_c), math.floor(source_c) + 1):
                    if 0 <= i < 6 and 0 <= j < 10:
                        value += (1 - abs(source_r - i)) * (1 - abs(source_c - j)) * float(x[0, 0, i, j])
            assert float(found[r, c]) == pytest.approx(value, abs=1e-5)


def test_a_picture_moves_by_its_own_parameters_alone() -> None:
    x = pictures()
    degrees, shift, scale = torch.tensor([5.0, -12, 30]), torch.rand(3, 2) * 4, torch.tensor([0.8, 1.0, 1.3])
    together = affine(x, degrees, shift, scale)
    for i in range(3):
        row = slice(i, i + 1)
        torch.testing.assert_close(together[row], affine(x[row], degrees[row], shift[row], scale[row]))
