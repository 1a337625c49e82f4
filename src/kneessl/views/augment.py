"""The views T and T' of the thesis (table 5.1), batched, on the training device, of grey or colour pictures.

An MR slice is grey, so of the ImageNet recipe only crop, flip, brightness, contrast, blur and solarisation do anything:
saturation, hue and grayscale leave grey as it is. Colour pictures get them too, in SimCLR's order (Chen et al. 2020):
crop, flip, jitter, grayscale, blur; solarize is last. A view is drawn (`draw`, random, on the CPU) and then applied
(`apply`, deterministic, on any device), so every view can be replayed from its
`ViewParameters`.
"""

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from kneessl.distributed import global_rows, local_rows
from kneessl.errors import UserError
from kneessl.views.colour import ColourParameters, blend, brighten, draw_order, jitter, to_grey
from kneessl.views.resample import blur_matrix, per_clip, resize_matrix, separable, to_device_of

REFERENCE_SIDE = 224
"""The side at which the thesis states its blur, in pixels; sigma and kernel scale with the actual side."""
BLUR_KERNEL = 23
CROP_TRIES = 10


@dataclass(frozen=True)
class View:
    """What a random view may do. Defaults are the thesis's T; T' differs in blur and solarize.

    Args:
        crop_area: Smallest and largest share of the slice's area that a crop keeps.
        crop_ratio: Smallest and largest width-to-height ratio of a crop, drawn log-uniformly.
        flip: Probability of a left-right flip.
        jitter: Probability that brightness and contrast change, and saturation and hue of colour, in random order.
        brightness: Factor from [1 - b, 1 + b].
        contrast: Factor from [1 - c, 1 + c], around each slice's mean.
        saturation: Factor from [1 - s, 1 + s]; colour pictures alone.
        hue: Shift from [-h, h] of a turn; colour pictures alone.
        grayscale: Probability of losing all colour; colour pictures alone.
        blur: Probability of a Gaussian blur.
        blur_sigma: Smallest and largest sigma, in pixels of a 224-pixel picture.
        solarize: Probability of inverting all values of at least one half.
        per_slice: ViewParameters anew for each slice, instead of once for all slices of a clip.
    """

    crop_area: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.0
    hue: float = 0.0
    grayscale: float = 0.0
    blur: float = 1.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0
    per_slice: bool = False

    def __post_init__(self) -> None:
        for name in ("flip", "jitter", "brightness", "contrast", "saturation", "hue", "grayscale", "blur", "solarize"):
            top, value = 0.5 if name == "hue" else 1, getattr(self, name)
            if value is None or not 0 <= value <= top:  # None: a file of settings may say null
                raise UserError(f"a view's {name} is {value}; it must be from 0 to {top}")
        for name, top in (("crop_area", 1.0), ("crop_ratio", math.inf), ("blur_sigma", math.inf)):
            low, high = getattr(self, name) or (0, 0)
            if not 0 < low <= high <= top:
                raise UserError(f"a view's {name} is [{low}, {high}]; give two numbers above 0, the smaller first")


T = View()
T_PRIME = View(blur=0.1, solarize=0.2)


@dataclass(frozen=True)
class ViewParameters:
    """The parameters of n views; every tensor has n rows and lies on the CPU."""

    box: Tensor
    """int64 `(n, 4)`: top, left, height and width of the crop, in pixels of the source."""
    flip: Tensor
    """bool `(n,)`."""
    brightness: Tensor
    """float32 `(n,)`, a factor; 1 changes nothing."""
    contrast: Tensor
    """float32 `(n,)`, a factor around each slice's mean; 1 changes nothing."""
    brightness_first: Tensor
    """bool `(n,)`: brightness before contrast, or after."""
    sigma: Tensor
    """float32 `(n,)`, in pixels of a 224-pixel picture; 0 means no blur."""
    solarize: Tensor
    """bool `(n,)`."""
    colour: ColourParameters | None = None
    """Only for colour pictures; its order agrees with `brightness_first`."""

    def __getitem__(self, rows: slice) -> "ViewParameters":
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: value[rows] for name, value in values.items() if value is not None})


def draw(
    view: View, n: int, height: int, width: int, generator: torch.Generator, colour: bool = False
) -> ViewParameters:
    """Draw the parameters of `n` views of slices of `(height, width)` pixels, grey or in colour.

    The values that only colour has are drawn last, so that one generator gives the same crops for grey and colour.
    """

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(n).uniform_(low, high, generator=generator)

    def chance(p: float) -> Tensor:
        return torch.rand(n, generator=generator) < p

    one = torch.ones(n)
    jittered = chance(view.jitter)
    grey = ViewParameters(
        box=_draw_boxes(view, n, height, width, generator),
        flip=chance(view.flip),
        brightness=torch.where(jittered, uniform(1 - view.brightness, 1 + view.brightness), one),
        contrast=torch.where(jittered, uniform(1 - view.contrast, 1 + view.contrast), one),
        brightness_first=chance(0.5),
        sigma=torch.where(chance(view.blur), uniform(*view.blur_sigma), 0 * one),
        solarize=chance(view.solarize),
    )
    if not colour:
        return grey
    return replace(
        grey,
        colour=ColourParameters(
            saturation=torch.where(jittered, uniform(1 - view.saturation, 1 + view.saturation), one),
            hue=torch.where(jittered, uniform(-view.hue, view.hue), 0 * one),
            grayscale=chance(view.grayscale),
            order=draw_order(grey.brightness_first, generator),
        ),
    )


