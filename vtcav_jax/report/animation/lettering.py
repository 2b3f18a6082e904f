"""Text in the frames of an animation, drawn by Pillow in DejaVu Sans, which matplotlib ships."""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from vtcav_jax.report.fonts import font_file

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


def _shortened(text: str, most: int) -> str:
    if width(text) <= most:
        return text
    while text and width(f"{text}…") > most:
        text = text[:-1]
    return f"{text.rstrip()}…" if text else ""
