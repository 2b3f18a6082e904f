"""Text in the frames of an animation, drawn by Pillow in DejaVu Sans, which matplotlib ships."""

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from vtcav_jax.report.fonts import font_file
from vtcav_jax.report.line_breaks import break_lines

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

FONT_SIZE, HEIGHT = 10, 12  # pixels; HEIGHT includes ascenders and descenders


@cache
def _font() -> "FreeTypeFont":
    from PIL import ImageFont

    return ImageFont.truetype(font_file("DejaVuSans.ttf"), FONT_SIZE)


def width(text: str) -> int:
    return int(np.ceil(_font().getlength(text)))


def write(
    picture: UInt8[np.ndarray, "h w 3"], text: str, x: int, y: int, colour: tuple[int, int, int], *, most: int
) -> None:
    """Draw one line into `picture` with its top left corner at `x`, `y`; text wider than `most` pixels is cut."""
    from PIL import Image, ImageDraw

    text = _shortened(" ".join(text.split()), most)
    line = picture[y : y + HEIGHT, x : x + most]
    if not text or not line.size:
        return
    image = Image.fromarray(np.ascontiguousarray(line))
    ImageDraw.Draw(image).text((0, HEIGHT - 3), text, fill=colour, font=_font(), anchor="ls")
    line[:] = np.asarray(image)


def wrap(text: str, most: int) -> list[str]:
    """Return the lines of a text that are at most `most` pixels wide; nothing is left out."""
    return break_lines(text, most, width)


def write_lines(
    picture: UInt8[np.ndarray, "h w 3"],
    lines: Iterable[str],
    x: int,
    y: int,
    colour: tuple[int, int, int],
    *,
    most: int,
) -> None:
    """Draw lines, as `wrap` returns them, one below the other."""
    for i, line in enumerate(lines):
        write(picture, line, x, y + HEIGHT * i, colour, most=most)


def _shortened(text: str, most: int) -> str:
    if width(text) <= most:
        return text
    while text and width(f"{text}…") > most:
        text = text[:-1]
    return f"{text.rstrip()}…" if text else ""