def _draw_boxes(view: View, n: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Crop boxes as torchvision's RandomResizedCrop draws them: up to ten tries, else the largest central crop."""
    area = height * width * torch.empty(n, CROP_TRIES).uniform_(*view.crop_area, generator=generator)
    log_ratio = torch.empty(n, CROP_TRIES).uniform_(*map(math.log, view.crop_ratio), generator=generator)
    ratio = log_ratio.exp()
    w = (area * ratio).sqrt().round().long()
    h = (area / ratio).sqrt().round().long()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.int().argmax(1, keepdim=True)
    any_fits = fits.any(1)
    w = torch.where(any_fits, w.gather(1, first)[:, 0], min(width, max(1, round(height * view.crop_ratio[1]))))
    h = torch.where(any_fits, h.gather(1, first)[:, 0], min(height, max(1, round(width / view.crop_ratio[0]))))
    top_left = torch.rand(n, 2, generator=generator)
    top = torch.where(any_fits, (top_left[:, 0] * (height - h + 1)).long(), (height - h) // 2)
    left = torch.where(any_fits, (top_left[:, 1] * (width - w + 1)).long(), (width - w) // 2)
    return torch.stack([top, left, h, w], dim=1)


def apply(slices: Tensor, params: ViewParameters, size: int) -> Tensor:
    """Make the views that `params` describes: row i of `params` for all slices of clip i.

    Args:
        slices: uint8, grey `(n, s, H, W)` or in colour `(n, s, 3, H, W)`, on the device that is to do the work.
        params: Of n views, with `colour` if the slices are in colour.
        size: Side of the views, in pixels.

    Returns:
        float32 `(n, s, size, size)` or `(n, s, 3, size, size)` from 0 to 1, on the device of `slices`.
    """
    if _in_colour(slices) != (params.colour is not None):
        raise ValueError("grey slices need parameters without colour, and colour slices parameters with it")
    top, left, height, width = to_device_of(params.box, slices).unbind(1)
    rows = resize_matrix(top, height, slices.shape[-2], size)
    columns = resize_matrix(left, width, slices.shape[-1], size)
    columns = torch.where(to_device_of(params.flip, slices)[:, None, None], columns.flip(1), columns)
    views = separable(slices.float() / 255, rows, columns).clamp_(0, 1)
    views = _jitter_grey(views, params) if params.colour is None else _jitter_colour(views, params, params.colour)
    blurred = params.sigma.nonzero()[:, 0]  # found on the CPU: the device need not be waited for
    if len(blurred):
        scale = size / REFERENCE_SIDE
        radius = round((BLUR_KERNEL - 1) / 2 * scale)
        kernel = blur_matrix(to_device_of(params.sigma[blurred], slices) * scale, radius, size)
        where = to_device_of(blurred, slices)
        views[where] = separable(views[where], kernel, kernel)
    solarize = per_clip(to_device_of(params.solarize, slices), views.dim())
    return torch.where(solarize & (views >= 0.5), 1 - views, views)


def _in_colour(slices: Tensor) -> bool:
    return slices.dim() == 5


def _jitter_grey(views: Tensor, params: ViewParameters) -> Tensor:
    """Brightness and contrast in the drawn order, clamped to 0..1 after each, as torchvision does."""

    def column(values: Tensor) -> Tensor:
        return per_clip(to_device_of(values, views), views.dim())

    first, one = params.brightness_first, torch.ones_like(params.brightness)
    views = brighten(views, column(torch.where(first, params.brightness, one)))
    views = blend(views, views.mean((2, 3), keepdim=True), column(params.contrast))
    return brighten(views, column(torch.where(first, one, params.brightness)))


def _jitter_colour(views: Tensor, params: ViewParameters, colour: ColourParameters) -> Tensor:
    """The four operations of colour in the drawn order, then grayscale."""
    amounts = torch.stack([params.brightness, params.contrast, colour.saturation, colour.hue], dim=1)
    views = jitter(views, amounts, colour.order)
    where = to_device_of(colour.grayscale.nonzero()[:, 0], views)
    views[where] = to_grey(views[where]).expand(-1, -1, 3, -1, -1)
    return views


def augment(slices: Tensor, view: View, size: int, generator: torch.Generator) -> Tensor:
    """Draw and apply in one go.

    Args:
        slices: uint8, grey `(n, s, H, W)` or in colour `(n, s, 3, H, W)`.
        view: What the views may do.
        size: Side of the views, in pixels.
        generator: Draws, on the CPU.

    Returns:
        float32 `(n, s, size, size)` or `(n, s, 3, size, size)` from 0 to 1.
    """
    height, width = slices.shape[-2:]
    clips = slices.flatten(0, 1)[:, None] if view.per_slice else slices
    params = draw(view, global_rows(len(clips)), height, width, generator, _in_colour(slices))
    return apply(clips, params[local_rows(len(clips))], size).reshape(*slices.shape[:-2], size, size)
