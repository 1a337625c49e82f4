"""Paragraphs drawn as pictures, and pictures stacked vertically and horizontally, on a dark ground."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

GROUND, INK, SOFT = "#0e1116", "#e6e9ec", "#9aa4ae"


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    words: str
    size: int = 16
    """Height of the font, in pixels."""
    colour: str = INK
    bold: bool = False


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which matplotlib brings along."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / name), size)


def paragraphs(texts: Sequence[Text], width: int, ground: str = GROUND, padding: int = 0) -> Image.Image:
    """Draw paragraphs one below the other, broken into lines that fit a width with its padding."""
    lines = [(line, text) for text in texts for line in wrapped(text, width - 2 * padding)]
    height = sum(_pitch(text) for _, text in lines)
    picture = Image.new("RGB", (width, height + 2 * padding), ground)
    draw, y = ImageDraw.Draw(picture), padding
    for line, text in lines:
        draw.text((padding, y), line, text.colour, font(text.size, text.bold))
        y += _pitch(text)
    return picture


def wrapped(text: Text, width: int) -> list[str]:
    """Break a paragraph into lines no longer than `width` pixels, inside a word only where it is longer."""
    measure = font(text.size, text.bold).getlength
    lines = [""]
    for word in text.words.split(" "):  # not at what is not to be broken, such as U+00A0
        longer = f"{lines[-1]} {word}".strip()
        if measure(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and measure(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines


def stack_vertically(pictures: Sequence[Image.Image], gap: int) -> Image.Image:
    """Stack pictures one below the other, left-aligned, `gap` pixels apart."""
    size = max(p.width for p in pictures), sum(p.height for p in pictures) + gap * (len(pictures) - 1)
    whole, y = Image.new("RGB", size, GROUND), 0
    for picture in pictures:
        whole.paste(picture, (0, y))
        y += picture.height + gap
    return whole


def stack_horizontally(pictures: Sequence[Image.Image], gap: int) -> Image.Image:
    """Stack pictures side by side, top-aligned, `gap` pixels apart."""
    size = sum(p.width for p in pictures) + gap * (len(pictures) - 1), max(p.height for p in pictures)
    whole, x = Image.new("RGB", size, GROUND), 0
    for picture in pictures:
        whole.paste(picture, (x, 0))
        x += picture.width + gap
    return whole


def _pitch(text: Text) -> int:
    """Distance from one line to the next, in pixels."""
    return round(1.35 * text.size)
