"""Small rotations, shifts and scalings of pictures, batched, on any device."""

import torch
from torch import Tensor
from torch.nn import functional as F


def affine(pictures: Tensor, degrees: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Scale and turn each picture about its centre, then shift it; bilinear, zeros outside.

    The centre is the middle of the pixel grid, ((h - 1) / 2, (w - 1) / 2), and one step of the grid is one pixel
    (`align_corners=False` in PyTorch's words), so whole shifts and quarter turns of a square move pixels unchanged.

    Args:
        pictures: float `(n, c, h, w)`.
        degrees: float `(n,)`, positive anticlockwise as seen with row 0 on top (90 equals `torch.rot90(x, 1, (2, 3))`).
        shift: float `(n, 2)`, in pixels: down, then right.
        scale: float `(n,)`, above 0; 2 doubles what is shown.

    Returns:
        `(n, c, h, w)` of the pictures' type.
    """
    n, _, height, width = pictures.shape
    angle = degrees.float().deg2rad()
    cos, sin = angle.cos() / scale, angle.sin() / scale
    down, right = shift.float().unbind(1)
    # For each output pixel, where in the input it comes from: the inverse map, in pixels from the centre.
    x_row = torch.stack([cos, -sin, sin * down - cos * right], dim=1)
    y_row = torch.stack([sin, cos, -sin * right - cos * down], dim=1)
    # The grid's unit is half a side, so rows and columns that mix need the sides' ratio.
    to_width = torch.tensor([1, height / width, 2 / width], device=pictures.device)
    to_height = torch.tensor([width / height, 1, 2 / height], device=pictures.device)
    theta = torch.stack([x_row * to_width, y_row * to_height], dim=1).to(pictures.dtype)
    grid = F.affine_grid(theta, [n, 1, height, width], align_corners=False)
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
